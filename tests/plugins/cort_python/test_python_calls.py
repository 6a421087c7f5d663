"""Calls in processes of their own: what tools and graders call that may hang or crash. The target is Python's ``eval``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from processes import descendants
from python_sessions import wait_until_gone
from unprivileged import run_as_ordinary_user

from cort_framework import InfrastructureError
from cort_python.calls import CallDied, Caller, CallRaised

BACKENDS = pytest.mark.parametrize("backend", ["fork", "cold"])
PID = "__import__('os').getpid()"
SLEEP = "__import__('time').sleep(60)"


def with_caller(tmp_path: Path, use: Callable[[Caller], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        settings.setdefault("timeout_s", 20)
        caller = Caller(settings.pop("target", "builtins:eval"), folder=tmp_path, **settings)
        try:
            await use(caller)
        finally:
            await caller.close()

    asyncio.run(run())


@pytest.mark.parametrize("backend", ["fork", pytest.param("cold", marks=pytest.mark.slow)])
def test_every_way_to_end_badly_is_told_and_costs_no_other_call(tmp_path: Path, backend: str) -> None:
    async def use(caller: Caller) -> None:
        with pytest.raises(TimeoutError):
            await caller.call(SLEEP)
        with pytest.raises(CallDied, match="exit code 3"):
            await caller.call("__import__('os')._exit(3)")
        with pytest.raises(CallDied, match="SIGSEGV"):
            await caller.call("__import__('ctypes').string_at(0)")
        with pytest.raises(CallRaised, match="MemoryError"):
            await caller.call("len(bytearray(10**9))")
        with pytest.raises(CallRaised, match="ZeroDivisionError: "):
            await caller.call("1 / 0")
        call = asyncio.ensure_future(caller.call(SLEEP))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait([call])
        assert await caller.call("print('noise') or [1, {'a': None}]") == [1, {"a": None}]

    with_caller(tmp_path, use, backend=backend, memory_mb=300, concurrency=1, timeout_s=3)


@BACKENDS
def test_processor_time_has_a_limit_of_its_own(tmp_path: Path, backend: str) -> None:
    async def use(caller: Caller) -> None:
        with pytest.raises(TimeoutError):
            await caller.call("sum(range(10**12))")

    with_caller(tmp_path, use, backend=backend, cpu_s=0.2, timeout_s=50)


@BACKENDS
def test_a_call_leaves_nothing_behind_for_the_next(tmp_path: Path, backend: str) -> None:
    async def use(caller: Caller) -> None:
        note = "__import__('sys').modules.setdefault('left', {var})"
        assert await caller.call(note.format(var=1)) == 1
        assert await caller.call(note.format(var=2)) == 2
        assert len({await caller.call("__import__('os').getpid()") for _ in range(3)}) == 3

    with_caller(tmp_path, use, backend=backend)


def test_many_calls_at_once_have_each_its_own_answer_and_no_descriptor_stays(tmp_path: Path) -> None:
    async def use(caller: Caller) -> None:
        await caller.call("1")
        before = len(os.listdir("/proc/self/fd"))
        questions = [f"{i} * {i}" for i in range(200)]
        assert await asyncio.gather(*map(caller.call, questions)) == [i * i for i in range(200)]
        assert len(os.listdir("/proc/self/fd")) == before
        assert await caller.call("sorted(map(int, __import__('os').listdir('/proc/self/fd')))[:-1]") == [
            *range(4)
        ]

    with_caller(tmp_path, use, concurrency=8, timeout_s=30)


def test_a_long_request_and_a_long_answer_come_through_whole(tmp_path: Path) -> None:
    async def use(caller: Caller) -> None:
        assert await caller.call(f"'{'é' * 10**6}'[::-1]") == "é" * 10**6

    with_caller(tmp_path, use, timeout_s=60)


@BACKENDS
def test_a_target_that_cannot_be_imported_is_the_machinerys_fault(tmp_path: Path, backend: str) -> None:
    async def use(caller: Caller) -> None:
        with pytest.raises(InfrastructureError, match="No module named 'no_such'"):
            await caller.call(1)

    with_caller(tmp_path, use, backend=backend, target="no_such:thing")


def test_callers_with_the_same_preloads_share_a_template_and_the_last_one_ends_it(tmp_path: Path) -> None:
    async def run() -> None:
        one = Caller("builtins:eval", folder=tmp_path, timeout_s=9, preload=("fractions", "decimal"))
        other = Caller("builtins:eval", folder=tmp_path, timeout_s=9, preload=("decimal",))
        parent = "__import__('os').getppid()"
        template = await one.call(parent)
        assert await other.call(parent) == template
        await one.close()
        assert await other.call(parent) == template
        await other.close()
        assert wait_until_gone([template]) == []

    asyncio.run(run())


def test_a_template_that_was_killed_is_started_again(tmp_path: Path) -> None:
    async def use(caller: Caller) -> None:
        template = await caller.call("__import__('os').getppid()")
        call = asyncio.ensure_future(caller.call(SLEEP))
        await asyncio.sleep(0.1)
        os.kill(template, 9)
        with pytest.raises(InfrastructureError):
            await call
        assert await caller.call("1 + 1") == 2

    with_caller(tmp_path, use, timeout_s=30)


def test_a_spare_serves_one_call_after_its_rehearsal_and_a_dead_one_none(tmp_path: Path) -> None:
    async def use(caller: Caller) -> None:
        await caller.open()
        rehearsed = "__import__('sys').modules.get('rehearsed')"
        first, second = await caller.call(PID), await caller.call(PID)
        assert first != second
        assert await caller.call(rehearsed) == 1
        await asyncio.sleep(0.2)
        server, served = await caller.call("(__import__('os').getppid(), __import__('os').getpid())")
        (waiting,) = await children_of(server, 1, served)
        os.kill(waiting, 9)
        assert not await children_of(server, 0, served)
        await asyncio.sleep(0.2)  # until the owner has heard of it
        assert await caller.call("1 + 1") == 2

    rehearsal = "__import__('sys').modules.setdefault('rehearsed', 1)"
    with_caller(tmp_path, use, concurrency=1, timeout_s=30, rehearsal=rehearsal)


async def children_of(server: int, count: int, gone: int) -> set[int]:
    """Those that live once ``gone`` is, which may take a moment; the loop has to run meanwhile, for it forks them."""
    give_up = time.monotonic() + 20
    while len(found := {*descendants(server)} - {gone}) != count and time.monotonic() < give_up:
        await asyncio.sleep(0.02)
    return found


REFUSED = {
    "open('/etc/hostname-of-mine', 'w')": ("landlock", "privileges", "namespaces"),
    "open(__import__('os').environ['HOME'] + '/x', 'w').write('x' * 10**6)": ("rlimits",),
    "__import__('os').fork()": ("seccomp", "rlimits"),
    "__import__('subprocess').run(['true'])": ("seccomp", "rlimits"),
    "__import__('socket').socket()": ("seccomp",),
    "__import__('os').kill(__import__('os').getppid(), 0)": ("landlock", "privileges"),
    "open('/etc/shadow').read()": ("landlock", "privileges"),
}
"""What a call tries, and the layers of which one is enough to refuse it."""


@pytest.mark.parametrize("attempt", REFUSED)
def test_a_call_can_write_nothing_start_nothing_and_reach_nobody(tmp_path: Path, attempt: str) -> None:
    async def use(caller: Caller) -> None:
        await caller.open()
        walls = [layer for layer in REFUSED[attempt] if caller.layers[layer].in_force]
        if not walls:
            print(f"nothing here refuses {attempt}: {caller.layers}")
            return
        with pytest.raises((CallRaised, CallDied)):
            await caller.call(attempt)

    with_caller(tmp_path, use, timeout_s=20)


ORDINARY = """
import asyncio, sys
from pathlib import Path
from cort_python.calls import Caller

async def main():
    caller = Caller("builtins:eval", folder=Path("."), timeout_s=30)
    await caller.open()
    print(await caller.call("6 * 7"), sorted(k for k, v in caller.layers.items() if v.in_force))
    try:
        await caller.call("__import__('socket').socket()")
    except Exception as error:
        print(type(error).__name__)
    await caller.close()

asyncio.run(main())
"""


def test_calls_work_and_are_confined_for_an_ordinary_user() -> None:
    first, *second = run_as_ordinary_user(ORDINARY).splitlines()
    assert first.startswith("42 ['") and "rlimits" in first
    assert second == ["CallRaised"] or "seccomp" not in first


OWNER = """
import asyncio
from pathlib import Path
from cort_python.calls import Caller

async def main():
    caller = Caller("builtins:eval", folder=Path("."), timeout_s=60, backend={backend!r})
    await caller.call("1")
    print("started", flush=True)
    await caller.call("__import__('time').sleep(60)")

asyncio.run(main())
"""


@BACKENDS
def test_when_the_owner_is_killed_its_calls_go(tmp_path: Path, backend: str) -> None:
    script = OWNER.format(backend=backend)
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert owner.stdout is not None and owner.stdout.readline() == "started\n"
    while not (left := list(descendants(owner.pid))):
        assert owner.poll() is None
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert wait_until_gone(left) == []
