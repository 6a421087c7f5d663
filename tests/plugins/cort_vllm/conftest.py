"""One engine for many tests: vLLM takes half a minute to start."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tiny_models import save_tiny

import cort_framework as cort

R = TypeVar("R")
Live = Callable[[Awaitable[R]], R]

SHAPE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
"""Heads of 32 numbers: vLLM's kernels for a CPU take no smaller ones."""
SETTINGS: dict[str, Any] = {"eager": True, "kv_cache_gb": 0.1, "max_batch": 16}


@pytest.fixture(scope="session")
def live() -> Iterator[Live[Any]]:
    """One event loop for all tests, as a run has one: vLLM's client belongs to the loop that it was first used on."""
    with asyncio.Runner() as runner:
        yield lambda work: runner.run(work)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of random models, the same shape with other weights for another ``spread``."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(spread: float = 0.2, **shape: Any) -> Path:
        shape = {"tie_word_embeddings": True, **shape}
        name = "-".join([f"{spread}", *(f"{k}={v}" for k, v in shape.items())])
        return folder / name if (folder / name).exists() else save_spread(folder / name, spread, shape)

    return make


def save_spread(folder: Path, spread: float, shape: dict[str, Any]) -> Path:
    """``spread`` scales the embeddings, which a tied head shares."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    save_tiny(folder, **SHAPE, **shape)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(spread / 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def engine(live: Live[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An open engine ``vllm`` with processes of its own."""
    pytest.importorskip("vllm")
    from cort_vllm.engine import VllmEngine

    made = VllmEngine(VllmEngine.Config(**SETTINGS))
    live(made.open(cort.OpenContext(tmp_path_factory.mktemp("scratch"))))
    yield made
    live(made.close())
    for (
        process
    ) in multiprocessing.active_children():  # one that had to be killed may not have been seen to be dead
        process.join(10)
    assert not multiprocessing.active_children()
