"""What one session shows of its cells, with real kernels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from python_sessions import TASK, opened

from cort_framework import InfrastructureError, Outcome, ToolCall, ToolResult
from cort_framework.testing import check_tool
from cort_python.tool import PythonTool

Cells = Callable[..., list[ToolResult]]


def test_state_persists_and_a_last_expression_is_echoed(cells: Cells) -> None:
    results = cells("x = 6", "def double(n):\n    return 2 * n", "double(x) + 30", "x;")
    assert [r.text for r in results] == ["", "", "42", ""]
    assert {r.outcome for r in results} == {Outcome.OK}


def test_text_printed_before_an_exception_is_kept_and_later_cells_go_on(cells: Cells) -> None:
    failed, later = cells("x = 1\nprint('before')\nx / 0", "x")
    assert failed.outcome is Outcome.PROGRAM_ERROR
    assert failed.error == "ZeroDivisionError: division by zero"
    assert failed.text == (
        "before\n"
        "Traceback (most recent call last):\n"
        '  File "<cell 1>", line 3, in <module>\n'
        "    x / 0\n"
        "ZeroDivisionError: division by zero"
    )
    assert (later.outcome, later.text) == (Outcome.OK, "1")


def test_a_traceback_has_the_users_frames_alone(cells: Cells) -> None:
    (result,) = cells("import json\ndef read(text):\n    return json.loads(text)\nread('{')")
    assert [line for line in result.text.splitlines() if line.startswith("  File")] == [
        '  File "<cell 1>", line 4, in <module>',
        '  File "<cell 1>", line 3, in read',
    ]
    assert "\x1b" not in result.text


def test_words_of_failure_in_the_output_are_no_failure(cells: Cells) -> None:
    results = cells(
        'print("absolute error", 0.0)', "'error: 0.0'", "print('Traceback (most recent call last):')"
    )
    assert {r.outcome for r in results} == {Outcome.OK}
    assert results[0].text == "absolute error 0.0"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def f(:", "SyntaxError: invalid syntax (<cell 1>, line 1)"),
        (
            "if True:\nx",
            "IndentationError: expected an indented block after 'if' statement on line 1 (<cell 1>, line 2)",
        ),
        (
            "input('?')",
            "StdinNotImplementedError: raw_input was called, but this frontend does not support input requests.",
        ),
        (
            "class Mute(Exception):\n    def __str__(self): raise OSError\nraise Mute()",
            "Mute: <exception str() failed>",
        ),
        ("import sys; sys.exit(2)", "SystemExit: 2"),
        ("%nosuchmagic", "UsageError: Line magic function `%nosuchmagic` not found."),
    ],
)
def test_what_fails_is_a_program_error_with_a_name_and_a_text(cells: Cells, code: str, error: str) -> None:
    result, later = cells(code, "'still here'")
    assert (result.outcome, result.error) == (Outcome.PROGRAM_ERROR, error)
    assert error.split(":")[0] in result.text
    assert later.text == "'still here'"


def test_await_magics_subprocesses_and_display_work_as_in_a_notebook(cells: Cells) -> None:
    results = cells(
        "import asyncio\nawait asyncio.sleep(0.01)\n'awaited'",
        "%pwd",
        "import os\nprint('python')\nos.system('echo shell')",
        "display(1, 2)\n3",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(5)']);",
    )
    assert [r.text for r in results] == ["'awaited'", "'/scratch'", "python\nshell\n0", "1\n2\n3", "5"]


def test_exit_ends_the_cell_and_keeps_the_session(cells: Cells) -> None:
    left, later = cells("x = 1\nprint('shown')\nexit()\nprint('not shown')", "x")
    assert (left.outcome, left.text, left.restarted) == (Outcome.OK, "shown", False)
    assert later.text == "1"


def test_a_long_output_keeps_both_ends_and_says_what_is_gone(cells: Cells) -> None:
    (result,) = cells("print('a' * 1000 + 'b' * 1000)")
    assert result.text == "a" * 400 + "\n[... 1200 characters left out ...]\n" + "b" * 400
    assert result.dropped_characters == 1200


def test_floods_of_every_kind_are_cut_in_the_kernel(cells: Cells) -> None:
    memory = "import resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    before, *floods, after = cells(
        memory,
        "for _ in range(20000): print('x' * 5000)",
        "raise ValueError('x' * 2 * 10**6)",
        "for i in range(3000): display('x' * 1000)",
        "import os\nos.system('head -c 20000000 /dev/zero | tr \"\\\\0\" x');",
        "'x' * 2 * 10**6",
        memory,
    )
    for result in floods:
        assert len(result.text) < 900 and result.dropped_characters > 10**6
    assert int(after.text) - int(before.text) < 50  # megabytes, of 120 that were shown


def test_a_session_may_not_take_more_memory_than_it_is_given(cells: Cells) -> None:
    result, later = cells("x = 1\ny = bytearray(10**9)", "x", memory_mb=300)
    assert (result.outcome, result.error) == (Outcome.RESOURCE_LIMIT, "MemoryError")
    assert later.text == "1"


def test_equal_sessions_show_equal_text_and_random_numbers_follow_the_seed(tmp_path: Path) -> None:
    code = "import random, numpy\nprint(random.random(), numpy.random.rand(), object(), {'a', 'b', 'c'})"

    async def run(*sessions: tuple[str, int]) -> list[str]:
        texts = []
        async with opened(tmp_path, preload=["numpy"]) as tool:
            for trajectory, seed in sessions:
                async with tool.session(TASK, trajectory_id=trajectory, seed=seed) as session:
                    texts.append((await session.call(ToolCall("python", code))).text)
        return texts

    first, other, reseeded = asyncio.run(run(("a", 0), ("b", 0), ("a", 1)))
    (again,) = asyncio.run(run(("a", 0)))
    assert first == again
    assert len({first, other, reseeded}) == 3
    assert "<object object at 0x...>" in first


def test_a_kernel_sees_nothing_of_its_owners_environment(
    cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    (result,) = cells(
        "import os\nprint('SECRET_TOKEN' in os.environ, b'hunter2' in open('/proc/self/environ', 'rb').read())"
    )
    assert result.text == "False False"


def test_the_tool_keeps_the_contract_of_tools() -> None:
    assert check_tool(PythonTool, "6 * 7").text == "42"


def test_native_arguments_reach_the_kernel_and_wrong_ones_are_explained(tmp_path: Path) -> None:
    async def run() -> list[ToolResult]:
        async with opened(tmp_path) as tool, tool.session(TASK, trajectory_id="a", seed=0) as session:
            return [
                await session.call(ToolCall("python", arguments=a)) for a in ({"code": "1 + 1"}, {"cod": "1"})
            ]

    good, bad = asyncio.run(run())
    assert (good.outcome, good.text) == (Outcome.OK, "2")
    assert bad.outcome is Outcome.PROGRAM_ERROR and '{"code"' in bad.text


def test_an_ordinary_kernel_does_the_same_where_forking_is_not_to_be_had(cells: Cells) -> None:
    kept, echo, failed, stopped, later, died, fresh = cells(
        "x = 41; print('set')",
        "x + 1",
        "print('before'); 1 / 0",
        "while True: pass",
        "x",
        "import os; os._exit(3)",
        "'x' in dir()",
        backend="local",
        timeout_s=0.5,
    )
    assert (kept.text, echo.text, later.text, fresh.text) == ("set", "42", "41", "False")
    assert failed.text.startswith("before\nTraceback") and failed.outcome is Outcome.PROGRAM_ERROR
    assert (stopped.outcome, died.outcome) == (Outcome.TIMEOUT, Outcome.RESOURCE_LIMIT)


def test_a_module_that_cannot_be_preloaded_is_the_machinerys_fault_and_says_so(cells: Cells) -> None:
    with pytest.raises(InfrastructureError, match="No module named 'no_such_module'"):
        cells("1", preload=["no_such_module"])
