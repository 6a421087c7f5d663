"""Trainers ``sft`` and ``grpo``, on TRL and Accelerate."""

from __future__ import annotations

from collections.abc import Sequence

import cort_framework as cort


@cort.hookimpl
def cort_trainers() -> Sequence[type[cort.Trainer]]:
    from cort_trl.grpo import GroupRelativeTrainer
    from cort_trl.sft import SupervisedTrainer

    return [SupervisedTrainer, GroupRelativeTrainer]


@cort.hookimpl
def cort_health_checks() -> Sequence[type[cort.HealthCheck]]:
    from cort_trl.health import TrainingCheck

    return [TrainingCheck]
