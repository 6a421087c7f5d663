"""Turn lists, reporters and rollouts for the trainers' tests."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cort_framework as cort
from cort_transformers.engine import TransformersEngine


@dataclass
class Recorder:
    """A reporter that keeps what it is told."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0

    @contextmanager
    def progress(self, description: str, total: int | None = None) -> Iterator[Recorder]:
        yield self

    def advance(self, n: int = 1, **fields: Any) -> None:
        self.steps += n

    def metrics(self, **values: float | int | str) -> None:
        self.lines.append(values)

    def note(self, text: str) -> None:
        pass

    def column(self, name: str) -> list[Any]:
        return [line[name] for line in self.lines if name in line]


def trajectory(
    turns: Sequence[tuple[cort.Author, Sequence[int]]], name: str = "t", **fields: Any
) -> cort.Trajectory:
    return cort.Trajectory(
        f"{name}/0",
        cort.Task(name, "?"),
        turns=[
            cort.Turn(author, tuple(ids), "", tuple(-1.0 for _ in ids) if author == "model" else None)
            for author, ids in turns
        ],
        stop_reason="eos",
        **fields,
    )


def random_trajectories(count: int, seed: int = 0) -> list[cort.Trajectory]:
    noise = random.Random(seed)

    def ids(most: int) -> list[int]:
        return [noise.randrange(5, 250) for _ in range(noise.randrange(1, most))]

    return [
        trajectory(
            [("prompt", ids(9)), ("model", ids(20)), ("tool", ids(6)), ("hint", ids(6)), ("model", ids(9))],
            f"t{i}",
        )
        for i in range(count)
    ]


def context(folder: Path, checkpoint: Path, reporter: Any = None, **fields: Any) -> cort.TrainContext:
    return cort.TrainContext(
        **{
            "folder": folder,
            "model": str(checkpoint),
            "seed": 0,
            "reporter": reporter or Recorder(),
            **fields,
        }
    )


class EngineRollout:
    """Rolls out with the real engine, on a loop of its own thread as the framework's runtime has one. One tool turn
    stands between two generated ones; the reward is the share of even tokens."""

    def __init__(self, checkpoint: Path, scratch: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.engine = TransformersEngine(TransformersEngine.Config(max_batch=8, threads=1))
        self._call(self.engine.open(cort.OpenContext(scratch)))
        self.load_weights(cort.Weights(path=str(checkpoint)))

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(100)

    def load_weights(self, weights: cort.Weights) -> None:
        self._call(self.engine.load_weights(weights))

    def __call__(self, requests: Sequence[cort.RolloutRequest]) -> list[cort.Trajectory]:
        async def everything() -> list[cort.Trajectory]:
            return await asyncio.gather(*(self._roll_out(request) for request in requests))

        made: list[cort.Trajectory] = self._call(everything())
        return made

    async def _roll_out(self, request: cort.RolloutRequest) -> cort.Trajectory:
        prompt = self.engine.tokenizer.apply_chat_template([{"role": "user", "content": request.task.prompt}])
        seed = cort.derive_seed(0, request.task.id, request.sample)
        sampling = cort.Sampling(1.0, 1.0, 8, seed=seed)
        first = await self.engine.generate(prompt, sampling)
        tool = (40, 41, 42)
        second = await self.engine.generate([*prompt, *first.ids, *tool], sampling)
        turns = [
            cort.Turn("prompt", tuple(prompt), ""),
            cort.Turn("model", first.ids, "", first.logprobs, first.weights_version),
            cort.Turn("tool", tool, ""),
            cort.Turn("model", second.ids, "", second.logprobs, second.weights_version),
        ]
        sampled = first.ids + second.ids
        reward = cort.Reward(sum(i % 2 == 0 for i in sampled) / len(sampled))
        name = f"{request.task.id}/{request.sample}"
        return cort.Trajectory(
            name, request.task, request.sample, seed, turns, "length", rewards={"even": reward}
        )

    def close(self) -> None:
        self._call(self.engine.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


def batches_of(monkeypatch: Any, trainer: Any, method: str) -> list[dict[str, Any]]:
    """What reaches a trainer's loss, batch by batch."""
    seen: list[dict[str, Any]] = []
    original: Callable[..., Any] = getattr(trainer, method)

    def spy(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        seen.append(dict(inputs))
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer, method, spy)
    return seen
