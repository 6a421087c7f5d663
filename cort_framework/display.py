"""What a person sees while a run goes on: progress with rate and time left, on stderr; plain lines where there is no
terminal."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Progressing(Protocol):
    """One long part under way."""

    def advance(self, n: int = 1, **fields: Any) -> None: ...

    def skip(self, n: int) -> None:
        """Steps that were done before: they count, but not in the rate."""


class Display:
    """Shows notes and progress through rich; a bar on a terminal, else a line every ``interval`` seconds."""

    def __init__(self, console: Console | None = None, interval: float = 15.0) -> None:
        self.console = console or Console(stderr=True)
        self.interval = interval

    def note(self, text: str) -> None:
        """One line, in rich's markup."""
        self.console.print(text, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, description: str, total: int | None = None) -> Iterator[Progressing]:
        """``total``: how many steps there are, where that is known."""
        description = escape(description)
        if not self.console.is_terminal:
            lines = _Lines(self, description, total)
            yield lines
            lines.show()
            return
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[shown]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            yield _Bar(progress, description, total)


class SilentDisplay(Display):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))


class StageReporter:
    """``interfaces.Reporter``: progress and notes go to the display, metrics to ``metrics.jsonl``."""

    def __init__(self, display: Display, path: Path, stage: str) -> None:
        self.display, self.path, self.stage = display, path, stage

    def progress(self, description: str, total: int | None = None) -> Any:
        return self.display.progress(description, total)

    def note(self, text: str) -> None:
        self.display.note(f"  {escape(text)}")

    def metrics(self, **values: float | int | str) -> None:
        line = json.dumps({"stage": self.stage, "time": round(time.time(), 3), **values})
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def _show(fields: dict[str, Any]) -> str:
    shown = (
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in fields.items()
    )
    return escape(", ".join(shown))


class _Bar:
    def __init__(self, progress: Progress, description: str, total: int | None) -> None:
        self._progress, self._started, self._done = progress, time.monotonic(), 0
        self._task = progress.add_task(description, total=total, rate="", shown="")

    def skip(self, n: int) -> None:
        self._progress.update(self._task, advance=n)

    def advance(self, n: int = 1, **fields: Any) -> None:
        self._done += n
        rate = self._done / max(time.monotonic() - self._started, 1e-3)
        self._progress.update(self._task, advance=n, rate=f"{rate:.1f}/s")
        if fields:
            self._progress.update(self._task, shown=_show(fields))


class _Lines:
    def __init__(self, display: Display, description: str, total: int | None) -> None:
        self._display, self._description, self._total = display, description, total
        self._started = self._last = time.monotonic()
        self._done, self._shown, self._skipped = 0, -1, 0
        self._fields: dict[str, Any] = {}

    def skip(self, n: int) -> None:
        self._done += n
        self._skipped += n

    def advance(self, n: int = 1, **fields: Any) -> None:
        self._done += n
        self._fields.update(fields)
        if time.monotonic() - self._last >= self._display.interval:
            self.show()

    def show(self) -> None:
        now = self._last = time.monotonic()
        if self._done == self._shown:
            return
        self._shown = self._done
        rate = (self._done - self._skipped) / max(now - self._started, 1e-3)
        of = "" if self._total is None else f"/{self._total}"
        left = (
            "" if not self._total or not rate else f", {max(self._total - self._done, 0) / rate:.0f} s left"
        )
        fields = f", {_show(self._fields)}" if self._fields else ""
        self._display.note(f"  {self._description} {self._done}{of}, {rate:.1f}/s{left}{fields}")
