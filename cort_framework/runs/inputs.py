"""What goes into a stage, and how it is known again: task sets, models, and the digests that make a stage's key."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cort_framework.errors import TaskError
from cort_framework.guards.calls import blame, checked
from cort_framework.interfaces import TaskSource
from cort_framework.recipe import Plan
from cort_framework.store import write_text
from cort_framework.types import Task


class TaskSets:
    """The recipe's task sets, each read once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._read: dict[str, list[Task]] = {}
        self._made: dict[str, Path] = {}

    def add(self, stage: str, path: Path) -> None:
        """The tasks that a stage has left are a set with its name."""
        self._made[stage] = path

    def __getitem__(self, name: str) -> list[Task]:
        """Raises ``TaskError`` for an empty set or an id that stands twice."""
        if name not in self._read:
            self._read[name] = self._tasks(name)
        return self._read[name]

    def _tasks(self, name: str) -> list[Task]:
        if name in self._made:
            return read_tasks(self._made[name])
        source: TaskSource = self._plan.tasks[name].build()
        with blame("task source", source):
            tasks = [checked(task, Task) for task in source.tasks()]
        if not tasks:
            raise TaskError(f"the task set '{name}' is empty", f"look at [tasks.{name}] in the recipe")
        ids = Counter(task.id for task in tasks)
        if twice := [i for i, n in ids.items() if n > 1]:
            raise TaskError(
                f"the task set '{name}' has the id {twice[0]!r} twice", "give each task an id of its own"
            )
        return tasks

    def digest(self, name: str) -> str:
        """What a stage's key says of the set: a file may change under its name."""
        return digest([(t.id, t.prompt, t.answer, dict(t.metadata)) for t in self[name]])


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """One JSON object a line, at once or not at all."""
    write_text(path, "".join(json.dumps(asdict(task), ensure_ascii=False) + "\n" for task in tasks))


def read_tasks(path: Path) -> list[Task]:
    """What ``write_tasks`` wrote."""
    with open(path, encoding="utf-8") as file:
        return [Task(**json.loads(line)) for line in file]


def digest(data: Any) -> str:
    """Of anything that is JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def content_digest(path: Path) -> str:
    """Of a file's contents, or of the names and contents of a folder's files."""
    if not path.is_dir():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    found = hashlib.sha256()
    for inside in sorted(p for p in path.rglob("*") if p.is_file()):
        found.update(str(inside.relative_to(path)).encode())
        with open(inside, "rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
