"""``cort trace compare``: the systems of one run or of several, side by side on the same tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import click
from rich import box
from rich.table import Table

from cort_framework.cli.options import echo_json, json_option
from cort_framework.cli.show import number, stdout, table
from cort_framework.cli.traces import Trace, find_traces
from cort_framework.errors import RequestError
from cort_framework.evaluation.behaviour import Subject
from cort_framework.evaluation.comparison import MEASURES, Cells, cells, paired_difference
from cort_framework.recipe.tables import nearest
from cort_framework.types import Trajectory


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--against", required=True, metavar="SYSTEM", help="The system that the others are compared with."
)
@click.option("--system", "systems", multiple=True, help="Only these; all that RUN evaluates by default.")
@click.option("--tasks", default="*", help="Only tasks whose id matches: 'tiny-test-0-*'.")
@click.option(
    "--subject",
    type=click.Choice(get_args(Subject)),
    help="Show how many answers have a call that does such.",
)
@click.option("--seed", type=int, default=0, help="Of the bootstrap.")
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@json_option
def compare(
    runs: Sequence[Path],
    against: str,
    systems: Sequence[str],
    tasks: str,
    subject: Subject | None,
    seed: int,
    markdown: bool,
    as_json: bool,
) -> None:
    """What each system reaches, and what it has more than the one of --against: means over the tasks that both have, and 95 %
    intervals.

    Several runs of one recipe are told apart by their seeds, and paired seed by seed; the intervals are then about tasks and
    seeds together, and --json has each seed's own figures too. Folders of the same seed are one run: that of a profile, say,
    beside that of the recipe.
    """
    records = differences(runs, against, systems, tasks, seed, subject)
    if as_json:
        echo_json(records)
        return
    console = stdout()
    over = "tasks and seeds" if any(r["runs"] > 1 for r in records) else "tasks"
    parts = [
        (figure_table(records), f"mean, and its 95 % interval over {over}"),
        (difference_table(records), f"each minus {against}: mean, and its 95 % interval over {over}"),
    ]
    for part, caption in parts:
        if markdown:
            console.width = 1000
            _as_markdown(part)
        console.print(part)
        console.print(caption, soft_wrap=True)


def differences(
    runs: Sequence[Path],
    against: str,
    systems: Sequence[str] = (),
    tasks: str = "*",
    seed: int = 0,
    subject: Subject | None = None,
) -> list[dict[str, Any]]:
    """For each of the systems (all others by default): itself, and ``comparison.paired_difference``, of the share of
    ``subject`` only where it is given. Raises ``RequestError``."""
    traces = [t for run in runs for t in find_traces(run) if t.system is not None]
    known = list(dict.fromkeys(t.system for t in traces if t.system is not None))
    for name in (against, *systems):
        if name not in known:
            raise RequestError(
                f"no system {name!r} was evaluated there{nearest(name, known)}",
                None if known else "give a run that has evaluated some",
            )

    def counted(system: str) -> Cells:
        return cells(_samples([t for t in traces if t.system == system], tasks), about=subject)

    others = [name for name in dict.fromkeys(systems or known) if name != against]
    if not others:
        raise RequestError(f"there is no system but {against!r} to compare it with")
    first = counted(against)
    records = []
    for system in others:
        try:
            difference = paired_difference(first, counted(system), seed)
        except ValueError as error:
            raise RequestError(
                f"'{against}' and '{system}' cannot be compared on the tasks that match {tasks!r}: {error}",
                "runs are paired by their seeds: give the runs of the same seeds for both",
            ) from None
        if subject is None:
            del difference["subject_share"]
        records.append({"system": system, "against": against, "subject": subject, **difference})
    return records


def _samples(traces: Sequence[Trace], tasks: str) -> Iterator[tuple[int | None, Trajectory]]:
    for trace in traces:
        for t in trace.read(logprobs=False):
            if fnmatchcase(t.task.id, tasks):
                yield trace.seed, t


def figure_table(records: Sequence[dict[str, Any]]) -> Table:
    """What each reaches by itself; first the one that the others are compared with."""
    first = records[0]
    subject = first["subject"]
    columns = [
        "system",
        "accuracy %",
        "tokens",
        "tokens\nper correct",
        "calls",
        "with\ncode %",
        "calculation %",
    ]
    rows = []
    for record, which in [(first, "against"), *((record, "system") for record in records)]:
        of = {name: record[name][which] for name in MEASURES if name in record}
        row = [
            record[which],
            shown(of["accuracy"], 100, 1),
            shown(of["tokens"]),
            number(of["tokens_per_correct"]["mean"]),
            number(of["tool_calls"]["mean"], 2),
            number(100 * of["code_share"]["mean"]),
            shown(of["calculation_share"], 100),
        ]
        rows.append([*row, shown(of["subject_share"], 100)] if subject else row)
    return table([*columns, f"{subject} %"] if subject else columns, rows)


def difference_table(records: Sequence[dict[str, Any]]) -> Table:
    """What each has more than the one that it is compared with."""
    subject = records[0]["subject"]
    columns = [
        "system",
        "tasks\n× seeds",
        "accuracy\n% points",
        "tokens",
        "tokens\ngenerated",
        "calculation\n% points",
    ]
    rows = []
    for r in records:
        row = [
            r["system"],
            f"{r['tasks']} × {r['runs']}",
            shown(r["accuracy"], 100, 1, sign="+"),
            shown(r["tokens"], sign="+"),
            shown(r["tokens_generated"], sign="+"),
            shown(r["calculation_share"], 100, sign="+"),
        ]
        rows.append([*row, shown(r["subject_share"], 100, sign="+")] if subject else row)
    return table([*columns, f"{subject}\n% points"] if subject else columns, rows)


def shown(figure: dict[str, Any], scale: float = 1, digits: int = 0, sign: str = "") -> str:
    """A mean with its interval."""
    if figure["mean"] is None:
        return "–"
    low, high = (number(scale * end, digits) for end in figure["ci"])
    return f"{scale * figure['mean']:{sign}z,.{digits}f} ({low} to {high})"


def _as_markdown(shown: Table) -> None:
    shown.box = box.MARKDOWN
    for column in shown.columns:
        column.header = str(column.header).replace("\n", " ")
