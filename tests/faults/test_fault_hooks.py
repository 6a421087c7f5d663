"""Every kind of hook raises, gives nonsense, never ends, holds its thread or takes the memory: one sample is lost, and said to
be; or the run ends, names the plugin, and goes on from there once it is mended. Nothing is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cort_framework import RewardFunction
from cort_framework.registry import Resolved
from cort_framework.runtime import Runtime
from cort_framework.scoring import score
from cort_framework.store import read_trajectories
from cort_math.rewards import AnswerReward

sys.path.append(str(Path(__file__).parents[1] / "plugins/cort_math"))  # answers that a model may well write
from math_samples import answered
from test_math_rewards import RUNAWAYS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SABOTEURS = Path(__file__).with_name("saboteurs.py")
AT_ONCE = 3
LIMIT_S = 150

ONE_SAMPLE = {
    "session": ("raise", "nonsense"),
    "call": ("raise", "nonsense", "wait", "loop", "sleep", "hoard"),
    "inject": ("raise", "nonsense", "wait", "hoard"),
    "judge": ("raise", "nonsense", "wait", "hoard"),
    "judge-later": ("raise", "wait", "loop"),
    "score": ("raise", "nonsense", "wait", "loop", "sleep", "hoard", "power"),
    "score-apart": ("raise", "nonsense", "wait", "loop", "sleep", "power", "memory", "exit"),
    "generate": ("raise", "nonsense", "wait", "loop"),
}
"""Hooks that are called for a trajectory, and what they do to one task of eight."""
HOLDS = {("call", "sleep"), ("score", "sleep"), ("score", "power")}
"""Native code that holds the event loop, or the interpreter: only the end of the process ends it."""
ALL_SAMPLES = {"call": "raise", "inject": "raise", "judge": "raise", "score": "raise", "generate": "wait"}
WHOLE_RUN = {
    "open": ("raise", "wait", "sleep"),
    "load_weights": ("raise", "sleep"),
    "train": ("raise", "nonsense", "sleep"),
    "tasks": ("raise", "nonsense", "sleep"),
    "preflight": ("raise", "sleep"),
    "stage": ("raise", "nonsense", "sleep"),
    "map": ("raise", "nonsense", "sleep"),
}


@dataclass
class Done:
    """What became of a run in a process of its own."""

    code: int
    said: str
    folder: Path

    @property
    def results(self) -> Any:
        found = json.loads((self.folder / "run/results.json").read_text())
        return [{key: value for key, value in record.items() if key != "seconds"} for record in found]

    def trajectories(self) -> list[Any]:
        """All that is told of them but how long they took."""
        return [
            (t.id, t.ids, t.error, {n: (r.value, r.error) for n, r in t.rewards.items()}, t.verdicts)
            for stage in ("before", "rft", "after")
            for t in read_trajectories(self.folder / "run" / stage / "trajectories.jsonl")
        ]


def work(folder: Path, hook: str = "none", how: str = "none", whom: str = "one") -> Done:
    """Fails where it leaves a process or, unless it was ended by force, a temporary folder."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, SABOTEURS, folder, hook, how, whom],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch), "NO_COLOR": "1"},
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, said = process.communicate()
        pytest.fail(f"{hook} {how}: it hangs\n{said[-2000:]}")
    assert marked(str(folder)) == [], f"{hook} {how}: a process is left"
    assert how == "power" or list(scratch.glob("cort-*")) == [], f"{hook} {how}: a temporary folder is left"
    return Done(process.returncode, said, folder)


def marked(text: str) -> list[int]:
    """Processes that have this in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and text.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Done:
    done = work(tmp_path_factory.mktemp("good"))
    assert done.code == 0, done.said
    return done


def several(
    tmp_path: Path,
    tried: Callable[..., None],
    attempts: Sequence[tuple[str, str, str]],
    check: Callable[..., Any],
) -> None:
    """Each in a process of its own, a few at once; the table gets what became of each."""
    failures = []

    def attempt(what: tuple[str, str, str]) -> tuple[str, str | None]:
        try:
            return check(tmp_path / "-".join(what), *what), None
        except (AssertionError, pytest.fail.Exception) as error:
            return "lost", f"{' '.join(what)}: {error}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (hook, _, _), (outcome, failure) in zip(attempts, pool.map(attempt, attempts), strict=True):
            tried(f"hook {hook}", outcome)
            failures += [failure] if failure else []
    assert not failures, "\n\n".join(failures)


def refused(done: Done, good: Done) -> str:
    """It names the plugin; mended, the same command comes to what a run comes to that was never harmed."""
    assert done.code == 1 and "saboteurs" in done.said, (done.code, done.said[-2000:])
    assert "Traceback" not in done.said
    assert done.said.lstrip().startswith("Timeout") or "error: " in done.said
    again = work(done.folder)
    assert again.code == 0, again.said
    assert again.results == good.results and again.trajectories() == good.trajectories()
    return "refused"


@pytest.mark.parametrize("hook", ONE_SAMPLE)
def test_what_a_hook_does_to_one_sample_costs_that_sample_or_is_refused_by_name(
    hook: str, good: Done, tmp_path: Path, tried: Callable[..., None]
) -> None:
    def check(folder: Path, hook: str, how: str, whom: str) -> str:
        done = work(folder, hook, how, whom)
        if (hook, how) in HOLDS:
            return refused(done, good)
        assert done.code == 0, done.said[-2000:]
        path, sound = folder / "run/rft/trajectories.jsonl", good.folder / "run/rft/trajectories.jsonl"
        found, expected = list(read_trajectories(path)), list(read_trajectories(sound))
        assert [t.id for t in found] == [t.id for t in expected]
        for one, other in zip(found, expected, strict=True):
            if one.task.id == "sum-1":
                blamed = one.fault or (one.objection and one.objection.reason) or ""
                assert "(from saboteurs)" in blamed, (one.id, blamed)
                assert not one.kept and "sabotage" not in one.response
            else:
                assert (one.ids, one.fault, one.rewards, one.kept) == (
                    other.ids,
                    None,
                    other.rewards,
                    other.kept,
                )
        return "survived"

    several(tmp_path, tried, [(hook, how, "one") for how in ONE_SAMPLE[hook]], check)


def test_what_a_hook_does_to_all_samples_stops_the_stage_before_it_has_made_them(
    good: Done, tmp_path: Path, tried: Callable[..., None]
) -> None:
    def check(folder: Path, hook: str, how: str, whom: str) -> str:
        done = work(folder, hook, how, whom)
        assert "trajectories failed, " in done.said, done.said[-2000:]
        return refused(done, good)

    several(tmp_path, tried, [(hook, how, "all") for hook, how in ALL_SAMPLES.items()], check)


@pytest.mark.parametrize("hook", WHOLE_RUN)
def test_what_a_hook_does_to_the_run_is_refused_by_name_and_the_run_goes_on_when_it_is_mended(
    hook: str, good: Done, tmp_path: Path, tried: Callable[..., None]
) -> None:
    several(
        tmp_path,
        tried,
        [(hook, how, "all") for how in WHOLE_RUN[hook]],
        lambda folder, *what: refused(work(folder, *what), good),
    )


def test_a_plugin_that_does_not_close_spoils_nothing(
    good: Done, tmp_path: Path, tried: Callable[..., None]
) -> None:
    def check(folder: Path, *what: str) -> str:
        done = work(folder, *what)
        assert done.code == 0 and "closing 'pupil' (from saboteurs) failed" in done.said, done.said[-2000:]
        assert done.results == good.results and done.trajectories() == good.trajectories()
        return "survived"

    several(tmp_path, tried, [("close", how, "all") for how in ("raise", "wait", "loop")], check)


def test_no_answer_that_a_model_writes_can_hang_the_grader(tried: Callable[..., None]) -> None:
    reward = Resolved("reward", "answer", AnswerReward, AnswerReward.Config(timeout_s=0.5), "cort-math", "1")
    with Runtime() as runtime:
        opened = runtime.plugin(reward, RewardFunction)
        for text in RUNAWAYS:
            wild, tame = answered(f"\\boxed{{{text}}}", "\\sqrt{2}"), answered("\\boxed{2/4}", "\\frac{1}{2}")
            for trajectory in (wild, tame):
                runtime.call(score(trajectory, {"answer": (opened, 1.0)}), 60)
            assert wild.reward == 0 and tame.reward == 1
            assert wild.fault is None or "reward 'answer' (from cort-math) raised GradingError" in wild.fault
            tried("a comparison without end", "survived")
