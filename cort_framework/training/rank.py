"""``python -m cort_framework.training.rank JOB``: one of the processes that train together. ``RANK`` in its environment says which."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from cort_framework.display import Display, SilentDisplay, StageReporter
from cort_framework.guards.watchdog import OutOfMemory, watched
from cort_framework.runs.folder import take_part
from cort_framework.runtime import Runtime
from cort_framework.training.launch import Job, read_job, write_error, write_result


def main() -> None:
    """Rank 0 shows progress, writes metrics and checkpoints; all roll out, each into a file of its own."""
    end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    job, rank = read_job(sys.argv[1]), int(os.environ["RANK"])
    take_part(job.training.folder.parent)
    if rank:
        _print_into(job.folder / f"rank-{rank}.log")
    try:
        with (
            Runtime(job.seed, job.deterministic, job.preload) as runtime,
            watched(runtime.heart, OutOfMemory()),
        ):
            checkpoint = job.training.run(
                runtime, _reporter(job, rank), f"trajectories.rank-{rank}.jsonl", True
            )
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        write_error(job, rank, error)
        sys.exit(1)
    write_result(job, rank, checkpoint)


def end_with_parent() -> None:
    """A process whose starter is gone has nobody to work for."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="cort-parent").start()


def _print_into(path: Path) -> None:
    """All that this process and those that it starts print: one of them speaks to the person, and it is not this one."""
    with open(path, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


class _Mute(StageReporter):
    """Of all but rank 0: they would say the same."""

    def metrics(self, **values: float | int | str) -> None:
        pass


def _reporter(job: Job, rank: int) -> StageReporter:
    if rank:
        return _Mute(SilentDisplay(), job.metrics, job.stage)
    return StageReporter(SilentDisplay() if job.quiet else Display(), job.metrics, job.stage)


if __name__ == "__main__":
    main()
