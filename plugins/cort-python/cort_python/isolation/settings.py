"""What a recipe says about isolation, and what happens where the machine cannot do it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from cort_framework import PluginConfig, RequestError
from cort_python.isolation.policy import LAYERS, REMEDY, WHAT, Layer, State


class IsolationConfig(PluginConfig):
    """The table ``isolation``. Each layer is used wherever the machine has it; ``cort tools check`` says which it has."""

    require: tuple[Layer, ...] = ()
    """Layers without which nothing starts."""
    without: tuple[Layer, ...] = ()
    """Layers to leave out."""
    readable: tuple[Path, ...] = ()
    """Files and folders that code may read, besides the system's programs and libraries and Python's own."""


_ABSENT = State(False, "kernels that are not forked have no isolation")


def check_required(isolation: IsolationConfig, layers: Mapping[Layer, State]) -> None:
    """Warns, once, of what is not in force though nobody left it out. Raises ``RequestError``, which names every
    required layer that is not in force and says why it is not."""
    refuse_without(isolation.require, layers)
    states = {layer: layers.get(layer, _ABSENT) for layer in LAYERS if layer not in isolation.without}
    if gaps := [f"{layer} ({state})" for layer, state in states.items() if not state.whole]:
        _warn(f"isolation here is not whole: {'; '.join(gaps)}")


def refuse_without(require: Iterable[Layer], layers: Mapping[Layer, State]) -> None:
    """Raises ``RequestError`` where a required layer is not in force."""
    missing = [layer for layer in require if not layers.get(layer, _ABSENT).in_force]
    if missing:
        reasons = [f"{layer} ({WHAT[layer]}): {layers.get(layer, _ABSENT).detail}" for layer in missing]
        remedies = [f"{layer}: {REMEDY[layer]}" for layer in missing]
        raise RequestError(
            f"isolation.require names what is not in force here: {'; '.join(reasons)}",
            f"{'; '.join(remedies)}; or take it out of isolation.require. `cort tools check` shows what holds",
        )


@cache
def _warn(text: str) -> None:
    """Once in a process."""
    logging.getLogger("cort_python.isolation").warning(text)
