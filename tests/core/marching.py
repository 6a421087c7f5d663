"""A trainer that several processes run together, and what starts them: what ``cort_trl.launch`` is, without torch.

``python -m marching JOB MACHINE`` starts the machine's ranks. They meet by files in the job's folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pupil import Teach

from cort_framework import Checkpoint, CortError, PluginConfig, RolloutRequest, TrainContext, Weights
from cort_framework.training.launch import read_job, write_exits


class Marching(Teach):
    """Every rank rolls out its share of the tasks, ``steps`` times; rank 0 writes a step's number as the state to resume
    from. ``trouble``: what happens to the last rank in the second step."""

    name = "marching"
    launcher = "marching"

    class Config(PluginConfig):
        steps: int = 3
        trouble: str = ""
        rounds: int = 1

    config: Any

    @property
    def rollouts_per_step(self) -> int:
        return int(self.config.rounds)

    def train(self, context: TrainContext) -> Checkpoint:
        world = context.launch.world if context.launch else 1
        rank = int(os.environ.get("RANK", 0))
        state = context.folder / "training" / "step"
        state.parent.mkdir(exist_ok=True)
        first = int(state.read_text()) if state.exists() else 0
        for step in range(first, self.config.steps):
            if step == 1 and rank == world - 1:
                self.stumble(context)
            if context.rollout is not None and context.load_weights is not None:
                context.load_weights(Weights(context.model, version=step + 1))
                context.rollout([RolloutRequest(t, step) for t in context.tasks[rank::world]])
            meet(context.folder / f"launch/step-{step}", rank, world)
            if rank == 0:
                self.saved(state, step)
                context.reporter.metrics(step=step + 1, world=world)
            meet(
                context.folder / f"launch/saved-{step}", rank, world
            )  # trouble comes after the save, not during it
        folder = context.folder / "checkpoint"
        folder.mkdir(exist_ok=True)
        if rank == 0:
            (folder / "config.json").write_text(json.dumps({"knows": 5}))
        return Checkpoint(folder)

    def saved(self, state: Path, step: int) -> None:
        state.write_text(str(step + 1))

    def stumble(self, context: TrainContext) -> None:
        trouble, once = self.config.trouble, context.folder / "stumbled"
        if trouble and not once.exists():
            once.touch()
            if trouble == "error":
                raise CortError("the batch cannot be shared", "change it")
            os.kill(os.getpid(), int(trouble))


def meet(place: Path, rank: int, world: int) -> None:
    """Wait for the others."""
    place.mkdir(parents=True, exist_ok=True)
    (place / str(rank)).touch()
    limit = time.monotonic() + 30
    while len(list(place.iterdir())) < world:
        if time.monotonic() > limit:
            raise TimeoutError(f"rank {rank} waits at {place}")
        time.sleep(0.02)


def main() -> None:
    path, machine = sys.argv[1], int(sys.argv[2])
    job = read_job(path)
    launch = job.training.launch
    ranks = {
        rank: subprocess.Popen(
            [sys.executable, "-m", "cort_framework.training.rank", path],
            env={**os.environ, "RANK": str(rank)},
        )
        for rank in range(machine * launch.processes, (machine + 1) * launch.processes)
    }
    try:
        while any(process.poll() is None for process in ranks.values()):
            exits = {rank: process.poll() for rank, process in ranks.items()}
            if failed := {rank: code for rank, code in exits.items() if code}:
                write_exits(job, machine, failed)
                sys.exit(1)
            time.sleep(0.02)
        if failed := {rank: process.returncode for rank, process in ranks.items() if process.returncode}:
            write_exits(job, machine, failed)
            sys.exit(1)
    finally:
        for process in ranks.values():
            process.terminate()
        for process in ranks.values():
            process.wait(30)


if __name__ == "__main__":
    main()
