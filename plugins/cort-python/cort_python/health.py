"""What ``cort doctor`` tries of Python sessions: that they start, that their walls hold, that they end in time."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cort_framework import CortError, HealthReport, ToolCall
from cort_python.client import open_files
from cort_python.isolation.attacks import AIMS, ATTACKS, Attack
from cort_python.isolation.hangs import HANGS
from cort_python.isolation.policy import LAYERS, REMEDY, WHAT, Layer, State
from cort_python.isolation.settings import IsolationConfig
from cort_python.isolation.trials import Trial, opened, run_attacks, run_hangs, session
from cort_python.tool import PythonTool

if TYPE_CHECKING:
    from cort_framework.recipe.plan import Plan

TRIED_HANGS = ("an empty loop", "a loop that has switched interrupts off", "a program that does not end")
"""The others that ``cort tools check`` tries take a quarter of a minute more."""
SLACK_S = 5.0
"""A hang has to end; how exactly in time it does is measured where nothing else is at work."""


THREADS = (
    "import os\ntask = '/proc/self/task'\n6 * 7, len(os.listdir(task)) if os.path.isdir(task) else 'some'"
)
"""A cell whose answer is known, and how many threads its process has, where the system says so."""


def look(plan: Plan | None) -> Iterator[HealthReport]:
    """With the settings of the plan's ``python`` tool, where it has one."""
    tools = plan.tools.values() if plan is not None else ()
    config = next((t.config for t in tools if issubclass(t.cls, PythonTool)), PythonTool.Config())
    assert isinstance(config, PythonTool.Config)
    yield from look_at(config)


def look_at(config: PythonTool.Config) -> Iterator[HealthReport]:
    try:
        yield asyncio.run(_session(config))
    except (CortError, TimeoutError) as error:
        hint = getattr(error, "hint", None) or "its own words above say why"
        yield HealthReport("session", "broken", f"no Python session starts: {error}", hint)
        return
    yield _room(config)
    if not PythonTool(config).forks:
        fix = 'backend = "fork", on Linux'
        yield HealthReport(
            "isolation", "warning", "none: sessions of backend 'local' reach all that you do", fix
        )
        return
    safe = PythonTool.Config(
        timeout_s=10, memory_mb=256, scratch_mb=128, spares=0, isolation=config.isolation
    )
    states, trials = asyncio.run(run_attacks(safe.model_copy(update={"isolation": _seen(config.isolation)})))
    for layer in LAYERS:
        yield layer_line(layer, states[layer], config.isolation)
    tried = dict(zip((attack.name for attack in ATTACKS), trials, strict=True))
    for aim, attacks in AIMS.items():
        yield from aim_lines(aim, attacks, [tried[attack.name] for attack in attacks], states)
    yield HealthReport(
        "never isolated", "good", "the system's kernel, processor time between sessions, names of processes"
    )
    patient = safe.model_copy(update={"timeout_s": 1.0, "grace_s": 0.5, "isolation": _seen(config.isolation)})
    hung = asyncio.run(run_hangs(patient, SLACK_S, {name: HANGS[name] for name in TRIED_HANGS}))
    if endless := [trial.name for trial in hung if not trial.held]:
        fix = "`cort tools check` shows each; please report it"
        yield HealthReport("time", "broken", f"does not end by its limit: {', '.join(endless)}", fix)
    else:
        yield HealthReport("time", "good", f"ended by the limit: {', '.join(TRIED_HANGS)}")


def _seen(isolation: IsolationConfig) -> IsolationConfig:
    """What is required and missing is a line of its own; it is no reason not to try the rest."""
    return isolation.model_copy(update={"require": ()})


# --- sessions ---------------------------------------------------------------------------------------------------
async def _session(config: PythonTool.Config) -> HealthReport:
    quiet = config.model_copy(update={"spares": 0, "isolation": _seen(config.isolation)})
    async with asyncio.timeout(config.start_timeout_s + 60), opened(quiet) as tool:
        async with session(tool) as first:  # the template's own start
            await first.call(ToolCall("python", "1"))
        before, begun = _descriptors(), time.monotonic()
        async with session(tool) as one:
            said = (await one.call(ToolCall("python", THREADS))).text
            seconds, taken = time.monotonic() - begun, _descriptors() - before
    answer, _, threads = said.strip("()\n ").replace("'", "").partition(", ")
    if answer != "42":
        return HealthReport(
            "session", "broken", f"a session answers 6 * 7 with {said!r}", "reinstall ipykernel"
        )
    detail = f"starts and answers in {1000 * seconds:.0f} ms; takes {taken} open files of ours, has {threads} threads"
    return HealthReport("session", "good", detail)


def _descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def _room(config: PythonTool.Config) -> HealthReport:
    needed = open_files(config.max_kernels)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    detail = f"{config.max_kernels} at once (max_kernels) may take {needed} open files"
    if most == resource.RLIM_INFINITY or most >= needed:
        return HealthReport("sessions", "good", detail)
    fix = f"raise it: ulimit -Hn {needed}; or lower rollout.tools.python.max_kernels to {max(1, (most - 200) // 4)}"
    return HealthReport("sessions", "broken", f"{detail}, and {most} are allowed", fix)


# --- walls ------------------------------------------------------------------------------------------------------
def layer_line(layer: Layer, state: State, isolation: IsolationConfig) -> HealthReport:
    """Broken only where a recipe requires what is not there."""
    name = f"isolation: {layer}"
    if state.whole:
        return HealthReport(name, "good", state.detail or WHAT[layer])
    if layer in isolation.without:
        return HealthReport(name, "warning", state.detail, "take it out of isolation.without")
    required = layer in isolation.require and not state.in_force
    detail = f"{state}; without it, not so: {WHAT[layer]}" if not state.in_force else str(state)
    if required:
        return HealthReport(name, "broken", f"required, and {detail}", REMEDY[layer])
    return HealthReport(name, "warning", detail, REMEDY[layer])


def aim_lines(
    aim: str, attacks: Sequence[Attack], trials: Sequence[Trial], states: Mapping[Layer, State]
) -> Iterator[HealthReport]:
    """What got through is a warning where a layer against it is missing, which has been said; where every one of them is in
    force, the walls are not what they claim to be."""
    through = [(attack, trial) for attack, trial in zip(attacks, trials, strict=True) if not trial.held]
    if not through:
        names = ", ".join(attack.name for attack in attacks[:3]) + (", …" if len(attacks) > 3 else "")
        yield HealthReport(f"tried: {aim}", "good", f"{len(attacks)} of {len(attacks)} refused ({names})")
    for attack, trial in through:
        missing = [layer for layer in LAYERS if layer in attack.layers.split() and not states[layer].whole]
        if missing:
            fix = "; ".join(f"{layer}: {REMEDY[layer]}" for layer in missing)
            yield HealthReport(
                f"tried: {aim}", "warning", f"not isolated: {attack.name} ({trial.detail})", fix
            )
        else:
            text = f"all layers are in force, and yet: {attack.name} ({trial.detail})"
            yield HealthReport(
                f"tried: {aim}", "broken", text, "run nothing that you do not trust; please report it"
            )
