"""``cort run --dry-run``: what would run, what it would take, and whether it fits."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from cort_framework.cli.check import Checked, check_plan
from cort_framework.cli.options import echo_json
from cort_framework.cli.show import near, number, stdout, table
from cort_framework.forecast import Forecast, StageForecast, forecast
from cort_framework.machine.footprint import Device
from cort_framework.recipe import Plan, PlannedStage

GIB = 1 << 30
SHOWN_PARTS = 4
"""Of a stage's memory, the largest first."""


def show_plan(plan: Plan, run_dir: Path | None, gpu_gib: float | None, as_json: bool) -> None:
    """Print it, as tables or as JSON."""
    folder = run_dir or Path("runs") / plan.recipe.name
    device = None if gpu_gib is None else Device(f"a GPU of {gpu_gib:g} GiB", int(gpu_gib * GIB), gpu=True)
    found = forecast(plan, folder, device)
    checked, unchecked = check_plan(plan)
    if not as_json:
        return stdout().print(
            Group(*_plan(plan, folder, found), *_forecast(found), *_tokens(checked, unchecked))
        )
    echo_json(
        {
            "name": plan.recipe.name,
            "seed": plan.recipe.seed,
            "folder": str(folder),
            "device": vars(found.device),
            "tasks": found.tasks,
            "stages": [stage.to_json() for stage in found.stages],
            "canaries": {s.name: s.canaries.model_dump(mode="json") for s in plan.stages},
            "tokens": [c.to_json() for c in checked],
            "tokens_not_checked": unchecked,
        }
    )


# --- what would run ---------------------------------------------------------------------------------------------
def _plan(plan: Plan, folder: Path, found: Forecast) -> Iterator[RenderableType]:
    sets = [
        (name, f"{r.cls.name} ({r.distribution})", number(found.tasks[name]))
        for name, r in plan.tasks.items()
        if name in found.tasks
    ]
    stages = [(s.name, s.stage.cls.name, _start(s), _data(s), _rollouts(s)) for s in plan.stages]
    yield Text(f"{plan.recipe.name}, seed {plan.recipe.seed}, in {folder}", "bold")
    yield table(("task set", "source", "tasks"), sets, names=2)
    yield table(("stage", "kind", "starts from", "data", "rollouts"), stages, names=5)
    alike: dict[str, list[str]] = {}
    for stage in plan.stages:
        alike.setdefault(_canaries(stage), []).append(stage.name)
    yield from (Text(f"{', '.join(names)}: {what}", "dim") for what, names in alike.items())


def _start(stage: PlannedStage) -> str:
    if stage.model_from is not None:
        return f"stage {stage.model_from}"
    return near(Path(stage.model)) if stage.model else "nothing"


def _data(stage: PlannedStage) -> str:
    parts = (
        f"{section} {', '.join(stage.uses.get(section) or ())}"
        for section in ("tasks", "data", "hints", "filters")
    )
    return "; ".join(part for part in parts if not part.endswith(" "))


def _canaries(stage: PlannedStage) -> str:
    """Those that do more, or less, than to warn."""
    does = {"off": "is off", "filter": "filters", "stop": "stops the stage"}
    actions = {name: canary.action for name, canary in stage.canaries}
    acting = [f"{name} {does[action]}" for name, action in actions.items() if action != "warn"]
    return ", ".join(
        [*(f"canary {what}" for what in acting), "all canaries warn" if not acting else "the others warn"]
    )


def _rollouts(stage: PlannedStage) -> str:
    if not stage.uses.get("tasks"):
        return "none"
    s = stage.rollout
    samples = getattr(stage.stage.config, "samples", None)
    tools = "".join(f", tool {name}" for name in stage.uses.get("tools", ()))
    return (
        f"{stage.engine.key} on {s.executor}, prompt {s.prompt}{tools}, temperature {s.temperature:g}, top-p {s.top_p:g}, "
        f"{s.max_tokens} tokens, {s.max_tool_calls} calls"
        + (f", {samples} a task" if samples is not None else "")
    )


# --- what it would take -----------------------------------------------------------------------------------------
def _forecast(found: Forecast) -> Iterator[RenderableType]:
    device = found.device
    several = f"{device.count} × " if device.count > 1 else ""
    yield Text(f"on {several}{device.name}: {_gib(device.bytes)} GiB", "bold")
    yield table(
        (
            "stage",
            "tokens made\nat most",
            "before",
            "tokens trained\nat most",
            "longest",
            "GiB",
            "disk",
            "fits",
        ),
        [
            (
                s.name,
                number(s.made_tokens),
                number(s.made_before),
                number(s.trained_tokens),
                number(s.longest),
                _gib(s.memory_bytes),
                _gib(s.disk_bytes),
                s.fits or "–",
            )
            for s in found.stages
        ],
    )
    alike: dict[str, list[str]] = {}
    for stage in found.stages:
        if stage.memory:
            alike.setdefault(_parts(stage), []).append(stage.name)
    for parts, names in alike.items():
        yield Text(f"{', '.join(names)}: {parts}")
    large: dict[tuple[str, str], list[str]] = {}
    for stage in found.stages:
        if stage.change:
            large.setdefault(_too_large(stage, device), []).append(stage.name)
    for (what, style), names in large.items():
        yield Text(f"{', '.join(names)}: {what}", style)
    for reason in dict.fromkeys(reason for stage in found.stages for reason in stage.unknown):
        stages = [s.name for s in found.stages if reason in s.unknown]
        yield Text(f"not known: {reason} ({', '.join(stages)})", "dim")


# --- whether its tokens agree -----------------------------------------------------------------------------------
def _tokens(checked: Sequence[Checked], unchecked: Sequence[str]) -> Iterator[RenderableType]:
    for one in checked:
        yield one.verdict()
        yield from (Text(f"{f.boundary}: {f.text}", "yellow") for f in one.findings if f.level == "note")
        if one.faults:
            yield Text(f"look closer: cort check tokens --model {shlex.quote(one.subject.model)}")
    yield from (Text(f"tokens not checked: {reason}", "dim") for reason in unchecked)


def _gib(size: int | None) -> str:
    return "–" if size is None else f"{size / GIB:,.2f}" if size < 10 * GIB else f"{size / GIB:,.0f}"


def _parts(stage: StageForecast) -> str:
    parts = sorted(stage.memory or (), key=lambda p: -p.need.bytes)
    shown = ", ".join(f"{_gib(p.need.bytes)} {p.need.what} ({p.owner})" for p in parts[:SHOWN_PARTS])
    if rest := sum(p.need.bytes for p in parts[SHOWN_PARTS:]):
        shown += f", {_gib(rest)} more"
    alike = stage.processes > 1 and not stage.device.gpu
    return f"{stage.processes} processes, each {shown}" if alike else shown


def _too_large(stage: StageForecast, device: Device) -> tuple[str, str]:
    """What to change, and the style to say it in."""
    if device.gpu and stage.processes > device.count:
        return f"{stage.processes} processes, but {device.count} GPUs; change launch.processes", "red"
    changes = ", ".join(f"{p.setting} ({_gib(p.need.bytes)} GiB of {p.need.what})" for p in stage.change)
    if stage.fits == "no":
        return f"does not fit; change {changes}", "red"
    return f"fits only just; to be safe, change {changes}", "yellow"
