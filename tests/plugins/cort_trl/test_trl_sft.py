"""The trainer ``sft``, with real steps of TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trl_runs import Recorder, batches_of, context, random_trajectories, trajectory

import cort_framework as cort
from cort_framework.guards.canaries import Canaries
from cort_framework.guards.lookout import Lookout
from cort_trl.sft import SupervisedTrainer, split_batch, training_order

AUTHORS: tuple[cort.Author, ...] = ("prompt", "model", "tool", "hint")
turn = st.tuples(st.sampled_from(AUTHORS), st.lists(st.integers(5, 250), min_size=1, max_size=8))


def weights(folder: Path) -> dict[str, object]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all((first[k] == second[k]).all() for k in first)  # type: ignore[attr-defined]


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turn_lists=st.lists(st.lists(turn, min_size=1, max_size=6), min_size=1, max_size=4),
    train_on=st.sampled_from([["model", "hint"], ["model"]]),
)
def test_input_ids_are_the_turns_and_the_mask_is_one_exactly_on_the_chosen_authors(
    tiny_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
    turn_lists: list[list[tuple[cort.Author, list[int]]]],
    train_on: list[cort.Author],
) -> None:
    from trl import SFTTrainer

    made = [
        trajectory([("prompt", [5]), *turns, ("model", [6, 7])], f"t{i}")
        for i, turns in enumerate(turn_lists)
    ]
    with pytest.MonkeyPatch.context() as patch:
        seen = batches_of(patch, SFTTrainer, "compute_loss")
        config = SupervisedTrainer.Config(
            max_steps=1, batch_size=len(made), micro_batch=2, learning_rate=1e-9, train_on=train_on
        )
        where = tmp_path_factory.mktemp("sft")
        SupervisedTrainer(config).train(context(where, tiny_checkpoint, trajectories=made))

    got = set()
    for batch in seen:
        for ids, attended, labels in zip(
            batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
        ):
            n = int(attended.sum())
            assert (labels[n:] == -100).all()
            assert all(label in (-100, i) for label, i in zip(labels.tolist(), ids.tolist(), strict=True))
            got.add((tuple(ids[:n].tolist()), tuple((labels[:n] != -100).tolist())))
    wanted = {
        (tuple(t.ids), tuple(turn.author in train_on for turn in t.turns for _ in turn.ids)) for t in made
    }
    assert got == wanted


def test_three_steps_lower_the_loss_on_one_sample(tiny_checkpoint: Path, tmp_path: Path) -> None:
    reporter = Recorder()
    config = SupervisedTrainer.Config(max_steps=4, batch_size=1, learning_rate=1e-3, schedule="constant")
    made = context(tmp_path, tiny_checkpoint, reporter, trajectories=random_trajectories(1))
    checkpoint = SupervisedTrainer(config).train(made)
    losses = reporter.column("loss")
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1
    assert reporter.steps == 4
    assert not same(checkpoint.path, tiny_checkpoint)

    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(checkpoint.path)
    assert AutoTokenizer.from_pretrained(checkpoint.path).chat_template


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"lora": {"rank": 4, "alpha": 8}, "packing": True}, marks=pytest.mark.slow)],
    ids=str,
)
def test_a_training_that_was_killed_goes_on_to_the_same_weights(
    options: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = SupervisedTrainer.Config(
        max_steps=5, batch_size=4, micro_batch=2, learning_rate=1e-3, save_every=2, **options
    )
    made = random_trajectories(6)

    class Killed(Recorder):
        def metrics(self, **values: float | int | str) -> None:
            if values["step"] == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SupervisedTrainer(config).train(
            context(tmp_path / "killed", tiny_checkpoint, Killed(), trajectories=made)
        )
    resumed = Recorder()
    second = SupervisedTrainer(config).train(
        context(tmp_path / "killed", tiny_checkpoint, resumed, trajectories=made)
    )
    whole = SupervisedTrainer(config).train(context(tmp_path / "whole", tiny_checkpoint, trajectories=made))
    assert resumed.column("step")[0] == 3
    assert same(second.path, whole.path)


def test_a_loss_that_is_no_number_is_an_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = SupervisedTrainer.Config(max_steps=20, batch_size=2, learning_rate=1e30, schedule="constant")
    reporter = Lookout("rl", Canaries(), Recorder()).reporting()
    with pytest.raises(cort.CortError, match=r"is (nan|inf) at step"):
        SupervisedTrainer(config).train(
            context(tmp_path, tiny_checkpoint, reporter, trajectories=random_trajectories(2))
        )


def test_tensorboard_gets_its_event_files(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = SupervisedTrainer.Config(max_steps=1, batch_size=2)
    made = context(tmp_path, tiny_checkpoint, trajectories=random_trajectories(2), report_to=("tensorboard",))
    SupervisedTrainer(config).train(made)
    assert list((tmp_path / "training").rglob("events.out.tfevents.*"))


def test_trajectories_without_a_token_to_train_on_are_an_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    made = [trajectory([("prompt", [5, 6]), ("tool", [7])])]
    with pytest.raises(cort.CortError, match="none of 1 trajectories has a token by model or hint"):
        SupervisedTrainer(None).train(context(tmp_path, tiny_checkpoint, trajectories=made))


def test_a_model_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    made = context(tmp_path, tmp_path / "nothing", trajectories=random_trajectories(1))
    with pytest.raises(cort.RequestError, match="cannot load"):
        SupervisedTrainer(None).train(made)


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(0, 5),
)
def test_every_epoch_sees_every_sample_once(
    lengths: list[int], batch_size: int, steps: int, seed: int
) -> None:
    order = training_order(lengths, batch_size, steps, seed)
    assert len(order) == steps * batch_size
    counts = [order.count(i) for i in range(len(lengths))]
    assert max(counts) - min(counts) <= 1
    assert order == training_order(lengths, batch_size, steps, seed)


@given(st.integers(1, 64), st.integers(1, 64))
def test_the_batch_comes_out_exactly(batch_size: int, micro_batch: int) -> None:
    micro, accumulate = split_batch(batch_size, micro_batch)
    assert micro * accumulate == batch_size
    assert micro <= micro_batch
