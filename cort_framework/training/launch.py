"""A training in processes of its own: a job in the stage's folder, the trainer's launcher as one process, and what its ranks
leave behind put together again.

The launcher (``python -m LAUNCHER JOB RANK``, RANK being this machine's) knows how processes of its kind find each other;
each that it starts runs ``python -m cort_framework.training.rank JOB``. Nothing here knows of torch.
"""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cort_framework.display import Display, StageReporter
from cort_framework.errors import CortError, DeadlineExceeded, RequestError, StageFailed
from cort_framework.guards.watchdog import changes
from cort_framework.runtime import Runtime
from cort_framework.store import TrajectoryLog, write_json
from cort_framework.training import Training
from cort_framework.types import Checkpoint

JOB = "job.pickle"
STATE = "launch.json"
STOP_S = 20
"""Seconds that interrupted ranks have to end their step and save."""
START_S = 1800
"""Seconds that the ranks have beyond ``timeout_s`` to load a model and to save one."""
LOOK_S = 5.0
"""How often a folder is looked at for signs of life."""
END_S = 45
"""Seconds that the launcher has to stop its ranks before it is killed."""


@dataclass(frozen=True)
class Job:
    """What every rank gets."""

    training: Training
    seed: int
    deterministic: bool
    preload: tuple[str, ...]
    stage: str
    metrics: Path
    quiet: bool
    """Nobody is to see the progress."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def folder(self) -> Path:
        """Where the ranks leave word: results, errors, what they print."""
        return self.training.folder / "launch"


def launch(training: Training, runtime: Runtime, reporter: StageReporter) -> Checkpoint:
    """Train in ``training.launch.world`` processes and wait for them.

    Raises what a rank raised, or ``StageFailed`` naming the rank that died and how; the others are stopped, and the same
    training launched again goes on from its last checkpoint.
    """
    context = runtime.context
    quiet = reporter.display.console.quiet
    job = Job(
        training, context.seed, context.deterministic, context.preload, reporter.stage, reporter.path, quiet
    )
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    runtime.release()  # this process waits: the devices are the ranks'
    try:
        text = pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RequestError(
            f"stage '{job.stage}' cannot be sent to other processes: {error}",
            "plugins that train or roll out there have to be classes of a module that can be imported",
        ) from error
    (job.folder / ".job").write_bytes(text)
    (job.folder / ".job").rename(job.folder / JOB)
    try:
        code = _start_and_wait(job, training.launch.rank)
        if code:
            raise _failure(job, code)
        return _result(job)
    finally:
        (job.folder / JOB).unlink(missing_ok=True)  # a machine that comes late has nothing to join
        if training.job is not None:
            collect_trajectories(training.folder)


def stop_file(folder: Path) -> Path:
    """In a stage's folder: where it is, the processes that train there save at the end of their step, and end."""
    return folder / "launch" / "stop"


@contextmanager
def announced(folder: Path, machines: int) -> Iterator[None]:
    """Says in the run's folder that machine 0 is at work, and how that ended, for the other machines to see."""
    if machines == 1:
        yield
        return
    write_json(folder / STATE, {"status": "running"})
    try:
        yield
    except BaseException:
        write_json(folder / STATE, {"status": "failed"})
        raise
    write_json(folder / STATE, {"status": "done"})


def join(folder: Path, stages: Sequence[str], rank: int, timeout_s: float, display: Display) -> None:
    """Machine ``rank`` of several: take part in every training of the run in ``folder`` until machine 0 is done.

    Raises ``StageFailed`` where a training or machine 0 fails, ``DeadlineExceeded`` where nothing has happened in the
    folder for ``timeout_s``.
    """
    before, silence = _state(folder), _Silence(folder)
    joined: set[str] = set()
    while (status := _said(folder, before)) != "done":
        if status == "failed":
            raise StageFailed(
                "the run has failed on machine 0", "it says there why; start both again to go on"
            )
        for stage in stages:
            job = _find_job(folder / stage)
            if job is not None and job.id not in joined:
                joined.add(job.id)
                display.note(f"machine {rank} joins stage {job.stage}")
                if code := _start_and_wait(job, rank):
                    raise _failure(job, code)
        if silence.seconds() > timeout_s:
            raise DeadlineExceeded(
                f"nothing has happened in {folder} for {timeout_s:g} s: is machine 0 at work?"
            )
        time.sleep(0.5)


def _state(folder: Path) -> tuple[str, int] | None:
    """What machine 0 has said, and when: by the clock, which may be set, so good for telling one word from another only."""
    try:
        path = folder / STATE
        return str(json.loads(path.read_text())["status"]), path.stat().st_mtime_ns
    except (OSError, ValueError):
        return None


def _said(folder: Path, before: tuple[str, int] | None) -> str | None:
    """What machine 0 says now; how a run before this one ended is no word of it."""
    state = _state(folder)
    return None if state is None or (state == before and state[0] != "running") else state[0]


def _find_job(stage: Path) -> Job | None:
    try:
        return read_job(stage / "launch" / JOB)
    except (OSError, EOFError):
        return None


def collect_trajectories(folder: Path) -> None:
    """Put what all ranks wrote into the one file, each trajectory once (the last, where a step was made again), by sample
    and task."""
    parts = sorted(folder.glob("trajectories.rank-*.jsonl"))
    if not parts:
        return
    whole = folder / "trajectories.jsonl"
    TrajectoryLog(whole, remember=False).close()  # and so without a line that was cut off
    partial = folder / ".trajectories.partial"
    with open(partial, "wb") as target:
        for part in (whole, *parts):
            TrajectoryLog(part, remember=False).close()
            with open(part, "rb") as source:
                shutil.copyfileobj(source, target)
    partial.replace(whole)
    for part in parts:
        part.unlink()
    log = TrajectoryLog(whole)
    log.finish(log.keys())


# --- the launcher -----------------------------------------------------------------------------------------------
def _start_and_wait(job: Job, machine: int) -> int:
    """Its exit code. It is ended when it goes silent, when this process is to end, and on another machine than the first
    when the job is withdrawn there (then the code is 0)."""
    launcher = job.training.trainer.cls.launcher
    command = [sys.executable, "-m", launcher, str(job.folder / JOB), str(machine)]
    limit = job.training.launch.timeout_s + START_S
    silence = _Silence(job.training.folder, job.metrics)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(0.2)
            if machine and getattr(_find_job(job.training.folder), "id", None) != job.id:
                return 0
            if silence.seconds() > limit:
                raise DeadlineExceeded(
                    f"the training of stage '{job.stage}' has made no step for {limit:g} s"
                )
    except KeyboardInterrupt:
        stop_file(job.training.folder).touch()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        raise
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The launcher's ranks are in sessions of their own, so it is asked to end them; they also watch it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_S)


class _Silence:
    """For how long nothing has been written in some folders; a clock that is set does not matter."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._seen: object = None
        self._since = self._next = time.monotonic()

    def seconds(self) -> float:
        """May be asked at any rate: it looks once in ``LOOK_S``, for the folders may be on a server."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOOK_S
            if (seen := changes(*self._folders)) != self._seen:
                self._seen, self._since = seen, now
        return now - self._since


# --- what ranks leave behind ------------------------------------------------------------------------------------
def write_result(job: Job, rank: int, checkpoint: Checkpoint) -> None:
    write_json(job.folder / f"rank-{rank}.json", {"path": str(checkpoint.path)})


def write_error(job: Job, rank: int, error: BaseException) -> None:
    """So that machine 0 can raise it; where it came from stands in the rank's log."""
    with open(job.folder / f"rank-{rank}.log", "a", encoding="utf-8") as log:
        traceback.print_exception(error, file=log)
    if not isinstance(error, CortError):
        error = StageFailed(f"{type(error).__name__}: {error}")
    (job.folder / f"rank-{rank}.error").write_bytes(pickle.dumps((time.time(), error)))


def write_exits(job: Job, machine: int, exits: dict[int, int]) -> None:
    """By the launcher: ranks that failed, and with which code (below 0: by which signal)."""
    write_json(job.folder / f"machine-{machine}.json", exits)


def _result(job: Job) -> Checkpoint:
    for rank in range(job.training.launch.world):
        path = job.folder / f"rank-{rank}.json"
        limit = time.monotonic() + END_S
        while not path.exists() and time.monotonic() < limit:
            time.sleep(0.1)  # another machine's file takes a moment to be seen here
        if not path.exists():
            raise StageFailed(
                f"process {rank} of stage '{job.stage}' left no result", f"look into {job.folder}"
            )
        result = json.loads(path.read_text())
    return Checkpoint(Path(result["path"]))


def _failure(job: Job, code: int) -> CortError:
    """The first cause: a rank that died without a word, else the first error that a rank raised."""
    exits: dict[str, int] = {}
    for path in job.folder.glob("machine-*.json"):
        exits |= json.loads(path.read_text())
    errors: dict[int, tuple[float, CortError]] = {
        int(path.stem.removeprefix("rank-")): pickle.loads(path.read_bytes())
        for path in job.folder.glob("rank-*.error")
    }
    silent = sorted((code, int(rank)) for rank, code in exits.items() if int(rank) not in errors)
    if silent:
        code, rank = silent[0]
        how = f"by {signal.Signals(-code).name}" if code < 0 else "without a word"
        memory = "a machine that runs out of memory ends processes by SIGKILL; " if code == -9 else ""
        return StageFailed(
            f"process {rank} of {job.training.launch.world} of stage '{job.stage}' was ended {how} (exit code {code}); the "
            "others were stopped",
            f"{memory}{job.folder} holds what it printed; the same command goes on from the last checkpoint",
        )
    if errors:
        rank = min(errors, key=lambda rank: errors[rank][0])
        error = errors[rank][1]
        if rank:
            error.message = f"process {rank} of stage '{job.stage}': {error.message}"
        return error
    launcher = job.training.trainer.cls.launcher
    return StageFailed(
        f"the launcher {launcher} of stage '{job.stage}' ended with exit code {code}",
        "its own lines above say why",
    )


# --- in the processes that are started --------------------------------------------------------------------------
def read_job(path: str | Path) -> Job:
    """The file is the run's own: reading it runs what is in it."""
    job: Job = pickle.loads(Path(path).read_bytes())
    return job
