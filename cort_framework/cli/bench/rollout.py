"""``cort bench rollout``: rollouts without lock-step, beside lock-step and beside the engine alone, and what the framework
itself takes."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import click

from cort_framework.cli.bench.clock import run
from cort_framework.cli.bench.engines import Follower, Pace, PacedEngine, RealEngine
from cort_framework.cli.bench.scripts import BenchTokenizer, Case, Script, Waits, write_scripts
from cort_framework.cli.bench.share import share
from cort_framework.cli.bench.table import Row, report
from cort_framework.cli.bench.ways import WAYS, Made, prove_equal
from cort_framework.cli.options import json_option
from cort_framework.errors import PluginError
from cort_framework.interfaces import Engine, OpenContext
from cort_framework.registry import check_requirements, default_registry
from cort_framework.registry.discovery import Provider
from cort_framework.types import Weights

WAITS = (Waits("5 ms", 0.005), Waits("100 ms", 0.1), Waits("100 ms, 2 s tail", 0.1, 2.0))
TURNS = (1, 3, 8)
TWICE, NEARLY_ALL = 2.0, 0.9
Seconds = dict[str, list[float]]
"""What each way took, round by round."""


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(["scripted", "engine", "share"]))
@click.option("--quick", is_flag=True, help="Three turns and the long tail alone, fewer trajectories.")
@click.option("--engine", default="transformers", show_default=True, help="The real engine.")
@click.option(
    "--model", default="tiny", show_default=True, help="Its model: one that is shipped, a folder, a hub id."
)
@click.option(
    "--trajectories", type=click.IntRange(2), help="With the real engine.  [default: 64; 48 if quick]"
)
@click.option(
    "--rounds", default=1, show_default=True, help="Times that the three take turns; medians are shown."
)
@click.option(
    "--wall", is_flag=True, help="By the clock on the wall. Waits are waited for, other processes count."
)
@json_option
def rollout(
    parts: tuple[str, ...],
    quick: bool,
    engine: str,
    model: str,
    trajectories: int | None,
    rounds: int,
    wall: bool,
    as_json: bool,
) -> None:
    """Roll out the same trajectories in three ways, and show that they are the same.

    \b
    ours       one coroutine a trajectory, none waits for another
    lock-step  all generate until each has a call or ends, then all calls at once, then the next turn
    bound      the engine alone: the same tokens, tools free

    \b
    PARTS, all of them if none is named:
    scripted   an engine that only keeps a pace: 256 trajectories of 2,000 tokens
    engine     a real engine, each token computed; what it says is then replaced by the script
    share      the processor time of the framework itself, at 256 × 2,000 tokens a second

    Times are processor time of this process and its waits: those of a machine with nothing else to do. Exit code 1
    where a target is missed.
    """
    chosen = parts or ("scripted", "engine", "share")
    cases = [(turns, waits) for turns in TURNS for waits in WAITS]
    if quick:
        cases = [(3, WAITS[2])]
    rows: list[Row] = []
    for part in chosen:
        if part == "scripted":
            made = scripted(cases, 128 if quick else 256, rounds, wall)
        elif part == "engine":
            made = real(engine, model, cases, trajectories or (48 if quick else 64), rounds, wall)
        else:
            made = share(quick)
        for row in made:
            click.echo(f"{row.figure}: {row.ours or row.note}", err=True)
            sys.stderr.flush()
            rows.append(row)
    report(rows, as_json)


# --- the parts --------------------------------------------------------------------------------------------------
def scripted(cases: list[tuple[int, Waits]], count: int, rounds: int, wall: bool) -> Iterator[Row]:
    """The engine that keeps a pace. At the end once more with a quarter of the slots, where the engine is what all wait for."""
    tokenizer = BenchTokenizer()
    shapes = [(turns, waits, count) for turns, waits in cases]
    for turns, waits, slots in [*shapes, (3, WAITS[2], count // 4)]:
        scripts = write_scripts(Case(count, turns, waits, median=1200, budget=8400), tokenizer)
        seconds: Seconds = {way: [] for way in WAYS}
        for _ in range(rounds):
            made = {}
            for way in WAYS:
                engine = PacedEngine(tokenizer, Pace(slots))
                engine.follow(scripts)
                made[way], spent = run(_timed(way, scripts, engine), wall)
                seconds[way].append(spent)
            prove_equal(made, scripts)
        title = f"scripted, {count} in {slots} slots, {_turns(turns)}, calls {waits.name}"
        yield from _rows(title, seconds, TWICE if turns >= 3 and slots == count else None, NEARLY_ALL)


def real(
    name: str, model: str, cases: list[tuple[int, Waits]], count: int, rounds: int, wall: bool
) -> Iterator[Row]:
    """A real engine with a slot for each trajectory. Its trajectories take seconds, so that eight calls, which wait for one
    another, are a large part of one: there the bound is shown and not asked for."""
    registry = default_registry()
    try:
        provider = registry.resolve("engine", name)
        check_requirements(provider.cls, f"engine '{name}'")
        weights = Weights(str(registry.model(model) or model))
    except PluginError as error:
        yield Row(f"{name}", "lock-step", "", "", note=f"{error.message}: {error.hint}")
        return
    for turns, waits in cases:
        seconds, tokens = run_real(
            provider, weights, Case(count, turns, waits, median=300, budget=1800), rounds, wall
        )
        title = f"{name}, {count} trajectories, {tokens} tokens, {_turns(turns)}, calls {waits.name}"
        yield from _rows(title, seconds, TWICE if turns >= 3 else None, NEARLY_ALL if turns <= 3 else None)


def run_real(
    provider: Provider, weights: Weights, case: Case, rounds: int, wall: bool
) -> tuple[Seconds, int]:
    """What each way takes, and the tokens that the model says in each."""
    settings = {key: value for key, value in ENGINE.items() if key in provider.cls.Config.model_fields}
    inner: Engine = provider.cls(provider.cls.Config(**settings))  # type: ignore[assignment]
    engine = RealEngine(inner)

    async def measure() -> tuple[Seconds, int]:
        seconds: Seconds = {way: [] for way in WAYS}
        with tempfile.TemporaryDirectory() as scratch:
            await inner.open(OpenContext(Path(scratch)))
            try:
                await engine.load_weights(weights)
                scripts = write_scripts(case, engine.tokenizer)
                engine.follow(scripts)
                await WAYS["bound"](scripts[:2], engine)  # what is made at the first use is made
                for _ in range(rounds):
                    made = {}
                    for way in WAYS:
                        await engine.load_weights(weights)
                        engine.follow(scripts)
                        made[way], spent = await _timed(way, scripts, engine)
                        seconds[way].append(spent)
                    prove_equal(made, scripts)
            finally:
                await inner.close()
        return seconds, sum(end - begin for script in scripts for begin, end in script.stretches)

    return run(measure(), wall, lambda: engine.live > 0)


ENGINE = {"max_batch": 256, "threads": 1}
"""Settings of the real engine, where it has them."""


async def _timed(way: str, scripts: list[Script], engine: Follower) -> tuple[Made, float]:
    clock = asyncio.get_running_loop().time
    began = clock()
    made = await WAYS[way](scripts, engine)
    return made, clock() - began


def _rows(title: str, seconds: Seconds, faster: float | None, of_bound: float | None) -> Iterator[Row]:
    """A row against lock-step and one against the bound, with what is asked of each."""
    times = {way: median(taken) for way, taken in seconds.items()}
    shown = {way: f"{taken:.1f} s" for way, taken in times.items()}
    for way, target in (("lock-step", faster), ("bound", of_bound)):
        ratio = times[way] / times["ours"]
        met = None if target is None else ratio >= target
        wanted = "" if target is None else f"≥ {target:g}×"
        yield Row(title, way, wanted, shown["ours"], shown[way], ratio, met)


def _turns(turns: int) -> str:
    return "1 turn" if turns == 1 else f"{turns} turns"
