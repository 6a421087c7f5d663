"""Sessions without Jupyter: what is the same as in a kernel, and what is said to differ."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cort_framework import Outcome, ToolResult

Cells = Callable[..., list[ToolResult]]


def test_the_same_cells_show_the_same_in_both(cells: Cells) -> None:
    codes = (
        "x = 6\nx * 7",
        "_ + 1",
        "print('before')\n1 / 0",
        "def read(text):\n    import json\n    return json.loads(text)\nread('{')",
        "def broken(:",
        "x;",
        "import sys\nsys.exit(2)",
        "exit()",
        "import asyncio\nawait asyncio.sleep(0)\n'awaited'",
        "async for i in (j async for j in aiter_()):\n    pass",
        "import random\nrandom.random()",
        "import os\nos.system('echo shell')",
        "display(1, 'two')\n3.5",
        "import pickle\nclass P: pass\ntype(pickle.loads(pickle.dumps(P()))).__name__",
        "import warnings\nwarnings.warn('careful')",
        "print('a' * 1000 + 'b' * 1000)",
        "raise ValueError from KeyError('k')",
        "__name__",
        "os.path.basename(os.getcwd()) == os.path.basename(os.environ['HOME'])",
    )
    kernel, lite = cells(*codes), cells(*codes, backend="lite")
    for code, one, other in zip(codes, kernel, lite, strict=True):
        assert (one.outcome, one.text, one.error) == (other.outcome, other.text, other.error), code


def test_limits_ends_and_deaths_are_the_same(cells: Cells) -> None:
    stopped, kept, full, died, fresh = cells(
        "x = 1\nprint('so far')\nwhile True: pass",
        "x",
        "y = bytearray(10**9)",
        "import os; os._exit(3)",
        "'x' in dir()",
        backend="lite",
        timeout_s=0.5,
        memory_mb=300,
    )
    assert (stopped.outcome, kept.text) == (Outcome.TIMEOUT, "1")
    assert stopped.text == "so far\nTraceback (most recent call last):\n  File \"<cell 1>\", line 3, in <module>\n" \
        "    while True: pass\nKeyboardInterrupt\n[the call was interrupted after 0.5 s; variables are kept]"  # fmt: skip
    assert (full.outcome, full.error) == (Outcome.RESOURCE_LIMIT, "MemoryError")
    assert (died.outcome, died.error, fresh.text) == (Outcome.RESOURCE_LIMIT, "exit code 3", "False")


@pytest.mark.parametrize("code", ["%pwd", "!ls", "In", "Out"])
def test_what_is_ipythons_alone_is_not_there(cells: Cells, code: str) -> None:
    (result,) = cells(code, backend="lite")
    assert result.outcome is Outcome.PROGRAM_ERROR
