"""What ``cort doctor`` asks of the endpoints that a recipe names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from cort_framework import CortError, HealthCheck, HealthContext, HealthReport


class EndpointCheck(HealthCheck):
    """Whether a recipe's engines ``openai`` answer, and serve the model that they are to sample. Nothing without a recipe."""

    name = "endpoint"
    requires = ("httpx>=0.28",)

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        from cort_openai.engine import OpenAIEngine

        for key, engine in (context.plan.engines if context.plan is not None else {}).items():
            if issubclass(engine.cls, OpenAIEngine):
                yield _ask(f"engine {key}", engine.config)


def _ask(name: str, config: Any) -> HealthReport:
    from cort_openai.endpoint import Endpoint

    async def models() -> list[str]:
        async with Endpoint(config.url, config.key_variable, retries=1) as endpoint:
            return [str(card["id"]) for card in (await endpoint.get("/models"))["data"]]

    try:
        served = asyncio.run(models())
    except CortError as error:
        return HealthReport(name, "broken", error.message, error.hint or "look at the server's own log")
    listed = ", ".join(served) or "nothing"
    if not served or (config.served is not None and config.served not in served):
        text = f"{config.url} serves {listed}, not {config.served or 'a model'}"
        return HealthReport(name, "broken", text, f"--set engines.{name.removeprefix('engine ')}.served=…")
    return HealthReport(name, "good", f"{config.url} serves {listed}")
