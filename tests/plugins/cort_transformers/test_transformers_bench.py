"""``cort bench rollout`` on the real engine: every token of the scripts is computed, whichever way it is made."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_tiny

from cort_framework import Weights
from cort_framework.cli.bench.rollout import run_real
from cort_framework.cli.bench.scripts import Case, Waits
from cort_framework.cli.bench.ways import WAYS
from cort_framework.registry import default_registry
from cort_transformers.decoder import Decoder, Row


def test_each_way_computes_every_token_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled: list[int] = []
    finish = Decoder._finish

    def count(decoder: Decoder, slot: int, reason: Any) -> Row:
        row = finish(decoder, slot, reason)
        sampled.append(len(row.logprobs))
        return row

    async def counted(way: Any, scripts: Any, engine: Any) -> Any:
        sampled.clear()
        made = await way(scripts, engine)
        totals.append(sum(sampled))
        return made

    totals: list[int] = []
    monkeypatch.setattr(Decoder, "_finish", count)
    for name, way in list(WAYS.items()):
        monkeypatch.setitem(WAYS, name, partial(counted, way))
    provider = default_registry().resolve("engine", "transformers")
    case = Case(3, 2, Waits("100 ms", 0.1), median=60, budget=200)
    seconds, tokens = run_real(provider, Weights(str(save_tiny(tmp_path / "model"))), case, 1, wall=False)
    assert all(taken > 0 for (taken,) in seconds.values())
    assert totals[1:] == [tokens] * 3  # the first is a short one to warm up
