"""Trajectories told in prose, programs and outputs."""

from __future__ import annotations

from cort_framework import Outcome, Task, ToolCall, ToolResult, Trajectory, Turn


def story(
    *parts: str | tuple[str, str] | tuple[str, str, Outcome], prompt: str = "What is 37 times 48?"
) -> Trajectory:
    """Prose by the model, and programs with their outputs."""
    turns = [Turn("prompt", (), f"{prompt}<think>\n")]
    for part in parts:
        if isinstance(part, str):
            turns.append(Turn("model", (), part))
            continue
        outcome = part[2] if len(part) == 3 else Outcome.OK
        turns.append(Turn("model", (), f"```python\n{part[0]}\n```\n"))
        call, result = ToolCall("python", part[0]), ToolResult(outcome, part[1])
        turns.append(Turn("tool", (), f"```output\n{part[1]}\n```\n", call=call, result=result))
    return Trajectory("t/0", Task("t", prompt), turns=turns)
