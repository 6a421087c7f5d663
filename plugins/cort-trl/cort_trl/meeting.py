"""``python -m cort_trl.meeting``, under ``torch.distributed.run``: each process gives its number, and all must get the sum."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

from cort_framework.training.rank import end_with_parent

PATIENCE_S = 60


def main() -> None:
    end_with_parent()
    import torch
    from torch import distributed

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend = "nccl" if on_gpu else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(seconds=PATIENCE_S))
    try:
        rank, world = distributed.get_rank(), distributed.get_world_size()
        number = torch.tensor([float(rank)], device=device)
        distributed.all_reduce(number)
        if number.item() != world * (world - 1) / 2:
            sys.exit(f"Error: the sum over {world} processes is {number.item():g}")
        if rank == 0:
            print(f"met {world} processes through {backend}, on {device.type}", flush=True)
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
