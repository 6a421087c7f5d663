"""The plan's memory against torch's own record of allocations: ``python tests/benchmarks/plan_memory.py``.

Small models of three shapes: one like the miniature's, one with a vocabulary that outweighs all else, one deep and
without tied embeddings. On a machine with a GPU the training is measured there.
"""

from __future__ import annotations

import gc
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS / "plugins"), str(TESTS / "plugins" / "cort_trl")]

import torch  # noqa: E402
from tiny_models import tiny_model, tiny_tokenizer  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402
from trl_runs import Recorder, context, trajectory  # noqa: E402

import cort_framework as cort  # noqa: E402
from cort_framework.machine.footprint import Device, Footprint, Work, architecture  # noqa: E402
from cort_transformers.engine import TransformersEngine  # noqa: E402
from cort_trl.grpo import GroupRelativeTrainer  # noqa: E402
from cort_trl.sft import SupervisedTrainer  # noqa: E402

SHAPES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "like the miniature": (
        "qwen2",
        1024,
        {"hidden": 192, "layers": 4, "inner": 512, "heads": (6, 3), "tied": True},
    ),
    "large vocabulary": (
        "qwen2",
        32000,
        {"hidden": 128, "layers": 2, "inner": 352, "heads": (4, 2), "tied": True},
    ),
    "deep, untied": (
        "llama",
        4096,
        {"hidden": 256, "layers": 10, "inner": 704, "heads": (8, 2), "tied": False},
    ),
}
PROMPT = 32


@dataclass
class Case:
    """One piece of work: what the plan says of it, and what was measured."""

    shape: str
    work: str
    planned: int
    measured: int
    parts: dict[str, int]

    @property
    def ratio(self) -> float:
        return self.planned / self.measured


def save(folder: Path, shape: str) -> Path:
    kind, vocabulary, s = SHAPES[shape]
    model = tiny_model(
        kind,
        vocabulary,
        hidden_size=s["hidden"],
        num_hidden_layers=s["layers"],
        intermediate_size=s["inner"],
        num_attention_heads=s["heads"][0],
        num_key_value_heads=s["heads"][1],
        tie_word_embeddings=s["tied"],
        max_position_embeddings=2048,
    )
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


# --- measuring --------------------------------------------------------------------------------------------------
def held_bytes() -> int:
    """Of every storage that a tensor of this process refers to."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@dataclass
class Meter:
    """The most bytes of tensors at once. On a CPU every allocation and release is recorded."""

    peak: int = 0

    @contextmanager
    def measuring(self) -> Iterator[None]:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            yield
            self.peak = torch.cuda.max_memory_allocated()
            return
        now = peak = 0
        before = held_bytes()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            yield
        events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
        for event in sorted(events, key=lambda e: e.start_ns()):
            now += event.nbytes()
            peak = max(peak, now)
        self.peak = before + peak


@dataclass
class Metered(Recorder):
    """A reporter that measures from where the model is loaded to where it is saved."""

    meter: Meter = field(default_factory=Meter)

    @contextmanager
    def progress(self, description: str, total: int | None = None) -> Iterator[Metered]:
        with self.meter.measuring():
            yield self


def device() -> Device:
    if torch.cuda.is_available():
        return Device("GPU", torch.cuda.get_device_properties(0).total_memory, gpu=True)
    return Device("memory", 1 << 40)


# --- the work ---------------------------------------------------------------------------------------------------
def sft(shape: str, length: int = 256, uneven: bool = False, **options: Any) -> Case:
    """Two steps of eight trajectories."""
    config = SupervisedTrainer.Config(**{"batch_size": 8, "micro_batch": 4, "max_steps": 2, **options})
    lengths = [length - 3 * (i % 8) * uneven for i in range(16)]
    trainer = SupervisedTrainer(config)

    def work(folder: Path, checkpoint: Path, recorder: Metered) -> None:
        data = [_trajectory(f"t{i}", n) for i, n in enumerate(lengths)]
        trainer.train(context(folder, checkpoint, recorder, trajectories=data))

    name = ", ".join(["sft", *(["uneven"] if uneven else []), *(f"{k}={v}" for k, v in options.items())])
    return _training(shape, name, trainer, length, work)


def grpo(shape: str, length: int = 256, **options: Any) -> Case:
    """Two steps of two groups of four, rolled out by nobody: the trajectories are random."""
    config = GroupRelativeTrainer.Config(
        **{"steps": 2, "prompts_per_step": 2, "num_generations": 4, "micro_batch": 4, **options}
    )
    trainer = GroupRelativeTrainer(config)

    def roll_out(requests: Any) -> list[cort.Trajectory]:
        made = []
        for i, request in enumerate(requests):
            one = _trajectory(request.task.id, length - 7 * (i % 3))
            one.rewards["answer"] = cort.Reward(float(i % 2))
            made.append(one)
        return made

    def work(folder: Path, checkpoint: Path, recorder: Metered) -> None:
        tasks = [cort.Task(f"t{i}", "?") for i in range(8)]
        trainer.train(
            context(
                folder,
                checkpoint,
                recorder,
                tasks=tasks,
                rollout=roll_out,
                load_weights=lambda weights: None,
                max_tokens=length - PROMPT,
            )
        )

    name = ", ".join(["grpo", *(f"{k}={v}" for k, v in options.items())])
    return _training(shape, name, trainer, length, work)


def _training(
    shape: str, name: str, trainer: cort.Trainer, length: int, work: Callable[[Path, Path, Metered], None]
) -> Case:
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = save(Path(scratch) / "model", shape)
        recorder = Metered()
        work(Path(scratch) / "stage", checkpoint, recorder)
        said = trainer.footprint(Work(architecture(str(checkpoint)), device(), sequences=16, longest=length))
    return _case(shape, name, said, recorder.meter.peak)


def generation(shape: str, length: int = 600, rows: int = 16, **options: Any) -> Case:
    """As the engine decodes: short rows first, then long ones that make the store grow, and prompts that are read while
    all the others sample."""
    from transformers import AutoModelForCausalLM

    from cort_framework import Sampling
    from cort_transformers.decoder import Decoder, Row
    from cort_transformers.tokenizer import HuggingFaceTokenizer, StopWatch

    engine = TransformersEngine(TransformersEngine.Config(**{"max_batch": rows, "keep_mb": 2, **options}))
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = save(Path(scratch) / "model", shape)
        work = Work(architecture(str(checkpoint)), device(), sequences=3 * rows, longest=length, at_once=rows)
        said = engine.footprint(work)
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=engine.config.dtype).eval()
    if device().gpu:
        model.to("cuda")
    stops = StopWatch(HuggingFaceTokenizer(tiny_tokenizer(), frozenset()))
    noise = random.Random(0)

    def row(prompt: int, most: int) -> Row:
        ids = [noise.randrange(5, 250) for _ in range(prompt)]
        return Row(ids, Sampling(temperature=1.0, top_p=0.95, max_tokens=most, seed=prompt), frozenset())

    meter = Meter()
    with meter.measuring():
        decoder = Decoder(model, stops, max_batch=rows, keep_bytes=engine.config.keep_mb << 20)
        decoder.run([row(24, 8)])  # the proof that every load begins with
        decoder.forget()
        decoder.run([row(length // 2 - 8, 4) for _ in range(rows)])
        for _ in range(rows - 1):
            decoder.submit(row(64, 48))
        while any(r.computed < 64 for r in [*decoder.rows, *decoder.pending]):
            decoder.step()
        decoder.run([row(length - 4, 4)])
    return _case(
        shape, ", ".join(["generation", *(f"{k}={v}" for k, v in options.items())]), said, meter.peak
    )


def _case(shape: str, name: str, said: Footprint | None, measured: int) -> Case:
    assert said is not None
    parts = {need.what: need.bytes for need in said.memory}
    return Case(shape, name, sum(parts.values()), measured, parts)


def _trajectory(name: str, length: int) -> cort.Trajectory:
    noise = random.Random(name)
    ids = [noise.randrange(5, 250) for _ in range(length)]
    return trajectory([("prompt", ids[:PROMPT]), ("model", ids[PROMPT:])], name)


CASES: list[Callable[[str], Case]] = [
    sft,
    lambda shape: sft(shape, uneven=True),
    lambda shape: sft(shape, gradient_checkpointing=True),
    lambda shape: sft(shape, packing=True, uneven=True),
    lambda shape: sft(shape, dtype="bfloat16"),
    lambda shape: sft(shape, bf16=True),
    lambda shape: sft(shape, lora={"rank": 16}),
    grpo,
    lambda shape: grpo(shape, beta=0.0, updates_per_step=2),
    generation,
    lambda shape: generation(shape, dtype="bfloat16"),
]


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'shape':20} {'work':40} {'planned':>10} {'measured':>10} {'ratio':>6}   MB; the largest parts")
    for case in CASES:
        for shape in SHAPES:
            found = case(shape)
            largest = sorted(found.parts.items(), key=lambda part: -part[1])[:3]
            print(
                f"{shape:20} {found.work:40} {found.planned / 1e6:10.1f} {found.measured / 1e6:10.1f} {found.ratio:6.2f}   "
                + ", ".join(f"{what} {size / 1e6:.1f}" for what, size in largest),
                flush=True,
            )


if __name__ == "__main__":
    main()
