"""Thirteen cells that never end by themselves; some of them do not let themselves be interrupted, either."""

from __future__ import annotations

HANGS: dict[str, str] = {
    "an empty loop": "while True: pass",
    "a long sleep": "import time\ntime.sleep(1e6)",
    "a sum in C": "sum(range(10**13))",
    "an iterator in C": "import collections, itertools\ncollections.deque(itertools.repeat(0), maxlen=0)",
    "a regular expression that backtracks": "import re\nre.match(r'(a|aa)+$', 'a' * 60 + 'b')",
    "a number of a billion digits": "len(str(7 ** (10**9)))",
    "a loop that catches everything": (
        "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except BaseException: pass"
    ),
    "a loop that has switched interrupts off": (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})\nwhile True: pass"
    ),
    "a lock taken twice": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "a thread that is waited for": (
        "import threading, time\nthread = threading.Thread(target=time.sleep, args=(1e6,), daemon=True)\n"
        "thread.start()\nthread.join()"
    ),
    "a program that does not end": "import subprocess\nsubprocess.run(['sleep', '1000000'])",
    "an await that nothing answers": "import asyncio\nawait asyncio.Event().wait()",
    "a read of an empty pipe": "import os\nread_end, write_end = os.pipe()\nos.read(read_end, 1)",
}
"""Name and code."""
