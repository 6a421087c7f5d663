"""Low-rank adapters, SFT and GRPO: what is saved is a plain checkpoint, and what is sampled is what is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_trl_grpo import TASKS, Scripted, config, engine_rollout, rl_context  # noqa: F401
from test_trl_sft import weights
from trl_runs import EngineRollout, Recorder, batches_of, context, random_trajectories

import cort_framework as cort
from cort_framework.recipe.settings import LaunchSettings
from cort_trl.grpo import GroupRelativeTrainer
from cort_trl.sft import SupervisedTrainer
from cort_trl.training import arguments

LORA = {"rank": 2, "alpha": 4}


def adapted(folder: Path, checkpoint: Path) -> list[str]:
    """Weights that differ from the checkpoint's; by no more than the adapters' rank."""
    before, after = weights(checkpoint), weights(folder)
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]  # type: ignore[arg-type]
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], atol=1e-5) <= LORA["rank"]  # type: ignore[operator]
    return changed


def test_what_sft_saves_is_the_checkpoint_with_the_adapters_merged(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    reporter = Recorder()
    settings = SupervisedTrainer.Config(
        max_steps=3,
        batch_size=4,
        learning_rate=1e-2,
        schedule="constant",
        lora=LORA,
        gradient_checkpointing=True,
    )
    made = context(tmp_path, tiny_checkpoint, reporter, trajectories=random_trajectories(4))
    done = SupervisedTrainer(settings).train(made)
    changed = adapted(done.path, tiny_checkpoint)
    assert len(changed) == 2 * 7  # every linear layer of two; neither the embedding nor the head
    assert not list(done.path.glob("adapter*"))

    from transformers import AutoModelForCausalLM

    settings = SupervisedTrainer.Config(max_steps=1, batch_size=4, learning_rate=1e-9)
    again = Recorder()
    AutoModelForCausalLM.from_pretrained(done.path)
    SupervisedTrainer(settings).train(
        context(tmp_path / "on", done.path, again, trajectories=random_trajectories(4))
    )
    assert again.column("loss")[0] < reporter.column("loss")[-1]


def reinforced(folder: Path, checkpoint: Path, rollout: Any, **options: Any) -> tuple[Recorder, Path]:
    reporter = Recorder()
    made = rl_context(folder, checkpoint, rollout, reporter)
    settings = config(**{"steps": 2, "updates_per_step": 2, "beta": 0.01, **options})
    return reporter, GroupRelativeTrainer(settings).train(made).path


@pytest.mark.parametrize("placement", ["shared", "disk", "separate"])
def test_the_engine_samples_from_the_adapted_policy_and_the_reference_is_the_policy_without(
    tiny_checkpoint: Path,
    tmp_path: Path,
    engine_rollout: EngineRollout,  # noqa: F811
    placement: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trl import GRPOTrainer

    seen: list[Any] = []
    original = GRPOTrainer.__init__

    def spy(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        seen.append(self)

    monkeypatch.setattr(GRPOTrainer, "__init__", spy)
    reporter, saved = reinforced(
        tmp_path / "rl",
        tiny_checkpoint,
        engine_rollout,
        lora=LORA,
        learning_rate=1e-2,
        placement=placement,
        packing=placement == "disk",
    )
    assert max(reporter.column("logprob_gap")) < 2e-5
    assert reporter.column("kl")[0] == pytest.approx(0.0, abs=1e-6)
    assert min(reporter.column("kl")[1:]) > 1e-4
    assert seen[0].ref_model is None
    assert adapted(saved, tiny_checkpoint)
    assert (tmp_path / "rl" / "policy").exists() == (placement == "disk")


def test_packed_rows_give_grpo_the_losses_of_padded_ones(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rollout = Scripted([1.0, 0.0, None, 0.5])
    padded, first = reinforced(tmp_path / "padded", tiny_checkpoint, rollout)
    packed, second = reinforced(tmp_path / "packed", tiny_checkpoint, rollout, packing=True)
    for name in ("loss", "kl", "entropy", "grad_norm"):
        assert packed.column(name) == pytest.approx(padded.column(name), abs=2e-5)
    a, b = weights(first), weights(second)
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)  # type: ignore[arg-type]


def test_one_copy_of_the_sampled_logprobs_is_held_and_no_reference_where_beta_is_zero(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    seen = batches_of(monkeypatch, GRPOTrainer, "_compute_loss")
    rollout = Scripted([1.0, 0.0, None, 0.5])
    reinforced(tmp_path / "a", tiny_checkpoint, rollout, beta=0.0, steps=1)
    reinforced(tmp_path / "b", tiny_checkpoint, rollout, beta=0.1, steps=1)
    held = [{name for name in batch if name.endswith("logps")} for batch in seen]
    assert held[0] == {"old_per_token_logps"}
    assert held[-1] == {"old_per_token_logps", "ref_per_token_logps"}


def test_under_autocast_the_engine_samples_in_the_format_that_is_trained_in(
    tiny_checkpoint: Path,
    tmp_path: Path,
    engine_rollout: EngineRollout,  # noqa: F811
) -> None:
    reporter, _ = reinforced(tmp_path / "rl", tiny_checkpoint, engine_rollout, bf16=True, steps=1)
    assert 0 <= max(reporter.column("logprob_gap")) < 0.25


def test_adapters_on_a_model_in_shards_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    made = context(tmp_path, tiny_checkpoint, launch=LaunchSettings(processes=2, fsdp={}))
    with pytest.raises(cort.RequestError, match="fsdp has in shards"):
        arguments(SupervisedTrainer.Config(lora=LORA), made)
