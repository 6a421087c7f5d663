"""Tool ``rdkit`` and what it preloads into the Python kernel; tasks about molecules, and the reward that grades them."""

from __future__ import annotations

from cort_framework import HealthCheck, RewardFunction, TaskSource, Tool, hookimpl


@hookimpl
def cort_tools() -> list[type[Tool]]:
    from cort_rdkit.tool import RdkitTool

    return [RdkitTool]


@hookimpl
def cort_task_sources() -> list[type[TaskSource]]:
    from cort_rdkit.tasks import Molecules

    return [Molecules]


@hookimpl
def cort_reward_functions() -> list[type[RewardFunction]]:
    from cort_rdkit.rewards import ChemistryReward

    return [ChemistryReward]


@hookimpl
def cort_health_checks() -> list[type[HealthCheck]]:
    from cort_rdkit.health import RdkitCheck

    return [RdkitCheck]
