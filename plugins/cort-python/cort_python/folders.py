"""Where kernels live on disk, and the environment that they see."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cort_framework.machine.scratch import new_scratch

MAX_SOCKET_PATH = 90
"""Unix socket paths end near 100 characters, on macOS with the terminating zero at 104."""

KERNEL_OPTIONS = "CORT_KERNEL"
"""Environment variable through which a cold kernel gets its options, as JSON."""

WORK = "work"
"""Within a session's folder, the one that its code begins in. The session's sockets are beside it, where code that lists
its folder does not find them."""

_KEPT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
)


def new_root() -> Path:
    """A private folder for one template's kernels, short enough for the sockets in it; ``remove_scratch`` gives it back."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        if len(parent) < MAX_SOCKET_PATH - 45:
            return new_scratch("cort-kernels-", parent)
    raise OSError(f"the temporary folder {tempfile.gettempdir()} has too long a path for sockets: set TMPDIR")


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, also where a cell has taken rights away."""

    def let_in(remove: Callable[[str], object], path: str, error: object) -> None:
        with suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            if os.path.islink(path) or not os.path.isdir(path):
                os.unlink(path)  # a link's target is not ours to change
            else:
                os.chmod(path, 0o700)
                shutil.rmtree(path, True)

    shutil.rmtree(folder, onerror=let_in)


def clean_environment(home: Path) -> dict[str, str]:
    """What a kernel may know of its owner's environment: no secrets, no colours, one thread a library."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    bin_folder = str(Path(sys.executable).parent)
    path = kept.get("PATH", os.defpath)
    return {
        **kept,
        **threads,
        "PATH": path if bin_folder in path.split(os.pathsep) else f"{bin_folder}{os.pathsep}{path}",
        "HOME": str(home),
        "IPYTHONDIR": str(home),
        "LOGNAME": "cort",  # a session may have a user that has no name
        "MPLBACKEND": "agg",
        "NO_COLOR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INDEX": "1",  # without a network, trying again and again only takes time
        "TERM": "dumb",
        "PYTHONHASHSEED": "0",  # the order of a set of strings repeats
        "PYTHONUNBUFFERED": "1",
    }
