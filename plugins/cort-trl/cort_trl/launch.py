"""``python -m cort_trl.launch JOB MACHINE``: ``torch.distributed.run`` with Accelerate's settings in its environment.

``accelerate launch`` was seen to start two worlds of one on processors without a word, so it is not used; and every rank
checks the world that it finds itself in (``world.meet``).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from cort_framework.recipe.settings import LaunchSettings
from cort_framework.runs.folder import take_part
from cort_framework.training.launch import Job, read_job, write_exits
from cort_framework.training.rank import end_with_parent

FSDP2 = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "reshard_after_forward": True,
    "state_dict_type": "FULL_STATE_DICT",
}
"""Of Accelerate's ``FSDP_...``, unless the recipe says otherwise."""


def main() -> None:
    path, machine = sys.argv[1], int(sys.argv[2])
    end_with_parent()
    job = read_job(path)
    take_part(job.training.folder.parent)
    os.environ.update(environment(job.training.launch, os.cpu_count() or 1))
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # what it would say of a dead rank, the framework says shorter
    try:
        run.run(run.parse_args(arguments(job, path, machine)))
    except ChildFailedError as error:
        write_exits(job, machine, {rank: failure.exitcode for rank, failure in error.failures.items()})
        sys.exit(1)
    except SignalException as error:  # asked to end: its ranks have been ended
        sys.exit(128 + error.sigval)


def arguments(job: Job, path: str, machine: int) -> list[str]:
    """Of ``torch.distributed.run``. One machine needs no address: its processes find a free port."""
    launch = job.training.launch
    if launch.machines == 1:
        meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    else:
        address, _, port = str(launch.address).rpartition(":")
        meeting = [f"--node-rank={machine}", f"--master-addr={address}", f"--master-port={port}"]
    return [
        f"--nproc-per-node={launch.processes}",
        f"--nnodes={launch.machines}",
        f"--rdzv-id={job.id}",
        *meeting,
        "--max-restarts=0",  # `cort run` starts it again, from the last checkpoint
        "--virtual-local-rank",  # each sees its own GPU as the first, and so do the engines that it opens
        "--shutdown-timeout=15",
        f"--log-dir={job.folder / f'elastic-{machine}'}",  # else a temporary folder that stays
        "-m",
        "cort_framework.training.rank",
        path,
    ]


def environment(launch: LaunchSettings, cores: int) -> dict[str, str]:
    """What the ranks find in their environment, Accelerate's settings above all."""
    threads = launch.threads or max(1, cores // launch.processes)
    found = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if launch.devices is not None:
        found["CUDA_VISIBLE_DEVICES"] = launch.devices
    if launch.fsdp is not None:
        found |= {"ACCELERATE_USE_FSDP": "true", **_variables("FSDP_", {**FSDP2, **launch.fsdp})}
    if launch.deepspeed is not None:
        found |= {
            "ACCELERATE_USE_DEEPSPEED": "true",
            **_variables("ACCELERATE_DEEPSPEED_", launch.deepspeed),
        }
    return found | launch.environment


def _variables(prefix: str, table: Mapping[str, Any]) -> dict[str, str]:
    return {
        prefix + key.upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in table.items()
    }


if __name__ == "__main__":
    main()
