"""Endpoints that speak OpenAI's protocol: engine ``openai``, and ``cort_openai.chat`` for plugins that ask a judge."""

from __future__ import annotations

from collections.abc import Sequence

import cort_framework as cort


@cort.hookimpl
def cort_engines() -> Sequence[type[cort.Engine]]:
    from cort_openai.engine import OpenAIEngine

    return [OpenAIEngine]


@cort.hookimpl
def cort_health_checks() -> Sequence[type[cort.HealthCheck]]:
    from cort_openai.health import EndpointCheck

    return [EndpointCheck]
