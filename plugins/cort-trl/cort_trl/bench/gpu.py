"""``python -m cort_trl.bench.gpu PART SIZE MODEL RESULT``: one part of ``cort bench gpu``, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import cort_framework as cort
from cort_framework.registry import check_requirements, default_registry
from cort_trl.bench.card import forward
from cort_trl.bench.shapes import SHAPES, Clock, Shape, long_tailed, trajectory


@dataclass(frozen=True)
class Size:
    """How much is done with a shape."""

    shape: str
    dtype: str
    rows: int
    """Sequences that generate at once."""
    prompt: int
    new: int
    """Tokens of each."""
    batch: int
    """Trajectories a training step."""
    mean: float
    """Tokens of a trajectory that is trained on."""
    micro: int
    prompts: int
    generations: int
    """Of a GRPO step; each generates ``new`` tokens after ``prompt``."""
    steps: int
    checkpointing: bool

    @property
    def model(self) -> Shape:
        return SHAPES[self.shape]


SIZES = {
    "tiny": Size("tiny", "float32", 8, 16, 16, 8, 60, 4, 2, 4, 3, False),
    "1.5b": Size("1.5b", "bfloat16", 64, 256, 256, 16, 2000, 4, 8, 8, 4, True),
}


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    part: str
    seconds: float | None = None
    """Of a step, or of the whole generation."""
    tokens_per_second: float | None = None
    flops: float | None = None
    """A second; over the device's peak it is the utilisation."""
    peak_bytes: int | None = None
    note: str = ""


class Lane:
    """An engine on an event loop in a thread of its own, as the framework's runtime has one."""

    def __init__(self, engine: cort.Engine, scratch: Path, size: Size) -> None:
        self.engine, self.size = engine, size
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.call(engine.open(cort.OpenContext(scratch)))

    def call(self, work: Coroutine[Any, Any, Any], timeout_s: float = 300) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def load_weights(self, weights: cort.Weights) -> None:
        self.call(self.engine.load_weights(weights))

    def roll_out(self, requests: Sequence[cort.RolloutRequest]) -> list[cort.Trajectory]:
        async def everything() -> list[cort.Trajectory]:
            return await asyncio.gather(*map(self._one, requests))

        made: list[cort.Trajectory] = self.call(everything())
        return made

    async def _one(self, request: cort.RolloutRequest) -> cort.Trajectory:
        """A prompt of random tokens and what the engine makes of it; the reward is the share of even tokens."""
        size = self.size
        drawn = trajectory(request.task, 0, size.model.vocabulary, 8 * size.prompt)
        prompt = tuple(i for turn in drawn.turns for i in turn.ids)[: size.prompt]
        seed = cort.derive_seed(0, request.task.id, request.sample)
        made = await self.engine.generate(prompt, cort.Sampling(1.0, 1.0, size.new, seed=seed))
        turns = [
            cort.Turn("prompt", prompt, ""),
            cort.Turn("model", made.ids, "", made.logprobs, made.weights_version),
        ]
        reward = cort.Reward(sum(i % 2 == 0 for i in made.ids) / len(made.ids))
        name = f"{request.task.id}/{request.sample}"
        return cort.Trajectory(
            name, request.task, request.sample, seed, turns, "length", rewards={"even": reward}
        )

    def close(self) -> None:
        self.call(self.engine.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


def generate(size: Size, model: Path, scratch: Path, engine: str = "transformers") -> Figure:
    """Rows that generate at once, after a first batch that warms up."""
    lane = Lane(_engine(engine, size), scratch, size)
    try:
        lane.load_weights(cort.Weights(path=str(model)))
        lane.roll_out([cort.RolloutRequest(cort.Task("warm", "?"), k) for k in range(size.rows)])
        begun = perf_counter()
        made = lane.roll_out([cort.RolloutRequest(cort.Task(str(i), "?")) for i in range(size.rows)])
        seconds = perf_counter() - begun
    finally:
        lane.close()
    new = [len(t.turns[1].ids) for t in made]
    work = forward(size.model, [size.prompt + n for n in new], heads=new)
    note = f"{size.rows} at once, {size.prompt} tokens of prompt, {size.new} new"
    elsewhere = engine != "transformers"  # it takes what it is given, in processes of its own
    return Figure(
        f"generation, {engine}",
        seconds,
        sum(new) / seconds,
        work / seconds,
        None if elsewhere else _peak(),
        note,
    )


def sft(size: Size, model: Path, scratch: Path, **options: Any) -> Figure:
    from cort_trl.sft import SupervisedTrainer

    lengths = long_tailed(size.batch, size.mean, most=round(4 * size.mean))
    made = [trajectory(cort.Task(str(i), "?"), 0, size.model.vocabulary, n) for i, n in enumerate(lengths)]
    clock = Clock(perf_counter)
    settings = SupervisedTrainer.Config(
        batch_size=size.batch, max_steps=size.steps + 1, **{**_common(size), **options}
    )
    SupervisedTrainer(settings).train(
        cort.TrainContext(scratch, str(model), seed=0, reporter=clock, trajectories=made)
    )
    read = [sum(len(turn.ids) for turn in t.turns) for t in made]
    trained = [sum(len(turn.ids) for turn in t.turns if turn.author == "model") for t in made]
    seconds = median(clock.steps)
    return Figure(
        "SFT, Liger" if options else "SFT",
        seconds,
        sum(read) / seconds,
        3 * forward(size.model, read, heads=trained) / seconds,
        _peak(),
        f"{size.batch} trajectories a step, {sum(read)} tokens, packed in rows of about {size.micro}",
    )


def grpo(size: Size, model: Path, scratch: Path) -> Figure:
    from cort_trl.grpo import GroupRelativeTrainer

    lane = Lane(_engine("transformers", size), scratch, size)
    clock, spent = Clock(perf_counter), []

    def roll_out(requests: Sequence[cort.RolloutRequest]) -> list[cort.Trajectory]:
        begun = perf_counter()
        made = lane.roll_out(requests)
        spent.append(perf_counter() - begun)
        return made

    settings = GroupRelativeTrainer.Config(
        steps=size.steps,
        prompts_per_step=size.prompts,
        num_generations=size.generations,
        zero_variance="keep",
        **_common(size),
    )
    try:
        GroupRelativeTrainer(settings).train(
            cort.TrainContext(
                scratch,
                str(model),
                seed=0,
                reporter=clock,
                tasks=[cort.Task(str(i), "?") for i in range(size.prompts)],
                rollout=roll_out,
                load_weights=lane.load_weights,
                max_tokens=size.new,
            )
        )
    finally:
        lane.close()
    seconds, count = median(clock.steps), size.prompts * size.generations
    lengths = [size.prompt + size.new] * count
    # generated; read by the reference model; read, and learnt from, by the policy
    work = (1 + 1 + 3) * forward(size.model, lengths, heads=[size.new] * count)
    return Figure(
        "GRPO",
        seconds,
        count * size.new / seconds,
        work / seconds,
        _peak(),
        f"{size.prompts} × {size.generations} trajectories a step; {median(spent[1:]) / seconds:.0%} of it rolling out",
    )


PARTS: dict[str, Callable[[Size, Path, Path], Figure]] = {
    "transformers": generate,
    "vllm": lambda size, model, scratch: generate(size, model, scratch, engine="vllm"),
    "sft": sft,
    "liger": lambda size, model, scratch: sft(size, model, scratch, liger=True),
    "grpo": grpo,
}


def _engine(name: str, size: Size) -> cort.Engine:
    """Raises ``PluginError`` where it is not installed, or what it needs is not."""
    cls: Any = default_registry().resolve("engine", name).cls
    check_requirements(cls)
    engine: cort.Engine = cls(cls.Config(max_batch=size.rows, dtype=size.dtype))
    return engine


def _common(size: Size) -> dict[str, Any]:
    return {
        "micro_batch": size.micro,
        "packing": True,
        "dtype": size.dtype,
        "gradient_checkpointing": size.checkpointing,
        "save_every": 10**6,
    }


def _peak() -> int:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> None:
    part, size, model, result = sys.argv[1:]
    scratch = Path(result).parent / f"work-{part}"
    scratch.mkdir()
    try:
        found = PARTS[part](SIZES[size], Path(model), scratch)
    except cort.CortError as error:
        found = Figure(part, note=f"not measured: {error.message}")
    Path(result).write_text(json.dumps(asdict(found)), encoding="utf-8")


if __name__ == "__main__":
    main()
