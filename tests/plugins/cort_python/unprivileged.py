"""Runs a Python program as an ordinary user, also where the tests run as root and their Python is root's alone."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cort_python.isolation.readable import readable_by_others

NOBODY = 65534


def run_as_ordinary_user(code: str, timeout: float = 100) -> str:
    """What the program prints. Skips where there is no way to be an ordinary user here."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        options: dict[str, Any] = {}
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            private = [path for path in needed() if not readable_by_others(str(path))]
            if private and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
                pytest.skip("other users cannot read this Python, and we may not mount it where they can")

            def become_nobody() -> None:
                if private:
                    show(private)
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)

            options["preexec_fn"] = become_nobody
        command = [sys.executable, "-P", "-c", code]
        environment = {**os.environ, "HOME": folder, "TMPDIR": folder}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, cwd=folder, env=environment, **options
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


def needed() -> list[Path]:
    """Python, and this project where it is installed from a checkout; none inside another."""
    roots = {Path(os.path.realpath(path)) for path in (sys.prefix, sys.base_prefix)}
    for name in ("cort_framework", "cort_python"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        roots.add(Path(spec.origin).resolve().parent)
    return [root for root in sorted(roots) if not any(parent in roots for parent in root.parents)]


def show(paths: list[Path]) -> None:
    """In a mount name space of this process's own: make ``paths`` readable by all, with nothing that is beside them."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, target: str, flags: int, kind: str = "none", data: str | None = None) -> None:
        arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags))
        if libc.mount(*arguments, None if data is None else data.encode()):
            raise OSError(ctypes.get_errno(), f"mount {target}")

    bind, move, private = 4096, 8192, (1 << 18) | (1 << 14)
    if libc.unshare(1 << 17):
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", "/", private)
    closed = {
        next(parent for parent in reversed([path, *path.parents]) if not parent.stat().st_mode & 0o1)
        for path in paths
    }
    asides = [tempfile.mkdtemp(dir="/tmp") for _ in paths]
    for path, aside in zip(paths, asides, strict=True):
        mount(str(path), aside, bind)
    for parent in closed:
        mount("none", str(parent), 0, "tmpfs", "mode=755")
    for path, aside in zip(paths, asides, strict=True):
        path.mkdir(parents=True, exist_ok=True)
        mount(aside, str(path), move)
        os.rmdir(aside)
