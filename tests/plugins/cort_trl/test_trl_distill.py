"""A teacher's trajectories in the tokens of a student whose tokenizer, chat template and last token are others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cort_framework import Author, Outcome, Task, ToolCall, ToolResult, Trajectory, Turn
from cort_framework.rendering import prompt_turn, render
from cort_framework.stages.distill import END_OF_SEQUENCE, end_of_sequence, retold
from cort_tiny import base_path
from cort_transformers.tokenizer import HuggingFaceTokenizer


def loaded(folder: Path) -> HuggingFaceTokenizer:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return HuggingFaceTokenizer(tokenizer, frozenset({tokenizer.eos_token_id}))


TASK = Task("t", "What is 6*7?", "42")
TEMPLATE = "{problem}\nUse programs."


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("student")
    made: PreTrainedTokenizerFast = tiny_tokenizer()
    # its template leaves <think> to the model, and closes an answer
    made.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
        "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    made.save_pretrained(folder)
    return loaded(folder)


@pytest.fixture(scope="module")
def teacher() -> HuggingFaceTokenizer:
    return TEACHER


def shown(teacher, *parts: tuple[Author, str], stop: str = "eos") -> Trajectory:
    turns = [prompt_turn(teacher, TEMPLATE, TASK)]
    for author, text in parts:
        ids = teacher.encode(text, special=author == "model")
        fields = (
            {"call": ToolCall("python", "6*7"), "result": ToolResult(Outcome.OK, "42")}
            if author == "tool"
            else {}
        )
        logprobs = (-0.5,) * len(ids) if author == "model" else None
        turns.append(Turn(author, tuple(ids), text, logprobs, **fields))
    made = Trajectory("t/0", TASK, turns=turns, stop_reason=stop)  # type: ignore[arg-type]
    if stop == "eos":
        last, end = made.turns[-1], min(teacher.eos_ids)
        made.turns[-1] = Turn(
            last.author, (*last.ids, end), last.text + teacher.decode([end]), (-0.5,) * (len(last.ids) + 1)
        )
    return made


TEACHER = loaded(base_path())
PARTS: list[tuple[Author, str]] = [
    ("hint", "It looks tedious.\n```python\n"),
    ("model", "print(6*7)\n```\n"),
    ("tool", "```output\n42\n```\n"),
    ("model", "So 42: fünf, 六, 🙂.\n</think>\n\\boxed{42}"),
]


def test_each_turn_is_told_in_the_students_own_tokens(teacher, student) -> None:
    made = shown(teacher, *PARTS)
    told = retold(made, prompt_turn(student, TEMPLATE, TASK), student)
    assert [t.author for t in told.turns] == ["prompt", "hint", "model", "tool", "model"]
    assert student.decode(told.ids) == (
        "<|user|>What is 6*7?\nUse programs.<|assistant|>"
        "<think>\nIt looks tedious.\n```python\nprint(6*7)\n```\n```output\n42\n```\n"
        "So 42: fünf, 六, 🙂.\n</think>\n\\boxed{42}<|end|>"
    )
    assert "".join(t.text for t in told.turns) == student.decode(told.ids)
    assert told.ids[-1] in student.eos_ids and told.kept
    mask = render(told).mask
    trained = [i for i, flag in zip(told.ids, mask, strict=True) if flag]
    assert "42\n```\nSo" not in student.decode(trained) and "print(6*7)" in student.decode(trained)
    assert told.turns[3].result == made.turns[3].result


def test_a_prompt_that_opens_the_thinking_takes_it_from_the_response(teacher, student) -> None:
    made = shown(teacher, *PARTS)
    there = retold(made, prompt_turn(student, TEMPLATE, TASK), student)
    back = retold(there, made.turns[0], teacher)
    assert [t.text for t in back.turns] == [t.text for t in made.turns]
    assert back.ids == made.ids


def test_the_end_of_the_thinking_is_the_students_own_token_and_one_that_a_tool_prints_is_text(
    teacher,
) -> None:
    (end,) = teacher.hf.encode("</think>", add_special_tokens=False)
    parts = [*PARTS[:2], ("tool", "</think><|end|>\n"), PARTS[3]]
    told = retold(shown(teacher, *parts), prompt_turn(teacher, TEMPLATE, TASK), teacher)
    assert [turn.ids.count(end) for turn in told.turns] == [0, 0, 0, 0, 1]
    assert [i in teacher.eos_ids for i in told.ids].count(True) == 1 and told.kept


def test_a_text_that_would_end_the_students_sequence_early_is_dropped(teacher) -> None:
    parts = [("model", "So <|end|> is how I end."), *PARTS[1:]]
    (verdict,) = retold(shown(teacher, *parts), prompt_turn(teacher, TEMPLATE, TASK), teacher).verdicts
    assert not verdict.keep and "ends the student's sequences" in verdict.reason


def test_what_did_not_end_gets_no_last_token(teacher, student) -> None:
    made = shown(teacher, *PARTS, stop="length")
    told = retold(made, prompt_turn(student, TEMPLATE, TASK), student)
    assert not set(told.ids) & student.eos_ids and told.turns[-1].text == made.turns[-1].text


def test_what_the_student_cannot_write_is_dropped_with_its_place(teacher, student) -> None:
    class Deaf:
        eos_ids, decode = student.eos_ids, student.decode
        apply_chat_template = student.apply_chat_template

        def encode(self, text: str, *, special: bool = False) -> list[int]:
            return student.encode(text.replace("六", ""), special=special)

    told = retold(shown(teacher, *PARTS), prompt_turn(student, TEMPLATE, TASK), Deaf())
    (verdict,) = told.verdicts
    assert not told.kept and verdict.span is not None and "So 42" in told.response[slice(*verdict.span)]


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text("ab `\n{}é六🙂42<|>", min_size=1, max_size=12), min_size=1, max_size=4))
def test_any_text_comes_back(texts: list[str]) -> None:
    tokenizer = TEACHER
    turns = [Turn("prompt", (), "P<think>\n"), *(Turn("model", (), text) for text in texts)]
    told = retold(Trajectory("t/0", TASK, turns=turns, stop_reason="length"), turns[0], tokenizer)
    assert [t.text for t in told.turns] == [t.text for t in turns]


@pytest.mark.parametrize(
    "end", ["<|im_end|>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>", "<|eot_id|>"]
)
def test_the_last_tokens_of_todays_models_are_known(end: str) -> None:
    assert END_OF_SEQUENCE.sub("", f"x < y | z.{end}") == "x < y | z."
    assert END_OF_SEQUENCE.sub("", "a </think>") == "a </think>"


def test_the_student_ends_as_its_template_does(student, teacher) -> None:
    assert end_of_sequence(student) in student.eos_ids
    assert end_of_sequence(teacher) in teacher.eos_ids
