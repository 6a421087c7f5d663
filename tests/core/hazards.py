"""Rewards and filters that do harm, in a module that other processes can import."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from harms import harm

from cort_framework import Filter, Group, OpenContext, PluginConfig, RewardFunction, Trajectory, Verdict


class Harmful(RewardFunction):
    """Does what the response says, or scores 1."""

    name = "harmful"
    isolated = True
    timeout_s = 3.0
    memory_mb = 128

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
    timeout_s = 3.0
    memory_mb = 128

    def judge(self, trajectory: Trajectory) -> Any:
        return harm(trajectory.response) or Verdict(True, str(os.getpid()))


class FirstOfGroup(HarmfulFilter):
    name = "first"

    async def judge_group(self, group: Group) -> Any:
        return [
            harm(t.response) or Verdict(n == 0, str(os.getpid())) for n, t in enumerate(group.trajectories)
        ]
