"""What is left of vLLM when the program that it works for is killed: nothing, or its GPUs stay full."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

KILLED = """
import asyncio, os, pathlib, signal, sys
import psutil
import cort_framework as cort
from cort_vllm.engine import VllmEngine

async def run():
    engine = VllmEngine(VllmEngine.Config(eager=True, kv_cache_gb=0.1, max_batch=4))
    await engine.open(cort.OpenContext(pathlib.Path(sys.argv[2])))
    await engine.load_weights(cort.Weights(sys.argv[1]))
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(run())
"""
GONE_S = 60


def test_a_program_that_is_killed_leaves_none_of_vllms_processes(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    psutil = pytest.importorskip("psutil")
    pytest.importorskip("vllm")
    command = [sys.executable, "-c", KILLED, str(checkpoint()), str(tmp_path)]
    with (tmp_path / "log").open("w") as log, (tmp_path / "pids").open("w") as pids:
        killed = subprocess.run(command, stdout=pids, stderr=log, timeout=500)
    assert killed.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()[-2000:]
    left = {int(pid) for pid in (tmp_path / "pids").read_text().split()}
    assert len(left) >= 2
    until = time.monotonic() + GONE_S
    while left and time.monotonic() < until:
        time.sleep(0.5)
        left = {
            pid
            for pid in left
            if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        }
    assert not left
