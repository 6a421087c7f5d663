"""``cort trace compare``: two systems on the same tasks, task by task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from cort_framework.cli.options import echo_json, json_option
from cort_framework.cli.show import number, stdout, table
from cort_framework.cli.traces import find_traces
from cort_framework.errors import RequestError
from cort_framework.evaluation import paired_difference
from cort_framework.tables import nearest
from cort_framework.types import Trajectory


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--against", required=True, metavar="SYSTEM", help="The system that the others are compared with."
)
@click.option("--system", "systems", multiple=True, help="Only these; all that RUN evaluates by default.")
@click.option("--tasks", default="*", help="Only tasks whose id matches: 'tiny-test-0-*'.")
@click.option("--seed", type=int, default=0, help="Of the bootstrap.")
@json_option
def compare(
    runs: Sequence[Path], against: str, systems: Sequence[str], tasks: str, seed: int, as_json: bool
) -> None:
    """Each system minus the one of --against: right answers, tokens of a response, tokens generated with those that rewinds
    discarded. The mean over the tasks that both have, and its 95 % interval from a bootstrap over tasks. Several runs of one
    recipe, one a seed, count as more samples of its tasks."""
    records = differences(runs, against, systems, tasks, seed)
    if as_json:
        echo_json(records)
        return
    console = stdout()
    console.print(difference_table(records))
    console.print(f"each minus {against}: mean, and its 95 % interval over tasks", soft_wrap=True)


def differences(
    runs: Sequence[Path], against: str, systems: Sequence[str] = (), tasks: str = "*", seed: int = 0
) -> list[dict[str, Any]]:
    """For each of the systems (all others by default): itself, and ``evaluation.paired_difference``. Raises
    ``RequestError``."""
    traces = [t for run in runs for t in find_traces(run) if t.system is not None]
    known = list(dict.fromkeys(t.system for t in traces if t.system is not None))
    for name in (against, *systems):
        if name not in known:
            raise RequestError(
                f"no system {name!r} was evaluated there{nearest(name, known)}",
                f"there are: {', '.join(known) or 'none'}",
            )

    def samples(system: str) -> Iterator[Trajectory]:
        for found in traces:
            if found.system == system:
                yield from (t for t in found.read(logprobs=False) if fnmatchcase(t.task.id, tasks))

    records = []
    for system in systems or [name for name in known if name != against]:
        try:
            difference = paired_difference(samples(against), samples(system), seed=seed)
        except ValueError:
            raise RequestError(
                f"'{against}' and '{system}' have no task in common that matches {tasks!r}"
            ) from None
        records.append({"system": system, "against": against, **difference})
    return records


def difference_table(records: Sequence[dict[str, Any]]) -> Table:
    columns = ("system", "tasks", "right answers\n% points", "tokens", "tokens\ngenerated")
    rows = [
        (
            r["system"],
            str(r["accuracy"]["tasks"]),
            shown(r["accuracy"], 100, 1),
            shown(r["tokens"]),
            shown(r["tokens_generated"]),
        )
        for r in records
    ]
    return table(columns, rows)


def shown(difference: dict[str, Any], scale: float = 1, digits: int = 0) -> str:
    low, high = (number(scale * end, digits) for end in difference["ci"])
    return f"{scale * difference['mean']:+,.{digits}f} ({low} to {high})"
