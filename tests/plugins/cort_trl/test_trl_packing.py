"""Packed rows: the same loss as padded ones, and no sequence sees another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import SHAPE, tiny_model
from trl_runs import Recorder, context, random_trajectories

import cort_framework as cort
from cort_trl.packing import NAME, layout, packs, prepare
from cort_trl.sft import SupervisedTrainer


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.data())
def test_each_sample_is_in_one_row_and_rows_are_of_nearly_equal_length(
    lengths: list[int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(lengths)))
    rows = packs(lengths, count)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(rows)
    totals = [sum(lengths[i] for i in row) for row in rows]
    assert max(totals) - min(totals) <= max(lengths)


@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    kind=st.sampled_from(["qwen2", "llama"]),
    attention=st.sampled_from([NAME, "sdpa", "eager"]),
)
def test_a_sequence_in_a_packed_row_has_the_logits_that_it_has_alone(
    lengths: list[int], kind: str, attention: str
) -> None:
    model = tiny_model(kind, 64)
    ids = [torch.randint(64, (n,), generator=torch.Generator().manual_seed(i)) for i, n in enumerate(lengths)]
    with torch.no_grad():
        alone = torch.cat([model(input_ids=one[None], use_cache=False).logits[0] for one in ids])
        model.config._attn_implementation = attention
        row = torch.cat(ids)[None]
        packed = model(input_ids=row, use_cache=False, **layout(lengths, attention)).logits[0]
    assert torch.allclose(alone, packed, atol=1e-5)


def test_a_model_with_sliding_windows_keeps_its_own_attention() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    model = MistralForCausalLM(MistralConfig(vocab_size=64, sliding_window=4, **SHAPE)).eval()
    assert prepare(model) == "sdpa"
    ids = torch.arange(2, 22)[None]
    with torch.no_grad():
        packed = model(input_ids=ids, use_cache=False, **layout((11, 9), "sdpa")).logits[0]
        alone = [model(input_ids=one, use_cache=False).logits[0] for one in ids.split((11, 9), 1)]
    assert torch.allclose(packed, torch.cat(alone), atol=1e-5)


def test_a_model_that_mixes_packed_sequences_is_refused() -> None:
    model = tiny_model("qwen2", 64)
    model.model.layers[0].register_forward_hook(lambda module, given, made: made + made.cumsum(1))
    with pytest.raises(cort.RequestError, match="does not keep packed sequences apart"):
        prepare(model)


def sft(folder: Path, checkpoint: Path, **options: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    from safetensors.torch import load_file

    reporter = Recorder()
    common = {
        "max_steps": 3,
        "batch_size": 8,
        "micro_batch": 4,
        "learning_rate": 1e-3,
        "schedule": "constant",
    }
    made = context(folder, checkpoint, reporter, trajectories=random_trajectories(16))
    done = SupervisedTrainer(SupervisedTrainer.Config(**{**common, **options})).train(made)
    return reporter.column("loss"), load_file(done.path / "model.safetensors")


def test_packed_rows_give_the_losses_and_weights_of_padded_ones(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    losses, weights = sft(tmp_path / "padded", tiny_checkpoint)
    packed_losses, packed = sft(tmp_path / "packed", tiny_checkpoint, packing=True)
    assert packed_losses == pytest.approx(losses, abs=1e-5)
    assert all(torch.allclose(weights[name], packed[name], atol=1e-5) for name in weights)


def test_gradient_checkpointing_changes_no_weight(tiny_checkpoint: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"packing": True, "max_steps": 2}
    losses, weights = sft(tmp_path / "kept", tiny_checkpoint, **options)
    again, same = sft(tmp_path / "computed", tiny_checkpoint, gradient_checkpointing=True, **options)
    assert again == losses
    assert all((weights[name] == same[name]).all() for name in weights)


def test_training_in_bfloat16_stays_near_that_in_float32(tiny_checkpoint: Path, tmp_path: Path) -> None:
    losses, weights = sft(tmp_path / "whole", tiny_checkpoint, max_steps=2)
    rounded, half = sft(tmp_path / "half", tiny_checkpoint, max_steps=2, bf16=True)
    assert rounded == pytest.approx(losses, rel=0.01)
    assert rounded != losses
    assert all(half[name].dtype == torch.float32 for name in weights)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_liger_without_a_gpu_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(cort.RequestError, match="liger needs a GPU"):
        sft(tmp_path, tiny_checkpoint, liger=True)
