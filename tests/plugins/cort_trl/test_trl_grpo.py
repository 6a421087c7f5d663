"""The trainer ``grpo``, with real steps of TRL over scripted rollouts and over the real engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_trl_sft import same
from trl_runs import EngineRollout, Recorder, batches_of, context, trajectory

import cort_framework as cort
from cort_trl.grpo import GroupRelativeTrainer, task_order

TASKS = [cort.Task(f"t{i}", f"{i}+1=?") for i in range(6)]


@pytest.fixture
def engine_rollout(tiny_checkpoint: Path, tmp_path: Path) -> Iterator[EngineRollout]:
    rollout = EngineRollout(tiny_checkpoint, tmp_path)
    yield rollout
    rollout.close()


def config(**values: Any) -> GroupRelativeTrainer.Config:
    common = {
        "steps": 2,
        "prompts_per_step": 2,
        "num_generations": 4,
        "micro_batch": 4,
        "learning_rate": 1e-3,
    }
    return GroupRelativeTrainer.Config(**{**common, **values})


def rl_context(
    folder: Path, checkpoint: Path, rollout: Any, reporter: Recorder | None = None
) -> cort.TrainContext:
    load = getattr(rollout, "load_weights", lambda weights: None)
    return context(
        folder,
        checkpoint,
        reporter,
        tasks=TASKS,
        rollout=rollout,
        load_weights=load,
        temperature=1.0,
        max_tokens=32,
    )


class Scripted:
    """The same turns for every task; sample ``k`` of a group is worth ``values[k]``, ``None`` that it failed: by the
    machinery, or by a reward."""

    def __init__(
        self, values: Sequence[float | None], flat: Sequence[str] = (), failed_reward: bool = False
    ) -> None:
        self.values, self.flat, self.failed_reward = values, flat, failed_reward
        self.requests: list[cort.RolloutRequest] = []

    def __call__(self, requests: Sequence[cort.RolloutRequest]) -> list[cort.Trajectory]:
        self.requests += requests
        return [self._make(request) for request in requests]

    def _make(self, request: cort.RolloutRequest) -> cort.Trajectory:
        k = request.sample % len(self.values)
        value = self.values[0] if request.task.id in self.flat else self.values[k]
        made = trajectory(
            [
                ("prompt", [5, 6]),
                ("model", [10 + k, 30, 31]),
                ("tool", [200, 201]),
                ("hint", [99]),
                ("model", [50 + k]),
            ],
            request.task.id,
        )
        made.sample = request.sample
        if value is None and self.failed_reward:
            made.rewards |= {"answer": cort.Reward(None, error="it hung"), "length": cort.Reward(1.0)}
        elif value is None:
            made.error = "the kernel died"
        else:
            made.rewards["answer"] = cort.Reward(value)
        return made


@pytest.mark.parametrize("failed_reward", [False, True])
def test_the_loss_is_on_what_the_policy_sampled_and_on_no_failed_trajectory(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed_reward: bool
) -> None:
    from trl import GRPOTrainer

    seen = batches_of(monkeypatch, GRPOTrainer, "_compute_loss")
    reporter = Recorder()
    rollout = Scripted([1.0, 0.0, None, 0.5], failed_reward=failed_reward)
    made = rl_context(tmp_path, tiny_checkpoint, rollout, reporter)
    GroupRelativeTrainer(config(steps=1)).train(made)
    rows = 0
    for batch in seen:
        mask = batch["completion_mask"] * batch["tool_mask"]
        for ids, row, advantage, sampled in zip(
            batch["completion_ids"].tolist(),
            mask.tolist(),
            batch["advantages"],
            batch["old_per_token_logps"],
            strict=True,
        ):
            k = ids[0] - 10
            assert ids == [10 + k, 30, 31, 200, 201, 99, 50 + k]
            assert row == ([0] * 7 if k == 2 else [1, 1, 1, 0, 0, 0, 1])
            assert sampled.tolist() == [-1.0, -1.0, -1.0, 0.0, 0.0, 0.0, -1.0]
            assert (advantage > 0) == (k == 0)
            assert k != 2 or advantage == 0
            rows += 1
    assert rows == 8
    line = reporter.lines[0]
    assert line["rollout/failed"] == 0.25
    assert line["rollout/reward/answer"] == 0.5


@pytest.mark.parametrize("updates", [1, 2])
def test_outputs_can_be_trained_on_too(
    tiny_checkpoint: Path,
    tmp_path: Path,
    engine_rollout: EngineRollout,
    monkeypatch: pytest.MonkeyPatch,
    updates: int,
) -> None:
    """The ratio is then to what the policy says of every token as the step begins, and so 1 in the first update."""
    from trl import GRPOTrainer

    seen = batches_of(monkeypatch, GRPOTrainer, "_compute_loss")
    reporter = Recorder()
    options = config(steps=1, updates_per_step=updates, train_on=["model", "tool"])
    made = rl_context(tmp_path / "rl", tiny_checkpoint, engine_rollout, reporter)
    others_too = GroupRelativeTrainer(options).train(made)
    both = 0
    for batch in seen:
        trained = (batch["completion_mask"] * batch["tool_mask"]).bool()
        others = trained & (batch["sampling_per_token_logps"] == 0)
        assert batch["completion_ids"][others].unique().tolist() == [40, 41, 42]
        assert ("old_per_token_logps" in batch) == (updates > 1)
        if updates > 1:
            old = batch["old_per_token_logps"]
            assert (old[others] < 0).all()
            sampled = trained & ~others
            assert (old - batch["sampling_per_token_logps"])[sampled].abs().max() < 1e-5
        both += int(others.sum())
    assert both == 8 * 3
    assert max(reporter.column("logprob_gap")) < 1e-5
    alone = rl_context(tmp_path / "alone", tiny_checkpoint, engine_rollout)
    without = GroupRelativeTrainer(config(steps=1, updates_per_step=updates)).train(alone)
    assert not same(without.path, others_too.path)


def test_outputs_are_not_trained_on_with_a_policy_lag() -> None:
    with pytest.raises(ValueError, match="only those of the model were"):
        config(train_on=["model", "tool"], policy_lag=1)


def test_a_group_without_variance_is_counted_and_carries_no_loss(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    reporter = Recorder()
    rollout = Scripted([0.5, 0.5, 0.5, 0.5])
    checkpoint = GroupRelativeTrainer(config(steps=1)).train(
        rl_context(tmp_path, tiny_checkpoint, rollout, reporter)
    )
    assert reporter.lines[0]["rollout/groups_without_variance"] == 1.0
    assert reporter.lines[0]["grad_norm"] == 0.0
    assert same(checkpoint.path, tiny_checkpoint)


def test_groups_without_variance_are_drawn_again_from_other_tasks(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    reporter = Recorder()
    rollout = Scripted([0.0, 1.0, 0.0, 1.0], flat=("t0", "t1", "t2"))
    made = rl_context(tmp_path, tiny_checkpoint, rollout, reporter)
    GroupRelativeTrainer(config(steps=3, zero_variance="resample", resample_rounds=3)).train(made)
    assert any(reporter.column("rollout/groups_without_variance"))
    assert not any(reporter.column("rollout/groups_dropped"))
    asked = [(r.task.id, r.sample) for r in rollout.requests]
    assert len(set(asked)) == len(asked)


def test_sampled_and_recomputed_logprobs_agree_on_the_same_weights(
    tiny_checkpoint: Path, tmp_path: Path, engine_rollout: EngineRollout
) -> None:
    reporter = Recorder()
    made = rl_context(tmp_path / "rl", tiny_checkpoint, engine_rollout, reporter)
    checkpoint = GroupRelativeTrainer(config(steps=3, updates_per_step=2)).train(made)
    gaps = reporter.column("logprob_gap")
    assert len(gaps) == 3
    assert max(gaps) < 1e-5
    assert reporter.column("kl")[0] == pytest.approx(0.0, abs=1e-6)
    assert reporter.column("kl")[-1] > 0
    assert reporter.steps == 6
    assert not same(checkpoint.path, tiny_checkpoint)


def test_a_training_that_was_killed_goes_on_to_the_same_weights(
    tiny_checkpoint: Path, tmp_path: Path, engine_rollout: EngineRollout
) -> None:
    settings = config(steps=4, updates_per_step=2, save_every=1)

    class Killed(Recorder):
        def metrics(self, **values: float | int | str) -> None:
            if values["step"] == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        GroupRelativeTrainer(settings).train(
            rl_context(tmp_path / "a", tiny_checkpoint, engine_rollout, Killed())
        )
    resumed = Recorder()
    second = GroupRelativeTrainer(settings).train(
        rl_context(tmp_path / "a", tiny_checkpoint, engine_rollout, resumed)
    )
    whole = GroupRelativeTrainer(settings).train(rl_context(tmp_path / "b", tiny_checkpoint, engine_rollout))
    assert resumed.column("step")[0] == 5
    assert same(second.path, whole.path)


def test_the_engine_can_be_given_a_folder_instead_of_the_module(
    tiny_checkpoint: Path, tmp_path: Path, engine_rollout: EngineRollout
) -> None:
    reporter = Recorder()
    made = rl_context(tmp_path / "rl", tiny_checkpoint, engine_rollout, reporter)
    GroupRelativeTrainer(config(placement="disk")).train(made)
    assert max(reporter.column("logprob_gap")) < 1e-5


def test_a_recipe_may_begin_with_reinforcement_learning(tiny_checkpoint: Path, tmp_path: Path) -> None:
    recipe = cort.Recipe(
        name="rl-first",
        model=str(tiny_checkpoint),
        tasks={"train": {"source": "tiny", "size": 4}},
        rollout={"max_tokens": 8, "temperature": 1.0},
        rewards={"answer": {}},
        stage=[
            {
                "name": "rl",
                "kind": "rl",
                "tasks": "train",
                "options": {"steps": 1, "prompts_per_step": 2, "num_generations": 2},
            }
        ],
    )
    report = cort.run(recipe, run_dir=tmp_path / "run")
    assert report.checkpoint is not None
    assert (report.checkpoint / "model.safetensors").is_file()


def test_too_few_tasks_and_a_batch_that_cannot_be_shared_are_clear_errors(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    made = rl_context(tmp_path, tiny_checkpoint, Scripted([0.0, 1.0]))
    with pytest.raises(cort.RequestError, match="6 tasks are too few for prompts_per_step 7"):
        GroupRelativeTrainer(config(prompts_per_step=7)).train(made)
    with pytest.raises(cort.RequestError, match="cannot be shared"):
        GroupRelativeTrainer(config(updates_per_step=3)).train(made)


def test_no_task_comes_twice_in_a_step() -> None:
    order = task_order(7, 3, 20, seed=1)
    assert all(len(set(order[i : i + 3])) == 3 for i in range(0, 60, 3))
    assert set(order) == set(range(7))
    assert order[:6] == task_order(7, 3, 2, seed=1)


def test_an_engine_that_is_not_told_log_probs_trains_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    scripted = Scripted([1.0, 0.0, 0.0, 0.0])

    def untold(requests: Sequence[cort.RolloutRequest]) -> list[cort.Trajectory]:
        made = scripted(requests)
        for t in made:
            t.turns = [replace(turn, logprobs=None) for turn in t.turns]
        return made

    with pytest.raises(cort.CortError, match="does not tell the log-probs"):
        GroupRelativeTrainer(config()).train(rl_context(tmp_path, tiny_checkpoint, untold))
