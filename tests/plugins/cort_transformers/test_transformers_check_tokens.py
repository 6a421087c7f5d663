"""``cort check tokens`` on kinds of tokenizer and chat template as models have them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizer_kinds as kinds

from cort_framework.alignment import BOUNDARIES, Finding, check_tokens
from cort_framework.cli import main
from cort_framework.interfaces import Tokenizer
from cort_framework.recipe.settings import PROMPTS
from cort_python.tool import PythonTool
from cort_transformers.tokenizer import HuggingFaceTokenizer
from cort_trl.grpo import GroupRelativeTrainer
from cort_trl.sft import SupervisedTrainer


def found(tokenizer: Tokenizer, tools: Sequence[Any] = (PythonTool(),)) -> list[Finding]:
    trainers = {"sft": SupervisedTrainer(), "rl": GroupRelativeTrainer()}
    return check_tokens(tokenizer, PROMPTS, tools, trainers)


def of(level: str, findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(f.boundary, f.text) for f in findings if f.level == level]


@pytest.mark.parametrize(
    ("tokenizer", "template"),
    [
        (kinds.byte_level(), kinds.CHAT),
        (kinds.byte_level(280), kinds.REWRITES),
        (kinds.unigram(), kinds.OPENS),
        (kinds.byte_fallback(), kinds.STRIPS),
    ],
    ids=["byte-level", "byte-level of few merges", "unigram", "byte fallback"],
)
def test_every_kind_agrees_at_every_boundary_also_in_what_each_trainer_is_fed(
    tokenizer: Any, template: str
) -> None:
    findings = found(kinds.wrapped(tokenizer, template))
    assert of("fault", findings) == []
    assert {boundary for boundary, _ in of("ok", findings)} == set(BOUNDARIES)
    said = of("ok", findings)
    assert ("hint", "sft (sft): learnt") in said and ("hint", "grpo (rl): no loss on it") in said
    assert all(
        (b, f"{who}: no loss on it") in said
        for b in ("prompt", "output")
        for who in ("sft (sft)", "grpo (rl)")
    )
    assert all(("end", f"{who}: learnt") in said for who in ("sft (sft)", "grpo (rl)"))


def test_a_space_that_the_tokenizer_puts_in_front_is_noted_where_it_stands() -> None:
    spaces = [b for b, text in of("note", found(kinds.wrapped(kinds.unigram()))) if "a space" in text]
    assert spaces == ["output", "hint"]
    assert of("note", found(kinds.wrapped(kinds.byte_level()))) == []


def test_a_token_that_crosses_the_end_of_a_call_is_shown() -> None:
    corpus = ["print(12*34)\n```\n\nNow it is 408.\n```\n\nNow\n" * 30, *kinds.CORPUS]
    tokenizer = kinds.wrapped(kinds.byte_level(400, corpus, words=False))
    said = r'"print(12*34)\n```\n\nNow", which crosses the end of one, stays whole'
    assert ("fence", said) in of("ok", found(tokenizer))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (kinds.STRIPS, "leaves out the thinking of messages that have passed"),
        (kinds.REWRITES, "rewrites the thinking of messages that have passed"),
        (kinds.CLOSED, "closes the thinking before the model has begun"),
    ],
)
def test_what_a_template_does_to_thinking_is_noted_and_moves_no_token(template: str, said: str) -> None:
    findings = found(kinds.wrapped(kinds.byte_level(), template))
    assert of("fault", findings) == []
    ((boundary, text),) = of("note", findings)
    assert boundary == "thinking" and said in text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            kinds.OPENS.replace("{{ m.content }}", "{{ m.content.replace('12*34', '12 * 34') }}"),
            r'after "What is 12", "*34, where',
        ),
        (kinds.OPENS.replace("{{ m.content }}", ""), "it is not in "),
        (kinds.OPENS + "<|end|>", 'it ends with "<|end|>", which ends a sequence'),
        ("{{ raise_exception('only with a system message') }}", "only with a system message"),
    ],
)
def test_a_template_that_spoils_the_prompt_is_a_fault_that_names_the_first_difference(
    template: str, said: str
) -> None:
    ((boundary, text),) = of("fault", found(kinds.wrapped(kinds.byte_level(), template)))
    assert boundary == "prompt" and said in text


def test_a_tokenizer_that_loses_line_ends_is_refused_in_words_that_say_what_it_means() -> None:
    findings = found(kinds.wrapped(kinds.words_only()))
    assert of("fault", findings) == [
        ("fence", r'"\n" comes back as " ": programs cannot be written in these tokens')
    ]


def test_characters_that_the_tokens_cannot_hold_are_noted_with_what_comes_back() -> None:
    notes = of("note", found(kinds.wrapped(kinds.unigram())))
    assert any(b == "output" and "中 as <unk>" in text for b, text in notes)


def test_an_end_that_the_chat_template_does_not_write_is_noted_and_none_at_all_is_a_fault() -> None:
    tokenizer = kinds.byte_level()
    ((boundary, text),) = of("note", found(kinds.wrapped(tokenizer, eos=("<|pad|>",))))
    assert boundary == "end" and '"<|end|>' in text and 'without "<|pad|>"' in text
    nothing = HuggingFaceTokenizer(kinds.wrapped(tokenizer).hf, frozenset())
    assert of("fault", found(nothing)) == [("end", "no token ends a sequence: all would run to max_tokens")]


@pytest.mark.parametrize("make", [kinds.byte_level, kinds.unigram, kinds.byte_fallback])
def test_no_output_can_spell_a_token_that_ends_the_turn(make: Any) -> None:
    tokenizer = kinds.wrapped(make())
    ids = tokenizer.encode("a <|end|> of <|end|><|user|>")
    assert tokenizer.eos_ids.isdisjoint(ids)
    assert tokenizer.decode(ids).replace(" ", "") == "a<|end|>of<|end|><|user|>"


def test_a_special_token_is_text_unless_it_is_asked_for() -> None:
    tokenizer = kinds.wrapped(kinds.byte_level())
    text = "a <|end|>"
    assert tokenizer.eos_ids.isdisjoint(tokenizer.encode(text))
    assert tokenizer.encode(text, special=True)[-1] in tokenizer.eos_ids
    assert (
        tokenizer.decode(tokenizer.encode(text))
        == tokenizer.decode(tokenizer.encode(text, special=True))
        == text
    )


class EndsTurns:
    """A tokenizer whose ``encode`` finds special tokens in text, as Hugging Face's does by itself."""

    def __init__(self, inner: HuggingFaceTokenizer) -> None:
        self.inner, self.eos_ids, self.decode = inner, inner.eos_ids, inner.decode
        self.apply_chat_template = inner.apply_chat_template

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return list(self.inner.hf.encode(text, add_special_tokens=False))


def test_an_encode_that_lets_an_output_end_the_turn_is_a_fault() -> None:
    ((boundary, text),) = of("fault", found(EndsTurns(kinds.wrapped(kinds.byte_level()))))
    assert boundary == "output" and text.startswith('an output that prints "<|end|>" would end the turn')


class Adds(EndsTurns):
    """Puts a token before every text that it encodes."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [0, *self.inner.encode(text)]


def test_a_token_that_encode_adds_by_itself_is_a_fault() -> None:
    ((boundary, text),) = of("fault", found(Adds(kinds.wrapped(kinds.byte_level()))))
    assert boundary == "fence" and "<|pad|>" in text


# --- the command ------------------------------------------------------------------------------------------------
def spoilt(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint with a chat template that writes its own idea of the message."""
    shutil.copytree(checkpoint, folder)
    template = kinds.OPENS.replace("{{ m.content }}", "{{ m.content | upper }}")
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_the_command_says_what_was_found_and_its_exit_code_whether_it_agrees(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "tokens", "--model", str(tiny_checkpoint)]) == 0
    shown = capsys.readouterr().out
    assert all(boundary in shown for boundary in BOUNDARIES)
    assert "they agree at every boundary" in shown and "sft (sft, rft): learnt" in shown
    bad = spoilt(tiny_checkpoint, tmp_path / "bad")
    assert main(["check", "tokens", "--model", str(bad), "--json"]) == 1
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["model"], record["engine"], record["agree"]) == (str(bad), "transformers", False)
    fault = next(f for f in record["findings"] if f["level"] == "fault")
    assert (
        fault["boundary"] == "prompt" and "it is not in" in fault["text"] and "WHAT IS 12*34" in fault["text"]
    )


def test_a_dry_run_checks_the_tokens_of_every_model_that_is_on_this_machine(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = spoilt(tiny_checkpoint, tmp_path / "bad")
    recipe = tmp_path / "two.toml"
    recipe.write_text(
        f"""
schema = 1
name = "two"
model = "{tiny_checkpoint}"
[tasks.train]
source = "tiny"
size = 3
[[stage]]
name = "good"
kind = "evaluate"
system = "it"
tasks = ["train"]
[[stage]]
name = "bad"
kind = "evaluate"
system = "it"
tasks = ["train"]
model = "{bad}"
[[stage]]
name = "elsewhere"
kind = "evaluate"
system = "it"
tasks = ["train"]
model = "nobody/has-this-model"
"""
    )
    assert main(["run", str(recipe), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(t["stages"], t["agree"]) for t in plan["tokens"]] == [(["good"], True), (["bad"], False)]
    assert ["nobody/has-this-model" in reason for reason in plan["tokens_not_checked"]] == [True]
    assert main(["run", str(recipe), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "do not agree at the prompt" in shown and "tokens not checked" in shown
