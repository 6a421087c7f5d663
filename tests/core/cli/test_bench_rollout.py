"""``cort bench rollout``: that its three ways make one thing, that its clock is right, and what its rows say."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cort_framework import CortError, Engine, Generation, Sampling, Weights
from cort_framework.cli import main
from cort_framework.cli.bench.clock import run
from cort_framework.cli.bench.engines import Pace, PacedEngine, RealEngine
from cort_framework.cli.bench.rollout import scripted
from cort_framework.cli.bench.scripts import PROSE, BenchTokenizer, Case, Waits, write_scripts
from cort_framework.cli.bench.share import measure
from cort_framework.cli.bench.ways import WAYS, Made, prove_equal
from cort_framework.registry import default_registry

TAIL = Waits("100 ms, 2 s tail", 0.1, 2.0)
CASE = Case(12, 3, TAIL, median=120, budget=900)


# --- the clock --------------------------------------------------------------------------------------------------
def test_a_wait_takes_no_time_and_counts_in_full() -> None:
    woken: list[str] = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(name)

    async def both() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.gather(wait("a day", 86400), wait("an hour", 3600))
        return asyncio.get_running_loop().time() - began

    assert 86400 <= run(both(), wall=False) < 86410
    assert woken == ["an hour", "a day"]


def test_work_in_another_thread_is_waited_for() -> None:
    working = [True]

    def work() -> int:
        answer = sum(range(300_000))
        working[0] = False
        return answer

    async def meanwhile() -> tuple[int, bool]:
        thread = asyncio.create_task(asyncio.to_thread(work))
        timer = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.wait([thread, timer], return_when=asyncio.FIRST_COMPLETED)
        timer.cancel()
        return await thread, timer.done()

    assert run(meanwhile(), wall=False, at_work=lambda: working[0]) == (sum(range(300_000)), False)


# --- trajectories known beforehand ------------------------------------------------------------------------------
@given(st.text(max_size=30))
def test_the_bench_s_tokenizer_gives_back_what_it_was_given(text: str) -> None:
    tokenizer = BenchTokenizer()
    whole = f"{PROSE}{text}"
    assert tokenizer.decode(tokenizer.encode(whole)) == whole
    assert len(tokenizer.encode(PROSE)) < len(PROSE) / 3


def test_scripts_are_the_same_each_time_and_keep_to_their_budget() -> None:
    one, two = (write_scripts(CASE, BenchTokenizer()) for _ in range(2))
    assert one == two
    for script in one:
        said = [end - begin for begin, end in script.stretches]
        assert len(said) == 4 and len(script.waits) == 3
        assert sum(said) <= CASE.budget + 4 * 40  # a call has its own length, however short the turn is
        assert script.stretches[-1][1] == len(script.ids)


# --- three ways -------------------------------------------------------------------------------------------------
def paced(scripts: Any, slots: int = 64) -> PacedEngine:
    engine = PacedEngine(BenchTokenizer(), Pace(slots))
    engine.follow(scripts)
    return engine


async def seconds(way: Callable[..., Awaitable[Made]], *arguments: Any) -> tuple[Made, float]:
    clock = asyncio.get_running_loop().time
    began = clock()
    return await way(*arguments), clock() - began


def test_three_ways_make_the_same_trajectories_and_none_waits_for_another_in_ours() -> None:
    scripts = write_scripts(CASE, BenchTokenizer())
    done = {name: run(seconds(way, scripts, paced(scripts)), wall=False) for name, way in WAYS.items()}
    made = {name: what for name, (what, _) in done.items()}
    prove_equal(made, scripts)
    assert len(made["ours"].calls) == 12 * 3
    assert done["bound"][1] < done["ours"][1] < done["lock-step"][1]


def test_a_way_that_makes_other_tokens_or_calls_is_not_compared() -> None:
    scripts = write_scripts(CASE, BenchTokenizer())
    right = Made([script.ids for script in scripts], [("a", "b")])
    prove_equal({"ours": right, "lock-step": right, "bound": Made(right.ids, [])}, scripts)
    with pytest.raises(CortError, match="bound made other tokens"):
        prove_equal({"ours": right, "lock-step": right, "bound": Made(right.ids[1:], [])}, scripts)
    with pytest.raises(CortError, match="other calls"):
        prove_equal({"ours": right, "lock-step": Made(right.ids, []), "bound": right}, scripts)


def test_rows_have_to_wait_for_a_slot_and_a_full_batch_is_slower_a_row() -> None:
    scripts = write_scripts(Case(8, 1, Waits("5 ms", 0.005), median=100, budget=100_000), BenchTokenizer())
    times = [
        run(seconds(WAYS["bound"], scripts, paced(scripts, slots)), wall=False)[1] for slots in (1, 2, 8)
    ]
    tokens = sum(end - begin for script in scripts for begin, end in script.stretches)
    assert times[0] > 0.006 * tokens > times[1] > times[2]


# --- a real engine ----------------------------------------------------------------------------------------------
class Babble(Engine):
    """Samples anything, ends where it likes, and keeps every request."""

    name = "babble"

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.tokenizer = BenchTokenizer()
        self.asked: list[tuple[list[int], Sampling]] = []
        self.said: dict[int, list[int]] = {}

    async def load_weights(self, weights: Weights) -> None:
        self.asked.clear()
        self.said.clear()

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        self.asked.append((list(ids), sampling))
        before = self.said.setdefault(sampling.seed, list(ids))
        assert [*ids][: len(before)] == before, "its own tokens come back to it, not the script's"
        chance = random.Random(len(self.asked))
        count = chance.randint(1, sampling.max_tokens)
        sampled = tuple(chance.randrange(256) for _ in range(count))
        self.said[sampling.seed] = [*ids, *sampled]
        await asyncio.sleep(0)
        return Generation(sampled, (-1.0,) * count, "length")


def test_a_real_engine_samples_as_many_tokens_after_as_many_and_finds_its_own_again() -> None:
    scripts = write_scripts(CASE, BenchTokenizer())
    inner = Babble()
    engine = RealEngine(inner)

    async def roll() -> Made:
        await engine.load_weights(Weights("x"))
        engine.follow(scripts)
        return await WAYS["ours"](scripts, engine)

    made = run(roll(), wall=False)
    assert made.ids == [script.ids for script in scripts]
    assert inner.tokenizer.eos_ids == frozenset() != engine.tokenizer.eos_ids
    for script in scripts:
        said = inner.said[script.seed]
        asked = [range(len(ids), len(ids) + s.max_tokens) for ids, s in inner.asked if s.seed == script.seed]
        assert {i for positions in asked for i in positions} == {
            i for begin, end in script.stretches for i in range(begin, end)
        }
        assert len(said) == len(script.ids)


# --- what the framework takes -----------------------------------------------------------------------------------
@pytest.mark.parametrize("chunk", [1 << 20, 64])
def test_the_framework_s_share_is_of_rollouts_that_reach_their_end(chunk: int) -> None:
    cost = measure(chunk, 6)
    assert cost.tokens > 6 * 500
    assert 0 < cost.bare_seconds < cost.whole
    assert cost.whole > cost.seconds > 0.3  # of calls alone


# --- the command ------------------------------------------------------------------------------------------------
def test_a_cell_is_a_row_against_lock_step_and_one_against_the_bound() -> None:
    rows = list(scripted([(3, TAIL)], 8, rounds=1, wall=False))
    assert [(row.baseline, row.target) for row in rows] == [
        ("lock-step", "≥ 2×"),
        ("bound", "≥ 0.9×"),
        ("lock-step", ""),
        ("bound", "≥ 0.9×"),
    ]
    assert all(row.ratio is not None and row.ratio > 0 for row in rows)


def test_the_command_measures_an_engine_by_name_and_says_what_it_cannot_measure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = default_registry()
    before = list(registry._registered)
    registry.register(Babble)
    arguments = ["bench", "rollout", "engine", "--quick", "--trajectories", "3", "--json"]
    try:
        assert main([*arguments, "--engine", "babble", "--model", "any"]) in (0, 1)
    finally:
        registry._registered[:] = before
    rows = json.loads(capsys.readouterr().out)
    assert [row["baseline"] for row in rows] == ["lock-step", "bound"]
    assert rows[0]["figure"].startswith("babble, 3 trajectories")

    assert main([*arguments, "--engine", "no-such"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["met"] is None and "no engine 'no-such' is installed" in row["note"]
