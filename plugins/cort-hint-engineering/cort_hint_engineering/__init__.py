"""Hint-Engineering: detectors of the two faults, the hints against them, and the filters on the same detectors."""

from __future__ import annotations

from cort_framework import Filter, HintInjector, hookimpl


@hookimpl
def cort_hint_injectors() -> list[type[HintInjector]]:
    from cort_hint_engineering import injectors

    return [
        injectors.OpeningHint,
        injectors.DelayedComputationHint,
        injectors.ResultDistrustHint,
        injectors.JudgedDelayedComputationHint,
        injectors.JudgedResultDistrustHint,
    ]


@hookimpl
def cort_filters() -> list[type[Filter]]:
    from cort_hint_engineering import filters

    return [
        filters.NoDelayedComputation,
        filters.NoResultDistrust,
        filters.NoJudgedDelayedComputation,
        filters.NoJudgedResultDistrust,
    ]
