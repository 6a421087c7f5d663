"""What it costs to train in processes instead of threads: tokens a second of one process with as many threads as there are
processes on the other side, each with one thread.

    python tests/benchmarks/two_processes.py [--model tiny] [--processes 2] [--rounds 3] [--steps 6] [--tokens 400]

The same supervised steps on the same trajectories, in turns, each run in processes of its own; started by the framework as
`cort run` does. The time is that between the lines of metrics, so neither start nor end counts; figures are medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import tempfile
from pathlib import Path
from statistics import median

BATCH = 16


def run(model: str, folder: Path, processes: int, threads: int, steps: int, tokens: int) -> None:
    """One training, in ``processes`` processes."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the transformers engine has it in every run

    from cort_framework.display import SilentDisplay, StageReporter
    from cort_framework.recipe.settings import LaunchSettings, RolloutSettings
    from cort_framework.registry import Resolved
    from cort_framework.runtime import Runtime
    from cort_framework.training import Training
    from cort_framework.training.launch import launch
    from cort_trl.sft import SupervisedTrainer

    config = SupervisedTrainer.Config(batch_size=BATCH, micro_batch=8, max_steps=steps, save_every=10_000)
    training = Training(
        Resolved("trainer", "sft", SupervisedTrainer, config, "cort-trl", "0"),
        folder,
        model,
        0,
        RolloutSettings(),
        LaunchSettings(processes=processes, threads=threads, timeout_s=600),
        trajectories=trajectories(tokens),
    )
    folder.mkdir(parents=True)
    reporter = StageReporter(SilentDisplay(), folder / "metrics.jsonl", "sft")
    with Runtime() as runtime:
        if processes > 1:
            launch(training, runtime, reporter)
        else:
            training.run(runtime, reporter)


def trajectories(tokens: int) -> list[object]:
    """Of that many tokens each, so that every step is as much work as every other."""
    import cort_framework as cort

    noise = random.Random(0)
    made: list[object] = []
    for n in range(BATCH):
        ids = tuple(noise.randrange(5, 500) for _ in range(tokens))
        turns = [cort.Turn("prompt", ids[:20], ""), cort.Turn("model", ids[20:], "", (-1.0,) * (tokens - 20))]
        made.append(cort.Trajectory(f"t{n}/0", cort.Task(f"t{n}", "?"), turns=turns, stop_reason="eos"))
    return made


def speed(folder: Path, tokens: int) -> float:
    """Tokens a second, of the median step."""
    times = [json.loads(line)["time"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    gaps = [b - a for a, b in itertools.pairwise(times[:-1])]  # the last line sums the training up
    return BATCH * tokens / median(gaps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="a folder, or a model that a plugin ships")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=400, help="of a trajectory")
    asked = parser.parse_args()

    from cort_framework.registry import default_registry

    model = str(default_registry().model(asked.model) or asked.model)
    spawn = multiprocessing.get_context("spawn")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(asked.rounds):
            found = {}
            for processes, threads in ((1, asked.processes), (asked.processes, 1)):
                place = Path(folder, f"{turn}-{processes}")
                arguments = (model, place, processes, threads, asked.steps, asked.tokens)
                child = spawn.Process(target=run, args=arguments)
                child.start()
                child.join(1200)
                if child.exitcode != 0:
                    raise SystemExit(f"the run with {processes} processes ended with {child.exitcode}")
                found[processes] = speed(place, asked.tokens)
                print(
                    f"{processes} processes x {threads} threads: {found[processes]:,.0f} tokens/s", flush=True
                )
            ratios.append(found[asked.processes] / found[1])
    print(f"ratio {median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})")


if __name__ == "__main__":
    main()
