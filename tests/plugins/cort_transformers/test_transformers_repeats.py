"""The same recipe and seed twice, with tools that take another time in each run."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import cort_framework as cort
from cort_framework.cli.same import sameness, timeless
from cort_framework.cli.traces import find_traces
from cort_framework.recipe import make_plan
from cort_framework.registry import Registry
from cort_framework.store import read_trajectories


class Loitering(cort.Tool):
    """Python in this process, after a wait that is another one in each run."""

    name = "loitering"
    language = "python"
    noise = random.Random()
    """Never seeded."""
    longest_s = 0.15

    @contextlib.asynccontextmanager
    async def session(self, task: cort.Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        yield self

    async def call(self, call: cort.ToolCall) -> cort.ToolResult:
        await asyncio.sleep(self.noise.random() * self.longest_s)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(call.code or "", "<cell>", "exec"), {})
        except Exception as error:
            return cort.ToolResult(cort.Outcome.PROGRAM_ERROR, repr(error), error=repr(error))
        return cort.ToolResult(cort.Outcome.OK, printed.getvalue())


def runs(
    registry: Registry, folder: Path, tasks: int, stages: Sequence[Mapping[str, Any]], deterministic: bool
) -> tuple[Path, Path]:
    """Two runs of one recipe on the miniature."""
    registry.register(Loitering)
    recipe = cort.Recipe(
        name="repeats",
        model="tiny",
        deterministic=deterministic,
        tasks={"some": {"source": "tiny", "size": tasks}},
        rollout={"max_tokens": 300, "tools": {"loitering": {}}},
        engines={"transformers": {"threads": 1, "max_batch": 8 if deterministic else 32}},
        rewards={"answer": {}, "code-success": {"weight": 0.1}},
        filters={"correct": {}},
        stage=list(stages),
    )
    for name in "ab":
        cort.run(make_plan(recipe, registry), run_dir=folder / name)
    return folder / "a", folder / "b"


def lines(run: Path, stage: str) -> list[str]:
    """A stage's file, but for the seconds that things took."""
    return [timeless(t) for t in read_trajectories(run / stage / "trajectories.jsonl")]


EVALUATE = {"name": "test", "kind": "evaluate", "tasks": ["some"], "system": "base", "samples": 2}


@pytest.mark.timeout(300)
def test_two_deterministic_runs_are_equal_byte_for_byte_whatever_the_tools_timing(
    cort_registry: Registry, tmp_path: Path
) -> None:
    one, other = runs(cort_registry, tmp_path, 2, [EVALUATE], deterministic=True)
    assert lines(one, "test") == lines(other, "test")
    assert sum(len(t.calls) for t in read_trajectories(one / "test" / "trajectories.jsonl")) >= 2
    (record,) = sameness(find_traces(one), find_traces(other))
    assert (record["equal"], record["trajectories"]) == (4, 4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_stage_kinds_repeat_to_the_same_files_and_weights_whatever_the_tools_timing(
    cort_registry: Registry, tmp_path: Path
) -> None:
    stages = [
        {
            "name": "rft",
            "kind": "rft",
            "tasks": "some",
            "filters": ["correct"],
            "samples": 2,
            "options": {"max_steps": 2},
        },
        {
            "name": "rl",
            "kind": "rl",
            "tasks": "some",
            "options": {"steps": 2, "prompts_per_step": 2, "num_generations": 2},
        },
        EVALUATE | {"system": "rl"},
    ]
    one, other = runs(cort_registry, tmp_path, 4, stages, deterministic=True)
    for stage in ("rft", "rl", "test"):
        assert lines(one, stage) == lines(other, stage)
    for stage in ("rft", "rl"):
        weights = [(run / stage / "checkpoint" / "model.safetensors").read_bytes() for run in (one, other)]
        assert weights[0] == weights[1]
    figures = [json.loads((run / "results.json").read_text())[0] | {"seconds": 0} for run in (one, other)]
    assert figures[0] == figures[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_the_promise_nearly_all_are_equal_all_the_same_and_the_rest_is_counted(
    cort_registry: Registry, tmp_path: Path
) -> None:
    one, other = runs(cort_registry, tmp_path, 25, [EVALUATE | {"samples": 4}], deterministic=False)
    (record,) = sameness(find_traces(one), find_traces(other))
    assert (record["trajectories"], record["only_in_one"], record["timeouts"]) == (100, 0, 0)
    assert record["tokens_equal"] >= 0.99 * record["trajectories"]
