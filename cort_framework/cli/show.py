"""Trajectories and tables for a person: one colour an author, one layout for every command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cort_framework.rendering import RETOLD
from cort_framework.types import Author, Trajectory

STYLES: Mapping[Author, str] = {"prompt": "dim", "model": "", "tool": "cyan", "hint": "magenta"}
"""How each author's text looks."""

_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
"""A model or a program may print escape sequences: they are shown, never sent to the terminal."""


def stdout() -> Console:
    """The console for data, and for people; plain text where there is no terminal."""
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = 120
    return console


def visible(text: str) -> str:
    """The text with its control characters made visible."""
    return text.translate(_CONTROLS)


def legend() -> Text:
    """Which colour is whose."""
    return Text(" ").join(Text(author, style or "default") for author, style in STYLES.items())


def coloured(trajectory: Trajectory, prompt: bool = True) -> Text:
    """The trajectory's text, one colour an author."""
    text = Text()
    for turn in trajectory.turns:
        if prompt or turn.author != "prompt":
            text.append(visible(turn.text), STYLES[turn.author])
    return text


def header(trajectory: Trajectory) -> Text:
    """What came of a trajectory: end, tokens, calls, rewards, verdicts, error; a line each."""
    t = trajectory
    right = t.rewards["answer"].value if "answer" in t.rewards else None
    mark = {None: "", True: " · right", False: " · wrong"}[None if right is None else right >= 1]
    lines = [Text(f"{t.id}{mark} · ended by {t.stop_reason or 'nothing yet'}", "bold")]
    discarded = f" ({t.discarded_tokens} more discarded)" if t.discarded_tokens else ""
    calls = ", ".join(str(turn.result.outcome) for turn in t.calls if turn.result is not None)
    lines.append(
        Text(
            f"{t.response_tokens} tokens{discarded} · {len(t.calls)} calls{f': {calls}' if calls else ''} · {t.seconds:.1f} s"
        )
    )
    if t.task.answer is not None:
        lines.append(Text(f"expected: {visible(t.task.answer)}"))
    if t.parent is not None:
        lines.append(Text(f"cut from {t.parent}, of which it keeps {t.kept_tokens} tokens"))
    if RETOLD in t.metadata:
        lines.append(Text(f"in tokens of another model: encoded anew from the text of {t.metadata[RETOLD]}"))
    if t.rewards:
        values = (
            f"{name} {'none' if r.value is None else f'{r.value:g}'}" + (f" ({r.error})" if r.error else "")
            for name, r in t.rewards.items()
        )
        lines.append(Text(f"rewards: {', '.join(values)}; weighted sum {t.reward:g}"))
    for verdict in t.verdicts:
        word, style = ("keep", "green") if verdict.keep else ("drop", "red")
        line = Text.assemble(
            (word, style),
            f" by {verdict.filter}" + (f": {visible(verdict.reason)}" if verdict.reason else ""),
        )
        if verdict.span is not None:
            start, end = verdict.span
            line.append(f" {visible(t.response[start:end])[:80]!r}", "dim")
        lines.append(line)
    lines += [
        Text(f"hint: {turn.reason}", "magenta") for turn in t.turns if turn.author == "hint" and turn.reason
    ]
    if t.error is not None:
        lines.append(Text(f"error: {visible(t.error)}", "red"))
    return Text("\n").join(lines)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> Table:
    """A table whose first ``names`` columns are words and the others figures."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for position, column in enumerate(columns):
        shown.add_column(column, justify="left" if position < names else "right", no_wrap=position >= names)
    for row in rows:
        shown.add_row(*row)
    return shown


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:z,.{digits}f}"


RESULT_COLUMNS = (
    "system",
    "test set",
    "accuracy",
    "tokens",
    "per\ncorrect",
    "calls",
    "code\nshare",
    "calc.\nshare",
)


def results_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """The records of ``results.json``: accuracy with half the width of its 95 % interval, mean response tokens, tokens
    generated per right answer, calls, and the shares of trajectories with code and of calls that calculate."""
    rows = []
    for r in results:
        low, high = r["accuracy_ci"]
        rows.append(
            (
                r["name"],
                r["test_set"],
                f"{100 * r['accuracy']:.1f} ± {50 * (high - low):.1f} %",
                number(r["tokens"]),
                number(r["tokens_per_correct"]),
                number(r["tool_calls"], 2),
                percent(r["code_share"]),
                percent(r["calculation_share"]),
            )
        )
    return table(RESULT_COLUMNS, rows, names=2)


def near(path: Path) -> str:
    """The path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
