"""What a plan will take, stage by stage: tokens, memory a device, disk, and whether that fits.

Counts and lengths are upper bounds. What cannot be had (a model's ``config.json``, a data set that is not on this
machine, a plugin that does not say) leaves its figures blank, with the reason; nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cort_framework.errors import CortError
from cort_framework.guards.calls import blame
from cort_framework.interfaces import Engine
from cort_framework.machine.device import find_device
from cort_framework.machine.footprint import (
    Architecture,
    Device,
    Footprint,
    Need,
    Work,
    architecture,
    plus,
    times,
)
from cort_framework.recipe import Plan, PlannedStage
from cort_framework.registry import Resolved
from cort_framework.runs.inputs import TaskSets

TEMPLATE_TOKENS = 64
"""Room for what a chat template writes around the prompt."""
TRAJECTORY_BYTES = 30
"""On disk, of a token: id, log-prob and text as JSON. Measured on runs of the miniature: 20 to 29."""
ROOM = 0.92
"""Share of a device that tensors may fill, which is also what vLLM takes: the rest is for what is none, such as code, buffers
of libraries and gaps."""

Fit = Literal["yes", "tight", "no"]


@dataclass(frozen=True)
class Part:
    """One need, whose it is, and how a recipe addresses the setting that makes it smaller."""

    owner: str
    need: Need
    setting: str


@dataclass(frozen=True)
class StageForecast:
    """What one stage will take. ``None``: not known, and ``unknown`` says why."""

    name: str
    kind: str
    trajectories: int | None
    """At most."""
    longest: int | None
    """Tokens at most of one of them, or of one that it trains on."""
    made_tokens: int | None
    """Response tokens at most; what a rewind discards is generated on top of it."""
    trained_tokens: int | None
    """Tokens at most that go through the model with gradients, all passes counted."""
    made_before: int | None
    """Tokens that the stage made when it ran last in this folder: an estimate, where the settings are the same."""
    memory: Sequence[Part] | None
    """What is held at the stage's worst moment, in one process."""
    processes: int
    """That train side by side in this machine."""
    device: Device
    disk: Sequence[Part] | None
    unknown: Sequence[str]

    @property
    def memory_bytes(self) -> int | None:
        """Of one device. Processes without a GPU of their own share the machine's memory."""
        if self.memory is None:
            return None
        return sum(p.need.bytes for p in self.memory) * (1 if self.device.gpu else self.processes)

    @property
    def disk_bytes(self) -> int | None:
        return None if self.disk is None else sum(p.need.bytes for p in self.disk)

    @property
    def fits(self) -> Fit | None:
        needed = self.memory_bytes
        if needed is None:
            return None
        if self.device.gpu and self.processes > self.device.count:
            return "no"
        return (
            "yes" if needed <= ROOM * self.device.bytes else "tight" if needed <= self.device.bytes else "no"
        )

    @property
    def change(self) -> list[Part]:
        """The largest parts that a setting makes smaller, where it does not fit comfortably."""
        if self.fits in (None, "yes") or self.memory is None:
            return []
        largest: dict[str, Part] = {}
        for part in sorted(self.memory, key=lambda p: -p.need.bytes):
            if part.setting:
                largest.setdefault(part.setting, part)
        return list(largest.values())[:3]

    def to_json(self) -> dict[str, Any]:
        def parts(found: Sequence[Part] | None) -> Any:
            return found and [
                {"owner": p.owner, "what": p.need.what, "bytes": p.need.bytes, "setting": p.setting or None}
                for p in found
            ]

        return {
            "stage": self.name,
            "kind": self.kind,
            "trajectories_at_most": self.trajectories,
            "longest_at_most": self.longest,
            "tokens_made_at_most": self.made_tokens,
            "tokens_made_before": self.made_before,
            "tokens_trained_at_most": self.trained_tokens,
            "processes": self.processes,
            "memory_bytes": self.memory_bytes,
            "memory": parts(self.memory),
            "disk_bytes_about": self.disk_bytes,
            "disk": parts(self.disk),
            "fits": self.fits,
            "change": [p.setting for p in self.change],
            "unknown": list(self.unknown),
        }


@dataclass(frozen=True)
class Forecast:
    """What the whole plan will take, on one kind of device."""

    device: Device
    tasks: Mapping[str, int | None]
    """Tasks of each set that a stage uses."""
    stages: Sequence[StageForecast]


@dataclass(frozen=True)
class _Made:
    """What a stage leaves for those after it."""

    model: Architecture | str | None
    """A text is the reason why it is not known."""
    kept: int | None
    longest: int | None


def forecast(plan: Plan, folder: Path | None = None, device: Device | None = None) -> Forecast:
    """Every stage of the plan, on ``device`` (default: what this machine has). ``folder``: the run's, for what its
    stages took when they ran last. Reads task sets and ``config.json`` files; starts nothing."""
    device = device or find_device()
    prompts = _Prompts(plan)
    made: dict[str, _Made] = {}
    asleep: dict[str, list[Part]] = {}
    found = []
    for stage in plan.stages:
        one = _Forecaster(plan, stage, device, prompts, made, asleep)
        found.append(one.forecast(folder))
    names = dict.fromkeys(name for stage in plan.stages for name in stage.uses.get("tasks", ()))
    return Forecast(device, {name: prompts.count(name) for name in names}, found)


class _Prompts:
    """Counts and lengths of task sets, each read once. One that a stage chooses is at most all that it chooses from."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sets = TaskSets(plan)
        self.failed: dict[str, str] = {}
        self.chosen = {s.name: s.uses.get("tasks", ()) for s in plan.stages if s.stage.cls.produces_tasks}

    def count(self, name: str) -> int | None:
        if name in self.chosen:
            return plus(*map(self.count, self.chosen[name]))
        if name in self.failed:
            return None
        try:
            return len(self.sets[name])
        except CortError as error:
            self.failed[name] = (
                f"the task set {name} cannot be read, so lengths are without its prompts: {error.message}"
            )
            return None

    def longest(self, name: str, prompt: str) -> int | None:
        """Tokens at most of a prompt of the set: a token is at least one byte."""
        if name in self.chosen:
            found = [self.longest(source, prompt) for source in self.chosen[name]]
            return max([n for n in found if n is not None], default=None)
        if self.count(name) is None:
            return None
        template = self.plan.recipe.prompts[prompt]
        frame = len(template.replace("{problem}", "").encode()) + TEMPLATE_TOKENS
        return frame + max(len(task.prompt.encode()) for task in self.sets[name])


class _Forecaster:
    """One stage; adds to ``made`` and ``asleep`` what those after it will find."""

    def __init__(
        self,
        plan: Plan,
        stage: PlannedStage,
        device: Device,
        prompts: _Prompts,
        made: dict[str, _Made],
        asleep: dict[str, list[Part]],
    ) -> None:
        self.plan, self.stage, self.device, self.prompts = plan, stage, device, prompts
        self.made, self.asleep = made, asleep
        self.unknown: list[str] = []

    def forecast(self, folder: Path | None) -> StageForecast:
        stage = self.stage
        work = self._work()
        own = self._ask(stage.stage, work) or Footprint(None, None, None, None)
        sources = [self.made[name].longest for name in stage.uses.get("data", ()) if name in self.made]
        longest = max([n for n in (work.longest, own.longest, *sources) if n is not None], default=None)

        training = None
        if stage.trainer is not None:
            training = self._ask(
                stage.trainer, replace(work, sequences=own.trains_on, longest=longest), memory=True
            )
        trajectories = own.trajectories
        placement = None  # of an engine that samples for a training; by its name in the trainer's settings
        if training is not None and stage.trainer is not None and training.trajectories != 0:
            trajectories = training.trajectories
            placement = getattr(stage.trainer.config, "placement", "disk")
        rolling = None
        if trajectories != 0:
            at_once = stage.rollout.concurrency
            rolling = self._ask(
                stage.engine,
                replace(
                    work,
                    model=(training.model if training and placement else None) or work.model,
                    sequences=trajectories,
                    at_once=at_once if trajectories is None else min(at_once, trajectories),
                    lent=placement == "shared",
                ),
                memory=True,
            )
        memory = self._memory(training, rolling, trajectories != 0, placement)
        disk = self._disk(own, training, trajectories, work.longest)
        model = (training and training.model) or own.model or self._model()
        self.made[stage.name] = _Made(model, own.kept, longest)
        return StageForecast(
            name=stage.name,
            kind=stage.stage.cls.name,
            trajectories=trajectories,
            longest=longest,
            made_tokens=times(trajectories, stage.rollout.max_tokens),
            trained_tokens=training.trained_tokens if training is not None else 0,
            made_before=_made_before(folder, stage.name),
            memory=memory,
            processes=stage.launch.processes,
            device=self.device,
            disk=disk,
            unknown=tuple(dict.fromkeys(self.unknown)),
        )

    # --- what is asked ----------------------------------------------------------------------------------------
    def _work(self) -> Work:
        stage, launch = self.stage, self.stage.launch
        shape = self._model()
        model = shape if isinstance(shape, Architecture) else None
        if isinstance(shape, str):
            self.unknown.append(shape)
        names = stage.uses.get("tasks", ())
        prompts = [self.prompts.longest(name, stage.rollout.prompt) for name in names]
        sources = [source for name in names for source in self.prompts.chosen.get(name, (name,))]
        self.unknown += [self.prompts.failed[name] for name in sources if name in self.prompts.failed]
        longest: int | None = None
        if names:
            longest = max([p for p in prompts if p is not None], default=0) + stage.rollout.max_tokens
            longest = min(longest, model.context) if model is not None else longest
        return Work(
            model=model,
            device=self.device,
            tasks={name: self.prompts.count(name) for name in names},
            data=plus(*(self.made[n].kept if n in self.made else None for n in stage.uses.get("data", ()))),
            longest=longest,
            processes=launch.world,
            sharded=launch.sharding is not None,
        )

    def _model(self) -> Architecture | str | None:
        """Of the model that the stage starts from."""
        if self.stage.model_from is not None:
            return self.made[self.stage.model_from].model
        if self.stage.model is None:
            return None
        try:
            return architecture(self.stage.model)
        except CortError as error:
            return f"{error.message}: {error.hint}" if error.hint else error.message

    def _ask(self, plugin: Resolved, work: Work, memory: bool = False) -> Footprint | None:
        instance = plugin.build()
        with blame("planning", instance):
            answer: Footprint | None = instance.footprint(work)
        if answer is None:
            self.unknown.append(f"{plugin.kind} '{plugin.key}' does not say what it takes")
        elif memory and not answer.memory and work.model is not None:
            self.unknown.append(f"{plugin.kind} '{plugin.key}' does not say what memory it takes")
        return answer

    # --- what comes of it -------------------------------------------------------------------------------------
    def _memory(
        self, training: Footprint | None, rolling: Footprint | None, rolls_out: bool, placement: str | None
    ) -> list[Part] | None:
        """The larger of two phases, rollouts and training: one after the other, or, with a placement, in turns. Then each
        finds what the other holds, unless the engine sleeps meanwhile (``colocate``) or has GPUs of its own (``separate``).
        Beside it, what the engines of earlier stages hold while they sleep."""
        stage, engine = self.stage, self.stage.engine.key
        trains = self._parts("trainer", f"stage.{stage.name}.options", training)
        rolls = self._parts("engine", f"engines.{engine}", rolling)
        others = [part for key, parts in self.asleep.items() if key != engine for part in parts]
        sleeps = issubclass(self.stage.engine.cls, Engine) and self.stage.engine.cls.sleep is not Engine.sleep
        at_rest = [p for p in rolls if p.need.held == "always" or (not sleeps and p.need.held == "awake")]
        before = self.asleep.get(engine, [])
        if rolls:
            self.asleep[engine] = at_rest
        if (stage.trainer is not None and not trains) or (rolls_out and not rolls):
            return None
        if placement == "separate" and self.device.gpu:
            phases = [rolls, trains]
        elif placement is None:
            phases = [rolls, [*trains, *(at_rest if rolls else before)]]
        else:
            aside = at_rest if placement == "colocate" else [p for p in rolls if p.need.held != "working"]
            phases = [[*rolls, *(p for p in trains if p.need.held != "working")], [*trains, *aside]]
        worst = max(phases, key=lambda parts: sum(p.need.bytes for p in parts))
        return [*worst, *others]

    def _parts(self, owner: str, path: str, footprint: Footprint | None) -> list[Part]:
        needs: Iterable[Need] = footprint.memory if footprint is not None else ()
        return [Part(owner, need, self._setting(path, need)) for need in needs]

    def _setting(self, path: str, need: Need) -> str:
        if need.change.startswith(("rollout.", "launch.")):
            return f"stage.{self.stage.name}.{need.change}"
        return f"{path}.{need.change}" if need.change else ""

    def _disk(
        self, own: Footprint, training: Footprint | None, trajectories: int | None, longest: int | None
    ) -> list[Part] | None:
        lines = times(trajectories, longest, TRAJECTORY_BYTES)
        if lines is None or (self.stage.trainer is not None and (training is None or not training.disk)):
            return None
        needs = [*own.disk, *(training.disk if training is not None else ())]
        if lines:
            needs.append(Need("trajectories", lines))
        return [Part(self.stage.name, need, "") for need in needs]


def _made_before(folder: Path | None, stage: str) -> int | None:
    """What ``stage.json`` says of the last run."""
    if folder is None:
        return None
    try:
        state: Mapping[str, Any] = json.loads((folder / stage / "stage.json").read_text(encoding="utf-8"))
        tokens = state["result"]["summary"]["tokens"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return int(tokens) if isinstance(tokens, int | float) else None
