"""What a calculation has to read: the system's programs, libraries and harmless settings; Python and its packages."""

from __future__ import annotations

import importlib.machinery
import os
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store")
_SETTINGS = (
    *(
        "alternatives",
        "bash.bashrc",
        "ca-certificates",
        "debian_version",
        "fonts",
        "group",
        "host.conf",
        "hosts",
    ),
    *(
        "inputrc",
        "ld.so.cache",
        "ld.so.conf",
        "ld.so.conf.d",
        "locale.alias",
        "locale.conf",
        "localtime",
        "magic",
    ),
    *("matplotlibrc", "mime.types", "nsswitch.conf", "os-release", "passwd", "pki", "profile", "protocols"),
    *("resolv.conf", "services", "ssl", "terminfo", "timezone"),
)
"""Of /etc. The rest may hold secrets, which a process that was root could read."""
_KERNEL = ("/proc", "/sys/devices/system")


def readable_paths(more: Iterable[str]) -> list[str]:
    """Files and folders, none inside another. What is beside the modules of a checkout is not among them."""
    paths = [*_SYSTEM, *(f"/etc/{name}" for name in _SETTINGS), *_KERNEL, *more]
    paths += [sys.prefix, sys.base_prefix, sys.exec_prefix, sysconfig.get_paths()["stdlib"]]
    paths += [os.path.dirname(os.path.realpath(sys.executable))]
    paths += filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    for entry in sys.path:
        if not entry or any(Path(entry).is_relative_to(path) for path in paths):
            continue
        whole = os.path.basename(entry) in ("site-packages", "dist-packages") or os.path.isfile(entry)
        paths += [entry] if whole else modules_in(entry)
    found = sorted({path for path in map(os.path.realpath, paths) if os.path.exists(path)})
    return [path for path in found if not any(str(parent) in found for parent in Path(path).parents)]


def modules_in(folder: str) -> Iterator[str]:
    suffixes = tuple(importlib.machinery.all_suffixes())
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.endswith(suffixes) or os.path.isfile(os.path.join(entry.path, "__init__.py")):
            yield entry.path


def readable_by_others(path: str) -> bool:
    """Whether a user without any rights reaches this file or folder."""
    mode = os.stat(path).st_mode
    itself = mode & stat.S_IROTH and (mode & stat.S_IXOTH or not stat.S_ISDIR(mode))
    return bool(itself) and reachable_by_others(path)


def reachable_by_others(path: str) -> bool:
    """Whether a user without any rights may pass through the folders above this path."""
    return all(os.stat(parent).st_mode & stat.S_IXOTH for parent in Path(os.path.realpath(path)).parents)
