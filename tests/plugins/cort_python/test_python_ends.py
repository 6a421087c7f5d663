"""How calls, sessions, tools and owners end, and that nothing outlives them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from processes import descendants
from python_sessions import TASK, opened, wait_until_gone

from cort_framework import InfrastructureError, Outcome, ToolCall, ToolResult
from cort_python.processes import ForkBackend

Cells = Callable[..., list[ToolResult]]

STUBBORN = "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except BaseException: pass"


def test_a_call_that_takes_too_long_is_interrupted_and_its_variables_are_kept(cells: Cells) -> None:
    _, stopped, later = cells("x = 5", "print('so far')\nwhile True: pass", "x", timeout_s=0.5)
    assert (stopped.outcome, stopped.restarted) == (Outcome.TIMEOUT, False)
    assert stopped.text.startswith("so far\n") and stopped.text.endswith("variables are kept]")
    assert later.text == "5"


def test_code_that_ignores_the_interrupt_is_ended_and_the_next_call_starts_afresh(cells: Cells) -> None:
    _, stopped, later = cells("x = 5", STUBBORN, "'x' in dir()", timeout_s=0.3, grace_s=0.3)
    assert (stopped.outcome, stopped.restarted) == (Outcome.TIMEOUT, True)
    assert stopped.text.endswith("all variables are gone]")
    assert (later.outcome, later.text) == (Outcome.OK, "False")


def test_code_that_ends_its_own_process_is_told_so_and_goes_on_in_a_fresh_one(cells: Cells) -> None:
    left, _, crashed, later = cells(
        "import os; os._exit(1)", "x = 1", "import ctypes; ctypes.string_at(0)", "'x' in dir()"
    )
    assert (left.outcome, left.error, left.restarted) == (Outcome.RESOURCE_LIMIT, "exit code 1", True)
    assert (crashed.outcome, crashed.error) == (Outcome.RESOURCE_LIMIT, "SIGSEGV")
    assert "all variables are gone" in left.text
    assert later.text == "False"


def test_two_sessions_at_once_share_nothing(tmp_path: Path) -> None:
    async def run() -> list[str]:
        async with (
            opened(tmp_path) as tool,
            tool.session(TASK, trajectory_id="a", seed=0) as a,
            tool.session(TASK, trajectory_id="b", seed=0) as b,
        ):
            code = "x = '{}'\nopen('file', 'w').write(x)\nimport time; time.sleep(0.1)"
            await asyncio.gather(
                *(s.call(ToolCall("python", code.format(n))) for s, n in ((a, "a"), (b, "b")))
            )
            return [(await s.call(ToolCall("python", "print(x, open('file').read())"))).text for s in (a, b)]

    assert asyncio.run(run()) == ["a a", "b b"]


def test_twenty_sessions_start_together_and_more_than_the_cap_wait_for_their_turn(tmp_path: Path) -> None:
    async def run() -> tuple[list[str], int]:
        most = 0
        async with opened(tmp_path, max_kernels=6, preload=["colorsys"]) as tool:  # a template of its own

            async def one(i: int) -> str:
                nonlocal most
                async with tool.session(TASK, trajectory_id=str(i), seed=0) as session:
                    await session.call(ToolCall("python", f"x = {i}"))
                    most = max(most, len(tool.pool.backend.template._kernels))  # type: ignore[attr-defined]
                    return (await session.call(ToolCall("python", "x"))).text

            return await asyncio.gather(*map(one, range(20))), most

    texts, most = asyncio.run(run())
    assert texts == [str(i) for i in range(20)]
    assert most <= 6


def test_a_cancelled_call_leaves_no_process_and_the_session_can_go_on(tmp_path: Path) -> None:
    async def run() -> list[int]:
        async with opened(tmp_path) as tool, tool.session(TASK, trajectory_id="a", seed=0) as session:
            pid = int((await session.call(ToolCall("python", "import os; os.getpid()"))).text)
            for delay in (0.1, 0.0, 0.005, 0.02):  # in the call, before it, and while a new kernel starts
                call = asyncio.ensure_future(session.call(ToolCall("python", "while True: pass")))
                await asyncio.sleep(delay)
                call.cancel()
                await asyncio.wait([call])
            fresh = await session.call(ToolCall("python", "import os; os.getpid()"))
            assert (fresh.outcome, fresh.restarted) == (Outcome.OK, True)
            note, fresh_pid = fresh.text.splitlines()
            assert "all variables are gone" in note
            return [pid, int(fresh_pid)]

    pids = asyncio.run(run())
    assert wait_until_gone(pids) == []


def test_a_closed_session_leaves_neither_kernel_nor_folder_nor_what_the_kernel_started(
    tmp_path: Path,
) -> None:
    code = (
        "import os, subprocess\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "daemon = subprocess.Popen(['setsid', 'sleep', '600'], start_new_session=True)\n"
        "print(os.getpid(), child.pid, daemon.pid)"
    )

    async def run() -> tuple[list[int], list[Path], Path]:
        async with opened(tmp_path, preload=["colorsys"], spares=0) as tool:  # a template of its own
            assert isinstance(tool.pool.backend, ForkBackend)
            root = tool.pool.backend.template.folder
            async with tool.session(TASK, trajectory_id="a", seed=0) as session:
                pids = [int(p) for p in (await session.call(ToolCall("python", code))).text.split()]
            assert wait_until_gone(pids) == []
            return pids, list(root.glob("[0-9]*")), root

    pids, left, root = asyncio.run(run())
    assert len(pids) == 3
    assert left == []
    assert not root.exists()


def test_a_kernel_that_ends_between_two_calls_is_no_fault_of_the_next_one(tmp_path: Path) -> None:
    async def run() -> ToolResult:
        async with (
            opened(tmp_path, spares=0) as tool,
            tool.session(TASK, trajectory_id="a", seed=0) as session,
        ):
            pid = int((await session.call(ToolCall("python", "import os; os.getpid()"))).text)
            os.kill(pid, signal.SIGKILL)
            assert session.kernel is not None
            await asyncio.wait([session.kernel.exited], timeout=20)
            try:
                await session.call(ToolCall("python", "1"))
            except InfrastructureError as error:
                assert error.message == "the kernel had ended between two calls (SIGKILL)"
                return await session.call(ToolCall("python", "2"))
            raise AssertionError("the dead kernel answered")

    result = asyncio.run(asyncio.wait_for(run(), 60))
    assert (result.outcome, result.text.splitlines()[-1]) == (Outcome.OK, "2")


def test_a_template_that_ends_is_an_infrastructure_error_and_the_next_session_has_another(
    tmp_path: Path,
) -> None:
    async def run() -> str:
        async with opened(tmp_path) as tool:
            assert isinstance(tool.pool.backend, ForkBackend)
            async with tool.session(TASK, trajectory_id="a", seed=0) as session:
                await session.call(ToolCall("python", "x = 1"))
                os.kill(tool.pool.backend.template.warm.result(), signal.SIGKILL)
                try:
                    await session.call(ToolCall("python", "import time; time.sleep(5)"))
                except InfrastructureError:
                    pass
                else:
                    raise AssertionError("the template's end went unnoticed")
            async with tool.session(TASK, trajectory_id="a", seed=0) as session:
                return (await session.call(ToolCall("python", "1 + 1"))).text

    assert asyncio.run(run()) == "2"


OWNER = """
import asyncio, sys
from pathlib import Path
from cort_framework import OpenContext, Task, ToolCall
from cort_python.tool import PythonTool

async def main():
    tool = PythonTool()
    await tool.open(OpenContext(scratch=Path(".")))
    async with tool.session(Task("t", "p"), trajectory_id="a", seed=0) as session:
        code = "import subprocess\\nsubprocess.Popen(['setsid', 'sleep', '600'])\\nimport time"
        await session.call(ToolCall("python", code))
        print(tool.pool.backend.template.folder, flush=True)
        await session.call(ToolCall("python", "while True: pass"))

asyncio.run(main())
"""


def test_when_the_owner_is_killed_all_of_it_goes(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    left = list(descendants(owner.pid))
    assert len(left) >= 3 and folder.exists()  # template, kernel and what it started
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert wait_until_gone(left) == []
    assert not folder.exists()
