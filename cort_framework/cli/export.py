"""Trajectories as rows that other trainers read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cort_framework.rendering import render
from cort_framework.types import Author, Trajectory

FORMATS = ("conversational", "trl", "verl")


def export_row(
    trajectory: Trajectory,
    form: str,
    template: str | None = None,
    train_on: Iterable[Author] = ("model", "hint"),
) -> dict[str, Any]:
    """One row in one of ``FORMATS``.

    ``template`` is the prompt template with ``{problem}``; without it the user's message is the bare problem. Only ``trl``
    rows keep the exact tokens: the others hand on text, which their reader tokenises again.
    """
    if form == "trl":
        return _trl(trajectory, train_on)
    row: dict[str, Any] = {"messages": _messages(trajectory, template)}
    return row if form == "conversational" else row | _verl(trajectory, row["messages"])


def _messages(trajectory: Trajectory, template: str | None) -> list[dict[str, str]]:
    problem = trajectory.task.prompt
    asked = problem if template is None else template.replace("{problem}", problem)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": trajectory.response}]


def _trl(trajectory: Trajectory, train_on: Iterable[Author]) -> dict[str, Any]:
    """TRL takes a row with ``input_ids`` as tokenised already and trains where ``completion_mask`` is 1."""
    rendered = render(trajectory, train_on)
    return {
        "prompt": trajectory.prompt,
        "completion": trajectory.response,
        "input_ids": rendered.input_ids,
        "completion_mask": rendered.mask,
    }


def _verl(trajectory: Trajectory, messages: list[dict[str, str]]) -> dict[str, Any]:
    """The columns of verl's RL data sets, beside the ``messages`` that its multi-turn SFT reads."""
    return {
        "data_source": "cort",
        "prompt": messages[:1],
        "reward_model": {"style": "rule", "ground_truth": trajectory.task.answer},
        "extra_info": {"id": trajectory.id, "task": trajectory.task.id, "reward": trajectory.reward},
    }
