"""What ``cort doctor`` asks of the trainers: that TRL's own import, and that processes which train together meet."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from cort_framework import HealthCheck, HealthContext, HealthReport
from cort_framework.recipe.settings import LaunchSettings
from cort_trl.launch import environment
from cort_trl.training import REQUIRES

MEETING_S = 120
"""Of which most is torch's import, in every process."""


class TrainingCheck(HealthCheck):
    """TRL's trainers, which import much that may not agree; with a recipe that trains in several processes, a sum over as
    many of them, on the devices and in the way of the training."""

    name = "training"
    requires = REQUIRES
    timeout_s = 300.0

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        import trl

        begun = time.monotonic()
        _ = trl.SFTTrainer, trl.GRPOTrainer  # imported when they are asked for
        text = f"trl {trl.__version__} imports its trainers in {time.monotonic() - begun:.1f} s"
        yield HealthReport(self.name, "good", text)
        launches = (
            {s.launch.processes: s.launch for s in context.plan.stages if s.trainer} if context.plan else {}
        )
        for launch in launches.values():
            if launch.processes > 1:
                yield meet(launch)


def meet(launch: LaunchSettings, seconds: float = MEETING_S) -> HealthReport:
    """This machine's processes of a training find each other and add up their numbers."""
    name, count = "processes together", launch.processes
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "--max-restarts=0"]
    command += [
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:0",
        "--local-addr=127.0.0.1",
        "-m",
        "cort_trl.meeting",
    ]
    surroundings = os.environ | environment(launch, os.cpu_count() or 1)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=surroundings,
        start_new_session=True,
    )
    fix = "NCCL_DEBUG=INFO shows where NCCL stands still (NCCL_P2P_DISABLE=1 often helps); without GPUs, GLOO_SOCKET_IFNAME=lo"
    begun = time.monotonic()
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # it ends its ranks, and each ends itself when it is alone
        process.communicate(timeout=60)
        return HealthReport(name, "broken", f"{count} did not meet within {seconds:g} s", fix)
    said = [line for line in printed.splitlines() if line.startswith("met ")]
    if process.returncode or len(said) != 1:
        first = next((line for line in printed.splitlines() if "Error: " in line), printed[-300:])
        return HealthReport(name, "broken", f"{count} cannot work together: {first.strip()}", fix)
    return HealthReport(name, "good", f"{said[0]} in {time.monotonic() - begun:.0f} s")
