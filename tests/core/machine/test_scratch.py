"""Temporary folders whose process is gone are removed by the next that makes one; those of the living are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from cort_framework.machine.scratch import new_scratch, remove_scratch

OTHER = "from cort_framework.machine.scratch import new_scratch; print(new_scratch('cort-', {!r}), flush=True); input()"


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    mine = new_scratch("cort-", str(tmp_path))
    script = OTHER.format(str(tmp_path))
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().decode().strip())
        (theirs / "a" / "b").mkdir(parents=True)
        (tmp_path / "cort-somebodys").mkdir()
        second = new_scratch("cort-", str(tmp_path))
        assert mine.is_dir() and theirs.is_dir()
        other.send_signal(signal.SIGKILL)
        other.wait(20)
        third = new_scratch("cort-", str(tmp_path))
        assert not theirs.exists() and mine.is_dir() and second.is_dir()
    finally:
        other.kill()
        other.communicate(timeout=20)
    before = len(os.listdir("/proc/self/fd"))
    for folder in (mine, second, third):
        remove_scratch(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["cort-somebodys"]
    assert len(os.listdir("/proc/self/fd")) == before - 3
