"""What a model reads about how a call ended, all of it; what the call had printed comes before."""

from __future__ import annotations

import signal
from contextlib import suppress

INTERRUPTED = "[the call was interrupted after {seconds:g} s; variables are kept]"
KILLED = "[the call was ended after {seconds:g} s and the session restarted; all variables are gone]"
DIED = "[the Python process ended ({how}) and the session restarted; all variables are gone]"
RESTARTED = "[the session has restarted since the last call; all variables are gone]"
"""Before a call's own output, where the one before it was cancelled or the machinery failed."""

TIMED_OUT = "[no result within {seconds:g} s]"
CALL_DIED = "[the calculation was ended: {how}]"
"""Of tools whose calls keep nothing."""

NO_CODE = 'the arguments of "python" must be {"code": "…"} with the code as a string'
NO_TEXT = "the code is no valid text: character {position} is half of a surrogate pair"
TOO_LONG = "the code has {size} characters, and {limit} are allowed"
NO_INSTALL = "packages cannot be installed here; use the ones that can be imported"

_REASONS = {
    "SIGXCPU": "it used up its processor time",
    "SIGXFSZ": "it wrote too large a file",
    "SIGSYS": "it made a system call that is not allowed",
}


def describe_exit(status: int) -> str:
    """``exit code 1``, ``SIGSEGV``, or the limit that was reached."""
    if status < 0:
        with suppress(ValueError):
            name = signal.Signals(-status).name
            return _REASONS.get(name, name)
    return f"exit code {status}"
