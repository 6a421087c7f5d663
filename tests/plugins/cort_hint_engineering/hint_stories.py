"""Trajectories told in a few lines: a string is model prose, a tuple is a program with its output."""

from __future__ import annotations

from cort_framework import Hint, Outcome, Task, ToolCall, ToolResult, Trajectory, Turn

PROBLEM = "Find the number of integers $n$ with $1 \\le n \\le 1000$ such that $n^2+n+1$ is divisible by 7."


def program(code: str, output: str, outcome: Outcome = Outcome.OK) -> tuple[str, str, Outcome]:
    return code, output, outcome


def told(*parts: str | tuple[str, str, Outcome], problem: str = PROBLEM) -> Trajectory:
    turns = [Turn("prompt", (), f"{problem}<think>\n")]
    for part in parts:
        if isinstance(part, str):
            turns.append(Turn("model", (), part))
            continue
        code, output, outcome = part
        turns.append(Turn("model", (), f"```python\n{code}\n```\n"))
        call, result = ToolCall("python", code), ToolResult(outcome, output)
        turns.append(Turn("tool", (), f"```output\n{output}\n```\n", call=call, result=result))
    return Trajectory("t/0", Task("t", problem), turns=turns)


def cut_back(trajectory: Trajectory, hint: Hint) -> Trajectory:
    """What a rollout makes of the trajectory when it applies the hint."""
    turns = [turn for turn in trajectory.turns if turn.author == "prompt"]
    limit = len(trajectory.response) if hint.rewind_to is None else hint.rewind_to
    for turn, start, end in trajectory.segments():
        if start < limit:
            kept = turn.text[: limit - start]
            turns.append(turn if end <= limit else Turn(turn.author, (), kept))
    return Trajectory(
        "t/0~1", trajectory.task, turns=[*turns, Turn("hint", (), hint.text, reason=hint.reason)]
    )
