"""``python -m cort_trl.bench.child CASE RESULT``: one training in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cort_framework as cort
from cort_trl.bench.shapes import Clock, long_tailed, now, trajectory


@dataclass(frozen=True)
class Case:
    """What is trained, how, and by whom."""

    work: Literal["sft", "grpo"]
    by: Literal["cort", "trl"]
    model: str
    vocabulary: int
    folder: str
    mean: float
    """Tokens of a trajectory."""
    batch: int
    """Trajectories a step."""
    micro: int
    steps: int
    threads: int
    options: dict[str, Any]
    """Of the trainer ``cort``; or ``in_order`` and ``padding_free`` of ``direct.sft``."""
    generations: int = 4

    @property
    def trajectories(self) -> list[cort.Trajectory]:
        """Those of one step come together; so do those of one group."""
        lengths = long_tailed(self.batch * self.steps, self.mean, most=round(6 * self.mean))
        n = self.generations
        return [
            trajectory(cort.Task(str(i // n), "?"), i % n, self.vocabulary, length)
            for i, length in enumerate(lengths)
        ]


def main() -> None:
    case = Case(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    import torch
    from trl import GRPOTrainer, SFTTrainer  # noqa: F401  importing it takes longer than a short training

    torch.set_num_threads(case.threads)
    made = case.trajectories
    begun = now()
    ends = (by_cort if case.by == "cort" else by_trl)(case, made)
    on_gpu = torch.cuda.is_available()
    peak = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    )
    found = {
        "seconds": ends[-1] - begun,
        "tokens": sum(len(turn.ids) for t in made for turn in t.turns),
        "peak_bytes": peak,
    }
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


def by_cort(case: Case, made: list[cort.Trajectory]) -> list[float]:
    from cort_trl.grpo import GroupRelativeTrainer
    from cort_trl.sft import SupervisedTrainer

    clock = Clock()
    common = {"micro_batch": case.micro, "save_every": 10**6, **case.options}
    context = cort.TrainContext(folder=Path(case.folder), model=case.model, seed=0, reporter=clock)
    if case.work == "sft":
        settings = SupervisedTrainer.Config(batch_size=case.batch, max_steps=case.steps, **common)
        SupervisedTrainer(settings).train(replace(context, trajectories=made))
        return clock.ends

    n = case.generations
    recorded = {(t.task.id, t.sample): t for t in made}

    def rollout(requests: Any) -> list[cort.Trajectory]:
        return [recorded[r.task.id, r.sample % n] for r in requests]

    settings = GroupRelativeTrainer.Config(
        steps=case.steps,
        prompts_per_step=case.batch // n,
        num_generations=n,
        zero_variance="keep",
        **common,
    )
    GroupRelativeTrainer(settings).train(
        replace(
            context,
            tasks=[t.task for t in made[::n]],
            rollout=rollout,
            load_weights=lambda weights: None,
            max_tokens=4096,
        )
    )
    return clock.ends


def by_trl(case: Case, made: list[cort.Trajectory]) -> list[float]:
    from cort_framework.rendering import render
    from cort_trl.bench import direct
    from cort_trl.grpo import task_order
    from cort_trl.sft import training_order

    split = {"micro": case.micro, "accumulate": case.batch // case.micro, "steps": case.steps}
    model, folder = Path(case.model), Path(case.folder)
    if case.work == "sft":
        rendered = [render(t, ("model", "hint")) for t in made]
        order = range(len(made))
        if case.options["in_order"]:  # the batches that the framework trains on, in their order
            order = training_order([len(r.input_ids) for r in rendered], case.batch, case.steps, seed=0)
        rows = [(rendered[i].input_ids, rendered[i].mask) for i in order]
        return direct.sft(model, folder, rows, **split, **case.options)
    n = case.generations
    groups = [made[i : i + n] for i in range(0, len(made), n)]
    order = task_order(len(groups), case.batch // n, case.steps, seed=0)
    return direct.grpo(model, folder, [groups[i] for i in order], **split)


if __name__ == "__main__":
    main()
