"""What ``cort doctor`` asks of the endpoints that a recipe names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cort_framework import CortError, HealthCheck, HealthContext, HealthReport

if TYPE_CHECKING:
    from cort_framework.recipe.plan import Plan


class EndpointCheck(HealthCheck):
    """Whether a recipe's engines ``openai`` and its judges answer, and serve the model that is asked for. Nothing without a
    recipe."""

    name = "endpoint"
    requires = ("httpx>=0.28",)

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        asked = _endpoints(context.plan) if context.plan is not None else ()
        for (url, key_variable, model), who in dict(asked).items():
            yield _ask(who, url, key_variable, model)


def _endpoints(plan: Plan) -> Iterator[tuple[tuple[str, str, str | None], str]]:
    """Address, variable of the key and model, and who asks for it."""
    from cort_openai.chat import ChatSettings
    from cort_openai.engine import OpenAIEngine

    for key, engine in plan.engines.items():
        if issubclass(engine.cls, OpenAIEngine):
            yield (engine.config.url, engine.config.key_variable, engine.config.served), f"engine {key}"  # type: ignore[attr-defined]
    for section in (plan.hints, plan.filters, plan.rewards):
        for key, plugin in section.items():
            if isinstance(chat := getattr(plugin.config, "chat", None), dict):
                settings = ChatSettings(**chat)
                yield (settings.url, settings.key_variable, settings.judge), f"judge of {plugin.kind} {key}"


def _ask(who: str, url: str, key_variable: str, model: str | None) -> HealthReport:
    from cort_openai.endpoint import Endpoint

    async def models() -> list[str]:
        async with Endpoint(url, key_variable, retries=1) as endpoint:
            return [str(card["id"]) for card in (await endpoint.get("/models"))["data"]]

    try:
        served = asyncio.run(models())
    except CortError as error:
        return HealthReport(who, "broken", error.message, error.hint or "look at the server's own log")
    listed = ", ".join(served[:5]) + (", …" if len(served) > 5 else "")
    if not served or (model is not None and model not in served):
        text = f"{url} serves {listed or 'nothing'}, not {model or 'a model'}"
        return HealthReport(who, "broken", text, "name one that it serves, or let it serve this one")
    return HealthReport(who, "good", f"{url} serves {listed}")
