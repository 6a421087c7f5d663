"""What ``cort doctor`` looks at without any plugin: this machine, and what a recipe takes of it."""

from __future__ import annotations

import fcntl
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cort_framework.errors import CortError
from cort_framework.forecast import Forecast, Part, StageForecast, forecast
from cort_framework.guards.calls import blame
from cort_framework.hookspecs import hookimpl
from cort_framework.interfaces import HealthCheck, HealthContext, HealthReport, HealthState
from cort_framework.machine.device import memory, processes_left, processors
from cort_framework.machine.footprint import weights_here
from cort_framework.runs.inputs import TaskSets

if TYPE_CHECKING:
    from cort_framework.recipe.plan import Plan

GIB, MIB = 1 << 30, 1 << 20
SCARCE_MEMORY, SCARCE_DISK = 2 * GIB, GIB
"""Below this much free, even the miniature may fail."""
FULL = 100 * MIB
"""A disk with less is as good as full."""
SCARCE_FILES = 1024
SCARCE_PROCESSES = 256
PROCESSES_A_ROLLOUT = 8
"""Of a rollout whose tool has a Jupyter kernel: its four threads, and what programs start."""


@hookimpl
def cort_health_checks() -> list[type[HealthCheck]]:
    return [Processors, Memory, Gpus, Folders, Limits, Needs]


# --- the machine ------------------------------------------------------------------------------------------------
class Processors(HealthCheck):
    """Processors that programs see, and those that they may use."""

    name = "processors"

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        yield HealthReport(
            "python", "good", f"{platform.python_version()} ({sys.executable}), {platform.platform()}"
        )
        usable, seen = processors(), os.cpu_count() or 1
        whole = max(1, math.floor(usable))
        detail = f"{usable:g} usable" + (f" of {seen}" if usable < seen else "")
        threads = os.environ.get("OMP_NUM_THREADS", "")
        trains = max((s.launch.processes for s in context.plan.stages), default=1) if context.plan else 1
        if threads.isdigit() and int(threads) > whole:
            text = f"{detail}, but OMP_NUM_THREADS={threads}: threads that wait for one another"
            yield HealthReport(self.name, "warning", text, f"export OMP_NUM_THREADS={whole}")
        elif (
            usable < len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()) and not threads
        ):
            text = f"{detail}, by the control group's limit, which libraries do not see: they start {seen} threads"
            yield HealthReport(self.name, "warning", text, f"export OMP_NUM_THREADS={whole}")
        elif trains > usable:
            text = f"{detail}, and the recipe trains in {trains} processes"
            yield HealthReport(self.name, "warning", text, f"--set launch.processes={whole}")
        else:
            yield HealthReport(self.name, "good", detail)


class Memory(HealthCheck):
    """Memory, and what other programs leave of it."""

    name = "memory"

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        found, free = memory(), free_memory()
        detail = f"{gib(free)} GiB free of {gib(found.bytes)}, {found.name}"
        yield HealthReport(
            self.name, "warning" if free < SCARCE_MEMORY else "good", detail, "end programs that hold memory"
        )
        shared = Path(
            "/dev/shm"
        )  # where it is a few MB, as in containers, processes that share tensors die by SIGBUS
        if shared.is_dir():
            size = shutil.disk_usage(shared)
            state: HealthState = "warning" if size.total < 256 * MIB else "good"
            detail = f"{gib(size.free)} GiB free of {gib(size.total)} in {shared}"
            yield HealthReport("shared memory", state, detail, "docker run --shm-size=8g")


class Gpus(HealthCheck):
    """What the driver says of the GPUs, and what other programs hold of their memory."""

    name = "gpu"

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        asked = "--query-gpu=name,memory.total,memory.used,driver_version"
        try:
            done = subprocess.run(
                ["nvidia-smi", asked, "--format=csv,noheader,nounits"],
                capture_output=True,
                text=True,
                timeout=30,
            )
        except FileNotFoundError:
            yield HealthReport(self.name, "good", "no NVIDIA driver here: models compute on the processor")
            return
        except (OSError, subprocess.SubprocessError) as error:
            yield HealthReport(self.name, "broken", f"nvidia-smi does not answer: {error}", _DRIVER)
            return
        if done.returncode:
            said = (done.stdout or done.stderr).strip()
            state: HealthState = "good" if "No devices were found" in said else "broken"
            yield HealthReport(self.name, state, f"nvidia-smi: {said}", _DRIVER)
        yield from gpu_lines([line.split(", ") for line in done.stdout.splitlines() if not done.returncode])


_DRIVER = "reload or reinstall the driver; in a container, give it the GPUs (docker run --gpus all)"


def gpu_lines(rows: list[list[str]]) -> Iterator[HealthReport]:
    """``rows``: name, MiB in all, MiB in use, driver."""
    for number, (name, total, used, driver) in enumerate(rows):
        taken = int(used) / int(total) if total.isdigit() and used.isdigit() else 0.0
        detail = f"{name}, {total} MiB, {used} in use, driver {driver}"
        fix = "nvidia-smi shows which processes hold it; end them, or choose with CUDA_VISIBLE_DEVICES"
        yield HealthReport(f"gpu {number}", "warning" if taken > 0.1 else "good", detail, fix)


class Folders(HealthCheck):
    """Room in the folders of runs and of temporary files, and whether they do what runs rely on."""

    name = "disk"

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        for what, folder in (("runs", context.folder), ("temporary files", Path(tempfile.gettempdir()))):
            place = existing(folder)
            fault = try_folder(place)
            if fault is not None:
                fix = "choose another with --run-dir" if what == "runs" else "choose another with TMPDIR"
                yield HealthReport(f"folder of {what}", "broken", f"{place}: {fault}", fix)
                continue
            free, files = shutil.disk_usage(place).free, os.statvfs(place)
            detail = f"{place}: {gib(free)} GiB free"
            state: HealthState = "broken" if free < FULL else "warning" if free < SCARCE_DISK else "good"
            if files.f_files and files.f_favail < 10_000:
                state, detail = "warning", f"{detail}, room for {files.f_favail} more files"
            yield HealthReport(
                f"folder of {what}", state, detail, "" if state == "good" else "make room there"
            )


class Limits(HealthCheck):
    """Open files and processes that this user may have."""

    name = "limits"

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        at_once = max((s.rollout.concurrency for s in context.plan.stages), default=0) if context.plan else 0
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = max(SCARCE_FILES, 256 + 4 * at_once)
        yield HealthReport(
            "open files",
            "good" if _reaches(hard, needed) else "warning",
            f"{_limit(soft)}, {_limit(hard)} on request; {needed} may be needed",
            f"raise it: ulimit -Hn {needed}, as root or in limits.conf",
        )
        soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        left = processes_left()
        room = min((n for n in (left, None if soft < 0 else soft) if n is not None), default=None)
        needed = SCARCE_PROCESSES + PROCESSES_A_ROLLOUT * at_once
        detail = "no limit" if room is None else f"room for {room}, threads included"
        if room is None or room >= needed:
            yield HealthReport("processes", "good", detail)
            return
        fix = f"raise it: ulimit -u {needed}" if room != left else f"docker run --pids-limit={2 * needed}"
        text = f"{detail}; {needed} may be needed" + (f" for {at_once} rollouts at once" if at_once else "")
        yield HealthReport(
            "processes", "warning", text, f"{fix}; or roll out fewer at once (rollout.concurrency)"
        )


# --- the recipe -------------------------------------------------------------------------------------------------
class Needs(HealthCheck):
    """What the recipe takes, and whether it is to be had here. Nothing without a recipe."""

    name = "recipe"
    timeout_s = 300.0  # task sets may be large

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        if context.plan is None:
            return
        plan = context.plan
        faults = list(_tools(plan)) + list(_task_sets(plan))
        yield from faults
        if not faults:
            tools = ", ".join(plan.tools) or "none"
            yield HealthReport(
                "recipe", "good", f"{plan.recipe.name}: tools ({tools}) and task sets are there"
            )
        yield from _models(plan)
        found = forecast(plan, context.folder)
        yield from _memory(found)
        yield from _disk(found, context.folder)
        for reason in dict.fromkeys(reason for stage in found.stages for reason in stage.unknown):
            names = ", ".join(s.name for s in found.stages if reason in s.unknown)
            text, _, fix = reason.partition(": fetch it: ")
            fix = f"fetch it: {fix}" if fix else "nothing need be wrong; watch the first steps"
            yield HealthReport("forecast", "warning", f"not known of {names}: {text}", fix)


def _models(plan: Plan) -> Iterator[HealthReport]:
    for model in dict.fromkeys(stage.model for stage in plan.stages if stage.model is not None):
        if Path(model).is_dir() and not weights_here(model):
            yield HealthReport("model", "broken", f"{model} holds no weights", "save_pretrained writes them")
        elif not weights_here(model):
            text = f"the weights of {model} are not on this machine: the run fetches them first"
            yield HealthReport("model", "warning", text, f"hf download {model}")


def _tools(plan: Plan) -> Iterator[HealthReport]:
    for key, resolved in plan.tools.items():
        try:
            tool = resolved.build()
            with blame("checking", tool):
                tool.preflight()
        except CortError as error:
            yield HealthReport(f"tool {key}", "broken", error.message, error.hint or "")


def _task_sets(plan: Plan) -> Iterator[HealthReport]:
    sets = TaskSets(plan)
    for name in dict.fromkeys(name for stage in plan.stages for name in stage.uses.get("tasks", ())):
        if name in plan.tasks:
            try:
                sets.digest(name)
            except CortError as error:
                yield HealthReport(f"tasks {name}", "broken", error.message, error.hint or "")


def _memory(found: Forecast) -> Iterator[HealthReport]:
    """Whether the stages fit, first on the device as it is, then beside what others hold now."""
    device = found.device
    for stage in found.stages:
        if stage.fits in ("tight", "no"):
            text = f"takes {gib(stage.memory_bytes)} GiB of {device.name}, which has {gib(device.bytes)}"
            if device.gpu and stage.processes > device.count:
                text = f"trains in {stage.processes} processes, and there are {device.count} GPUs"
            fix = (
                f"lower {', '.join(p.setting for p in stage.change)}"
                if stage.change
                else "take a smaller model"
            )
            state: HealthState = "broken" if stage.fits == "no" else "warning"
            yield HealthReport(f"stage {stage.name}", state, text, fix)
    known = [(s.memory_bytes, s) for s in found.stages if s.memory_bytes is not None]
    if not known or any(s.fits != "yes" for _, s in known):
        return
    most, stage = max(known, key=lambda pair: pair[0])
    text = f"the most is {gib(most)} GiB, for {stage.name}; {device.name} has {gib(device.bytes)}"
    if not device.gpu and most > free_memory():
        text += f", of which {gib(free_memory())} are free now"
        yield HealthReport("memory of stages", "warning", text, "end programs that hold memory")
    else:
        yield HealthReport("memory of stages", "good", text)


def _disk(found: Forecast, folder: Path) -> Iterator[HealthReport]:
    """Checkpoints are known, trajectories at most: they may be a tenth of it."""

    def total(stages: list[StageForecast], but: str = "") -> int:
        parts: list[Part] = [p for s in stages for p in s.disk or () if p.need.what != but]
        return sum(p.need.bytes for p in parts)

    known = [s for s in found.stages if s.disk is not None]
    if not known:
        return
    sure, most = total(known, but="trajectories"), total(known)
    free = shutil.disk_usage(existing(folder)).free
    text = f"{gib(sure)} GiB for checkpoints and at most {gib(most - sure)} for trajectories, of {gib(free)} free"
    state: HealthState = "broken" if sure > free else "warning" if most > free else "good"
    yield HealthReport("disk of stages", state, text, "--run-dir on a larger disk")


# --- what the above is made of ----------------------------------------------------------------------------------
def free_memory() -> int:
    """Bytes that can be had without swapping, within the limit of the control groups."""
    limit = memory().bytes
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return limit
    available = next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), limit)
    return min(available, limit)


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def try_folder(folder: Path) -> str | None:
    """What a run needs of a folder and this one does not do; ``None`` where it does all of it."""
    try:
        with tempfile.TemporaryDirectory(prefix=".cort-doctor-", dir=folder) as name:
            first, second = Path(name, "first"), Path(name, "second")
            with open(first, "wb") as file:
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with open(first, "rb") as other:
                    try:
                        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        return "a lock does not keep others out, so two runs could write into one folder"
                    except BlockingIOError:
                        pass
            first.rename(second)
            if second.read_bytes() != b"x" * 4096:
                return "what was written there reads otherwise"
    except OSError as error:
        return error.strerror or str(error)
    return None


def gib(size: int | None) -> str:
    return "–" if size is None else f"{size / GIB:,.1f}" if size >= GIB / 10 else f"{size / GIB:,.2f}"


def _limit(value: int) -> str:
    return "no limit" if value == resource.RLIM_INFINITY else f"{value:,}"


def _reaches(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
