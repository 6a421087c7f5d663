"""Runs a Python program as an ordinary user, also where the tests run as root and their Python is root's alone."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cort_python.isolation.readable import readable_by_others

NOBODY = 65534


def run_as_ordinary_user(code: str, timeout: float = 100) -> str:
    """What the program prints. Skips where there is no way to be an ordinary user here."""
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        options: dict[str, object] = {}
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            private = [p for p in (sys.prefix, sys.base_prefix) if not readable_by_others(p)]
            if private and not _can_mount():
                pytest.skip("other users cannot read this Python, and we may not mount it where they can")

            def become_nobody() -> None:
                for path in private:
                    show(Path(os.path.realpath(path)))
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)

            options["preexec_fn"] = become_nobody
        environment |= {"HOME": folder, "TMPDIR": folder}
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True, text=True, timeout=timeout, cwd=folder, env=environment, **options,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _can_mount() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


def show(path: Path) -> None:
    """In a mount name space of this process's own: make ``path`` readable by all, with nothing that is beside it."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, target: str, flags: int, kind: str = "none", data: str | None = None) -> None:
        arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags))
        if libc.mount(*arguments, None if data is None else data.encode()):
            raise OSError(ctypes.get_errno(), f"mount {target}")

    bind, move, private = 4096, 8192, (1 << 18) | (1 << 14)
    closed = next(p for p in reversed([path, *path.parents]) if not p.stat().st_mode & 0o1)
    if libc.unshare(1 << 17):
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", "/", private)
    aside = tempfile.mkdtemp(dir="/tmp")
    mount(str(path), aside, bind)
    mount("none", str(closed), 0, "tmpfs", "mode=755")
    path.mkdir(parents=True, exist_ok=True)
    mount(aside, str(path), move)
    os.rmdir(aside)
