"""``cort check tokens``: does what a rollout makes of a model's tokens agree with what is trained on?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from cort_framework.alignment import BOUNDARIES, Finding, check_tokens
from cort_framework.cli.options import echo_json, json_option, recipe_options
from cort_framework.cli.show import near, stdout, table
from cort_framework.cli.solve import find_recipe_of, recipe_of_model
from cort_framework.errors import CortError, RequestError
from cort_framework.guards.calls import blame
from cort_framework.interfaces import Engine, Tool, Trainer
from cort_framework.recipe import Plan, PlannedStage, Recipe, load_recipe, make_plan
from cort_framework.recipe.settings import validated
from cort_framework.registry import Resolved

LEVELS = {"ok": "", "note": "yellow", "fault": "red"}
"""The style of each level of finding."""


@click.group()
def check() -> None:
    """Check what a run depends on, before it runs."""


@check.command()
@click.option(
    "--model", help="A checkpoint folder, a hub id or a model's name; those of the recipe by default."
)
@recipe_of_model
@recipe_options
@click.option("--engine", help="Another engine, whose tokenizer it is.")
@json_option
def tokens(
    model: str | None,
    recipe: str | None,
    profile: str | None,
    overrides: Sequence[str],
    engine: str | None,
    as_json: bool,
) -> int:
    """Roll out a small story in the tokens of a model, and compare at every boundary (prompt, thinking, fence, output, hint,
    end): what was said, what was spliced, and what each trainer of the recipe would be fed. No weights are loaded. Exit code 1
    where something does not agree; the first difference is shown."""
    loaded = load_recipe(find_recipe_of(model, recipe), profile, overrides)
    data = loaded.model_dump(mode="json")
    data |= {"model": model} if model else {}
    data["rollout"] |= {"engine": engine} if engine else {}
    plan = make_plan(validated(Recipe, data))
    found = [s.checked() for s in subjects(plan) if model is None or s.model == plan.model]
    if not found:
        raise RequestError(
            f"the recipe '{loaded.name}' names no model whose tokens could be checked",
            "name one with --model",
        )
    if as_json:
        echo_json([c.to_json() for c in found])
    else:
        stdout().print(Group(*(line for c in found for line in c.shown())))
    return int(any(c.faults for c in found))


# --- what is checked --------------------------------------------------------------------------------------------
@dataclass
class Subject:
    """A model's tokens as one engine gives them, with the stages of a plan that use them."""

    plan: Plan
    model: str
    engine: Resolved
    stages: list[PlannedStage] = field(default_factory=list)

    def checked(self, download: bool = True) -> Checked:
        """Raises ``CortError`` where there is no tokenizer; without ``download`` also where it is not on this machine."""
        engine = self.engine.build()
        assert isinstance(engine, Engine)
        with blame("engine", engine):
            tokenizer = engine.read_tokenizer(self.model, download)
            if tokenizer is None:
                raise RequestError(
                    f"the engine '{engine.name}' (from {engine.distribution}) shows no tokenizer without a model's weights",
                    "its `read_tokenizer` would give it",
                )
            prompts = {s.rollout.prompt: self.plan.recipe.prompts[s.rollout.prompt] for s in self.stages}
            names = dict.fromkeys(name for s in self.stages for name in s.uses.get("tools", ()))
            tools = [self.plan.tools[name].build() for name in names]
            findings = check_tokens(
                tokenizer, prompts, [t for t in tools if isinstance(t, Tool)], self._trainers()
            )
        return Checked(self, findings)

    def _trainers(self) -> dict[str, Trainer]:
        """Each once, by the names of the stages that it trains in."""
        stages: dict[tuple[type, str], list[str]] = {}
        built: dict[tuple[type, str], Trainer] = {}
        for stage in self.stages:
            if stage.trainer is not None:
                trainer = stage.trainer.build()
                assert isinstance(trainer, Trainer)
                key = type(trainer), repr(getattr(trainer.config, "train_on", None))
                stages.setdefault(key, []).append(stage.name)
                built[key] = trainer
        return {", ".join(stages[key]): trainer for key, trainer in built.items()}


def subjects(plan: Plan) -> list[Subject]:
    """Every model that the plan's stages begin with, once for each engine. A checkpoint has the tokens of the model that it
    was trained from."""
    found: dict[tuple[str, str], Subject] = {}
    for stage in plan.stages:
        first = stage
        while first.model_from is not None:
            first = plan.stage(first.model_from)
        if first.model and (stage.uses.get("tasks") or stage.trainer is not None):
            key = first.model, stage.engine.key
            subject = found.setdefault(key, Subject(plan, first.model, stage.engine))
            subject.stages.append(stage)
    return list(found.values())


# --- what came of it --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Checked:
    """The findings of one subject."""

    subject: Subject
    findings: Sequence[Finding]

    @property
    def faults(self) -> list[Finding]:
        return [f for f in self.findings if f.level == "fault"]

    @property
    def name(self) -> str:
        return near(Path(self.subject.model)) if Path(self.subject.model).is_dir() else self.subject.model

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.subject.model,
            "engine": self.subject.engine.key,
            "stages": [s.name for s in self.subject.stages],
            "agree": not self.faults,
            "findings": [vars(f) for f in self.findings],
        }

    def shown(self) -> Iterator[RenderableType]:
        """A row a boundary, and one for each note and fault; then how to mend them."""
        rows = table(("boundary", "", "what was found"), (), names=3)
        rows.columns[2].no_wrap = False
        for boundary in BOUNDARIES:
            here = [f for f in self.findings if f.boundary == boundary]
            good = "; ".join(dict.fromkeys(f.text for f in here if f.level == "ok"))
            for level, text in [("ok", good)] * bool(good) + [
                (f.level, f.text + (f". {f.fix[0].upper()}{f.fix[1:]}" if f.fix else ""))
                for f in here
                if f.level != "ok"
            ]:
                rows.add_row(boundary, level, text, style=LEVELS[level])
        yield Text(f"{self.name}, by the engine {self.subject.engine.key}", "bold")
        yield rows
        yield self.verdict()

    def verdict(self) -> Text:
        """In one line."""
        if not self.faults:
            return Text(f"tokens of {self.name}: they agree at every boundary")
        first = self.faults[0]
        return Text(f"tokens of {self.name} do not agree at the {first.boundary}: {first.text}", "red")


def check_plan(plan: Plan) -> tuple[list[Checked], list[str]]:
    """What can be checked on this machine as it is, and why the rest cannot."""
    found, unknown = [], []
    for subject in subjects(plan):
        try:
            found.append(subject.checked(download=False))
        except CortError as error:
            unknown.append(error.message)
    return found, unknown
