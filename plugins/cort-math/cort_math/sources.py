"""Tasks from a JSON-lines file or from a Hugging Face data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from cort_framework import PluginConfig, Task, TaskSource
from cort_framework.errors import TaskError
from cort_framework.evaluation import last_boxed
from cort_math.grading import Grader, GradingError


class Fields(PluginConfig):
    """Where a row holds what."""

    prompt: str = "prompt"
    """Field with the problem's text."""
    answer: str = "answer"
    """Field with the answer; where it holds a whole solution, the last \\boxed{} in it counts. Several answers in a list are
    all asked for."""
    id: str = "id"
    """Field that identifies the problem; rows without it are numbered."""
    limit: PositiveInt | None = None
    """Only this many tasks, from the first on."""
    check_answers: bool = True
    """Refuse an answer that Math-Verify cannot read. It costs some milliseconds for each that is no plain number."""


def _task(row: Any, where: str, number: int, stem: str, fields: Fields) -> Task:
    if not isinstance(row, Mapping):
        raise TaskError(
            f"{where}: a task is a JSON object, not {type(row).__name__}",
            'for example {"prompt": "…", "answer": "42"}',
        )
    for key, name in (("prompt", fields.prompt), ("answer", fields.answer)):
        if row.get(name) is None or not str(row[name]).strip():
            there = ", ".join(map(repr, row)) or "nothing"
            raise TaskError(
                f"{where}: there is no {key} in the field {name!r}",
                f"the row has {there}; name its field with `{key} = …`",
            )
    value = row[fields.answer]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    answer = last_boxed(text) or text
    own = {fields.prompt, fields.answer, fields.id}
    return Task(
        id=str(row[fields.id]) if row.get(fields.id) is not None else f"{stem}-{number}",
        prompt=str(row[fields.prompt]),
        answer=answer.strip(),
        metadata={key: value for key, value in row.items() if key not in own},
    )


def _checked(rows: Iterable[tuple[Any, str]], stem: str, fields: Fields) -> Iterator[Task]:
    """The rows as tasks. Raises ``TaskError`` with the place of the first row that is none."""
    seen: dict[str, str] = {}
    with closing(Grader()) as grader:
        for number, (row, where) in enumerate(islice(rows, fields.limit)):
            task = _task(row, where, number, stem, fields)
            if task.id in seen:
                raise TaskError(
                    f"{where}: the id {task.id!r} was already used at {seen[task.id]}", "ids tell tasks apart"
                )
            seen[task.id] = where
            if fields.check_answers:
                _check_answer(task, where, grader)
            yield task
    if not seen:
        raise TaskError(f"{stem}: there are no tasks in it", "a task source gives at least one task")


def _check_answer(task: Task, where: str, grader: Grader) -> None:
    hint = "correct it, or set check_answers = false, and only the same text will be right"
    assert task.answer is not None
    try:
        if grader.readable(task.answer):
            return
        problem = "Math-Verify cannot read it"
    except GradingError as error:
        problem = str(error)
    raise TaskError(f"{where}: the answer {task.answer[:80]!r} cannot be graded: {problem}", hint)


class JsonlSource(TaskSource):
    """One JSON object a line; fields beyond prompt, answer and id become the task's metadata."""

    name = "jsonl"

    class Config(Fields):
        path: Path
        """The file."""

    config: Config

    def tasks(self) -> Iterator[Task]:
        yield from _checked(self._rows(), self.config.path.stem, self.config)

    def _rows(self) -> Iterator[tuple[Any, str]]:
        path = self.config.path
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _parsed(line, f"{path}, line {number}"), f"{path}, line {number}"
        except OSError as error:
            raise TaskError(
                f"{path}: {error.strerror or error}", "`path` is a file with one JSON object a line"
            ) from error


def _parsed(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise TaskError(
            f"{where}: not UTF-8 text ({error.reason} at byte {error.start})", "save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{where}, column {error.colno}: not JSON: {error.msg}", "each line is one JSON object"
        ) from error


class HuggingFaceSource(TaskSource):
    """A data set of the Hugging Face hub, or a local folder that ``datasets.load_dataset`` can read."""

    name = "huggingface"
    requires = ("datasets>=3",)

    class Config(Fields):
        dataset: str
        """Its name on the hub, or the path of a folder."""
        subset: str | None = None
        """Which configuration of it."""
        split: str = "train"
        """Which split of it; slices such as train[:100] too."""
        revision: str | None = None
        """Branch, tag or commit on the hub."""
        prompt: str = "problem"
        """Field with the problem's text."""

    config: Config

    def tasks(self) -> Iterator[Task]:
        config = self.config
        stem = f"{Path(config.dataset).name}-{config.split}"
        yield from _checked(self._rows(), stem, config)

    def _rows(self) -> Iterator[tuple[Any, str]]:
        from datasets import load_dataset

        config = self.config
        try:
            rows = load_dataset(config.dataset, config.subset, split=config.split, revision=config.revision)
        except Exception as error:  # its errors have no common base
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise TaskError(
                f"data set {config.dataset!r}, split {config.split!r}: {reason}",
                "check `dataset`, `subset` and `split`; without a network it has to be a folder or in the local cache",
            ) from error
        for number, row in enumerate(rows):
            yield row, f"{config.dataset}, {config.split}, row {number}"
