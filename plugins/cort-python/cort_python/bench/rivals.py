"""Other ways to run a trajectory's programs: the history again in a new process, smolagents, a ``python -c`` each."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Sequence


async def python(*arguments: str) -> str:
    """What an ordinary Python prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    return printed.decode(errors="replace").strip()


async def rerun(cells: Sequence[str]) -> list[str]:
    """As the authors' released executor has it: every call runs the earlier cells again, their prints taken out, and a
    cell whose output has the word "error" in it is forgotten."""
    history: list[str] = []
    outputs = []
    with tempfile.TemporaryDirectory() as folder:
        for cell in cells:
            program = "\n".join([f"import os; os.chdir({folder!r})", *history, cell])
            output = await python("-c", program)
            outputs.append(output)
            if not re.search("error|exception|traceback", output, re.IGNORECASE):
                kept = (line for line in cell.splitlines() if not line.lstrip().startswith("print("))
                history.append("\n".join(kept))
    return outputs


def has_smolagents() -> bool:
    return importlib.util.find_spec("smolagents") is not None


_SMOLAGENTS = """
import json, sys, time
from smolagents.local_python_executor import LocalPythonExecutor
cells = json.loads(sys.argv[1])
begun = time.perf_counter()
run = LocalPythonExecutor(additional_authorized_imports=["sympy", "sympy.*"])
run.send_tools({})
for cell in cells:
    run(cell)
print(time.perf_counter() - begun)
"""


async def smolagents_seconds(cells: Sequence[str]) -> float:
    """The seconds that smolagents' own executor takes for these cells in a process of its own, without the start and
    smolagents' own import."""
    return float((await python("-c", _SMOLAGENTS, json.dumps(cells))).splitlines()[-1])
