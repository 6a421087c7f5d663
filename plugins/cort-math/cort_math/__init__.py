"""Mathematics: rewards, filters and task sources."""

from __future__ import annotations

from cort_framework import Filter, HealthCheck, RewardFunction, TaskSource, hookimpl


@hookimpl
def cort_reward_functions() -> list[type[RewardFunction]]:
    from cort_math.rewards import AnswerReward, CodeSuccessReward, LengthReward

    return [AnswerReward, CodeSuccessReward, LengthReward]


@hookimpl
def cort_filters() -> list[type[Filter]]:
    from cort_math.filters import (
        CorrectFilter,
        FinishedFilter,
        InfraErrorFilter,
        MaxTokensFilter,
        NoInventedOutputFilter,
        ShortestFilter,
        UsedCodeFilter,
    )

    return [
        CorrectFilter,
        FinishedFilter,
        InfraErrorFilter,
        MaxTokensFilter,
        NoInventedOutputFilter,
        ShortestFilter,
        UsedCodeFilter,
    ]


@hookimpl
def cort_task_sources() -> list[type[TaskSource]]:
    from cort_math.benchmarks import BenchmarkSource
    from cort_math.sources import HuggingFaceSource, JsonlSource

    return [BenchmarkSource, HuggingFaceSource, JsonlSource]


@hookimpl
def cort_health_checks() -> list[type[HealthCheck]]:
    from cort_math.health import GradingCheck

    return [GradingCheck]
