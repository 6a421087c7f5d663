"""Engine ``vllm``: generation by vLLM, in this program or behind an address."""

from __future__ import annotations

from collections.abc import Sequence

import cort_framework as cort


@cort.hookimpl
def cort_engines() -> Sequence[type[cort.Engine]]:
    from cort_vllm.engine import VllmEngine

    return [VllmEngine]


@cort.hookimpl
def cort_health_checks() -> Sequence[type[cort.HealthCheck]]:
    from cort_vllm.health import VllmCheck

    return [VllmCheck]
