"""Rollouts that run ahead of the training: which weights they sample from, and what the loss makes of it."""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import trl_worlds
from test_trl_grpo import Scripted, config, rl_context
from test_trl_sft import same
from trl_runs import EngineRollout, Recorder, batches_of

import cort_framework as cort
from cort_framework.store import read_trajectories
from cort_trl.grpo import GroupRelativeTrainer


class Watched(EngineRollout):
    """Keeps what every version of the weights was, and what was sampled."""

    def __init__(self, checkpoint: Path, scratch: Path) -> None:
        self.weights: dict[int, dict[str, torch.Tensor]] = {}
        self.made: dict[int, list[cort.Trajectory]] = defaultdict(list)
        super().__init__(checkpoint, scratch)

    def load_weights(self, weights: cort.Weights) -> None:
        super().load_weights(weights)
        assert self.engine._decoder is not None
        self.weights.setdefault(weights.version, copy.deepcopy(self.engine._decoder.model.state_dict()))

    def __call__(self, requests: Sequence[cort.RolloutRequest]) -> list[cort.Trajectory]:
        made = super().__call__(requests)
        for trajectory in made:
            self.made[trajectory.sample // 4].append(trajectory)
        return made


@pytest.fixture
def watched(tiny_checkpoint: Path, tmp_path: Path) -> Iterator[Watched]:
    rollout = Watched(tiny_checkpoint, tmp_path)
    yield rollout
    rollout.close()


def train(
    folder: Path, checkpoint: Path, rollout: Any, reporter: Recorder | None = None, **values: Any
) -> Path:
    made = rl_context(folder, checkpoint, rollout, reporter)
    return GroupRelativeTrainer(config(**values)).train(made).path


@cache
def loaded(checkpoint: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    return model, copy.deepcopy(model.state_dict())


def logprobs(
    checkpoint: Path, ids: Sequence[int], state: dict[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """Of each token but the first, ``[len(ids) - 1]``."""
    model, beginning = loaded(checkpoint)
    model.load_state_dict(state or beginning)
    row = torch.tensor([list(ids)])
    with torch.no_grad():
        said = model(row).logits.log_softmax(-1)
    return said[0, :-1].gather(1, row[0, 1:, None])[:, 0]


@pytest.mark.parametrize(
    ("lag", "options"),
    [
        (1, {}),
        pytest.param(2, {"placement": "disk"}, marks=pytest.mark.slow),
        pytest.param(2, {"lora": {"rank": 4}, "packing": True}, marks=pytest.mark.slow),
    ],
)
def test_step_k_plus_n_samples_the_weights_that_step_k_began_with(
    tiny_checkpoint: Path, tmp_path: Path, watched: Watched, lag: int, options: dict[str, Any]
) -> None:
    reporter = Recorder()
    train(tmp_path / "rl", tiny_checkpoint, watched, reporter, steps=5, policy_lag=lag, **options)
    assert reporter.column("rollout/lag") == [min(step, lag) for step in range(5)]
    assert reporter.column("rollout/stale") == [0.0] * 5
    for step, trajectories in watched.made.items():
        version = max(1, step + 1 - lag)
        for trajectory in trajectories:
            turns = [turn for turn in trajectory.turns if turn.author == "model"]
            assert {turn.weights_version for turn in turns} == {version}
            said = logprobs(tiny_checkpoint, trajectory.ids, watched.weights[version])
            sampled = torch.tensor(turns[-1].logprobs)
            assert torch.allclose(said[-len(sampled) :], sampled, atol=1e-5)
    moved = [
        not all(torch.equal(watched.weights[v][name], tensor) for name, tensor in watched.weights[1].items())
        for v in range(2, 6 - lag)
    ]
    assert moved
    assert all(moved)


def test_a_rollout_goes_on_while_the_trainer_computes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    updated = threading.Event()

    class Reporting(Recorder):
        def metrics(self, **values: float | int | str) -> None:
            super().metrics(**values)
            updated.set()

    class Waiting(Scripted):
        def __call__(self, requests: Sequence[cort.RolloutRequest]) -> list[cort.Trajectory]:
            if requests[0].sample >= 4:  # of the second step: it ends after the first step's update
                assert updated.wait(60)
            return super().__call__(requests)

    reporter = Reporting()
    train(tmp_path, tiny_checkpoint, Waiting([0.0, 1.0]), reporter, steps=2, policy_lag=1)
    assert reporter.column("rollout/lag") == [0, 1]
    assert reporter.column("rollout/overlapped")[1] > 0


@pytest.mark.slow
def test_two_trainings_with_a_lag_come_to_the_same_weights_and_not_to_those_without(
    tiny_checkpoint: Path, tmp_path: Path, watched: Watched
) -> None:
    made = [
        train(tmp_path / str(i), tiny_checkpoint, watched, steps=4, policy_lag=lag)
        for i, lag in enumerate((1, 1, 0))
    ]
    assert same(made[0], made[1])
    assert not same(made[0], made[2])


@pytest.mark.slow
@pytest.mark.parametrize(("lag", "updates"), [(2, 1), (1, 2)])
def test_a_training_with_a_lag_that_was_killed_goes_on_to_the_same_weights(
    tiny_checkpoint: Path, tmp_path: Path, watched: Watched, lag: int, updates: int
) -> None:
    settings = {"steps": 5, "updates_per_step": updates, "policy_lag": lag, "save_every": 2}

    class Killed(Recorder):
        def metrics(self, **values: float | int | str) -> None:
            if values["step"] == 3 * updates:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", tiny_checkpoint, watched, Killed(), **settings)
    resumed = Recorder()
    second = train(tmp_path / "a", tiny_checkpoint, watched, resumed, **settings)
    whole = train(tmp_path / "b", tiny_checkpoint, watched, **settings)
    assert resumed.column("step")[0] == 2 * updates + 1
    assert set(resumed.column("rollout/lag")) == {lag}
    assert same(second, whole)


@pytest.mark.parametrize("updates", [1, 2])
def test_a_token_counts_as_much_more_as_it_has_become_likelier_up_to_the_cap(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, updates: int
) -> None:
    from trl import GRPOTrainer

    class LongAgo(Scripted):
        """What it sampled was less likely then, by factors that straddle the cap, or likelier."""

        def _make(self, request: cort.RolloutRequest) -> cort.Trajectory:
            made = super()._make(request)
            said = logprobs(tiny_checkpoint, made.ids)
            first, last = made.turns[1], made.turns[4]
            drift = torch.tensor([-0.5, 0.0, 0.4, 1.5])
            then = torch.cat([said[1:4], said[-1:]]) - drift
            made.turns[1] = cort.Turn("model", first.ids, "", tuple(then[:3].tolist()))
            made.turns[4] = cort.Turn("model", last.ids, "", tuple(then[3:].tolist()))
            return made

    seen = batches_of(monkeypatch, GRPOTrainer, "_compute_loss")
    reporter = Recorder()
    settings = {"steps": 1, "updates_per_step": updates, "policy_lag": 1, "importance_cap": 2.0}
    train(tmp_path, tiny_checkpoint, LongAgo([1.0, 0.0]), reporter, **settings)
    expected = torch.tensor([-0.5, 0.0, 0.4, 1.5]).exp().clamp(max=2.0)
    rows = 0
    for batch in seen:
        weighed = batch["advantages"][:, [0, 1, 2, 6]]
        base = weighed[:, 1:2]  # a token that is as likely as it was
        assert torch.allclose(weighed, base * expected, atol=1e-5)
        assert (base.abs() > 0.5).all()
        rows += len(weighed)
    assert rows == 8
    assert reporter.column("importance/max")[0] == pytest.approx(torch.tensor(1.5).exp().item(), rel=1e-4)
    assert reporter.column("importance/capped") == [0.25] * updates


def test_without_drift_the_correction_changes_nothing(
    tiny_checkpoint: Path, tmp_path: Path, watched: Watched
) -> None:
    """The first step of a training with a lag is on the policy; so it is that of a training without."""
    first, second = Recorder(), Recorder()
    train(tmp_path / "a", tiny_checkpoint, watched, first, steps=1, policy_lag=1)
    train(tmp_path / "b", tiny_checkpoint, watched, second, steps=1)
    assert first.column("importance/mean") == [pytest.approx(1.0, abs=1e-5)]
    assert first.column("grad_norm")[0] == pytest.approx(second.column("grad_norm")[0], rel=1e-4)
    assert first.column("logprob_gap")[0] < 1e-5


class Stamped(Scripted):
    """Sample ``k`` of a group is stamped with ``versions[k]``."""

    def __init__(self, versions: Sequence[int]) -> None:
        super().__init__([1.0, 0.0, 1.0, 0.0])
        self.versions = versions

    def _make(self, request: cort.RolloutRequest) -> cort.Trajectory:
        made = super()._make(request)
        version = self.versions[request.sample % 4]
        made.turns = [
            cort.Turn(t.author, t.ids, t.text, t.logprobs, version if t.author == "model" else None)
            for t in made.turns
        ]
        return made


def test_what_is_older_than_the_lag_is_counted_and_not_trained_on(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    seen = batches_of(monkeypatch, GRPOTrainer, "_compute_loss")
    reporter = Recorder()
    train(tmp_path, tiny_checkpoint, Stamped([1, 0, -1, 1]), reporter, steps=1, policy_lag=1)
    assert reporter.column("rollout/stale") == [0.25]
    trained = defaultdict(set)
    for batch in seen:
        mask = (batch["completion_mask"] * batch["tool_mask"]).sum(1)
        for ids, count in zip(batch["completion_ids"].tolist(), mask.tolist(), strict=True):
            trained[ids[0] - 10].add(count)
    assert trained == {0: {4}, 1: {4}, 2: {0}, 3: {4}}


def test_an_engine_that_does_not_take_the_weights_ends_the_training(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(cort.CortError, match="sampled from weights 2 versions old; policy_lag is 1"):
        train(tmp_path, tiny_checkpoint, Stamped([1, 1, 1, 1]), steps=3, policy_lag=1)


@pytest.mark.slow
def test_one_process_and_two_give_the_same_weights_with_a_lag(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}:{here.parent}")
    one = trl_worlds.train(trl_worlds.grpo(tmp_path / "one", tiny_checkpoint, policy_lag=1))
    two = trl_worlds.train(trl_worlds.grpo(tmp_path / "two", tiny_checkpoint, processes=2, policy_lag=1))
    assert trl_worlds.weights_gap(one.path, two.path) < 1e-5
    assert trl_worlds.weights_gap(one.path, tiny_checkpoint) > 1e-3


def recipe(checkpoint: Path, **options: Any) -> cort.Recipe:
    common = {
        "steps": 3,
        "prompts_per_step": 2,
        "num_generations": 8,
        "policy_lag": 1,
    }
    return cort.Recipe(
        name="lag",
        model=str(checkpoint),
        deterministic=True,
        tasks={"train": {"source": "tiny", "size": 6}},
        rollout={"max_tokens": 64, "temperature": 1.0, "top_p": 1.0},
        engines={"transformers": {"threads": 1}},
        rewards={"length": {"target": 1, "limit": 64}},
        stage=[{"name": "rl", "kind": "rl", "tasks": "train", "options": {**common, **options}}],
    )


@pytest.mark.slow
def test_a_deterministic_recipe_with_a_lag_is_equal_byte_for_byte(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    made = recipe(tiny_checkpoint, learning_rate=1e-2)
    first, second = (cort.run(made, run_dir=tmp_path / name) for name in "ab")
    assert first.checkpoint is not None
    assert second.checkpoint is not None
    assert same(first.checkpoint, second.checkpoint)
    assert not same(first.checkpoint, tiny_checkpoint)
    sampled = [
        sorted(
            (t.id, *(turn.weights_version for turn in t.turns), *t.ids)
            for t in read_trajectories(tmp_path / name / "rl" / "trajectories.jsonl")
        )
        for name in "ab"
    ]
    assert sampled[0] == sampled[1]
    assert {turn for line in sampled[0] for turn in line[1:3]} == {None, 1, 2}


def test_a_training_that_fails_leaves_no_rollout_under_way(tiny_checkpoint: Path, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(cort.CortError):
        cort.run(recipe(tiny_checkpoint, learning_rate=1e30, steps=20), run_dir=tmp_path)
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("cort-") and thread.name != "cort-plugin":  # those wait for any work
            thread.join(30)
            assert not thread.is_alive()
