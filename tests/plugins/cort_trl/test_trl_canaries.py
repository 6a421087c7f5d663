"""The canaries over real updates of TRL: what they see of trajectories and metrics, and what their actions do to a training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_trl_grpo import Scripted, config, rl_context
from trl_runs import Recorder, batches_of
from trl_worlds import Recorded, grpo, recorded, sft, train

import cort_framework as cort
from cort_framework.errors import StageFailed
from cort_framework.executor import LocalExecutor, RolloutJob
from cort_framework.guards.canaries import Canaries
from cort_framework.guards.lookout import reward_trend
from cort_framework.recipe.settings import validated
from cort_framework.registry import Resolved
from cort_framework.runtime import Runtime
from cort_framework.store import read_trajectories
from cort_framework.training import Training
from cort_trl.grpo import GroupRelativeTrainer


def calling(made: cort.Trajectory, code: str) -> cort.Trajectory:
    """With the call, and what came of it, on its tool turn."""
    call, result = cort.ToolCall("python", code), cort.ToolResult(cort.Outcome.OK, "4")
    made.turns = [replace(t, call=call, result=result) if t.author == "tool" else t for t in made.turns]
    return made


class Weary(Recorded):
    """Three of four trajectories call the tool, until the weights have been updated four times; then none does, and is paid
    for that. One of four is cut off."""

    name = "weary"

    def map(self, job: RolloutJob, runtime: Runtime) -> Iterator[list[cort.Trajectory]]:
        tired = job.weights.version > 4
        for request in job.requests:
            made = calling(recorded(request, job.weights.version), f"print({request.key})")
            cut_off = request.sample % 4 == 0
            if cut_off or tired:
                made.turns = [turn for turn in made.turns if turn.author != "tool"]
            made.stop_reason = "length" if cut_off else "eos"
            made.rewards["answer"] = cort.Reward(made.reward + tired)
            yield [made]


class Alike(Recorded):
    """All trajectories of two of the tasks run the same code."""

    name = "alike"

    def map(self, job: RolloutJob, runtime: Runtime) -> Iterator[list[cort.Trajectory]]:
        for request in job.requests:
            same = request.task.id in ("t0", "t1")
            made = recorded(request, job.weights.version)
            yield [calling(made, "print(4)" if same else f"print({request.key})")]


class Python(cort.Tool):
    """Only named."""

    name = language = "python"

    def session(self, task: cort.Task, *, trajectory_id: str, seed: int) -> Any:
        raise NotImplementedError


def watched(training: Training, **tables: Any) -> Training:
    """With these canaries, and with a tool that could be called."""
    tool = Resolved("tool", "python", Python, Python.Config(), "tests", "0")
    job = None if training.job is None else replace(training.job, tools={"python": tool})
    return replace(training, canaries=validated(Canaries, tables), job=job)


def weary(folder: Path, checkpoint: Path, processes: int = 1, steps: int = 9, **tables: Any) -> Training:
    return watched(grpo(folder, checkpoint, processes, executor=Weary, steps=steps), **tables)


def signs(folder: Path) -> list[str]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["canary"] for line in lines if "canary" in line]


QUIET = {"logprob_gap": {"action": "off"}, "entropy": {"action": "off"}}


@pytest.mark.slow
def test_a_training_whose_model_ceases_to_call_the_tool_is_stopped_and_goes_on_when_it_is_told_to(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "rl"
    with pytest.raises(StageFailed, match=r"canary tool_use: 18\.8% of 64 .* called a tool, 75\.0% at first"):
        train(weary(folder, tiny_checkpoint, tool_use={"action": "stop"}, **QUIET))
    assert (folder / "training" / "checkpoint-6").is_dir() and not (folder / "checkpoint").exists()
    assert signs(folder) == ["tool_use"]

    finished = train(weary(folder, tiny_checkpoint, **QUIET))
    made = list(read_trajectories(folder / "trajectories.jsonl"))
    assert finished.path == folder / "checkpoint"
    assert len({(t.task.id, t.sample) for t in made}) == len(made) == 9 * 16
    before, after = reward_trend(folder) or (0.0, 0.0)
    assert before == pytest.approx(0.5, abs=0.1) and after == pytest.approx(1.5, abs=0.1)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_one_of_two_processes_sees_stops_both(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}:{here.parent}")
    folder = tmp_path / "rl"
    with pytest.raises(StageFailed, match=r"canary tool_use: 18\.8% of 32 .* called a tool, 75\.0% at first"):
        train(weary(folder, tiny_checkpoint, 2, 7, tool_use={"action": "stop"}, **QUIET))
    assert (folder / "training" / "checkpoint-6").is_dir()
    left_out = weary(folder, tiny_checkpoint, 2, 7, truncation={"action": "filter"}, **QUIET)
    train(left_out)
    made = list(read_trajectories(folder / "trajectories.jsonl"))
    assert len({(t.task.id, t.sample) for t in made}) == len(made) == 7 * 16
    again = [t for t in made if t.sample // 4 >= 6]
    assert {t.stop_reason for t in again if t.kept} == {"eos"} and not all(t.kept for t in again)


def test_what_a_canary_leaves_out_is_on_disk_with_the_reason_and_teaches_nothing(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    seen = batches_of(monkeypatch, GRPOTrainer, "_compute_loss")
    folder = tmp_path / "rl"
    train(weary(folder, tiny_checkpoint, truncation={"action": "filter"}, **QUIET))
    made = list(read_trajectories(folder / "trajectories.jsonl"))
    assert len({(t.task.id, t.sample) for t in made}) == len(made) == 9 * 16
    assert {t.stop_reason for t in made if t.kept} == {"eos"}
    left_out = [t for t in made if not t.kept]
    assert len(left_out) == 9 * 4
    assert {t.objection.filter for t in left_out if t.objection} == {"canary truncation"}
    cut_off = {tuple(i for turn in t.turns[1:] for i in turn.ids) for t in left_out}
    rows = 0
    for batch in seen:
        lengths = batch["completion_mask"].sum(1)
        trained = (batch["completion_mask"] * batch["tool_mask"]).sum(1)
        for ids, length, tokens in zip(batch["completion_ids"].tolist(), lengths, trained, strict=True):
            assert (tuple(ids[:length]) in cut_off) == (int(tokens) == 0)
            rows += 1
    assert rows == 9 * 16


def test_a_group_that_ran_the_same_code_is_left_out_and_is_on_disk_once(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "rl"
    training = grpo(folder, tiny_checkpoint, executor=Alike, steps=2)
    train(watched(training, same_code={"action": "filter"}, **QUIET))
    made = list(read_trajectories(folder / "trajectories.jsonl"))
    assert len({(t.task.id, t.sample) for t in made}) == len(made) == 2 * 16
    assert {"t0", "t1"} <= {t.task.id for t in made}
    assert all(t.kept == (t.task.id not in ("t0", "t1")) for t in made)


def test_rewards_of_what_is_left_out_are_in_no_baseline(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    class LeftOut(Scripted):
        def __call__(self, requests: Any) -> list[cort.Trajectory]:
            made = super().__call__(requests)
            for trajectory in made[2::4]:
                trajectory.verdicts.append(cort.Verdict(False, "cut off", filter="canary truncation"))
            return made

    seen = batches_of(monkeypatch, GRPOTrainer, "_compute_loss")
    reporter = Recorder()
    made = rl_context(tmp_path, tiny_checkpoint, LeftOut([1.0, 0.0, 9.0, 0.5]), reporter)
    GroupRelativeTrainer(config(steps=1)).train(made)
    for batch in seen:
        for ids, advantage in zip(batch["completion_ids"].tolist(), batch["advantages"], strict=True):
            assert (advantage > 0) == (ids[0] == 10) and (ids[0] != 12 or advantage == 0)
    assert reporter.lines[0]["rollout/left_out"] == 0.25


def test_log_probs_that_nobody_sampled_with_are_seen_and_those_of_the_engine_are_not(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for executor in (Recorded, LocalExecutor):
        folder = tmp_path / executor.name
        train(replace(grpo(folder, tiny_checkpoint, executor=executor, steps=1), canaries=Canaries()))
        assert ("logprob_gap" in signs(folder)) == (executor is Recorded)


def test_entropy_and_a_loss_that_is_no_number_are_seen_in_the_trainers_metrics(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    train(watched(grpo(tmp_path / "rl", tiny_checkpoint, steps=1), entropy={"least": 100.0}))
    assert "entropy" in signs(tmp_path / "rl")
    with pytest.raises(StageFailed, match=r"canary loss: (loss|grad_norm) is (nan|inf) at step"):
        train(sft(tmp_path / "sft", tiny_checkpoint, max_steps=20, learning_rate=1e30))
    assert signs(tmp_path / "sft") == ["loss"]
