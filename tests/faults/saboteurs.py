"""The small world of the pipeline's tests with every kind of plugin in it ready to do harm, in a process of its own.

``python saboteurs.py FOLDER HOOK HOW WHOM`` runs its recipe; ``HOOK`` is ``none`` for a good run. ``WHOM`` is ``one`` (what
concerns one of eight tasks) or ``all``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "core"))
import harms
import pupil
from scripted import PythonHere

from cort_framework import Filter, Trajectory, pipeline, runtime
from cort_framework.cli import main
from cort_framework.display import SilentDisplay
from cort_framework.executor import LocalExecutor
from cort_framework.guards import watchdog
from cort_framework.machine.footprint import Device
from cort_framework.recipe import make_plan
from cort_framework.registry import Registry
from cort_framework.stages import cort_stages
from cort_framework.stages.rft import RejectionFineTuning

ONE = " 1+1?"
"""In the prompt of the one task."""
HOOK, HOW, WHOM = (
    sys.argv[2:5] if len(sys.argv) == 5 else (os.environ.get("SABOTAGE", "none none one").split())
)
os.environ["SABOTAGE"] = f"{HOOK} {HOW} {WHOM}"  # for processes that this one starts


def harm(hook: str, prompt: str | None = None) -> Any:
    """Whatever is to be done here, in a thread that it holds; ``None`` where nothing is."""
    if hook != HOOK or (WHOM == "one" and prompt is not None and ONE not in prompt):
        return None
    if HOW == "raise":
        raise OSError("sabotage")
    if HOW == "nonsense":
        return object()
    return harms.harm("sleep" if HOW == "wait" else HOW)


async def harm_async(hook: str, prompt: str | None = None) -> Any:
    if hook == HOOK and HOW == "wait" and (WHOM == "all" or prompt is None or ONE in prompt):
        await asyncio.Event().wait()
    return harm(hook, prompt)


class Sums(pupil.Sums):
    def tasks(self) -> Any:
        return harm("tasks") or super().tasks()


class Python(PythonHere):
    prompt = ""

    def preflight(self) -> None:
        harm("preflight")

    def session(self, task: Any, *, trajectory_id: str, seed: int) -> Any:
        return harm("session", task.prompt) or self._session(task)

    @contextlib.asynccontextmanager
    async def _session(self, task: Any) -> AsyncIterator[Any]:
        async with super().session(task, trajectory_id="", seed=0) as inner:

            class Session:
                async def call(self, call: Any) -> Any:
                    return await harm_async("call", task.prompt) or await inner.call(call)

            yield Session()


class Pupil(pupil.Pupil):
    async def open(self, context: Any) -> None:
        await harm_async("open")

    async def load_weights(self, weights: Any) -> None:
        await super().load_weights(weights)
        await harm_async("load_weights")

    async def generate(self, ids: Any, sampling: Any) -> Any:
        prompt = self.tokenizer.decode(ids)
        return await harm_async("generate", prompt) or await super().generate(ids, sampling)

    async def close(self) -> None:
        await harm_async("close")


class Okay(pupil.Okay):
    def inject(self, trajectory: Trajectory) -> Any:
        return harm("inject", trajectory.prompt) or super().inject(trajectory)


class Right(pupil.Right):
    timeout_s = 1.0

    def judge(self, trajectory: Trajectory) -> Any:
        return harm("judge", trajectory.prompt) or super().judge(trajectory)


class Later(Filter):
    """Asks somebody, as a judge behind an endpoint does."""

    name = "nothing"  # a name that the recipe has
    timeout_s = 1.0

    async def judge(self, trajectory: Trajectory) -> Any:
        from cort_framework import Verdict

        return await harm_async("judge-later", trajectory.prompt) or Verdict(True)


class Answer(pupil.Answer):
    timeout_s = 1.0

    async def score(self, trajectory: Trajectory) -> Any:
        found = await harm_async("score", trajectory.prompt)
        return await super().score(trajectory) if found is None else found


class AnswerApart(Answer):
    isolated = True
    memory_mb = 400

    async def score(self, trajectory: Trajectory) -> Any:
        found = await harm_async("score-apart", trajectory.prompt)
        return await super().score(trajectory) if found is None else found


class Teach(pupil.Teach):
    def train(self, context: Any) -> Any:
        return harm("train") or super().train(context)


class Rft(RejectionFineTuning):
    def run(self, run: Any) -> Any:
        return harm("stage") or super().run(run)


class Local(LocalExecutor):
    def map(self, job: Any, runtime: Any) -> Any:
        return harm("map") or super().map(job, runtime)


def registry() -> Registry:
    found = Registry(plugins=())
    answer = AnswerApart if HOOK == "score-apart" or WHOM == "apart" else Answer
    stages = [cls for cls in cort_stages() if cls.name != "rft"]
    for cls in (Sums, Python, Pupil, Okay, Right, Later, answer, Teach, Rft, Local, *stages):
        found.register(cls)
    return found


LIMITS = {
    "call_timeout_s": 3.0,
    "turn_timeout_s": 10.0,
    "trajectory_timeout_s": 20.0,
    "batch_timeout_s": 60.0,
}


def shorten() -> None:
    """What takes minutes takes seconds, and this machine is a small one."""
    watchdog.TICK_S, watchdog.LOOP_S, watchdog.GRACE_S, watchdog.MEMORY_S = 0.1, 1.5, 10.0, 2.0
    watchdog.FROZEN_S = 6.0 if HOW == "power" else 60.0
    runtime.OPENING_S = 10 if HOOK == "score-apart" else 3  # type: ignore[attr-defined]
    runtime.LOADING_S = 3  # type: ignore[attr-defined]
    runtime.ANSWER_S = 2  # type: ignore[attr-defined]
    pipeline.READING_S = pipeline.CHECKING_S = 3  # type: ignore[attr-defined]
    now = watchdog._field("/proc/self/status", "RssAnon") or 0
    small = Device("small", int((now + (300 << 20)) / 0.95))
    watchdog.memory = lambda: small  # type: ignore[assignment]


def go(folder: Path) -> None:
    recipe = pupil.recipe(
        folder,
        "before",
        "rft",
        "after",
        rft__hints=["okay"],
        rft__filters=["right", "nothing"],
        rollout={"engine": "pupil", "tools": {"python": {}}, **LIMITS},
        max_error_rate=0.2,
        launch={"timeout_s": 2.0},
        before__tasks=["test"],
    )
    pipeline.run(make_plan(recipe, registry()), folder / "run", display=SilentDisplay())


if __name__ == "__main__":
    import saboteurs  # so that its classes are those of a module that others can import

    import cort_framework.cli as cli

    saboteurs.shorten()
    cli.cort.main = lambda *args, **kwargs: saboteurs.go(Path(sys.argv[1]))  # type: ignore[method-assign]
    sys.exit(main([]))
