"""What a stage is made from: the basis of its cache key, and of saying why it is made again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from cort_framework.errors import RequestError
from cort_framework.recipe import Plan, PlannedStage
from cort_framework.runs.folder import REVIEWED, StageRecord, finished, read_state, review_of
from cort_framework.runs.inputs import TaskSets, content_digest, digest

SHOWN = 60
"""Characters of a value in a reason."""


def made_from(
    plan: Plan,
    stage: PlannedStage,
    records: Mapping[str, StageRecord],
    sets: TaskSets,
    digest_of: Callable[[Path], str],
) -> dict[str, Any]:
    """All that decides what the stage makes, as JSON: its resolved table, with each plugin's name, version and settings, and
    what its inputs hold. ``records``: at least of the stages that it builds on. ``digest_of``: a model's folder."""
    inputs: dict[str, Any] = {}
    if stage.model_from is not None:
        inputs[f"stage {stage.model_from}"] = records[stage.model_from].key
    elif stage.model:
        folder = Path(stage.model)
        inputs["model"] = digest_of(folder) if folder.is_dir() else stage.model  # a hub id stands for itself
    for name in stage.uses.get("tasks", ()):
        inputs[f"task set {name}"] = sets.digest(name)
    for name in stage.uses.get("data", ()):
        inputs[f"data of stage {name}"] = records[name].data_key
    if stage.uses.get("tools"):
        inputs["preload"] = list(plan.preload)
    return {**stage.table, "inputs": inputs}


def done(stage: PlannedStage, parts: Mapping[str, Any], folder: Path) -> StageRecord | None:
    """The record of a stage that is done. What a person has reviewed is not made again because a plugin has another version:
    the record then has the key that it was made under."""
    key = digest(parts)
    state = read_state(folder)
    if review_of(folder / REVIEWED) and _unversioned(state.get("made_from")) == _unversioned(parts):
        key = str(state.get("key"))
    return finished(stage, key, folder)


def _unversioned(made: Any) -> Any:
    if isinstance(made, Mapping):
        return {key: _unversioned(value) for key, value in made.items() if key != "version"}
    return [_unversioned(value) for value in made] if isinstance(made, list | tuple) else made


def builds_on(plan: Plan, stage: PlannedStage) -> Iterator[tuple[str, str]]:
    """The earlier stages that it takes something from, and what: the field of their result."""
    if stage.model_from is not None:
        yield stage.model_from, "checkpoint"
    yield from ((name, "trajectories") for name in stage.uses.get("data", ()))
    yield from ((name, "tasks") for name in stage.uses.get("tasks", ()) if name not in plan.tasks)


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """What has changed, one line each: ``rollout.max_tokens was 256, is 300``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from differences(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
    elif old != new:
        inputs, _, name = at.partition("inputs.")
        if name and not inputs:
            yield (
                f"{name} has changed" if old and new else f"{name} is {'new' if new else 'no input any more'}"
            )
        else:
            yield f"{at} was {_show(old)}, is {_show(new)}"


def _show(value: Any) -> str:
    text = "not there" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def check_stage(plan: Plan, name: str | None) -> None:
    """Raises ``RequestError`` where the recipe has no such stage."""
    names = [stage.name for stage in plan.stages]
    if name is not None and name not in names:
        raise RequestError(f"there is no stage '{name}'", f"the stages are: {', '.join(names)}")


# --- why --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Standing:
    """What a run would do with a stage, and why."""

    stage: str
    state: Literal["done", "goes on", "runs"]
    because: tuple[str, ...] = ()


def standings(plan: Plan, folder: Path, from_stage: str | None = None) -> list[Standing]:
    """Of each stage of the recipe, by what is in the run's folder. Reads tasks and digests models; starts nothing and
    changes nothing."""
    check_stage(plan, from_stage)
    sets, digest_of = TaskSets(plan), cache(content_digest)
    records: dict[str, StageRecord] = {}
    found: list[Standing] = []
    forced = False
    for stage in plan.stages:
        forced = forced or stage.name == from_stage
        state = read_state(folder / stage.name)
        first = dict.fromkeys(name for name, _ in builds_on(plan, stage) if name not in records)
        if first:
            before = state.get("made_from", {})
            changed = differences(before, {**stage.table, "inputs": before.get("inputs")}) if before else ()
            found.append(Standing(stage.name, "runs", (*(f"stage {n} runs first" for n in first), *changed)))
            continue
        parts = made_from(plan, stage, records, sets, digest_of)
        key = digest(parts)
        record = None if forced else done(stage, parts, folder / stage.name)
        if record is None:
            found.append(_why(stage.name, state, key, parts, from_stage if forced else None))
            continue
        records[stage.name] = record
        if record.result.tasks is not None:
            sets.add(stage.name, record.result.tasks)
        found.append(Standing(stage.name, "done"))
    return found


def _why(
    stage: str, state: Mapping[str, Any], key: str, parts: Mapping[str, Any], from_stage: str | None
) -> Standing:
    if state.get("key") == key and state.get("status") == "running":
        return Standing(stage, "goes on", ("it was stopped before its end",))
    if from_stage is not None:
        return Standing(stage, "runs", (f"--from {from_stage}",))
    if not state:
        return Standing(stage, "runs", ("it has not run yet",))
    if state.get("key") == key:
        return Standing(stage, "runs", ("what it made is not there any more",))
    changed = differences(state["made_from"], parts) if "made_from" in state else ()
    return Standing(stage, "runs", tuple(changed) or ("it is not known what it was made from",))
