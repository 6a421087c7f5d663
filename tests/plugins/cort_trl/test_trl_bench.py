"""``cort bench train`` and ``cort bench gpu``, small enough for a processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cort_trl.bench.card import forward, peak
from cort_trl.bench.command import gpu, train
from cort_trl.bench.gpu import PARTS, SIZES
from cort_trl.bench.shapes import SHAPES, long_tailed


@pytest.fixture(scope="module")
def tiny_shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SHAPES["tiny"].save(tmp_path_factory.mktemp("shape"), "float32")


def test_the_flops_of_a_forward_pass_are_those_that_torch_counts(tiny_shape: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_shape, attn_implementation="eager")
    tokens, shape = 24, SHAPES["tiny"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(2, 2 + tokens)[None], use_cache=False)
    unseen = tokens**2 - tokens * (tokens + 1) / 2  # eager attention multiplies what the mask hides, too
    rotations = 2 * tokens * shape.hidden // shape.heads // 2  # angles: positions times frequencies
    counted = counter.get_total_flops() - rotations
    assert counted == forward(shape, [tokens]) + 4 * shape.layers * shape.hidden * unseen


def test_the_larger_shape_is_the_papers_smaller_model() -> None:
    shape = SHAPES["1.5b"]
    per_token = forward(shape, [1], heads=[0]) / 2 + shape.hidden * shape.vocabulary
    assert per_token == pytest.approx(1.543e9, rel=0.01)  # 1.78 billion without the embedding's 0.23


def test_lengths_have_a_long_tail_and_the_mean_that_is_asked_for() -> None:
    lengths = long_tailed(4000, 500, most=5000)
    assert sum(lengths) / len(lengths) == pytest.approx(500, rel=0.05)
    assert max(lengths) > 4 * sorted(lengths)[2000]


@pytest.mark.parametrize("part", ["transformers", "sft", "grpo"])
def test_a_part_of_the_card_bench_runs_on_a_processor(part: str, tiny_shape: Path, tmp_path: Path) -> None:
    figure = PARTS[part](SIZES["tiny"], tiny_shape, tmp_path)
    most, _ = peak("float32")
    assert figure.seconds is not None and figure.flops is not None
    assert 0 < figure.flops / most < 1.5
    assert figure.tokens_per_second is not None and figure.tokens_per_second > 0
    assert figure.peak_bytes is not None and figure.peak_bytes > 50 << 20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_card_bench_prints_a_table_and_says_what_it_could_not_measure() -> None:
    found = CliRunner().invoke(gpu, ["--shape", "tiny", "--json", "transformers", "liger"])
    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)["figures"]
    assert figures[0]["utilisation"] > 0
    assert figures[1]["note"].startswith("not measured: liger needs a GPU") or torch.cuda.is_available()


def test_a_large_shape_without_a_gpu_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    found = CliRunner().invoke(gpu, ["sft"])
    assert "needs a GPU" in str(found.exception)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", ["sft", "grpo"])
def test_the_training_bench_has_a_row_of_speed_and_one_of_memory_for_each_way(part: str) -> None:
    small = ["--shape", "tiny", "--rounds", "1", "--tokens", "40", "--steps", "2", "--batch", "8", "--json"]
    found = CliRunner().invoke(train, [part, *small])
    rows = json.loads(found.stdout)
    assert [row["figure"] for row in rows] == [
        f"{way}: {what}" for way in (part, f"{part} packed") for what in ("speed", "peak memory")
    ]
    assert all(row["ratio"] > 0 for row in rows)
