"""``cort trace same``: what two runs have in common, and where they part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cort_framework.cli import main
from cort_framework.testing import make_trajectory
from cort_framework.types import Outcome, Reward, Task, ToolResult, Trajectory


def made(task: str, text: str = "So it is 4.", outcome: Outcome = Outcome.OK, **fields: Any) -> Trajectory:
    pieces = [
        ("prompt", "What is 2+2?"),
        ("model", "```python\nprint(2+2)\n```\n"),
        ("tool", "4", ToolResult(outcome, "4", seconds=fields.pop("call_seconds", 0.1))),
        ("model", text),
    ]
    return make_trajectory(pieces, Task(task, "What is 2+2?", "4"), **fields)


def write(run: Path, **stages: list[Trajectory]) -> Path:
    for stage, trajectories in stages.items():
        folder = run / stage
        folder.mkdir(parents=True)
        (folder / "trajectories.jsonl").write_text("".join(t.to_json() + "\n" for t in trajectories))
    return run


def compared(one: Path, other: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[Any]:
    assert main(["trace", "same", str(one), str(other), "--json", *options]) == 0
    found: list[Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_took_longer_is_equal_in_whatever_order_it_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "a", test=[made("a", seconds=1.0), made("b", seconds=2.0)])
    other = write(tmp_path / "b", test=[made("b", seconds=9.0), made("a", call_seconds=7.5)])
    (record,) = compared(one, other, capsys)
    assert (record["trajectories"], record["equal"], record["equal_share"]) == (2, 2, 1.0)
    assert record["first_difference"] is None


def nudged(trajectory: Trajectory) -> Trajectory:
    """The same tokens, one of them a little less likely."""
    last = trajectory.turns[-1]
    assert last.logprobs is not None
    trajectory.turns[-1] = replace(last, logprobs=(last.logprobs[0] - 2e-6, *last.logprobs[1:]))
    return trajectory


@pytest.mark.parametrize(
    ("other", "tokens", "said"),
    [
        (
            made("a", "So it is 5."),
            0,
            "differs from token 62 on, by the model: 'So it is 4.' and 'So it is 5.'",
        ),
        (nudged(made("a")), 1, "in log-probabilities alone, by 2e-06 nats at most"),
        (made("a", rewards={"answer": Reward(1.0)}), 1, "differs in rewards alone"),
        (made("a", outcome=Outcome.PROGRAM_ERROR), 1, "differs in what its calls returned alone"),
    ],
    ids=["tokens", "log-probs", "rewards", "outcomes"],
)
def test_the_first_difference_is_said_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: Trajectory, tokens: int, said: str
) -> None:
    one = write(tmp_path / "a", test=[made("a"), made("b")])
    (record,) = compared(one, write(tmp_path / "b", test=[other, made("b")]), capsys)
    assert (record["equal"], record["tokens_equal"]) == (1, 1 + tokens)
    assert said in record["first_difference"]


def test_what_only_one_has_and_calls_that_timed_out_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "a", test=[made("a"), made("b", outcome=Outcome.TIMEOUT)], early=[made("a")])
    other = write(tmp_path / "b", test=[made("a"), made("c")])
    records = {r["stage"]: r for r in compared(one, other, capsys)}
    assert [records["test"][k] for k in ("trajectories", "equal", "only_in_one", "timeouts")] == [3, 1, 2, 1]
    assert [records["early"][k] for k in ("trajectories", "equal", "only_in_one")] == [1, 0, 1]


def test_a_share_that_is_asked_for_decides_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "a", test=[made("a"), made("b")])
    other = write(tmp_path / "b", test=[made("a"), made("b", "No.")])
    assert main(["trace", "same", str(one), str(other), "--at-least", "50"]) == 0
    assert "50.00 %" in capsys.readouterr().out
    assert main(["trace", "same", str(one), str(other), "--at-least", "99"]) == 1


def test_runs_without_a_stage_in_common_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = write(tmp_path / "a", x=[made("a")]), write(tmp_path / "b", y=[made("a")])
    assert main(["trace", "same", str(one), str(other)]) == 2
    assert "no stage in common" in capsys.readouterr().err
