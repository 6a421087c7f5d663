"""What a run leaves on disk beside its trajectories: what was run, how far each stage came, and a lock."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from cort_framework.errors import RequestError, StageFailed
from cort_framework.interfaces import StageResult
from cort_framework.machine.device import find_device, processors
from cort_framework.recipe import Plan, PlannedStage
from cort_framework.runs.inputs import content_digest, digest
from cort_framework.store import write_json, write_text

REVIEWED = "reviewed.jsonl"
"""In a stage's folder: the trajectories that a person has accepted or rejected, one decision after another; they stand for
those of the stage."""

PARTS = ".parts"
"""Locked by every process that takes part in a run beside its first one."""
PARTS_END_S = 90
"""Seconds that they have to see that the first one is gone, and to end."""
_part: TextIO | None = None

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_TF32_OVERRIDE",
    "PYTHONHASHSEED",
)
"""Of the environment, what moves the last bits of a result."""

PATHS = ("checkpoint", "trajectories", "tasks")
"""What a stage may leave in its folder, as fields of its result."""


@dataclass
class StageRecord:
    """What is known of a stage of this run."""

    name: str
    kind: str
    key: str
    result: StageResult
    seconds: float = 0.0
    cached: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of what it left, by the field of its result: what it was when the stage ended."""

    @property
    def reviewed(self) -> Path | None:
        """What a person has decided of its trajectories, where one did."""
        return None if self.result.trajectories is None else review_of(self.result.trajectories)

    @property
    def data_key(self) -> str:
        """What a stage's key says of this one's data."""
        if self.reviewed is None:
            return self.key
        with open(self.reviewed, "rb") as file:
            return f"{self.key}, reviewed {hashlib.file_digest(file, 'sha256').hexdigest()}"


def review_of(trajectories: Path) -> Path | None:
    """Of a stage's file of trajectories, or of its folder's: the file of a person's decisions, if there is any."""
    path = trajectories.with_name(REVIEWED)
    return path if path.exists() and path.stat().st_size else None


# --- the stage's folder -----------------------------------------------------------------------------------------
def finished(stage: PlannedStage, key: str, folder: Path) -> StageRecord | None:
    """The record of a stage that is done under this key, if it is and all that it left is still there."""
    state = read_state(folder)
    if state.get("key") != key or state.get("status") != "done":
        return None
    data = state["result"]
    paths = {name: folder / data[name] if data.get(name) else None for name in PATHS}
    if any(path is not None and not path.exists() for path in paths.values()):
        return None
    result = StageResult(report=data["report"], summary=data["summary"], **paths)
    kind, seconds, digests = stage.stage.cls.name, state["seconds"], state.get("digests", {})
    return StageRecord(stage.name, kind, key, result, seconds, True, digests)


def check_intact(record: StageRecord, what: str) -> None:
    """Before something is made from what a stage of an earlier run has left. Raises ``StageFailed`` where it has changed
    since."""
    path, digest = getattr(record.result, what), record.digests.get(what)
    if record.cached and path is not None and digest is not None and content_digest(path) != digest:
        raise StageFailed(
            f"{path.name} of stage '{record.name}' is not what it was when the stage ended: {path}",
            f"put it back as it was, or make it again: --from {record.name}",
        )


def prepare(folder: Path, made_from: Mapping[str, Any], forced: bool) -> Path | None:
    """Make the stage's folder, or go on in it where it was begun from the same; another is moved aside, to the path
    returned."""
    state, key = read_state(folder), digest(made_from)
    target: Path | None = None
    if folder.exists() and (state.get("key") != key or (forced and state.get("status") == "done")):
        old = str(state.get("key", "unknown"))[:8]
        target, n = folder.with_name(f"{folder.name}~{old}"), 2
        while target.exists():
            target, n = folder.with_name(f"{folder.name}~{old}-{n}"), n + 1
        folder.rename(target)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "stage.json", {"key": key, "status": "running", "made_from": made_from})
    return target


def finish(record: StageRecord, made_from: Mapping[str, Any], folder: Path) -> None:
    """Write down that the stage is done. Paths are relative: a run's folder may be moved."""
    result = record.result

    def inside(path: Path | None) -> str | None:
        return None if path is None else str(path.relative_to(folder))

    data = {
        **{name: inside(getattr(result, name)) for name in PATHS},
        "report": result.report,
        "summary": result.summary,
    }
    state = {
        "key": record.key,
        "status": "done",
        "kind": record.kind,
        "seconds": round(record.seconds, 2),
        "result": data,
        "digests": {name: content_digest(path) for name in PATHS if (path := getattr(result, name))},
        "made_from": made_from,
    }
    write_json(folder / "stage.json", state)


def read_state(folder: Path) -> dict[str, Any]:
    """What a stage's ``stage.json`` says; nothing where there is none that can be read."""
    try:
        state = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


# --- the run's folder -------------------------------------------------------------------------------------------
@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run at a time in a folder; the lock goes with the process, however that ends. Processes that a killed run had
    started to train are waited for: they end by themselves."""
    with open(folder / ".lock", "w", encoding="utf-8") as file:
        if not _lock(file, fcntl.LOCK_EX):
            raise RequestError(
                f"another run is at work in {folder}", "wait for it, or choose another folder with --run-dir"
            )
        with open(folder / PARTS, "w", encoding="utf-8") as parts:
            limit = time.monotonic() + PARTS_END_S
            while not _lock(parts, fcntl.LOCK_EX):
                if time.monotonic() > limit:
                    raise RequestError(
                        f"processes of an earlier run still train in {folder}", "end them, then run again"
                    )
                time.sleep(0.1)
        yield


def take_part(folder: Path) -> None:
    """By a process that a run has started in its folder: until it ends, no other run begins there."""
    global _part
    _part = open(folder / PARTS, "w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
    _lock(_part, fcntl.LOCK_SH)


def _lock(file: TextIO, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def describe(plan: Plan, folder: Path) -> None:
    """What is run, with what, where: written before anything starts."""
    write_text(folder / "recipe.toml", plan.recipe.to_toml())
    write_text(folder / "plan.json", plan.to_json() + "\n")
    write_json(
        folder / "environment.json",
        {
            "python": sys.version.split()[0],
            "platform": platform.platform(),
            "processor": _processor(),
            "processors": processors(),
            "device": vars(find_device()),
            "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
            "seed": plan.recipe.seed,
            "deterministic": plan.recipe.deterministic,
            "plugins": _plugins(plan),
            "packages": _packages(),
        },
    )


def _plugins(plan: Plan) -> dict[str, str]:
    """Of each that the plan names, the version; with a hash of the source where that can change under a version."""
    sections = (plan.tasks, plan.tools, plan.hints, plan.filters, plan.rewards, plan.engines, plan.executors)
    used = [resolved for section in sections for resolved in section.values()]
    used += [r for s in plan.stages for r in (s.stage, s.trainer) if r is not None]
    return dict(sorted((f"{r.distribution}/{r.cls.name}", r.version) for r in used))


def _processor() -> str:
    """Its name: matrices are multiplied otherwise on another one."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def _packages() -> dict[str, str]:
    """What is installed, by name; read once, as it takes a second."""
    found = (d.metadata for d in importlib.metadata.distributions())
    return dict(sorted((m["Name"], m["Version"]) for m in found if m["Name"]))


def model_card(plan: Plan, records: Sequence[StageRecord], results: Sequence[Mapping[str, Any]]) -> str:
    """The run's ``README.md``: where its last checkpoint comes from and how it did; the figures are those of ``results.json``."""
    made = [r for r in records if r.result.checkpoint is not None]
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags: [cort]"]
    if plan.recipe.model is not None:
        lines.append(f"base_model: {json.dumps(plan.recipe.model)}")
    lines += ["---", f"# {plan.recipe.name}", ""]
    lines.append(f"Made from `recipe.toml` with seed {plan.recipe.seed}; `environment.json` says with what.")
    if made:
        lines.append(f"The last checkpoint is `{made[-1].name}/{made[-1].result.checkpoint.name}`.")  # type: ignore[union-attr]
    lines += _table(["stage", "kind", "seconds"], [[r.name, r.kind, f"{r.seconds:.0f}"] for r in records])
    if results:
        keys = (
            "name",
            "test_set",
            "tasks",
            "samples_per_task",
            "accuracy",
            "accuracy_ci",
            "tokens",
            "tool_calls",
        )
        lines += _table(keys, [[_cell(r.get(key)) for key in keys] for r in results])
    for title, key in (
        ("Accuracy within so many tokens", "accuracy_within"),
        ("pass@k", "pass_at_k"),
        ("Majority of k", "maj_at_k"),
    ):
        points = sorted({int(k) for r in results for k in r.get(key, ())})
        if len(points) > 1:
            rows = [
                [r["name"], r["test_set"], *(_cell(r.get(key, {}).get(str(k))) for k in points)]
                for r in results
            ]
            lines += ["", f"## {title}", *_table(["name", "test_set", *map(str, points)], rows)]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))]


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(map(_cell, value))
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
