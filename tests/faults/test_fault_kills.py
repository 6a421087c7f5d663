"""SIGKILL at any moment, of the run and of what it has started: the run that goes on comes to the end of one that was never
killed, and leaves nothing behind. ``CORT_KILLS`` says how often (50 for the whole campaign)."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from processes import descendants

from cort_framework.store import read_trajectories

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


KILLS = int(os.environ.get("CORT_KILLS", "6"))
LONGEST = 1200.0
"""Seconds that anything here may take on a busy machine."""
MARK = "CORT_FAULT_CAMPAIGN"
PORT = free_port()
FAILED = 3
"""The exit code of a run whose stage has failed: the same command goes on."""
SEED = int(os.environ.get("CORT_KILLS_SEED", "0"))
Tried = Callable[[str, str], None]
Whole = Callable[[str], tuple[Path, float]]

COLLECT = """
[[stage]]
name = "collect"
kind = "select"
tasks = "train"
samples = 6
least = 0.0
most = 1.0
"""
SERVED = """
[engines.openai]
url = "http://127.0.0.1:{port}/v1"
retries = 1

[[stage]]
name = "collect"
kind = "select"
tasks = "train"
samples = 2
least = 0.0
most = 1.0
"""
RANKS = """
[launch]
processes = 2
threads = 1

[[stage]]
name = "rl"
kind = "rl"
tasks = "train"
rollout.top_p = 1.0
rollout.max_tokens = 120

[stage.options]
steps = 6
prompts_per_step = 2
num_generations = 4
learning_rate = 5e-5
save_every = 2
"""


@dataclass
class Nursery:
    """Starts runs as processes of their own, warm (``nursery.py``); one at a time."""

    folder: Path
    process: subprocess.Popen[str]

    def start(self, name: str, recipe: str = "killed") -> int:
        """The process id of a run in ``folder / name``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.folder / recipe}.toml\t{self.folder / name}\n")
        self.process.stdin.flush()
        return int(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process that starts runs has ended"
        return line

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def through(self, name: str, disturb: Callable[[int], None], recipe: str = "killed") -> None:
        """A run that is disturbed, once it has begun, and started again until it is through."""
        limit = time.monotonic() + LONGEST
        while time.monotonic() < limit:
            pid = self.start(name, recipe)
            disturb(pid)
            status = int(self.line())
            if status == 0:
                return
            assert status in (-signal.SIGKILL, FAILED), self.log(name)
        raise AssertionError(f"{name} came to no end: {self.log(name)}")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "tmp").mkdir()
    environment = {
        **os.environ,
        MARK: str(folder),
        "TMPDIR": str(folder / "tmp"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    text = (HERE / "killed.toml").read_text()
    head = text[: text.index("[[stage]]")]
    (folder / "killed.toml").write_text(text)
    (folder / "collect.toml").write_text(head + COLLECT)
    (folder / "ranks.toml").write_text(head + RANKS)
    served = head.replace('engine = "transformers"', 'engine = "openai"').replace("= 200", "= 50")
    (folder / "served.toml").write_text(served + SERVED.format(port=PORT))
    command = [sys.executable, str(HERE / "nursery.py"), str(folder / "killed.toml")]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    found = Nursery(folder, process)
    try:
        assert found.line() == "ready\n"
        yield found
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def whole(nursery: Nursery) -> Callable[[str], tuple[Path, float]]:
    """A run of a recipe that was never disturbed, and the seconds that it took."""

    @cache
    def make(recipe: str) -> tuple[Path, float]:
        name, started = f"whole-{recipe}", time.monotonic()
        nursery.start(name, recipe)
        assert nursery.line() == "0\n", nursery.log(name)
        return nursery.folder / name, time.monotonic() - started

    return make


# --- what is compared -------------------------------------------------------------------------------------------
def timeless(value: Any) -> Any:
    """Without what clocks say."""
    if isinstance(value, dict):
        return {key: timeless(inside) for key, inside in value.items() if "seconds" not in key}
    return [timeless(inside) for inside in value] if isinstance(value, list) else value


def outcome(run: Path) -> dict[str, Any]:
    """All that a run made: trajectories line by line, results, tasks, and weights byte by byte."""
    found: dict[str, Any] = {"results": timeless(json.loads((run / "results.json").read_text()))}
    for stage in sorted(path.parent for path in run.glob("*/stage.json")):
        state = json.loads((stage / "stage.json").read_text())
        found[f"{stage.name} summary"] = state["status"], timeless(state["result"]["summary"])
        for path in (*stage.glob("*.jsonl"), *stage.glob("checkpoint/*")):
            content = path.read_bytes()
            name = str(path.relative_to(run))
            if path.suffix == ".jsonl":
                found[name] = [timeless(json.loads(line)) for line in content.splitlines()]
            else:
                found[name] = content
    return found


def differing(run: Path, other: Path) -> list[str]:
    one, two = outcome(run), outcome(other)
    return [name for name in {**one, **two} if one.get(name) != two.get(name)]


def left_behind(folder: Path) -> list[str]:
    """Temporary folders, and processes of these runs that outlive them; they have a moment to end."""
    limit = time.monotonic() + 60
    while (found := [*_processes(folder), *os.listdir(folder / "tmp")]) and time.monotonic() < limit:
        time.sleep(0.2)
    return found


def _processes(folder: Path) -> list[str]:
    """Command lines of the campaign's processes. Kernels have a clean environment, but their template's command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                marked = f"{MARK}={folder}".encode() in (entry / "environ").read_bytes()
                if (marked or str(folder / "tmp") in command) and "nursery.py" not in command:
                    found.append(f"{entry.name} {command}")
    return found


def wrong_with(nursery: Nursery, name: str, undisturbed: Path) -> list[str]:
    """What differs from a run that was not disturbed, what was begun anew, and what was left behind."""
    moved = [f"moved aside: {path.name}" for path in (nursery.folder / name).glob("*~*")]
    return [*differing(nursery.folder / name, undisturbed), *moved, *left_behind(nursery.folder)]


# --- the run itself ---------------------------------------------------------------------------------------------
def test_a_run_that_is_killed_at_random_moments_comes_to_the_same_end(
    nursery: Nursery, whole: Whole, tried: Tried
) -> None:
    noise = random.Random(SEED)
    undisturbed, span = whole("killed")
    killed = number = 0
    while killed < KILLS:
        number, before = number + 1, killed

        def disturb(pid: int) -> None:
            nonlocal killed
            if killed < KILLS:
                # up to a third of what a whole run takes: a chain of kills gets through it, and all stages are met
                killed += kill_after(pid, noise.uniform(0, span / 3))

        nursery.through(f"killed-{number}", disturb)
        wrong = wrong_with(nursery, f"killed-{number}", undisturbed)
        for _ in range(killed - before):
            tried("SIGKILL of the run", "lost" if wrong else "survived")
        assert not wrong


def kill_after(pid: int, seconds: float) -> bool:
    """Whether it lived until then."""
    if ended(pid, seconds):
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return True


def ended(pid: int, within: float) -> bool:
    """Whether a process ends within so many seconds."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], within)[0])
    finally:
        os.close(process)


# --- what it has started ----------------------------------------------------------------------------------------
def killing(
    noise: random.Random, victims: Callable[[int], list[int]], kills: int, pause: float
) -> tuple[Callable[[int], None], list[int]]:
    """What kills one of a run's processes after another, at random moments, and a list of those that it has killed."""
    killed: list[int] = []

    def disturb(pid: int) -> None:
        while len(killed) < kills:
            time.sleep(noise.uniform(0, pause))
            if not Path(f"/proc/{pid}/exe").exists():
                return
            if found := [victim for victim in victims(pid) if victim not in killed]:
                killed.append(noise.choice(found))
                with suppress(ProcessLookupError):
                    os.kill(killed[-1], signal.SIGKILL)

    return disturb, killed


def templates(pid: int) -> list[int]:
    return [child for child, command in descendants(pid).items() if "cort_python.forkserver" in command]


def kernels(pid: int) -> list[int]:
    """What the templates have forked, which has their command line."""
    first = set(templates(pid))
    return [child for one in first for child in descendants(one) if child in first]


def fork_servers(pid: int) -> list[int]:
    return [one for one in templates(pid) if one not in kernels(pid)]


def ranks(pid: int) -> list[int]:
    return [child for child, command in descendants(pid).items() if "cort_framework.training.rank" in command]


def test_a_run_whose_fork_server_is_killed_comes_to_the_same_end(
    nursery: Nursery, whole: Whole, tried: Tried
) -> None:
    undisturbed, span = whole("collect")
    disturb, killed = killing(random.Random(SEED), fork_servers, 3, span / 3)
    nursery.through("forkless", disturb, "collect")
    wrong = wrong_with(nursery, "forkless", undisturbed)
    for _ in killed:
        tried("SIGKILL of the fork server", "lost" if wrong else "survived")
    assert not wrong and killed


def test_a_killed_kernel_is_told_as_such_and_touches_its_own_trajectory_alone(
    nursery: Nursery, whole: Whole, tried: Tried
) -> None:
    undisturbed, span = whole("collect")
    disturb, killed = killing(random.Random(SEED), kernels, 5, span / 6)
    nursery.through("kernelless", disturb, "collect")
    one, two = (
        {t.id: t for t in read_trajectories(run / "collect/trajectories.jsonl")}
        for run in (nursery.folder / "kernelless", undisturbed)
    )
    hit = [t for t in one.values() if any(c.result and "SIGKILL" in c.result.text for c in t.calls)]
    wrong = [t.id for t in one.values() if t.ids != two[t.id].ids and t not in hit]
    wrong += [t.id for t in one.values() if not t.usable] + left_behind(nursery.folder)
    for _ in killed:
        tried("SIGKILL of a kernel", "lost" if wrong else "survived")
    assert not wrong and killed and len(hit) <= len(killed) and one.keys() == two.keys()


def test_a_run_whose_ranks_are_killed_comes_to_the_same_end(
    nursery: Nursery, whole: Whole, tried: Tried
) -> None:
    undisturbed, span = whole("ranks")
    for fault, victims in (
        ("SIGKILL of a training rank", ranks),
        ("SIGKILL of a run with ranks", lambda pid: [pid] if ranks(pid) else []),
    ):
        name = fault.rpartition(" ")[2]
        disturb, killed = killing(random.Random(SEED), victims, 1, span / 2)
        nursery.through(name, disturb, "ranks")
        wrong = wrong_with(nursery, name, undisturbed)
        for _ in killed:
            tried(fault, "lost" if wrong else "survived")
        assert not wrong and killed


def test_a_run_whose_engine_is_killed_goes_on_once_there_is_another(
    nursery: Nursery, whole: Whole, tried: Tried
) -> None:
    noise, kills, servers = random.Random(SEED), 2, [serve()]
    try:
        undisturbed, span = whole("served")
        killed = 0

        def disturb(pid: int) -> None:
            nonlocal killed
            if servers[-1].poll() is not None:
                servers.append(serve())
            if killed < kills and not ended(pid, noise.uniform(span / 4, span)):
                servers[-1].kill()
                killed += 1

        nursery.through("serverless", disturb, "served")
    finally:
        for server in servers:
            server.kill()
            server.wait(30)
    wrong = wrong_with(nursery, "serverless", undisturbed)
    for _ in range(killed):
        tried("SIGKILL of the engine", "lost" if wrong else "survived")
    assert not wrong and killed


def serve() -> subprocess.Popen[bytes]:
    """A server that answers."""
    process = subprocess.Popen([sys.executable, str(HERE / "serving.py"), str(PORT)])
    limit = time.monotonic() + LONGEST
    while time.monotonic() < limit:
        assert process.poll() is None, "the server has ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 5):
            return process
        time.sleep(0.1)
    process.kill()
    raise AssertionError("the server does not answer")
