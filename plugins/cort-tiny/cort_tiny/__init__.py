"""A miniature world: task source `tiny`, the corpus stage `tiny-corpus`, and a small base model that ships with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cort_framework.hookspecs import hookimpl

if TYPE_CHECKING:
    from cort_framework.interfaces import Stage, TaskSource


def base_path() -> Path:
    """The folder of the base model, as `save_pretrained` writes it, with its tokenizer."""
    return Path(__file__).parent / "base"


@hookimpl
def cort_task_sources() -> Sequence[type[TaskSource]]:
    from cort_tiny.tasks import TinyTasks

    return [TinyTasks]


@hookimpl
def cort_stages() -> Sequence[type[Stage]]:
    from cort_tiny.stages import TinyCorpus

    return [TinyCorpus]


@hookimpl
def cort_models() -> Mapping[str, Path]:
    return {"tiny": base_path()}
