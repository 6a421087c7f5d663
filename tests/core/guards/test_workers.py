"""Rewards and filters in processes of their own: what hangs, grows or dies costs one answer and leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hazards import FirstOfGroup, Harmful, HarmfulFilter
from processes import children

from cort_framework import Group, Plugin, RequestError, Reward, RewardFunction, Trajectory
from cort_framework.errors import PluginFault
from cort_framework.registry import Resolved
from cort_framework.runtime import Runtime
from cort_framework.scoring import judge, score
from cort_framework.testing import make_trajectory


def resolved(cls: type[Plugin], **config: Any) -> Resolved:
    return Resolved("reward", cls.name, cls, cls.Config(**config), "cort-harm", "1")


def responding(*responses: str) -> list[Trajectory]:
    return [make_trajectory([("prompt", "p"), ("model", text)]) for text in responses]


def scores(runtime: Runtime, responses: Sequence[str], **config: Any) -> list[Reward]:
    reward = runtime.plugin(resolved(Harmful, **config), RewardFunction)
    trajectories = responding(*responses)
    for trajectory in trajectories:
        runtime.call(score(trajectory, {"it": (reward, 1.0)}), 60)
    return [t.rewards["it"] for t in trajectories]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


WHO = "reward 'harmful' (from cort-harm)"


def test_a_reward_that_hangs_grows_raises_or_dies_costs_one_score_and_the_next_is_right() -> None:
    ways = {
        "power": f"{WHO} did not end within 3 s",
        "memory": f"{WHO} raised MemoryError: ",
        "raise": f"{WHO} raised ValueError: no such answer",
        "kill": f"{WHO} ended its process (SIGKILL)",
        "nonsense": f"{WHO} raised TypeError: it has to give a finite number or None, not 'right'",
    }
    with Runtime() as runtime:
        found = scores(runtime, [text for way in ways for text in (way, "fine")])
    assert [r.error for r in found[::2]] == list(ways.values())
    assert [r.value for r in found[1::2]] == [1.0] * len(ways)


def test_a_filter_that_hangs_or_raises_drops_one_trajectory_and_says_why() -> None:
    with Runtime() as runtime:
        alone = runtime.open(isolated_filter(HarmfulFilter))
        together = runtime.open(isolated_filter(FirstOfGroup))
        one, other, last = trajectories = responding("fine", "raise", "fine")
        faults = runtime.call(judge([Group(one.task, trajectories)], {"a": alone, "b": together}), 60)
    assert (
        other.verdicts[0].reason
        == "filter 'harmful-filter' (from cort-harm) raised ValueError: no such answer"
    )
    assert list(faults.items()) == [(other.verdicts[0].reason, 1)]
    assert one.kept and not other.kept and [v.keep for v in last.verdicts] == [True, False]
    assert str(os.getpid()) not in {v.reason for t in trajectories for v in t.verdicts}


def isolated_filter(cls: type[HarmfulFilter]) -> Any:
    from cort_framework.guards.workers import isolated

    plugin = cls()
    plugin.distribution = "cort-harm"
    return isolated(plugin)


def test_what_is_killed_or_closed_leaves_no_process(tmp_path: Path) -> None:
    file = tmp_path / "child"
    with Runtime() as runtime:
        scores(runtime, ["sleep", "fine"], children=str(file))
        assert not alive(int(file.read_text()))
        children = our_children()
    assert children and not [pid for pid in children if alive(pid)]


def our_children() -> list[int]:
    return [pid for pid, command in children(os.getpid()).items() if "workers import serve" in command]


def test_a_worker_that_holds_on_to_the_interpreter_does_not_outlive_a_parent_that_is_killed(
    tmp_path: Path,
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        f"import sys; sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:3]]!r}\n"
        "import threading\n"
        "import test_workers as t\n"
        "t.Harmful.timeout_s = 600.0\n"
        "with t.Runtime() as runtime:\n"
        "    t.scores(runtime, ['fine'])\n"
        "    print(*t.our_children(), flush=True)\n"
        "    t.scores(runtime, ['power'])\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        (worker,) = map(int, parent.stdout.readline().split())
        time.sleep(0.5)
        assert alive(worker)
        parent.kill()
    give_up = time.monotonic() + 30
    while alive(worker) and time.monotonic() < give_up:
        time.sleep(0.02)
    assert not alive(worker)


def test_a_class_that_no_other_process_can_import_is_refused_with_what_to_do() -> None:
    class Local(Harmful):
        pass

    with Runtime() as runtime, pytest.raises(RequestError, match="another process cannot import") as refused:
        runtime.plugin(resolved(Local), RewardFunction)
    assert refused.value.hint is not None and "a module of its own" in refused.value.hint


def test_a_plugin_that_fails_to_open_elsewhere_says_so_here() -> None:
    with (
        Runtime() as runtime,
        pytest.raises(PluginFault, match=r"opening 'harmful' .* raised OSError: no such table"),
    ):
        runtime.plugin(resolved(Harmful, fail=True), RewardFunction)
