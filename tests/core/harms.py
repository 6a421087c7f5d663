"""What code can do to the process that it runs in."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def harm(how: str) -> Any:
    """What the text says."""
    match how:
        case "power":  # what computer algebra makes of a tower of powers; holds on to the interpreter
            return 9**9**9**9
        case "sleep":
            time.sleep(3600)
        case "nap":
            time.sleep(2)
        case "loop":
            while True:
                pass
        case "memory":
            return [b"x" * (64 << 20) for _ in range(10_000)]
        case "hoard":  # in steps that something else can see
            hoard = []
            for _ in range(400):
                hoard.append(b"x" * (8 << 20))
                time.sleep(0.01)
        case "raise":
            raise ValueError("no such answer")
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "nonsense":
            return "right"
    return None
