"""Does a session behave as a real kernel does? The same cells, in both, message for message."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cort_python.bench.rivals import rerun
from cort_python.bench.stock import stock_kernel
from cort_python.transcript import scrub

CELLS = (
    "x = 6",
    "x * 7",
    "def f(n):\n    return n + x\nf(1)",
    "x = 10\nf(1)",
    "print('a'); print('b', end=''); 3",
    "import sys\nprint('out')\nprint('err', file=sys.stderr)",
    "_, __, _2",
    "In[2], Out[2]",
    "x;",
    "None",
    "y = 1\n1 / 0\ny = 2",
    "y",
    "def g():\n    raise KeyError('k')\ng()",
    "int('x')",
    "def broken(:",
    "undefined_name",
    "x",
    "class P:\n    def __init__(self, v): self.v = v\n    def __repr__(self): return f'P({self.v})'\np = P(3)\np",
    "[P(1), {'k': P(2)}]",
    "list(range(60))",
    "{i: 'x' * i for i in range(20)}",
    "it = iter([1, 2, 3])\nnext(it)",
    "next(it)",
    "import random\nrandom.seed(1)\nrandom.random()",
    "random.random()",
    "import asyncio\nasync def h():\n    await asyncio.sleep(0)\n    return 'awaited'\nawait h()",
    "%who_ls int",
    "%%capture cap\nprint('captured')",
    "cap.stdout",
    "!echo shell",
    "display(1, 'two')\n'three'",
    "class H:\n    def _repr_html_(self): return '<b>h</b>'\n    def __repr__(self): return 'H'\nH()",
    "import warnings\nwarnings.warn('careful')",
    "from dataclasses import dataclass\n@dataclass\nclass D:\n    a: int = 1\nD()",
    "import pickle\npickle.loads(pickle.dumps(D(2)))",
    "import threading\nt = threading.Thread(target=print, args=('from a thread',))\nt.start(); t.join()",
    "globals()['late'] = 5\nlate",
    "__name__",
    "lambda: 0",
    "object()",
    "for i in range(3):\n    print(i)\nelse:\n    print('done')",
    "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    print('caught', e)",
    "assert x == 11, f'x is {x}'",
    "print('no newline', end='')",
    "'\\u00e9\\U0001f600'",
    "exec('z = 3')\nz",
    "del z\n'z' in globals()",
    "import os\nopen('f.txt', 'w').write('text')\nopen('f.txt').read()",
    "'last'",
)

REPLAYED = (
    ("n = 0\ndef step():\n    global n\n    n += 1\n    return n", "print(step())", "print(n)", "1"),
    (
        "import random\nr = random.random()",
        "with open('r', 'a') as f:\n    f.write(f'{r} ')",
        "print(len(set(open('r').read().split())))",
        "1",
    ),
    ("f = open('log', 'a')", "f.write('once '); f.flush()", "print(open('log').read().strip())", "once"),
    ("e = 0.5\nprint('absolute error', e)", "e += 1", "print(e)", "1.5"),
    ("values = []\nvalues.append(1)\nvalues[5]", "values.append(2)", "print(values)", "[1, 2]"),
)
"""Three cells and what the last one prints in a real kernel: a printed call, chance, a file, a word, an exception."""


@dataclass(frozen=True)
class Difference:
    """A cell that shows one thing in a real kernel and another in ours."""

    cell: str
    real: Any
    ours: Any


def scrubbed(value: Any) -> Any:
    """The one documented difference: addresses, and cells' names (see ``transcript.scrub`` and ``CellCompiler``)."""
    if isinstance(value, str):
        return _CELL.sub("<cell>", scrub(value))
    if isinstance(value, dict):
        return {key: scrubbed(entry) for key, entry in value.items()}
    return [scrubbed(entry) for entry in value] if isinstance(value, (list, tuple)) else value


_CELL = re.compile(r"<cell \d+>|(/\S*/ipykernel_\d+/)?\b\d+\.py\b")


async def differences(cells: tuple[str, ...] = CELLS) -> list[Difference]:
    """Run the cells in a stock kernel and in a forked one, both through jupyter-client's own client."""
    found = []
    async with stock_kernel() as real, stock_kernel([]) as ours:
        for cell in cells:
            theirs, mine = scrubbed(await real.run(cell)), scrubbed(await ours.run(cell))
            if theirs != mine:
                found.append(Difference(cell, theirs, mine))
    return found


async def replays_that_agree() -> int:
    """Of ``REPLAYED``, how many a history that is run again gets right."""
    outputs = [await rerun(cells) for *cells, _ in REPLAYED]
    return sum(
        last.splitlines()[-1:] == [wanted] for (*_, last), (*_, wanted) in zip(outputs, REPLAYED, strict=True)
    )
