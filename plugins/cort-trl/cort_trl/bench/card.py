"""What a device can compute at most, and what a model computes for a token: together, model FLOP utilisation."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from cort_trl.bench.shapes import Shape

PEAKS = {
    "B200": 2250,
    "H200": 989,
    "GH200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H800": 989,
    "A100": 312,
    "A800": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "A10G": 70,
    "A10": 125,
    "A6000": 155,
    "RTX 6000 Ada": 364,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
"""Dense bfloat16 TFLOP/s by the makers' datasheets, the first name that is part of the card's."""


def peak(dtype: str) -> tuple[float, str]:
    """FLOP/s that count as all, and where the figure is from: the datasheet of a known card in bfloat16, else the best of
    five large matrix products here and now."""
    import torch

    on_gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if on_gpu else "this processor"
    if on_gpu and dtype == "bfloat16":
        for known, teraflops in PEAKS.items():
            if known in name:
                return teraflops * 1e12, f"{name}: {teraflops} TFLOP/s in dense bfloat16, by its datasheet"
    size = 8192 if on_gpu else 1024
    a = torch.randn(size, size, dtype=getattr(torch, dtype), device="cuda" if on_gpu else "cpu")
    times = []
    for _ in range(6):
        begun = perf_counter()
        a @ a
        if on_gpu:
            torch.cuda.synchronize()
        times.append(perf_counter() - begun)
    found = 2 * size**3 / min(times[1:])
    return (
        found,
        f"{name}: {found / 1e12:.3g} TFLOP/s in {dtype}, measured on a product of {size} × {size} matrices",
    )


def forward(shape: Shape, lengths: Sequence[int], heads: Sequence[int] | None = None) -> float:
    """FLOPs of reading sequences of these lengths, two to a multiplication with an addition.

    A token costs twice the parameters of the layers; its attention ``4 × layers × hidden`` for each key that it sees, which
    is half its sequence in the mean. The output head costs twice its parameters for each token that it is asked for:
    ``heads`` of each sequence, all of them where it is not given. A backward pass costs twice a forward pass; what
    gradient checkpointing computes again is not counted: it is no work of the model's.
    """
    kv = shape.hidden // shape.heads * shape.kv_heads
    layer = 2 * shape.hidden**2 + 2 * shape.hidden * kv + 3 * shape.hidden * shape.intermediate
    total = 0.0
    for n, asked in zip(lengths, heads or lengths, strict=True):
        total += 2 * shape.layers * layer * n
        total += 4 * shape.layers * shape.hidden * n * (n + 1) / 2
        total += 2 * shape.hidden * shape.vocabulary * asked
    return total
