"""Trajectories on disk: one JSON object a line, written as each finishes, found again by task and sample."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cort_framework.errors import CortError
from cort_framework.types import Trajectory

Key = tuple[str, int]
"""Task id and sample."""

_LONE_SURROGATES = "backslashreplace"
"""UTF-8 has no place for one, which a model may well write as JSON; so escaped, it is JSON again."""


def write_json(path: Path, data: Any) -> None:
    """Write atomically: a reader sees the old file or the new one, never half of one."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8", errors=_LONE_SURROGATES) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_trajectories(path: Path) -> Iterator[Trajectory]:
    """Every trajectory of a file, those that were rewound included. Raises ``CortError`` naming the line that is damaged."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Trajectory.from_json(line.decode())
            except (ValueError, KeyError, TypeError) as error:
                raise CortError(
                    f"{path}, line {number} is no trajectory: {type(error).__name__}: {error}",
                    "the file was changed by something else; move the stage's folder away to make it again",
                ) from error


class TrajectoryLog:
    """An append-only file of lines of descent. Opening it reads what is there; a last line that was cut off by a crash is
    dropped, with the line of descent that it belonged to."""

    def __init__(self, path: Path, remember: bool = True) -> None:
        """``remember``: hold in ``lines`` what is there and what comes; a log that grows without end cannot."""
        self.path, self._remember = path, remember
        self.lines: dict[Key, list[Trajectory]] = {}
        """Per task and sample: the versions that were cut back, then the final one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._mend()
            for trajectory in read_trajectories(path) if remember else ():
                self._add(trajectory)
            self.lines = {key: line for key, line in self.lines.items() if line[-1].stop_reason != "rewound"}
        self._file = open(path, "a", encoding="utf-8", errors=_LONE_SURROGATES)  # noqa: SIM115 - open as long as the log

    def _mend(self) -> None:
        with open(self.path, "rb+") as file:
            data = file.read()
            if data and not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)

    def _add(self, trajectory: Trajectory) -> None:
        key = (trajectory.task.id, trajectory.sample)
        if trajectory.parent is None:
            self.lines[key] = []
        self.lines.setdefault(key, []).append(trajectory)

    def append(self, line: Sequence[Trajectory]) -> None:
        """One line of descent, in one write that is on disk when this returns."""
        self._file.write("".join(t.to_json() + "\n" for t in line))
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._remember:
            self.lines[(line[-1].task.id, line[-1].sample)] = list(line)

    def final(self, key: Key) -> Trajectory | None:
        line = self.lines.get(key)
        return line[-1] if line else None

    def finish(self, order: Iterable[Key]) -> None:
        """Write the file again in this order, with the verdicts that came later."""
        self.close()
        self.lines = {key: self.lines[key] for key in order}
        write_text(self.path, "".join(t.to_json() + "\n" for line in self.lines.values() for t in line))

    def close(self) -> None:
        self._file.close()
