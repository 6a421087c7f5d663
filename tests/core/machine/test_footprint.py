"""The shape of a model from its ``config.json``, and what this machine computes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cort_framework.errors import RequestError
from cort_framework.machine.device import choose_gpu, control_group_limit, find_device
from cort_framework.machine.footprint import architecture, from_config, plus, times

QWEN_1_5B = json.loads((Path(__file__).parents[2] / "fixtures" / "qwen2.5-1.5b.json").read_text())
"""As published."""


def test_the_parameters_of_qwen2_5_1_5b_are_those_of_hand_arithmetic() -> None:
    shape = from_config(QWEN_1_5B)
    # q 1536 × 1536 + 1536, k and v 1536 × 256 + 256 each, o 1536 × 1536; three of 1536 × 8960; two norms of 1536
    attention = 2_359_296 + 1_536 + 2 * (393_216 + 256) + 2_359_296
    layer = attention + 3 * 13_762_560 + 2 * 1_536
    assert shape.layer == layer == 46_797_824
    assert shape.embedding == 233_373_696
    assert shape.parameters == 233_373_696 + 28 * 46_797_824 + 1_536 == 1_543_714_304
    assert shape.key_value_bytes(2) == 28 * 2 * 256 * 2 == 28_672
    untied = from_config({**QWEN_1_5B, "tie_word_embeddings": False})
    assert untied.parameters == 1_777_088_000


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("qwen2", {}),
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"head_dim": 8, "tie_word_embeddings": True}),
        ("mistral", {}),
        ("qwen3", {"head_dim": 16}),
    ],
)
def test_the_count_of_parameters_is_that_of_the_model_itself(family: str, extra: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "vocab_size": 300,
    }
    config = transformers.AutoConfig.for_model(family, **{**sizes, "tie_word_embeddings": False, **extra})
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert from_config(config.to_dict()).parameters == sum(p.numel() for p in model.parameters())


def test_a_hub_id_is_read_from_the_cache_and_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(RequestError) as error:
        architecture("owner/name")
    assert "not on this machine" in error.value.message and "hf download owner/name" in str(error.value.hint)
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(QWEN_1_5B))
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    assert architecture("owner/name").layers == 28


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "mamba"}, "model type 'mamba'"),
        ({"hidden_size": None}, "NoneType"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_reason_and_not_guessed(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**QWEN_1_5B, **change}))
    with pytest.raises(RequestError) as error:
        architecture(str(tmp_path))
    assert reason in error.value.message
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(RequestError, match="num_attention_heads"):
        architecture(str(tmp_path))


def test_what_is_not_known_stays_unknown_unless_there_is_none_of_it() -> None:
    assert times(3, 4) == 12 and times(3, None) is None and times(0, None) == 0
    assert plus(3, 4) == 7 and plus(3, None) is None and plus() == 0


# --- the device -------------------------------------------------------------------------------------------------
GPUS = [["H100", "81559", "GPU-aa"], ["A10", "23028", "GPU-bb"]]


def test_the_smallest_gpu_that_is_visible_counts() -> None:
    both = choose_gpu(GPUS, None)
    assert both is not None and (both.name, both.bytes, both.count) == ("A10", 23028 << 20, 2)
    first = choose_gpu(GPUS, "0")
    assert first is not None and (first.name, first.count) == ("H100", 1)
    named = choose_gpu(GPUS, "GPU-aa")
    assert named is not None and named.name == "H100"
    assert choose_gpu(GPUS, "") is None and choose_gpu([], None) is None


@pytest.mark.parametrize(
    ("membership", "file", "text", "limit"),
    [
        ("0::/", "memory.max", "max", None),
        ("0::/", "memory.max", "1000", 1000),
        ("0::/a/b", "a/memory.max", "2000", 2000),
        ("4:memory:/a\n0::/", "memory/a/memory.limit_in_bytes", "3000", 3000),
        ("9:cpu:/a", "memory/a/memory.limit_in_bytes", "3000", None),
    ],
)
def test_a_control_group_and_those_above_it_limit_the_memory(
    tmp_path: Path, membership: str, file: str, text: str, limit: int | None
) -> None:
    (tmp_path / "groups").write_text(membership + "\n")
    path = tmp_path / "fs" / file
    path.parent.mkdir(parents=True)
    path.write_text(text + "\n")
    assert control_group_limit(tmp_path / "groups", tmp_path / "fs") == limit


def test_this_machine_has_a_device() -> None:
    assert find_device().bytes > 1 << 28
