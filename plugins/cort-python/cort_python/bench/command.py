"""The command: every row of the table, in its order, and where a target is missed the row says so."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial

import click

from cort_framework import CortError
from cort_framework.cli.bench.table import Row, report
from cort_framework.cli.options import json_option

Section = Callable[[], AsyncIterator[Row]]


def sections(rounds: int, alive: int, sessions: int) -> dict[str, Section]:
    """The parts of the bench by name."""
    from cort_python.bench import faith, limits, speed

    return {
        "memory": partial(
            limits.memory, alive
        ),  # before other processes share the libraries with the baseline
        "fresh": partial(speed.fresh_kernels, rounds),
        "pool": partial(speed.from_the_pool, rounds),
        "trajectories": partial(speed.trajectories, rounds),
        "stateless": partial(speed.stateless, rounds),
        "flood": limits.flood,
        "hangs": faith.hangs,
        "attacks": faith.attacks,
        "state": faith.state,
        "soak": partial(faith.endurance, sessions),
        "repetition": faith.repetition,
    }


@click.command()
@click.argument("parts", nargs=-1)
@click.option("--rounds", default=5, show_default=True, help="Times that ours and the baseline take turns.")
@click.option("--alive", default=150, show_default=True, help="Kernels alive for the row of memory.")
@click.option("--sessions", default=200, show_default=True, help="Sessions of the soak, of five calls each.")
@json_option
def tools(parts: tuple[str, ...], rounds: int, alive: int, sessions: int, as_json: bool) -> None:
    """Measure the Python tool, each figure beside its baseline in the same run.

    PARTS: memory fresh pool trajectories stateless flood hangs attacks state soak repetition; all of them if none is
    named. Exit code 1 where a target is missed.
    """
    from cort_python.template import can_fork

    if not can_fork():
        raise CortError("the bench needs forked kernels, which this system does not have", "run it on Linux")
    known = sections(rounds, alive, sessions)
    if unknown := [part for part in parts if part not in known]:
        raise click.BadParameter(f"{unknown[0]!r}; there are {', '.join(known)}", param_hint="PARTS")
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    rows = asyncio.run(_measure([known[part] for part in parts or known]))
    report(rows, as_json)


async def _measure(parts: list[Section]) -> list[Row]:
    rows = []
    for part in parts:
        async for row in part():
            click.echo(f"{row.figure}: {row.ours or row.note}", err=True)
            sys.stderr.flush()
            rows.append(row)
    return rows
