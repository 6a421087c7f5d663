"""What runs on the cluster: one process with a runtime of its own, which makes one trajectory after another."""

from __future__ import annotations

from cort_framework import RolloutRequest, Trajectory
from cort_framework.executor import Prepared, RolloutJob
from cort_framework.runtime import Runtime


class Worker:
    """A Ray actor with as many threads as it makes trajectories at once; they wait, the runtime's loop works."""

    def __init__(self, seed: int, deterministic: bool, preload: tuple[str, ...]) -> None:
        self.runtime = Runtime(seed, deterministic, preload)

    def prepare(self, job: RolloutJob) -> None:
        """Open the job's plugins, those that are not open yet, and load its weights. The job's requests come later."""
        self.prepared = Prepared(job, self.runtime)

    def line(self, request: RolloutRequest) -> list[Trajectory]:
        return self.runtime.call(self.prepared.line(request))

    def close(self) -> None:
        """End kernels and engine, which may be processes of their own."""
        self.runtime.close()
