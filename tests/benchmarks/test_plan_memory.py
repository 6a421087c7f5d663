"""What the plan says of memory is what torch's allocator sees, to within 20 %."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plan_memory import SHAPES, Case, generation, grpo, sft


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def holds(case: Case) -> None:
    assert 0.95 < case.ratio < 1.2, f"{case.work}: planned {case.planned:,}, measured {case.measured:,}"


@pytest.mark.slow
@pytest.mark.parametrize("work", [sft, generation], ids=lambda work: work.__name__)
def test_the_miniature_takes_the_memory_that_the_plan_says(work: Callable[[str], Case]) -> None:
    holds(work("like the miniature"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("work", [sft, grpo, generation], ids=lambda work: work.__name__)
def test_three_shapes_take_the_memory_that_the_plan_says(work: Callable[[str], Case], shape: str) -> None:
    holds(work(shape))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", ["like the miniature", "deep, untied"])
@pytest.mark.parametrize(
    "options",
    [
        {"uneven": True},
        {"gradient_checkpointing": True},
        {"packing": True, "uneven": True},
        {"dtype": "bfloat16"},
        {"bf16": True},
        {"lora": {"rank": 16}},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_of_a_training_take_the_memory_that_the_plan_says(
    options: dict[str, object], shape: str
) -> None:
    holds(sft(shape, **options))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [{"lora": {"rank": 8}}, {"packing": True}, {"policy_lag": 1}], ids=str)
def test_options_of_grpo_take_the_memory_that_the_plan_says(options: dict[str, object]) -> None:
    holds(grpo("deep, untied", **options))
