"""Rollouts over a real Ray cluster of three nodes on this machine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_stories import BrokenEngine, SlowEngine, job

import cort_framework as cort
from cort_framework.errors import DeadlineExceeded
from cort_framework.executor import LocalExecutor, RolloutJob
from cort_framework.runtime import Runtime

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find ray_stories
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield cluster
        cluster.shutdown()


@pytest.fixture
def cluster(machines: Any) -> Iterator[Any]:
    """Whole again for every test."""
    import ray

    for _ in range(3 - len(machines.list_all_nodes())):
        machines.add_node(num_cpus=1)
    machines.wait_for_nodes()
    yield machines
    ray.shutdown()


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime(seed=7) as runtime:
        yield runtime


def executor(runtime: Runtime, cluster: Any, **options: Any) -> Any:
    from cort_ray.executor import RayExecutor

    return runtime.open(RayExecutor(RayExecutor.Config(address=cluster.address, **options)))


def by_task(lines: list[list[cort.Trajectory]]) -> dict[str, Any]:
    """What two machines agree on: all but the seconds."""
    found = {}
    for line in lines:
        for trajectory in line:
            record = json.loads(trajectory.to_json())
            record.pop("seconds")
            found[trajectory.id] = record
    return found


def said(notes: Path) -> Counter[str]:
    return Counter(line for file in notes.iterdir() for line in file.read_text().splitlines())


def test_a_cluster_makes_the_trajectories_that_one_machine_makes(
    cluster: Any, runtime: Runtime, tmp_path: Path
) -> None:
    here = list(LocalExecutor().map(job(24), runtime))
    there = list(executor(runtime, cluster).map(job(24, notes=tmp_path, meet=3), runtime))
    assert len(there) == 24
    assert by_task(there) == by_task(here)
    assert len(list(tmp_path.iterdir())) == 3  # processes that took part
    assert max(said(tmp_path).values()) == 1


def test_workers_are_kept_from_one_batch_to_the_next(cluster: Any, runtime: Runtime, tmp_path: Path) -> None:
    ours = executor(runtime, cluster, workers=2)
    for _ in range(3):
        assert len(list(ours.map(job(6, notes=tmp_path, meet=2), runtime))) == 6
    assert len(list(tmp_path.iterdir())) == 2


def test_a_node_that_is_killed_loses_nothing_and_nothing_comes_twice(
    cluster: Any, runtime: Runtime, tmp_path: Path
) -> None:
    lines = []
    victim = cluster.list_all_nodes()[-1]
    for line in executor(runtime, cluster).map(job(40, pause_s=0.4, notes=tmp_path), runtime):
        lines.append(line)
        if len(lines) == 9:
            cluster.remove_node(victim, allow_graceful=False)
    assert Counter(line[-1].task.id for line in lines) == Counter(f"t{n}" for n in range(40))
    assert by_task(lines) == by_task(list(LocalExecutor().map(job(40), runtime)))


def test_without_any_worker_left_the_batch_ends_with_an_error(cluster: Any, runtime: Runtime) -> None:
    ours = executor(runtime, cluster, workers=1, replacements=0)
    batch = ours.map(job(40, pause_s=0.2), runtime)
    next(batch)
    import ray

    ray.kill(ours._hands[0].actor)
    with pytest.raises(cort.InfrastructureError, match="no worker of the executor 'ray' is left"):
        list(batch)


def test_a_batch_ends_by_its_deadline_and_leaves_no_worker(cluster: Any, runtime: Runtime) -> None:
    ours = executor(runtime, cluster, workers=1)
    with pytest.raises(DeadlineExceeded, match="6 rollouts did not end within 8 s"):
        list(ours.map(job(6, pause_s=100, batch_timeout_s=8), runtime))
    assert ours._hands == []


def test_what_a_worker_raises_is_raised_here(cluster: Any, runtime: Runtime) -> None:
    with pytest.raises(cort.CortError, match="there is no such checkpoint"):
        list(executor(runtime, cluster, workers=1).map(job(2, engine=BrokenEngine), runtime))


def test_a_cluster_without_room_is_a_clear_error(cluster: Any, runtime: Runtime) -> None:
    ours = executor(runtime, cluster, cpus=9, start_timeout_s=3)
    with pytest.raises(cort.InfrastructureError, match=r"no worker .* was ready within 3 s") as error:
        list(ours.map(job(2), runtime))
    assert "each wants 9 cores" in str(error.value)


def test_a_live_module_is_refused_with_the_way_out(runtime: Runtime) -> None:
    from dataclasses import replace

    from cort_ray.executor import RayExecutor

    batch: RolloutJob = replace(job(1, engine=SlowEngine), weights=cort.Weights(module=object()))
    with pytest.raises(
        cort.RequestError, match="cannot sample from a model that lives in another process"
    ) as error:
        list(RayExecutor().map(batch, runtime))
    assert 'placement = "disk"' in str(error.value)


def test_a_cluster_that_cannot_be_found_is_a_clear_error(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from cort_ray.executor import RayExecutor

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    nowhere = runtime.open(RayExecutor(RayExecutor.Config(address="no address at all")))
    with pytest.raises(cort.InfrastructureError, match="there is no Ray cluster at no address at all"):
        list(nowhere.map(job(1), runtime))
    assert not ray.is_initialized()
