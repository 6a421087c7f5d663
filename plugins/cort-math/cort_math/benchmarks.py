"""The benchmarks of the paper's tables, by name: from a local folder, or from the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from cort_framework import PluginConfig, Task, TaskSource
from cort_framework.errors import TaskError
from cort_math.sources import HuggingFaceSource, JsonlSource

Benchmark = Literal["aime24", "aime25", "amc23", "math500", "olympiadbench"]

HUB: dict[Benchmark, dict[str, str]] = {
    "aime24": {"dataset": "HuggingFaceH4/aime_2024", "split": "train"},
    "aime25": {"dataset": "math-ai/aime25", "split": "test"},
    "amc23": {"dataset": "math-ai/amc23", "split": "test", "prompt": "question"},
    "math500": {"dataset": "HuggingFaceH4/MATH-500", "split": "test", "id": "unique_id"},
    "olympiadbench": {
        "dataset": "Hothan/OlympiadBench",
        "subset": "OE_TO_maths_en_COMP",  # open-ended, text only, in English
        "split": "train",
        "prompt": "question",
        "answer": "final_answer",
    },
}
"""Where each benchmark lies on the hub, and what its fields are called there."""

FOLDER = "CORT_BENCHMARKS"
"""The environment variable that names a folder of benchmarks."""


class BenchmarkSource(TaskSource):
    """AIME 2024 and 2025, AMC 2023, MATH-500 or OlympiadBench. Every problem stays, whatever its answer looks like."""

    name = "benchmark"

    class Config(PluginConfig):
        benchmark: Benchmark
        """Which one."""
        folder: Path | None = None
        """A folder with a JSON-lines file a benchmark (`aime24.jsonl`: `id`, `prompt`, `answer`). Without it, the folder that
        the environment variable CORT_BENCHMARKS names; and without that, the hub."""
        limit: PositiveInt | None = None
        """Only this many problems, from the first on."""

    config: Config

    def tasks(self) -> Iterator[Task]:
        """Ids begin with the benchmark's name, so that several can be evaluated in one stage."""
        name = self.config.benchmark
        for task in self._tasks():
            own = task.id if task.id.startswith(f"{name}-") else f"{name}-{task.id}"
            yield Task(own, task.prompt, task.answer, task.metadata)

    def _tasks(self) -> Iterator[Task]:
        config = self.config
        common: dict[str, Any] = {"limit": config.limit, "check_answers": False}
        folder = config.folder or (Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None)
        if folder is None:
            try:
                yield from HuggingFaceSource(
                    HuggingFaceSource.Config(**HUB[config.benchmark], **common)
                ).tasks()
            except TaskError as error:
                raise TaskError(
                    error.message,
                    f"{error.hint or 'see the hub'}; or set {FOLDER} to a folder that holds {config.benchmark}.jsonl "
                    "(a line a problem: id, prompt, answer)",
                ) from error
            return
        path = folder.expanduser() / f"{config.benchmark}.jsonl"
        if not path.is_file():
            origin = "`folder`" if config.folder else f"the environment variable {FOLDER}"
            raise TaskError(
                f"{path}: there is no such file for the benchmark '{config.benchmark}'",
                f"{origin} names a folder without it; put the file there, or take it from the hub by unsetting that",
            )
        yield from JsonlSource(JsonlSource.Config(path=path, **common)).tasks()
