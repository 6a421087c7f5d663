"""Whole trajectories of the model that ships, with the real Python tool."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import cort_framework as cort
from cort_framework.recipe.settings import PROMPTS, RolloutSettings
from cort_framework.rollout import RolloutSetup, rollout

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def test_trajectories_with_tool_calls_are_those_of_the_engine_transformers(
    engine: Any, live: Any, tmp_path: Path
) -> None:
    from cort_python.tool import PythonTool
    from cort_tiny import base_path
    from cort_tiny.tasks import TinyTasks
    from cort_transformers.engine import TransformersEngine

    tasks = list(TinyTasks(TinyTasks.Config(split="test", size=12)).tasks())
    settings = RolloutSettings(temperature=0.0, top_p=1.0, max_tokens=700, max_tool_calls=3)

    async def run() -> None:
        tool = PythonTool(PythonTool.Config())
        other = TransformersEngine(TransformersEngine.Config(threads=1))
        for plugin in (tool, other):
            await plugin.open(cort.OpenContext(tmp_path))
        try:
            made = []
            for e in (engine, other):
                await e.load_weights(cort.Weights(str(base_path())))
                setup = RolloutSetup(e, {"python": tool}, settings, PROMPTS["tool"])
                lines = await asyncio.gather(*(rollout(cort.RolloutRequest(t), setup) for t in tasks))
                made.append([line[-1] for line in lines])
        finally:
            await other.close()
            await tool.close()
        assert engine.load_gap < 1e-4
        assert sum(bool(t.calls) for t in made[0]) > 2
        for ours, theirs in zip(*made, strict=True):
            assert (ours.stop_reason, ours.error) == (theirs.stop_reason, theirs.error)
            assert [(t.author, t.ids) for t in ours.turns] == [(t.author, t.ids) for t in theirs.turns]
            for one, two in zip(ours.turns, theirs.turns, strict=True):
                gaps = [abs(a - b) for a, b in zip(one.logprobs or (), two.logprobs or (), strict=True)]
                assert max(gaps, default=0.0) < 1e-3

    live(run())
