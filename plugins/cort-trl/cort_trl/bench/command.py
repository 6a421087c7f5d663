"""The commands. Each part runs in processes of its own, in turns with its baseline, and has a deadline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import click

import cort_framework as cort
from cort_framework.cli.bench.table import Row, report
from cort_framework.cli.options import echo_json, echo_table, json_option

OURS: dict[str, dict[str, Any]] = {"": {}, "packed": {"packing": True}}
PARTS = {
    "sft": ("TRL, our batches", {"in_order": True, "padding_free": False}),
    "order": ("TRL, its order", {"in_order": False, "padding_free": False}),
    "padding-free": ("TRL padding_free", {"in_order": True, "padding_free": True}),
    "grpo": ("TRL rollout_func", {}),
}
"""What TRL alone is given; ours does the same with the defaults, and once more with packing."""


@click.command()
@click.argument("parts", nargs=-1)
@click.option("--rounds", default=3, show_default=True, help="Times that ours and TRL alone take turns.")
@click.option("--shape", default="small", show_default=True, help="Of the model: tiny, small, 1.5b.")
@click.option("--tokens", default=250, show_default=True, help="Of a trajectory, in the mean.")
@click.option("--batch", default=16, show_default=True, help="Trajectories a step.")
@click.option("--micro", default=4, show_default=True, help="Trajectories in a forward pass.")
@click.option("--steps", default=3, show_default=True, help="Of each training.")
@click.option("--threads", default=1, show_default=True, help="Processor threads of each training.")
@json_option
def train(
    parts: tuple[str, ...],
    rounds: int,
    shape: str,
    tokens: int,
    batch: int,
    micro: int,
    steps: int,
    threads: int,
    as_json: bool,
) -> None:
    """Train through the framework and the same on TRL alone: tokens a second and peak memory, as ratios.

    From the call to the end of the last step, with the loading of the model. A second is one of processor time where there
    is no GPU.

    PARTS: sft (the same batches), order (TRL's own order), padding-free (TRL's), grpo; all of them if none is named.
    Exit code 1 where a target is missed.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise click.BadParameter(f"{unknown[0]!r}; there are {', '.join(PARTS)}", param_hint="PARTS")
    from cort_trl.bench.shapes import SHAPES

    if shape not in SHAPES:
        raise click.BadParameter(f"{shape!r}; there are {', '.join(SHAPES)}", param_hint="--shape")
    with tempfile.TemporaryDirectory(prefix="cort-bench-") as scratch:
        model = SHAPES[shape].save(Path(scratch) / "model", "float32")
        common = {
            "model": str(model),
            "vocabulary": SHAPES[shape].vocabulary,
            "mean": tokens,
            "batch": batch,
            "micro": micro,
            "steps": steps,
            "threads": threads,
        }
        rows = [row for part in parts or PARTS for row in _rows(part, rounds, common, Path(scratch))]
    report(rows, as_json)


def _rows(part: str, rounds: int, common: dict[str, Any], scratch: Path) -> Iterator[Row]:
    baseline, options = PARTS[part]
    work = "grpo" if part == "grpo" else "sft"
    packed_only = part == "padding-free"
    cases = {"trl": {"by": "trl", "options": options}}
    cases |= {
        name: {"by": "cort", "options": chosen} for name, chosen in OURS.items() if name or not packed_only
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name, case in cases.items():
            result = _run({"work": work, **common, **case}, scratch / f"{part}-{name}-{turn}")
            click.echo(
                f"{part} {name or 'cort'}: {result['tokens'] / result['seconds']:.0f} tokens/s", err=True
            )
            found[name].append(result)

    theirs = [r["tokens"] / r["seconds"] for r in found["trl"]]
    held = median(r["peak_bytes"] for r in found["trl"])
    for name in [name for name in OURS if name in cases]:
        ours = [r["tokens"] / r["seconds"] for r in found[name]]
        ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
        least = 0.97 if not name else 1.0
        figure = f"{part} {name}".strip()
        yield Row(
            f"{figure}: speed",
            baseline,
            f"≥ {least:g}×",
            f"{median(ours):.0f} tokens/s",
            f"{median(theirs):.0f} tokens/s",
            ratio,
            ratio >= least,
        )
        peak = median(r["peak_bytes"] for r in found[name])
        yield Row(
            f"{figure}: peak memory",
            baseline,
            "≤ 1.05×",
            f"{peak / 2**20:.0f} MiB",
            f"{held / 2**20:.0f} MiB",
            peak / held,
            peak <= 1.05 * held,
        )


@click.command()
@click.argument("parts", nargs=-1)
@click.option(
    "--shape", default="1.5b", show_default=True, help="Of the model: 1.5b, or tiny for a processor."
)
@click.option("--timeout", default=110.0, show_default=True, help="Seconds for each part.")
@json_option
def gpu(parts: tuple[str, ...], shape: str, timeout: float, as_json: bool) -> None:
    """Generation, SFT and GRPO on this machine's card, with a random model made on the spot.

    PARTS: transformers, vllm (generation), sft, liger (SFT with its kernels), grpo; all of them if none is named. Steps are
    medians without the first. FLOPs are the model's: forward passes as they are, backward passes twice, nothing for what
    gradient checkpointing computes again.
    """
    import torch

    from cort_trl.bench.card import peak
    from cort_trl.bench.gpu import PARTS as KNOWN
    from cort_trl.bench.gpu import SIZES

    if unknown := [part for part in parts if part not in KNOWN]:
        raise click.BadParameter(f"{unknown[0]!r}; there are {', '.join(KNOWN)}", param_hint="PARTS")
    if shape not in SIZES:
        raise click.BadParameter(f"{shape!r}; there are {', '.join(SIZES)}", param_hint="--shape")
    if shape != "tiny" and not torch.cuda.is_available():
        raise cort.RequestError(f"the shape {shape} needs a GPU, and there is none here", "--shape tiny")
    size = SIZES[shape]
    most, source = peak(size.dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    figures = []
    with tempfile.TemporaryDirectory(prefix="cort-bench-") as scratch:
        model = size.model.save(Path(scratch) / "model", size.dtype, device)
        if device == "cuda":
            torch.cuda.empty_cache()
        for part in parts or KNOWN:
            result = Path(scratch) / f"{part}.json"
            try:
                child("cort_trl.bench.gpu", [part, shape, str(model), str(result)], timeout)
                figures.append(json.loads(result.read_text(encoding="utf-8")))
            except cort.CortError as error:
                figures.append({"part": part, "note": f"not measured: {error.message.splitlines()[-1]}"})
            click.echo(f"{figures[-1]['part']}: {figures[-1]['note']}", err=True)
    for figure in figures:
        flops = figure.get("flops")
        figure["utilisation"] = None if flops is None else flops / most
    if as_json:
        return echo_json({"device": source, "peak_flops": most, "shape": shape, "figures": figures})
    echo_table(
        ("", "step or run", "tokens/s", "TFLOP/s", "utilisation", "peak memory"), list(map(_cells, figures))
    )
    click.echo(f"100 % is {source}.")
    for figure in figures:
        click.echo(f"{figure['part']}: {figure['note']}")


def _cells(figure: dict[str, Any]) -> tuple[str, ...]:
    def show(name: str, form: str, unit: float = 1) -> str:
        value = figure.get(name)
        return "" if value is None else format(value / unit, form)

    return (
        figure["part"],
        show("seconds", ".3g") and show("seconds", ".3g") + " s",
        show("tokens_per_second", ",.0f"),
        show("flops", ".3g", 1e12),
        show("utilisation", ".1%"),
        show("peak_bytes", ".2f", 2**30) and show("peak_bytes", ".2f", 2**30) + " GiB",
    )


def _run(case: dict[str, Any], folder: Path) -> dict[str, float]:
    """One training in a process of its own."""
    folder.mkdir()
    spec, result = folder / "case.json", folder / "result.json"
    spec.write_text(json.dumps({**case, "folder": str(folder)}), encoding="utf-8")
    child("cort_trl.bench.child", [str(spec), str(result)], 600, OMP_NUM_THREADS=str(case["threads"]))
    found: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
    return found


def child(module: str, arguments: list[str], timeout_s: float, **environment: str) -> None:
    """Raises ``CortError`` with the end of what it wrote where it failed, or was not done in time."""
    command = [sys.executable, "-m", module, *arguments]
    quiet = {"TRL_EXPERIMENTAL_SILENCE": "1", "CUDA_VISIBLE_DEVICES": _one_card()}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, **quiet, **environment},
        )
    except subprocess.TimeoutExpired:
        raise cort.CortError(f"it took more than {timeout_s:g} s", "make it smaller") from None
    if done.returncode:
        raise cort.CortError(f"a training failed:\n{done.stderr.strip()[-2000:]}")


def _one_card() -> str:
    """The first that is visible: TRL refuses several in one process."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
