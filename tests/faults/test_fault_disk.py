"""Disks that fill, cannot be written or lose what was on them, and clocks that jump: work goes on, or says what it lacks."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pupil
import pytest
from marching import Marching

from cort_framework.cli.traces import find_traces
from cort_framework.display import SilentDisplay
from cort_framework.errors import CortError, DiskError, StageFailed
from cort_framework.machine.disks import writable
from cort_framework.pipeline import RunReport, run
from cort_framework.recipe import make_plan
from cort_framework.store import read_trajectories

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MAIN = "import sys; from cort_framework.cli import main; sys.exit(main())"
STAGES = ("before", "make", "sft", "rl", "after")


@pytest.fixture(autouse=True)
def nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No scratch folder, no open file, of all that a test does."""
    monkeypatch.setattr(pupil.Teach, "trained", [])
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = open_files()
    yield
    assert open_files() <= before
    assert list(scratch.glob("cort-*")) == []


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.fixture
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., None]]:
    """``mount(folder, *options)``, which is undone after the test; skips where that is not allowed here."""
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    mounted: list[Path] = []

    def call(folder: Path, *options: str) -> None:
        subprocess.run(["mount", *options, str(folder)], check=True, timeout=30)
        mounted.append(folder)

    try:
        call(tmp_path_factory.mktemp("mount"), "-t", "tmpfs", "tmpfs")
    except subprocess.CalledProcessError:  # one that fails later is a failure of the test
        pytest.skip("nothing may be mounted here")
    yield call
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, timeout=30)


def come_to(folder: Path) -> tuple[Any, ...]:
    """What a run has come to: results, and every trajectory but for the time that it took."""
    paths = sorted(p for p in (folder / "run").glob("*/trajectories.jsonl") if "~" not in p.parent.name)
    made = [
        (p.parent.name, [dataclasses.replace(t, seconds=0.0) for t in read_trajectories(p)]) for p in paths
    ]
    results = json.loads((folder / "run" / "results.json").read_text())
    known = json.loads((folder / "run" / "rl" / "checkpoint" / "config.json").read_text())
    return made, [{k: v for k, v in r.items() if k != "seconds"} for r in results], known


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    pupil.go(folder, *STAGES)
    return folder


@pytest.fixture(scope="module")
def reference(undisturbed: Path) -> tuple[Any, ...]:
    return come_to(undisturbed)


@pytest.fixture
def trainings(tmp_path: Path) -> Any:
    """``sft(folder)``: three steps of a real training, from the second on if it was there; ``gap`` of two checkpoints' weights."""
    for name in ("torch", "trl", "cort_trl"):
        pytest.importorskip(name)
    from tiny_models import save_tiny
    from trl_worlds import sft, train, weights_gap

    model = save_tiny(tmp_path / "model")
    return SimpleNamespace(sft=lambda folder: train(sft(folder, model)).path, gap=weights_gap)


# --- room -------------------------------------------------------------------------------------------------------
def test_a_run_on_a_disk_that_is_full_says_so_and_goes_on_when_there_is_room(
    tmp_path: Path, mount: Callable[..., None], reference: tuple[Any, ...], tried: Callable[..., None]
) -> None:
    for first in (4, 60, 100):
        folder = tmp_path / f"disk-{first}"
        folder.mkdir()
        mount(folder, "-t", "tmpfs", "-o", f"size={first}k", "tmpfs")
        for kib in (*range(first, 300, 32), 4096):
            resize(folder, kib)
            try:
                pupil.go(folder, *STAGES)
                break
            except DiskError as error:
                assert str(folder) in error.message and "no room" in error.message
                assert list(folder.rglob("*.tmp")) == []
                tried("a full disk", "refused")
        assert kib > first and come_to(folder) == reference
        tried("a full disk, then room", "survived")


def test_a_training_on_a_disk_that_is_full_says_so_and_comes_to_the_same_weights_when_there_is_room(
    tmp_path: Path, mount: Callable[..., None], trainings: Any, tried: Callable[..., None]
) -> None:
    plain = trainings.sft(tmp_path / "plain")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "-t", "tmpfs", "-o", "size=8k", "tmpfs")
    refused = 0
    for kib in (200, 500, 1000, 1500, 2000, 1 << 16):
        resize(folder, kib)
        try:
            with writable(folder):
                again = trainings.sft(folder)
            break
        except DiskError as error:
            assert "no room" in error.message
            tried("a disk that is full for a checkpoint", "refused")
            refused += 1
    assert refused >= 3 and trainings.gap(again, plain) == 0
    tried("a disk that is full for a checkpoint, then room", "survived")


def test_a_folder_that_cannot_be_written_is_refused_and_can_still_be_looked_at(
    tmp_path: Path, mount: Callable[..., None], undisturbed: Path, tried: Callable[..., None]
) -> None:
    for name, wanted in (("begun", undisturbed), ("new", None)):
        folder = tmp_path / name
        folder.mkdir()
        if wanted is not None:
            shutil.copytree(wanted, folder, dirs_exist_ok=True)
        mount(folder, "--bind", str(folder))
        mount(folder, "-o", "remount,ro,bind")
        with pytest.raises(DiskError, match="cannot be written: Read-only file system"):
            run(
                make_plan(pupil.recipe(undisturbed, *STAGES), pupil.registry()),
                folder / "run",
                display=SilentDisplay(),
            )
        tried("a folder that cannot be written", "refused")
    assert [t.stage for t in find_traces(tmp_path / "begun" / "run")] == ["before", "make", "rl", "after"]


def test_the_command_line_tells_of_a_disk_in_two_lines(
    tmp_path: Path, mount: Callable[..., None], tried: Callable[..., None]
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "-t", "tmpfs", "-o", "size=4k", "tmpfs")
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "run", "cort_math", "--run-dir", str(folder / "run")],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stderr.splitlines()[-2:]] == ["error", "hint"]
    assert "no room left" in done.stderr and "Traceback" not in done.stderr
    tried("a full disk", "refused")


def resize(disk: Path, kib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kib}k", str(disk)], check=True, timeout=30)


# --- damage -----------------------------------------------------------------------------------------------------
def go_on(undisturbed: Path, folder: Path, unfinished: str, damage: Callable[[Path], None]) -> RunReport:
    """Run again from a copy whose stage ``unfinished`` was at work when it ended, and where nothing came after."""
    shutil.copytree(undisturbed / "run", folder / "run")
    for name in STAGES[STAGES.index(unfinished) + 1 :]:
        shutil.rmtree(folder / "run" / name)
    state = folder / "run" / unfinished / "stage.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"status": "running"}))
    damage(folder / "run")
    plan = make_plan(pupil.recipe(undisturbed, *STAGES), pupil.registry())
    return run(plan, folder / "run", display=SilentDisplay())


def truncate(path: Path, rng: Random) -> None:
    """Somewhere in its last line."""
    data = path.read_bytes()
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    os.truncate(path, rng.randrange(last, len(data)))


@pytest.mark.parametrize("stage", ["before", "make", "after"])
def test_a_last_line_that_was_cut_off_costs_nothing_else(
    tmp_path: Path, undisturbed: Path, reference: tuple[Any, ...], stage: str, tried: Callable[..., None]
) -> None:
    for seed in range(5):
        rng = Random(f"{stage}{seed}")

        def damage(folder: Path, rng: Random = rng) -> None:
            truncate(folder / stage / "trajectories.jsonl", rng)
            truncate(folder / "metrics.jsonl", rng)

        (folder := tmp_path / str(seed)).mkdir()
        go_on(undisturbed, folder, stage, damage)
        assert come_to(folder) == reference
        for line in (folder / "run" / "metrics.jsonl").read_text().splitlines():
            json.loads(line)
        tried("a truncated last line", "survived")


def test_a_file_of_the_run_that_was_cut_off_is_written_again(
    tmp_path: Path, undisturbed: Path, reference: tuple[Any, ...], tried: Callable[..., None]
) -> None:
    names = ("results.json", "plan.json", "environment.json", "recipe.toml", "README.md", "make/stage.json")
    for number, name in enumerate(names):
        (folder := tmp_path / str(number)).mkdir()
        go_on(undisturbed, folder, "after", lambda run, name=name: truncate(run / name, Random(name)))  # type: ignore[misc]
        assert come_to(folder) == reference
        assert (folder / "run" / name).stat().st_size >= (undisturbed / "run" / name).stat().st_size - 8
        tried("a truncated file of the run", "survived")


def test_a_line_that_was_damaged_in_the_middle_is_named(
    tmp_path: Path, undisturbed: Path, tried: Callable[..., None]
) -> None:
    def damage(folder: Path) -> None:
        path = folder / "before" / "trajectories.jsonl"
        data = bytearray(path.read_bytes())
        data[data.index(b"\n") + 1] ^= 1  # the second line's bracket
        path.write_bytes(data)

    with pytest.raises(CortError, match=r"before/trajectories\.jsonl, line 2 is no trajectory"):
        go_on(undisturbed, tmp_path, "before", damage)
    tried("a flipped byte in the trajectories", "refused")


def test_a_flipped_byte_in_a_finished_checkpoint_is_never_built_on(
    tmp_path: Path, undisturbed: Path, reference: tuple[Any, ...], tried: Callable[..., None]
) -> None:
    path = Path("sft", "checkpoint", "config.json")
    for place in range(0, (undisturbed / "run" / path).stat().st_size, 3):
        (folder := tmp_path / str(place)).mkdir()
        with pytest.raises(StageFailed, match="of stage 'sft' is not what it was when the stage ended"):
            go_on(undisturbed, folder, "rl", lambda run, place=place: flip(run / path, place))  # type: ignore[misc]
        flip(folder / "run" / path, place)
        plan = make_plan(pupil.recipe(undisturbed, *STAGES), pupil.registry())
        run(plan, folder / "run", display=SilentDisplay())
        assert come_to(folder) == reference
        tried("a flipped byte in a checkpoint", "refused")


def test_a_flipped_byte_in_a_training_checkpoint_does_not_reach_the_weights(
    tmp_path: Path, trainings: Any, tried: Callable[..., None]
) -> None:
    plain = trainings.sft(tmp_path / "plain")
    *_, state = sorted((tmp_path / "plain" / "training").glob("checkpoint-*"))
    files = sorted(p.relative_to(state) for p in state.rglob("*") if p.is_file() and p.stat().st_size)
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt"} <= {p.name for p in files}
    for file in files:
        folder = tmp_path / file.name
        shutil.copytree(tmp_path / "plain", folder)
        shutil.rmtree(folder / "checkpoint")
        path = folder / "training" / state.name / file
        flip(path, path.stat().st_size // 2)
        assert trainings.gap(trainings.sft(folder), plain) == 0
        tried("a flipped byte in a training's checkpoint", "survived")


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


# --- clocks -----------------------------------------------------------------------------------------------------
def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path,
    undisturbed: Path,
    reference: tuple[Any, ...],
    monkeypatch: pytest.MonkeyPatch,
    tried: Callable[..., None],
) -> None:
    rng, clock, day = Random(0), time.time, 86400.0
    monkeypatch.setattr(time, "time", lambda: clock() + rng.choice((0.0, day, -day, 300 * day, -9000 * day)))
    pupil.go(tmp_path, *STAGES)
    assert come_to(tmp_path) == reference
    tried("a clock that jumps during a run", "survived")
    for year in (1971, 2099):
        (folder := tmp_path / str(year)).mkdir()

        def damage(run: Path, year: int = year) -> None:
            truncate(run / "make" / "trajectories.jsonl", rng)
            for path in run.rglob("*"):
                os.utime(path, ((year - 1970) * 365 * day,) * 2)

        report = go_on(undisturbed, folder, "make", damage)
        assert [s.name for s in report.stages if s.cached] == ["before"] and come_to(folder) == reference
        tried("a clock that jumps between two runs", "survived")


def test_machines_whose_clock_jumps_still_train_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Callable[..., None]
) -> None:
    pupil.registry().register(Marching)
    monkeypatch.setenv("PYTHONPATH", str(Path(pupil.__file__).parent))
    rng, clock = Random(1), time.time
    monkeypatch.setattr(time, "time", lambda: clock() + rng.choice((0, 1, -1)) * 86400.0 * 365)
    launch = {"machines": 2, "address": "127.0.0.1:29500", "timeout_s": 4000}
    changes = {"rl__trainer": "marching", "launch": {**launch, "rank": 1}}
    other = make_plan(pupil.recipe(tmp_path, "rl", **changes), pupil.registry())
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(run, other, tmp_path / "run", display=SilentDisplay())
        pupil.go(tmp_path, "rl", rl__trainer="marching", launch=launch)
        joined.result(60)
    assert len(list(read_trajectories(tmp_path / "run" / "rl" / "trajectories.jsonl"))) == 24
    tried("a clock that jumps while machines wait for each other", "survived")
