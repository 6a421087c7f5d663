"""Makes the plan: resolves a recipe against the plugins that are installed, and finds every fault of it at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cort_framework.errors import PluginError
from cort_framework.interfaces import Stage, Trainer
from cort_framework.recipe.plan import Plan, PlannedStage
from cort_framework.recipe.settings import LaunchSettings, M, Recipe, RolloutSettings, StageTable, validated
from cort_framework.recipe.tables import Key, Problem, Table, explain, merge, nearest, refuse
from cort_framework.registry import Registry, Resolved, absent_because, check_requirements, default_registry

SECTIONS = {
    "tasks": "task-source",
    "tools": "tool",
    "hints": "hint-injector",
    "filters": "filter",
    "rewards": "reward-function",
}
"""The keyed tables of a recipe that a stage's Config may refer to by a field of the same name, and their kinds."""


def make_plan(recipe: Recipe, registry: Registry | None = None) -> Plan:
    """Resolves every name, checks every plugin's settings and requirements.

    Raises ``RecipeError`` with all faults at once; its cause is the first plugin failure among them.
    """
    planner = _Planner(recipe, registry or default_registry())
    plan = planner.plan()
    if planner.problems:
        raise refuse(recipe.source, planner.problems)
    return plan


def plan_problems(recipe: Recipe, registry: Registry | None = None) -> list[Problem]:
    """What ``make_plan`` would complain of."""
    planner = _Planner(recipe, registry or default_registry())
    planner.plan()
    return planner.problems


class _Planner:
    """Goes on after a fault, so that all of them are found; what it could not resolve is left out."""

    def __init__(self, recipe: Recipe, registry: Registry) -> None:
        self.recipe = recipe
        self.registry = registry
        self.problems: list[Problem] = []
        self.resolved: dict[str, dict[str, Resolved]] = {"engines": {}, "executors": {}}

    def plan(self) -> Plan:
        recipe = self.recipe
        for section in SECTIONS:
            self.resolved[section] = self._section(section)
        model = self._model(recipe.model, ("model",)) if recipe.model is not None else None
        stages: list[PlannedStage] = []
        last: str | None = None
        for index, table in enumerate(recipe.stage):
            if table.skip:
                continue
            earlier = [s.name for s in recipe.stage[:index] if not s.skip]
            planned = self._stage(index, table, model, last, earlier)
            if planned is not None:
                stages.append(planned)
                if planned.stage.cls.produces_checkpoint:
                    last = planned.name
        return Plan(
            recipe=recipe,
            model=model,
            weights={key: table.weight for key, table in recipe.rewards.items()},
            stages=tuple(stages),
            **self.resolved,
        )

    # --- keyed tables -----------------------------------------------------------------------------------------
    def _section(self, section: str) -> dict[str, Resolved]:
        found = {}
        for key, table in self._tables(section).items():
            at: Key = ("rollout", "tools", key) if section == "tools" else (section, key)
            if isinstance(table, Mapping):
                options = dict(table)
                name = options.pop("use", key)
            else:
                options = dict(table.model_extra or {})
                name = table.use or getattr(table, "source", key)
            name_at = (*at, "source") if section == "tasks" else at
            resolved = self._resolve(SECTIONS[section], key, name, options, name_at, at)
            if resolved is not None:
                found[key] = resolved
        return found

    def _tables(self, section: str) -> Mapping[str, Any]:
        tables: Mapping[str, Any] = (
            self.recipe.rollout.tools if section == "tools" else getattr(self.recipe, section)
        )
        return tables

    def _resolve(
        self, kind: str, key: str, name: Any, options: Table, at: Key, options_at: Key | None = None
    ) -> Resolved | None:
        """The plugin called ``name``, complained of at ``at``, with its settings checked at ``options_at``."""
        if not isinstance(name, str):
            self._complain(Problem((*at, "use"), f"input should be a plugin's name, not {name!r}"))
            return None
        try:
            provider = self.registry.resolve(kind, name)
            check_requirements(provider.cls, f"{kind} '{provider.name}' ({provider.distribution})")
        except PluginError as error:
            self._complain(Problem(at, error.message, error.hint, error.__cause__))
            return None
        model = provider.cls.Config
        try:
            config = validated(model, options)
        except ValidationError as error:
            also = StageTable.model_fields if kind == "stage" else ()
            for problem in explain(error, model, options, at if options_at is None else options_at, also):
                self._complain(problem)
            return None
        return Resolved(kind, key, provider.cls, config, provider.distribution, provider.version)

    # --- models -----------------------------------------------------------------------------------------------
    def _model(self, name: str, at: Key) -> str | None:
        """A folder, a hub id, or a name that a plugin gives, as a folder or a hub id."""
        try:
            shipped = self.registry.model(name)
        except PluginError as error:
            self._complain(Problem(at, error.message, error.hint))
            return None
        if shipped is not None:
            return str(shipped)
        folder = Path(name).expanduser()
        if os.path.isdir(folder):  # which knows that a path too long for one is none
            if (folder / "config.json").is_file():
                return str(folder.resolve())
            hint = "a model folder has a config.json, as save_pretrained writes it"
            self._complain(Problem(at, f"the folder {name} holds no model", hint))
        elif re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not os.path.isdir(folder.parent):
            return name
        else:
            self._complain(self._no_model(name, at))
        return None

    def _no_model(self, name: str, at: Key) -> Problem:
        text = f"there is no model {name!r}{nearest(name, sorted(self.registry.models()))}"
        for plugin, failure in self.registry.suspects("", "cort_models"):
            fault = absent_because(text, plugin, failure)
            return Problem(at, fault.message, fault.hint, fault.__cause__)
        hint = "give a model folder, a hub id (owner/name) or the name of a model that a plugin ships"
        return Problem(at, text, self._if_skipped(name) or hint)

    def _if_skipped(self, name: str) -> str | None:
        return (
            "the stage of this name is skipped"
            if name in [s.name for s in self.recipe.stage if s.skip]
            else None
        )

    # --- stages -----------------------------------------------------------------------------------------------
    def _stage(
        self, index: int, table: StageTable, model: str | None, last: str | None, earlier: list[str]
    ) -> PlannedStage | None:
        at: Key = ("stage", index)
        stage = self._resolve(
            "stage", table.name, table.kind, dict(table.model_extra or {}), (*at, "kind"), at
        )
        rollout = self._rollout(table, at)
        launch = self._with_own(self.recipe.launch, table.launch, (*at, "launch"))
        canaries = self._with_own(self.recipe.canaries, table.canaries, (*at, "canaries"))
        if rollout is None or launch is None or canaries is None:
            return None
        engine = self._named_or_plugin("engine", rollout.engine, self._rollout_key(index, "engine"))
        executor = self._named_or_plugin("executor", rollout.executor, self._rollout_key(index, "executor"))
        if stage is None:
            return None
        trainer = self._trainer(table, stage.cls, at)
        if trainer is None:
            launch = LaunchSettings()
        elif launch.several:
            self._check_launch(trainer, launch, rollout, index)
        uses = {
            section: self._names(section, getattr(stage.config, section), earlier, at)
            for section in (*SECTIONS, "data")
            if section in type(stage.config).model_fields
        }
        if stage.cls.produces_tasks and table.name in self.recipe.tasks:
            text = f"the tasks of stage '{table.name}' and of [tasks.{table.name}] have one name"
            self._complain(Problem((*at, "name"), text, "give the stage another"))
        if table.model in earlier:
            self._check_makes_checkpoint(table.model, (*at, "model"))
            model, model_from = None, table.model
        elif table.model is not None:
            model, model_from = self._model(table.model, (*at, "model")), None
        elif last is not None:
            model, model_from = None, last
        else:
            model_from = None
            if self.recipe.model is None and stage.cls.needs_model:
                hint = 'give the recipe one: model = "owner/name"'
                self._complain(Problem(at, "there is no model to start from", hint))
        if engine is None or executor is None:
            return None
        planned = PlannedStage(
            table.name,
            stage,
            trainer,
            engine,
            executor,
            rollout,
            launch,
            canaries,
            model,
            model_from,
            uses,
            table={},
        )
        return replace(planned, table=self._table(planned, table.model or self.recipe.model))

    def _table(self, stage: PlannedStage, model_name: str | None) -> Table:
        return {
            "name": stage.name,
            "stage": stage.stage.to_table(),
            "trainer": stage.trainer.to_table() if stage.trainer else None,
            "engine": stage.engine.to_table(),
            "executor": stage.executor.to_table(),
            "rollout": stage.rollout.model_dump(mode="json"),
            "prompt": self.recipe.prompts.get(stage.rollout.prompt),
            "model": model_name if stage.model else None,  # not its folder: a checkout may move
            "model_from": stage.model_from,
            "seed": self.recipe.seed,
            "deterministic": self.recipe.deterministic,
            "weights": {
                key: self.recipe.rewards[key].weight
                for key in stage.uses.get("rewards", ())
                if key in self.recipe.rewards
            },
            "data": list(stage.uses.get("data", ())),
            # how a training is shared out does not change it; but sharded, its checkpoints have another form
            **({"sharding": stage.launch.sharding} if stage.launch.sharding else {}),
            **({"canaries that filter": sieves} if (sieves := list(stage.canaries.sieves)) else {}),
            **{
                section: {
                    key: self.resolved[section][key].to_table()
                    for key in stage.uses.get(section, ())
                    if key in self.resolved[section]
                }
                for section in SECTIONS
            },
        }

    def _check_makes_checkpoint(self, name: str, at: Key) -> None:
        if self._makes(name, "produces_checkpoint") is False:
            self._complain(Problem(at, f"stage '{name}' makes no checkpoint"))

    def _makes(self, name: str, what: str) -> bool | None:
        """What the kind of that stage says; ``None`` where it is not known, which is complained of at that stage."""
        kind = next(s.kind for s in self.recipe.stage if s.name == name)
        with suppress(PluginError):
            return bool(getattr(self.registry.resolve("stage", kind).cls, what))
        return None

    def _rollout(self, table: StageTable, at: Key) -> RolloutSettings | None:
        base = self.recipe.rollout.settings.model_dump()
        try:
            settings = validated(RolloutSettings, {**base, **table.rollout})
        except ValidationError as error:
            self.problems += explain(error, RolloutSettings, {**base, **table.rollout}, (*at, "rollout"))
            return None
        if settings.prompt not in self.recipe.prompts:
            text = f"no prompt is called {settings.prompt!r}{nearest(settings.prompt, list(self.recipe.prompts))}"
            self._complain(Problem(self._rollout_key(at[1], "prompt"), text))
        return settings

    def _with_own(self, recipes: M, own: Table, at: Key) -> M | None:
        """Settings of the recipe with a stage's own over them."""
        data = merge(recipes.model_dump(), own)
        try:
            return validated(type(recipes), data)
        except ValidationError as error:
            self.problems += explain(error, type(recipes), data, at)
            return None

    def _check_launch(
        self, trainer: Resolved, launch: LaunchSettings, rollout: RolloutSettings, index: int
    ) -> None:
        own = self.recipe.stage[index].launch
        at: Key = ("stage", index, "launch") if own else ("launch",)
        assert issubclass(trainer.cls, Trainer)
        if trainer.cls.launcher is None:
            text = f"trainer '{trainer.key}' runs in one process only"
            self._complain(
                Problem(at, text, f"give stage '{self.recipe.stage[index].name}' launch.processes = 1")
            )
        rounds = trainer.cls(trainer.config).rollouts_per_step
        if launch.world > 1 and rounds * rollout.batch_timeout_s >= launch.timeout_s:
            batches = "a batch" if rounds == 1 else f"{rounds} batches"
            text = (
                f"the processes wait {launch.timeout_s:g} s for one another (timeout_s), but {batches} of rollouts in "
                f"stage '{self.recipe.stage[index].name}' may take {rounds * rollout.batch_timeout_s:g} s"
            )
            self._complain(Problem(at, text, "raise launch.timeout_s, or lower rollout.batch_timeout_s"))

    def _rollout_key(self, index: int | str, setting: str) -> Key:
        """Where a setting of a stage's rollouts comes from."""
        own = isinstance(index, int) and setting in self.recipe.stage[index].rollout
        return ("stage", index, "rollout", setting) if own else ("rollout", setting)

    def _named_or_plugin(self, kind: str, key: str, at: Key) -> Resolved | None:
        """An engine or executor: a key of ``[engines]``, or a plugin's name with the default options."""
        section = f"{kind}s"
        if key in self.resolved[section]:
            return self.resolved[section][key]
        tables: Mapping[str, Table] = getattr(self.recipe, section)
        options = dict(tables.get(key, {}))
        name = options.pop("use", key)
        name_at = (section, key) if key in tables else at
        resolved = self._resolve(kind, key, name, options, name_at, (section, key))
        if resolved is not None:
            self.resolved[section][key] = resolved
        return resolved

    def _trainer(self, table: StageTable, stage: type[Stage], at: Key) -> Resolved | None:
        name = table.trainer or stage.default_trainer
        if name is not None:
            name_at = (*at, "trainer") if table.trainer else at
            return self._resolve("trainer", name, name, dict(table.options), name_at, (*at, "options"))
        if table.options:
            self._complain(
                Problem((*at, "options"), f"stage kind '{table.kind}' has no trainer to give options to")
            )
        return None

    def _names(self, section: str, value: Any, earlier: list[str], at: Key) -> tuple[str, ...]:
        """The keys that a reference names, each of them checked."""
        known = earlier if section == "data" else list(self._tables(section))
        if section == "tasks":
            known += [stage for stage in earlier if self._makes(stage, "produces_tasks") is True]
        if value is None:
            return () if section == "data" else tuple(known)
        if isinstance(value, Mapping):
            strings = all(isinstance(v, str) for v in value.values())
            names = tuple(value.values() if strings else value)
        else:
            names = (value,) if isinstance(value, str) else tuple(value)
        where = {"data": "earlier stage", "tools": "[rollout.tools] table"}.get(section, f"[{section}] table")
        for name in names:
            if name not in known:
                text = f"no {where} is called {name!r}{nearest(name, known)}"
                self._complain(Problem((*at, section), text, self._if_skipped(name)))
        return names

    def _complain(self, problem: Problem) -> None:
        """Once a place and fault: an engine that every stage uses is complained of once."""
        if all((p.key, p.text) != (problem.key, problem.text) for p in self.problems):
            self.problems.append(problem)
