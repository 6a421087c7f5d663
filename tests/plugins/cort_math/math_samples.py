"""Short finished trajectories to score and judge."""

from __future__ import annotations

from dataclasses import replace

from cort_framework import Outcome, Reward, Task, ToolCall, ToolResult, Trajectory, Turn


def answered(final: str, gold: str | None, thinking: str = "So.", tokens: int = 10) -> Trajectory:
    """It thought, closed its thinking, and wrote ``final``."""
    text = f"{thinking}\n</think>\n\n{final}"
    turns = [Turn("prompt", (1, 2), "Problem<think>\n"), Turn("model", (3,) * tokens, text)]
    return Trajectory("t/0", Task("t", "Problem", gold), turns=turns, stop_reason="eos")


def with_calls(*outcomes: Outcome) -> Trajectory:
    """It ran one program for each outcome; what the programs print says nothing about how they ended."""
    trajectory = answered("Done.", "1")
    for index, outcome in enumerate(outcomes):
        text = "absolute error: 0.0" if outcome == Outcome.OK else "all fine"
        call, result = ToolCall("python", "print(1)", index=index), ToolResult(outcome, text)
        trajectory.turns.append(Turn("tool", (7, 7), f"```output\n{text}\n```\n", call=call, result=result))
    return trajectory


def scored(value: float | None, tokens: int = 10, sample: int = 0, error: str | None = None) -> Trajectory:
    trajectory = answered("\\boxed{1}", "1", tokens=tokens)
    return replace(
        trajectory, id=f"t/{sample}", sample=sample, rewards={"answer": Reward(value, error=error)}
    )
