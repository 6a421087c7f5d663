"""What a model may write that is no good program, and programs that are not good guests: each has its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from python_sessions import TASK, opened

from cort_framework import Outcome, ToolCall, ToolResult
from cort_framework.testing import ToolCase, check_tool_conformance
from cort_python.tool import PythonTool

Cells = Callable[..., list[ToolResult]]


@pytest.mark.parametrize("code", ["", "\n \n", "# only a comment", "pass"])
def test_a_cell_without_anything_to_do_is_fine_and_shows_nothing(cells: Cells, code: str) -> None:
    (result,) = cells(code)
    assert (result.outcome, result.text, result.error) == (Outcome.OK, "", None)


def test_a_cell_of_ten_megabytes_is_refused_before_it_is_sent_and_the_session_goes_on(cells: Cells) -> None:
    kept, refused, later = cells("x = 1", "x = 2\n" * 1_700_000, "x")
    assert refused.outcome is Outcome.PROGRAM_ERROR
    assert refused.text == "the code has 10200000 characters, and 1000000 are allowed"
    assert (kept.text, later.text) == ("", "1")


def test_a_long_cell_within_the_limit_runs(cells: Cells) -> None:
    (result,) = cells("x = '" + "y" * 900_000 + "'\nlen(x)")
    assert result.text == "900000"


def test_bytes_that_are_no_text_are_a_program_error(cells: Cells) -> None:
    broken = b"print('caf\xe9')".decode(errors="surrogateescape")
    refused, nul, later = cells(broken, "print('a\0b')", "1")
    assert (refused.outcome, refused.error) == (
        Outcome.PROGRAM_ERROR,
        "the code is no valid text: character 10 is half of a surrogate pair",
    )
    assert nul.outcome is Outcome.PROGRAM_ERROR and "null bytes" in nul.text
    assert later.text == "1"


def test_output_that_is_no_text_is_shown_as_escapes(cells: Cells) -> None:
    shown, raised, subprocess, named = cells(
        "print('\\udce9')",
        "raise ValueError('\\ud800')",
        "import os\nos.system(\"printf '\\\\351'\");",
        "open(b'caf\\xe9', 'w').close()\nos.listdir()",
    )
    assert shown.text == "\\udce9"
    assert raised.error == "ValueError: \\ud800" and raised.text.endswith("ValueError: \\ud800")
    assert subprocess.text == "\N{REPLACEMENT CHARACTER}"
    assert named.text == "['caf\\udce9']"


def test_installing_packages_is_refused_with_one_sentence(cells: Cells) -> None:
    spellings = (
        "%pip install requests",
        "pip install requests",
        "%conda install requests",
        "%uv pip install x",
    )
    for result in cells(*spellings):
        assert result.outcome is Outcome.PROGRAM_ERROR
        assert result.text == (
            "UsageError: packages cannot be installed here; use the ones that can be imported"
        )


def test_input_is_a_program_error_at_once(cells: Cells) -> None:
    asked, later = cells("print('before')\nx = input('number? ')", "1")
    assert asked.outcome is Outcome.PROGRAM_ERROR and asked.text.startswith("before\n")
    assert asked.error is not None and asked.error.startswith("StdinNotImplementedError")
    assert later.text == "1"


def test_exit_keeps_variables_in_every_spelling(cells: Cells) -> None:
    results = cells(
        "x = 1", "exit()", "quit()", "import sys; sys.exit()", "sys.exit(0)", "raise SystemExit", "x"
    )
    assert [r.outcome for r in results] == [Outcome.OK] * 7
    assert results[-1].text == "1"


def test_a_thread_that_is_left_running_shows_in_the_cell_that_runs_when_it_prints(cells: Cells) -> None:
    results = cells(
        "import threading, time\ngo = threading.Event()\n"
        "def work():\n    go.wait()\n    print('late')\n    time.sleep(0.2)\n    print('dropped')\n"
        "thread = threading.Thread(target=work)\nthread.start()\nprint('started')",
        "'quiet'",
        "go.set()\ntime.sleep(0.1)\n'there'",
        "thread.join()",
    )
    texts = [result.text for result in results]
    assert texts[:3] == ["started", "'quiet'", "late\n'there'"]
    assert texts[3] in ("", "dropped")  # between cells it is dropped


def test_a_cell_that_awaits_for_ever_is_interrupted_and_its_variables_are_kept(cells: Cells) -> None:
    _, stopped, later = cells(
        "x = 1", "import asyncio\nawait asyncio.Event().wait()", "x", timeout_s=0.5, grace_s=5
    )
    assert (stopped.outcome, stopped.restarted) == (Outcome.TIMEOUT, False)
    assert later.text == "1"


def test_many_displays_cost_no_memory_and_are_cut_like_any_output(cells: Cells) -> None:
    (result,) = cells("for i in range(5000): display(i)")
    assert result.text.startswith("0\n1\n2\n") and result.text.endswith("4999")
    assert result.dropped_characters > 20_000


def test_a_repr_and_a_traceback_are_cut_like_any_output(cells: Cells) -> None:
    long, deep = cells("'x' * 10**6", "def f(n):\n    return f(n + 1) + 1\nf(0)")
    assert len(long.text) < 900 and long.dropped_characters > 900_000
    assert deep.error is not None and deep.error.startswith("RecursionError")
    assert len(deep.text) < 900 and deep.text.endswith("maximum recursion depth exceeded")


@pytest.mark.parametrize("arguments", [None, {}, {"cod": "1"}, {"code": 1}, {"code": "1", "more": "2"}])
def test_native_arguments_that_are_not_the_schemas_are_explained(tmp_path: Path, arguments: object) -> None:
    async def run() -> ToolResult:
        async with opened(tmp_path) as tool, tool.session(TASK, trajectory_id="a", seed=0) as session:
            return await session.call(ToolCall("python", arguments=arguments))  # type: ignore[arg-type]

    result = asyncio.run(run())
    assert result.outcome is Outcome.PROGRAM_ERROR and '{"code": "…"}' in result.text


@pytest.mark.parametrize("backend", ["fork", "lite"])
def test_the_tool_conforms(backend: str) -> None:
    check_tool_conformance(
        ToolCase(
            PythonTool,
            works="print(6 * 7)",
            text="42",
            native={"code": "6 * 7"},
            fails="1 / 0",
            state=("x = 41", "x + 1", "42"),
            hangs="while True: pass",
            limit_s=2,
            floods="print('x' * 10**6)",
            config={"timeout_s": 1, "backend": backend},
        )
    )
