"""What ``cort doctor`` asks of torch: what it computes on, and that it computes right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cort_framework import HealthCheck, HealthContext, HealthReport
from cort_framework.machine.device import find_device

SIZE = 256
TOLERANCE = 1e-2
"""Relative, of a matrix product: far beyond what TensorFloat-32 rounds."""


class TorchCheck(HealthCheck):
    """Torch's devices: a product on each, held against one in double precision; and whether it sees the GPUs that are here."""

    name = "torch"
    requires = ("torch>=2.11", "transformers>=5.10")
    timeout_s = 120.0

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        import torch

        yield product(torch, "cpu", f"torch {torch.__version__}, {torch.get_num_threads()} threads")
        if torch.cuda.is_available():
            for number in range(torch.cuda.device_count()):
                free, total = torch.cuda.mem_get_info(number)
                built = torch.version.cuda or torch.version.hip
                bfloat16 = "with" if torch.cuda.is_bf16_supported() else "without"
                sizes = f"{free / 2**30:.0f} GiB free of {total / 2**30:.0f}"
                detail = f"{torch.cuda.get_device_name(number)}, {sizes}, {bfloat16} bfloat16, torch built for {built}"
                yield product(torch, f"cuda:{number}", detail)
        elif find_device().gpu:
            yield unseen(torch.__version__, torch.version.cuda)


def product(torch: Any, device: str, detail: str) -> HealthReport:
    """Broken where it comes out wrong, or not at all."""
    noise = torch.Generator().manual_seed(0)
    a, b = (torch.rand(SIZE, SIZE, generator=noise) for _ in range(2))
    try:
        got = (a.to(device) @ b.to(device)).double().cpu()
    except (RuntimeError, AssertionError) as error:  # memory, a driver, a build that lacks this card's code
        reason = str(error).splitlines()[0]
        return HealthReport(f"torch on {device}", "broken", f"{detail}: {reason}", _BUILD)
    exact = a.double() @ b.double()
    gap = float(((got - exact).abs() / exact.abs()).max())
    if not gap < TOLERANCE:
        return HealthReport(
            f"torch on {device}", "broken", f"{detail}: a product is wrong by {gap:.1%}", _BUILD
        )
    return HealthReport(f"torch on {device}", "good", detail)


def unseen(version: str, cuda: str | None) -> HealthReport:
    """There is a GPU, and torch does not use it."""
    why = f"is built for CUDA {cuda}, and cannot use it" if cuda else "is built for processors alone"
    fix = (
        "update the driver to one for that CUDA, or install torch for the CUDA that nvidia-smi names"
        if cuda
        else _BUILD
    )
    return HealthReport("torch on a gpu", "warning", f"there is a GPU, but torch {version} {why}", fix)


_BUILD = "install torch with the command that the selector on pytorch.org gives for this machine"
