"""What a policy lag saves: reinforcement learning of the miniature, with and without, with tools that take their time.

    python tests/benchmarks/policy_lag.py CHECKPOINT [--lags 0 1] [--tools 0 0.1 1 0.1:2] [--steps 4] [--prompts 16]
        [--evaluate]

``CHECKPOINT`` is where it starts: the folder ``rft/checkpoint`` of a run of ``recipes/cort_math.toml``, whose ``rl`` stage is
run here with other ``steps``. A tool time of ``0.1:2`` is 0.1 s for a call, and 2 s for one in ten. Every run has a process of
its own; the runs of one tool time follow one another. The first step of each is left out of the figures: a lag cannot help it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any


def run(checkpoint: str, lag: int, tool: str, steps: int, prompts: int, evaluate: bool, folder: Path) -> None:
    """One run of the stage, in ``folder``."""
    import cort_framework as cort
    from cort_python.tool import PythonSession

    usual, _, tail = tool.partition(":")
    original = PythonSession.call

    async def slow(self: PythonSession, call: cort.ToolCall) -> cort.ToolResult:
        unlucky = random.Random(call.code or "").random() < 0.1
        await asyncio.sleep(float(tail if tail and unlucky else usual))
        return await original(self, call)

    PythonSession.call = slow  # type: ignore[method-assign]
    options = {"steps": steps, "prompts_per_step": prompts, "policy_lag": lag}
    overrides = [f"stage.rl.options.{key}={value}" for key, value in options.items()]
    recipe = cort.load_recipe("cort_math", overrides=[f"model={checkpoint}", *overrides])
    wanted = ("rl", "evaluate-rl") if evaluate else ("rl",)
    stages = [stage for stage in recipe.stage if stage.name in wanted]
    cort.run(recipe.model_copy(update={"stage": stages}), run_dir=folder)


def figures(folder: Path) -> dict[str, float]:
    """Medians a step, in seconds; the share of the rollouts' time that was hidden; the mean reward of the second half."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "rollout/waited" in line]
    later = steps[1:]
    return {
        "step": median(b["time"] - a["time"] for a, b in zip(steps, later, strict=False)),
        "rollout": median(line["rollout/seconds"] for line in later),
        "waited": median(line["rollout/waited"] for line in later),
        "hidden": median(line["rollout/overlapped"] for line in later),
        "reward": fmean(line["rollout/reward_mean"] for line in steps[len(steps) // 2 :]),
    }


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("checkpoint")
    options.add_argument("--lags", type=int, nargs="+", default=[0, 1])
    options.add_argument("--tools", nargs="+", default=["0", "0.1", "1", "0.1:2"])
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--prompts", type=int, default=16, help="groups a step")
    options.add_argument(
        "--evaluate", action="store_true", help="in range and out of range, at the end of each run"
    )
    options.add_argument("--runs", type=Path, default=Path("runs/policy-lag"))
    given = options.parse_args()
    print(
        f"{'tool':>8} {'lag':>4} {'step s':>8} {'rollout s':>10} {'waited s':>9} {'hidden':>7} {'reward':>7} {'all s':>7}"
    )
    for tool in given.tools:
        for lag in given.lags:
            folder = given.runs / f"tool-{tool.replace(':', '-')}-lag-{lag}-{time.time_ns()}"
            arguments: Any = (given.checkpoint, lag, tool, given.steps, given.prompts, given.evaluate, folder)
            process = multiprocessing.get_context("spawn").Process(target=run, args=arguments)
            process.start()
            process.join(24 * 3600)
            if process.exitcode != 0:
                raise SystemExit(f"the run in {folder} failed")
            found = figures(folder)
            whole = json.loads((folder / "rl" / "stage.json").read_text())["seconds"]
            print(
                f"{tool:>8} {lag:>4} {found['step']:8.2f} {found['rollout']:10.2f} {found['waited']:9.2f}"
                f" {found['hidden']:7.0%} {found['reward']:7.3f} {whole:7.1f}",
                flush=True,
            )
            for result in json.loads((folder / "results.json").read_text()):
                low, high = result["accuracy_ci"]
                print(
                    f"{'':>13} {result['test_set']}: {result['accuracy']:.3f} [{low:.3f}, {high:.3f}]",
                    flush=True,
                )


if __name__ == "__main__":
    main()
