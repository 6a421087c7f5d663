"""Engine ``transformers``: any Hugging Face causal language model, on a CPU or one GPU, in this process."""

from __future__ import annotations

from collections.abc import Sequence

import cort_framework as cort


@cort.hookimpl
def cort_engines() -> Sequence[type[cort.Engine]]:
    from cort_transformers.engine import TransformersEngine

    return [TransformersEngine]


@cort.hookimpl
def cort_health_checks() -> Sequence[type[cort.HealthCheck]]:
    from cort_transformers.health import TorchCheck

    return [TorchCheck]
