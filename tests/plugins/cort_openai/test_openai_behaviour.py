"""What calls are for: a judge behind a real server beside the rules, and how far the two agree."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai_server import Server, running

from cort_framework import Outcome, Task, ToolCall, ToolResult, Trajectory, Turn
from cort_framework.cli import main
from cort_openai.agreement import agreement, kappa, share
from cort_openai.behaviour import BehaviourJudge
from cort_openai.chat import Chat, ChatSettings


def told(name: str, *parts: str | tuple[str, str]) -> Trajectory:
    """Prose, and programs with what they returned."""
    turns = [Turn("prompt", (), "P<think>\n")]
    for part in parts:
        if isinstance(part, str):
            turns.append(Turn("model", (), part))
            continue
        code, output = part
        turns.append(Turn("model", (), f"```python\n{code}\n```\n"))
        result = ToolResult(Outcome.OK if output else Outcome.TIMEOUT, output)
        turns.append(
            Turn("tool", (), f"```output\n{output}\n```\n", call=ToolCall("python", code), result=result)
        )
    return Trajectory(f"{name}/0", Task(name, "What is 37 times 48?"), turns=turns, stop_reason="eos")


PRODUCT, CHECK = ("print(37*48)", "1776"), ("print(sum(37 for _ in range(48)))", "1776")
STORY = told("t", "I compute.\n", PRODUCT, "Once more.\n", CHECK)
"""By rule: calculation by arithmetic, then verification by enumeration."""


def words(*calls: tuple[Any, Any, Any]) -> str:
    return json.dumps({"calls": [{"call": n, "label": label, "subject": s} for n, label, s in calls]})


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    made = Server()
    with running(made) as url:
        yield made, url


def judged(url: str, trajectory: Trajectory = STORY) -> tuple[list[tuple[str, str] | None], int]:
    async def go() -> tuple[list[tuple[str, str] | None], int]:
        chat = Chat(ChatSettings(url=url, judge="j"))
        try:
            judge = BehaviourJudge(chat)
            found = await judge.label(trajectory)
            return [word and (word.label, word.subject) for word in found], judge.malformed
        finally:
            await chat.close()

    return asyncio.run(asyncio.wait_for(go(), 60))


def test_a_judge_labels_every_call_in_one_question(server: tuple[Server, str]) -> None:
    made, url = server
    made.reply = lambda body: (
        "```json\n" + words((2, "Verification", "enumeration"), ("1", "calculation", "arithmetic")) + "\n```"
    )
    assert judged(url) == ([("calculation", "arithmetic"), ("verification", "enumeration")], 0)
    (request,) = made.requests
    asked = request["messages"][1]["content"]
    assert STORY.task.prompt in asked
    assert re.findall(r"\[call \d\]\n```output", asked) == ["[call 1]\n```output", "[call 2]\n```output"]


def test_a_trajectory_without_a_call_costs_no_question(server: tuple[Server, str]) -> None:
    made, url = server
    assert judged(url, told("t", "By hand.\n")) == ([], 0)
    assert not made.requests


@pytest.mark.parametrize(
    ("reply", "malformed"),
    [
        ("no JSON", 1),
        ('{"calls": 3}', 1),
        ('{"calls": ' + "[" * 5000, 1),
        ('{"calls": [3, null, {"call": 1}]}', 3),
        (words((1, "guess", "arithmetic"), (1, "calculation", "cooking")), 2),
        (words((0, "calculation", "arithmetic"), (3, "calculation", "arithmetic")), 2),
        (words((None, "calculation", "arithmetic")), 1),
        ('{"calls": []}', 0),
    ],
)
def test_what_is_no_use_is_counted_and_labels_nothing(
    server: tuple[Server, str], reply: str, malformed: int
) -> None:
    made, url = server
    made.reply = lambda body: reply
    assert judged(url) == ([None, None], malformed)


def test_a_call_that_is_named_twice_keeps_its_first_label(server: tuple[Server, str]) -> None:
    made, url = server
    made.reply = lambda body: words((1, "calculation", "data"), (1, "verification", "units"))
    assert judged(url) == ([("calculation", "data"), None], 1)


# --- agreement ------------------------------------------------------------------------------------------------------
def test_kappa_by_hand() -> None:
    pairs = Counter({("a", "a"): 20, ("a", "b"): 5, ("b", "a"): 10, ("b", "b"): 15})
    assert share(pairs) == 0.7
    assert kappa(pairs) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert kappa(Counter({("a", "b"): 3, ("b", "a"): 3})) == -1
    assert kappa(Counter({("a", "a"): 9})) is None and kappa(Counter()) is None
    assert share(Counter()) is None


def test_intervals_draw_whole_tasks() -> None:
    """A hundred calls of one task tell hardly more than one."""
    pairs = [("same", ("a", "a"))] * 100 + [("other", ("a", "b"))] * 100
    one = agreement([(f"{task}{n}", pair) for n, (task, pair) in enumerate(pairs)])
    few = agreement(pairs)
    assert one.same == few.same == 0.5
    assert one.same_ci is not None and one.same_ci[1] - one.same_ci[0] < 0.2
    assert few.same_ci == [0, 1]
    nothing = agreement([])
    assert (nothing.calls, nothing.same, nothing.same_ci, nothing.kappa) == (0, None, None, None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Eight trajectories; what timed out has no label by rule, what was cut back counts nowhere."""
    made = [
        replace(STORY, id=f"t{n}/0", task=replace(STORY.task, id=f"t{n}", prompt=f"{n}?")) for n in range(6)
    ]
    made += [told("slow", "I try.\n", ("while True: pass", "")), told("hand", "By hand.\n")]
    made.append(replace(STORY, id="cut/0", stop_reason="rewound"))
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / "trajectories.jsonl").write_text("".join(t.to_json() + "\n" for t in made))
    return tmp_path


def first_is_doubted(body: dict[str, Any]) -> str:
    """Agrees with the rules, but in one trajectory calls both calls calculations."""
    asked = body["messages"][1]["content"]
    second = "calculation" if "\n0?\n" in asked else "verification"
    return words((1, "calculation", "arithmetic"), (2, second, "enumeration"))


def test_the_agreement_of_rules_and_judge_is_printed(
    server: tuple[Server, str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, url = server
    made.reply = first_is_doubted
    command = ["behaviour", "measure", str(run), "--judge", url, "--judge-cache", str(tmp_path / "kept")]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (group,) = report["groups"]
    assert (group["stage"], group["calls"], group["label"]["calls"]) == ("look", 13, 12)
    assert group["label"]["same"] == pytest.approx(11 / 12)
    # 6 and 6 by rule, 7 and 5 by judge: half of the pairs would be equal by chance
    assert group["label"]["kappa"] == pytest.approx((11 / 12 - 0.5) / 0.5)
    low, high = group["label"]["kappa_ci"]
    assert low < group["label"]["kappa"] < high == 1
    assert group["calculation_share_rules"] == 0.5
    assert group["calculation_share_judge"] == pytest.approx(7 / 12)
    assert report["malformed"] == 1  # the slow one has no second call
    assert len(made.requests) == 7

    assert main([*command, "--disagreements"]) == 0
    out = capsys.readouterr().out
    assert len(made.requests) == 7  # each answer was kept
    assert "91.7 (" in out and "0.83 (" in out
    assert "label: verification by rule, calculation by judge: 1" in out
    assert "look t0/0 call 2: verification / calculation\nprint(sum(37 for _ in range(48)))" in out


def test_a_limit_on_spending_ends_the_asking_and_what_is_known_is_told(
    server: tuple[Server, str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, url = server
    made.reply = first_is_doubted
    command = ["behaviour", "measure", str(run), "--judge", url]
    assert main([*command, "--max-questions", "3"]) == 0
    out = capsys.readouterr().out
    assert "4 trajectories were left out" in out and "raise `max_questions`" in out
    assert main([*command, "--limit", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["calls"]) == 4
    assert main([*command, "--chat", "budget=0", "--chat", "price_in=1"]) == 2
    assert "over the budget" in capsys.readouterr().err
    assert main([*command, "--chat", "bugdet=0"]) == 2
    assert "bugdet" in capsys.readouterr().err


def test_an_endpoint_that_fails_ends_the_command_with_its_words(
    server: tuple[Server, str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, url = server
    made.faults = [401] * 8
    assert main(["behaviour", "measure", str(run), "--judge", url]) != 0
    assert "401" in capsys.readouterr().err
