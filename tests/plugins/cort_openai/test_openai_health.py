"""What the doctor says of a recipe's endpoints."""

from __future__ import annotations

from pathlib import Path

from openai_server import Server, running

import cort_framework as cort
from cort_openai.health import EndpointCheck


def asked(url: str, *settings: str) -> cort.HealthReport:
    overrides = ["rollout.engine=openai", f"engines.openai.url={url}", *settings]
    plan = cort.make_plan(cort.load_recipe("prompt_hint", overrides=overrides))
    (report,) = EndpointCheck().check(cort.HealthContext(Path("runs"), plan))
    return report


def test_an_endpoint_is_asked_what_it_serves() -> None:
    with running(Server()) as url:
        good = asked(url)
        assert good.state == "good" and "served-model" in good.detail
        other = asked(url, "engines.openai.served=another")
        assert other.state == "broken" and "serves served-model, not another" in other.detail


def test_a_judge_is_asked_too_and_once_for_all_that_share_it() -> None:
    with running(Server()) as url:
        chat = {"url": url, "judge": "served-model"}
        recipe = cort.load_recipe("cort_math")
        judged = ("judged-delayed-computation", "judged-result-distrust")
        hints = {**recipe.hints, **{name: {"chat": chat} for name in judged}}
        plan = cort.make_plan(recipe.model_copy(update={"hints": hints}))
        (report,) = EndpointCheck().check(cort.HealthContext(Path("runs"), plan))
    assert report.state == "good" and report.name.startswith("judge of hint-injector judged-")


def test_an_endpoint_that_is_not_there_is_broken() -> None:
    report = asked("http://127.0.0.1:1/v1")
    assert report.state == "broken" and "cannot be reached" in report.detail and "server" in report.fix


def test_without_a_recipe_nobody_is_asked() -> None:
    assert list(EndpointCheck().check(cort.HealthContext(Path("runs")))) == []
