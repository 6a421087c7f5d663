"""Rewards and filters that do harm, in a module that other processes can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from cort_framework import Filter, Group, OpenContext, PluginConfig, RewardFunction, Trajectory, Verdict


def harm(how: str) -> Any:
    """What the text says."""
    match how:
        case "power":  # what computer algebra makes of a tower of powers; holds on to the interpreter
            return 9**9**9**9
        case "sleep":
            time.sleep(3600)
        case "nap":
            time.sleep(2)
        case "loop":
            while True:
                pass
        case "memory":
            return [b"x" * (64 << 20) for _ in range(10_000)]
        case "hoard":  # in steps that something else can see
            hoard = []
            for _ in range(400):
                hoard.append(b"x" * (8 << 20))
                time.sleep(0.01)
        case "raise":
            raise ValueError("no such answer")
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "nonsense":
            return "right"
    return None


class Harmful(RewardFunction):
    """Does what the response says, or scores 1."""

    name = "harmful"
    isolated = True
    timeout_s = 2.0
    memory_mb = 512

    class Config(PluginConfig):
        children: str | None = None
        fail: bool = False

    config: Config

    async def open(self, context: OpenContext) -> None:
        if self.config.fail:
            raise OSError("no such table")
        self.scratch = context.scratch
        print("a plugin may print")

    async def score(self, trajectory: Trajectory) -> float | None:
        if self.config.children is not None and trajectory.response == "sleep":
            child = os.fork()
            if child == 0:
                time.sleep(3600)
            Path(self.config.children).write_text(str(child))
        found = harm(trajectory.response)
        return found if found is not None else 1.0


class HarmfulFilter(Filter):
    """Does what the response says, or keeps it."""

    name = "harmful-filter"
    isolated = True
    timeout_s = 2.0
    memory_mb = 512

    def judge(self, trajectory: Trajectory) -> Any:
        return harm(trajectory.response) or Verdict(True, str(os.getpid()))


class FirstOfGroup(HarmfulFilter):
    name = "first"

    async def judge_group(self, group: Group) -> Any:
        return [
            harm(t.response) or Verdict(n == 0, str(os.getpid())) for n, t in enumerate(group.trajectories)
        ]
