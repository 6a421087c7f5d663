"""What gets nowhere any more is named and ended: a block, a loop that is held up, a process without memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harms import harm

from cort_framework import Filter, Group, RewardFunction, Trajectory, Verdict
from cort_framework.errors import DeadlineExceeded, StageFailed
from cort_framework.guards import watchdog
from cort_framework.guards.watchdog import OutOfMemory, Silence, changes, culprit, watched
from cort_framework.machine.footprint import Device
from cort_framework.runtime import Runtime
from cort_framework.scoring import judge, score
from cort_framework.testing import make_trajectory


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "TICK_S", 0.02)


class Computes(RewardFunction):
    """Computes where it should wait."""

    name = "computes"
    distribution = "cort-computes"

    async def score(self, trajectory: Trajectory) -> float | None:
        harm(trajectory.response)
        return 1.0


def test_a_block_that_a_check_complains_of_is_left_with_what_it_said() -> None:
    with (
        pytest.raises(StageFailed, match="it is broken") as failed,
        watched(lambda: None, lambda: "it is broken"),
    ):
        time.sleep(60)
    assert failed.value.hint is not None and "the same command goes on from there" in failed.value.hint


def test_a_block_that_is_left_in_time_and_a_persons_interrupt_stay_as_they_are() -> None:
    with watched(lambda: None):
        time.sleep(0.1)
    with pytest.raises(KeyboardInterrupt), watched(lambda: None):
        raise KeyboardInterrupt
    with pytest.raises(KeyError), watched(lambda: None):
        raise KeyError


def test_a_thread_that_cannot_be_interrupted_is_only_told_of(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        with watched(lambda: "it is broken"):
            time.sleep(0.3)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert [r.levelno for r in caplog.records] == [logging.CRITICAL] and "it is broken" in caplog.text


def test_silence_is_counted_from_the_last_sign_of_life(tmp_path: Path) -> None:
    silence = Silence("stage 'x'", 0.1, lambda: changes(tmp_path))
    for n in range(20):
        (tmp_path / "log").write_text("x" * n)
        assert silence() is None
    assert [silence() is None for _ in range(5)] == [True, True, True, True, False]
    assert "stage 'x' has shown no sign of life for 0.1 s" in str(silence())


def test_a_plugin_at_work_is_named_with_its_line() -> None:
    thread = threading.Thread(target=lambda: Sleeps().nap(), daemon=True)
    thread.start()
    assert Sleeps.asleep.wait(10)
    at = culprit(thread)
    Sleeps.awake.set()
    assert at is not None and at.startswith("cort-sleeps is at work in nap (test_watchdog.py, line ")


class Sleeps(Computes):
    distribution = "cort-sleeps"
    asleep, awake = threading.Event(), threading.Event()

    def nap(self) -> None:
        self.asleep.set()
        self.awake.wait(30)


@pytest.fixture
def pulse(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(watchdog, "LOOP_S", 0.2)
    yield


def give(runtime: Runtime, response: str) -> Trajectory:
    trajectory = make_trajectory([("prompt", "p"), ("model", response)])
    with watched(runtime.heart):
        runtime.call(score(trajectory, {"it": (Computes(), 1.0)}), 60)
    return trajectory


def test_a_plugin_that_holds_up_the_loop_in_python_is_interrupted_there_and_costs_one_call(
    pulse: None,
) -> None:
    with Runtime() as runtime:
        error = give(runtime, "loop").rewards["it"].error
        assert give(runtime, "fine").reward == 1.0
    assert error == (
        "reward 'computes' (from cort-computes) raised HeldUp: it held up all others for 0.2 s; async code must not compute for long"
    )


def test_one_that_holds_it_up_in_c_ends_the_run_and_is_named(
    pulse: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cort_framework.runtime.ANSWER_S", 0.1)
    began = set(threading.enumerate())
    with pytest.raises(StageFailed) as failed, Runtime() as runtime:
        give(runtime, "nap")
    assert (
        "the event loop has been held up for 0.4 s: cort-computes is at work in score" in failed.value.message
    )
    assert "what is open on it ends with this process" in caplog.text and not runtime.scratch.exists()
    for thread in set(threading.enumerate()) - began:
        thread.join(10)


def test_an_engine_may_hold_up_the_loop_while_it_loads(pulse: None) -> None:
    with Runtime() as runtime, watched(runtime.heart), runtime.heart.patient(60):
        assert runtime.call(_late(), 60) == 1


async def _late() -> int:
    time.sleep(1)
    return 1


def test_a_process_that_takes_the_machines_memory_is_ended_before_the_machine_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watchdog, "MEMORY_S", 0.1)
    assert OutOfMemory()() is None
    monkeypatch.setattr(watchdog, "memory", lambda: Device("small", 1 << 20))
    with (
        pytest.raises(StageFailed, match=r"memory has run out, of which this process holds [0-9]+ of 1 MiB"),
        watched(OutOfMemory()),
    ):
        time.sleep(60)


def test_a_filter_that_takes_it_is_interrupted_and_costs_one_trajectory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = watchdog._field("/proc/self/status", "RssAnon")
    assert now is not None
    monkeypatch.setattr(watchdog, "memory", lambda: Device("small", int((now + (200 << 20)) / 0.95)))
    trajectories = [make_trajectory([("prompt", "p"), ("model", text)]) for text in ("hoard", "fine")]
    with Runtime() as runtime, watched(runtime.heart, OutOfMemory()):
        runtime.call(judge([Group(trajectories[0].task, trajectories)], {"it": Hoards()}), 60)
    assert [t.kept for t in trajectories] == [False, True]
    assert trajectories[0].verdicts[0].reason == (
        "filter 'hoards' (from cort-hoards) raised MemoryUsedUp: it was at work when the memory ran out"
    )


class Hoards(Filter):
    name = "hoards"
    distribution = "cort-hoards"

    def judge(self, trajectory: Trajectory) -> Verdict:
        harm(trajectory.response)
        return Verdict(True)


def test_a_wait_for_the_loop_still_has_its_own_deadline() -> None:
    async def wait() -> Any:
        await __import__("asyncio").Event().wait()

    with Runtime() as runtime, watched(runtime.heart), pytest.raises(DeadlineExceeded, match="the test"):
        runtime.call(wait(), 0.1, "the test")
