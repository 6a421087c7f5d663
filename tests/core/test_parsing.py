"""Calls in what a model writes, wherever the text is cut into tokens."""

from __future__ import annotations

import json
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripted import Language

from cort_framework.parsing import _FENCE, CallParser, FenceParser, NativeParser, ParsedCall, _fences

PYTHON = Language("python", aliases=("py",), parameters={"type": "object"})
SYMPY = Language("sympy")
fences = FenceParser([PYTHON, SYMPY])
native = NativeParser([PYTHON, SYMPY])
both = CallParser([PYTHON, SYMPY])


def code_of(text: str, ended: bool = False) -> str | None:
    call = fences.parse(text, ended)
    return None if call is None else call.code


def calls_of(text: str) -> list[ParsedCall]:
    """All calls of a text that is there at once, one after another."""
    calls, start = [], 0
    while True:
        found = both.parse(text[start:])
        if found is None:
            last = both.parse(text[start:], ended=True)
            return [*calls, last[0]] if last else calls
        calls.append(found[0])
        start += found[0].end


# --- wherever it is cut -----------------------------------------------------------------------------------------
LINES = [
    "```python\n",
    "  ```py\n",
    "```sympy\n",
    "```\n",
    "  ```\n",
    "``` \n",
    "````\n",
    "```output\n",
    "```text",
    "x = '''\n",
    '"""\n',
    "print(1)\n",
    "so it is `x`\n",
    "print(1)```\n",
    "```",
    "\r\n",
    "\x0c```\n",
    "a\u2028```\n",
    "<tool_call>",
    '{"name": "python", "arguments": {"code": "1"}}',
    '{"name": "no", "arguments": {}}',
    "{",
    "</tool_call>",
    "é",
]


@given(st.lists(st.sampled_from(LINES), max_size=12), st.data())
def test_a_text_that_comes_in_pieces_gives_the_calls_of_the_whole(
    lines: list[str], data: st.DataObject
) -> None:
    text = "".join(lines)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    calls, pending = [], ""
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pending += text[start:end]
        while found := both.parse(pending):
            calls.append(found[0])
            pending = pending[found[0].end :]
    if found := both.parse(pending, ended=True):
        calls.append(found[0])
    assert calls == calls_of(text)


@given(st.lists(st.sampled_from([*LINES, "`", "``", "</tool", "_call>", "\n"]), max_size=12))
def test_where_no_call_may_end_none_does(pieces: list[str]) -> None:
    text, searched = "", 0
    for piece in pieces:
        text += piece
        found = both.parse(text)
        assert found is None or both.may_end_in(text, searched)
        if found is not None:
            return
        searched = len(text)


@given(st.text(alphabet="`\n\t pyx", max_size=60))
def test_every_fence_is_found_as_the_expression_finds_it(text: str) -> None:
    assert [m.span() for m in _fences(text)] == [m.span() for m in _FENCE.finditer(text)]


@given(st.text(alphabet="`\n pythonx'\"", max_size=60), st.booleans())
@example("```python\n```\n```", False)
def test_a_call_ends_at_the_line_of_its_fence(text: str, ended: bool) -> None:
    call = fences.parse(text, ended)
    if call is not None:
        assert text[: call.end].rstrip("\n").endswith("```")
        assert call.end == len(text) or text[call.end - 1] == "\n"
        assert call.code is not None and call.code in text


# --- fences -----------------------------------------------------------------------------------------------------
def test_a_closed_block_is_a_call_and_an_unclosed_one_is_not() -> None:
    assert code_of("Let me see\n```python\nprint(1)\n```\n") == "print(1)\n"
    assert code_of("Let me see\n```python\nprint(1)\n") is None
    assert code_of("Let me see\n```python\nprint(1)\n", ended=True) is None


def test_a_fence_counts_once_its_line_is_complete_or_the_turn_is_at_its_end() -> None:
    text = "```python\n1\n```"
    assert code_of(text) is None
    assert code_of(text, ended=True) == "1\n"
    assert code_of(f"{text}python\n", ended=True) is None


def test_a_fence_outside_a_block_means_nothing() -> None:
    assert code_of("```\n```json\n{}\n```\n```\n", ended=True) is None
    assert code_of("```json\n{}\n```\n```python\n1\n```\n") == "1\n"


def test_a_line_that_ends_in_backticks_is_no_fence() -> None:
    for line in ("x = `a`", "print(1)```", "it is ``` here", "````", "``", "a ```python"):
        assert code_of(f"```python\n{line}\n") is None
        assert code_of(f"{line}\nprint(1)\n```\n") is None
    assert code_of("```python\nx = `a`\ny```\n```\n") == "x = `a`\ny```\n"


def test_a_tool_answers_to_its_aliases_in_any_case_and_indented() -> None:
    call = fences.parse("  ```Py \r\n  1\n   ``` \n")
    assert call is not None and (call.tool, call.code) == ("python", "  1\n")


def test_a_block_left_open_is_given_up_for_the_next() -> None:
    assert code_of("```python\nx = (\nOr rather\n```python\n1\n```\n") == "1\n"
    call = fences.parse("```python\n1\n```sympy\nx**2\n```\n")
    assert call is not None and (call.tool, call.code) == ("sympy", "x**2\n")


def test_an_output_that_the_model_invents_triggers_nothing() -> None:
    assert code_of("```output\n5\n```\n", ended=True) is None
    assert code_of("```python\n2+3\n```output\n5\n```\nSo 5.", ended=True) is None


@pytest.mark.parametrize("quotes", ['"""', "'''", 'f"""', "r'''"])
def test_a_fence_line_inside_an_open_python_string_does_not_close_the_block(quotes: str) -> None:
    text = f"```python\ns = {quotes}\n```\ninside\n```python\n{quotes[-3:]}\nprint(s)\n```\n"
    assert code_of(text) == text[len("```python\n") : -len("```\n")]
    assert code_of(text[: text.index("inside")]) is None


def test_a_fence_line_closes_a_block_that_does_not_compile_either_way() -> None:
    assert code_of("```python\nx = = '''a'''\n```\n") == "x = = '''a'''\n"
    assert code_of("```python\nprint('it')\nprint('\n```\n") == "print('it')\nprint('\n"
    assert code_of("```python\n'''a'''\n(\n```\n") == "'''a'''\n(\n"
    assert code_of("```python\n'''a\0'''\n```\n") == "'''a\0'''\n"


def test_only_python_has_python_strings() -> None:
    assert code_of("```sympy\n'''\n```\n") == "'''\n"


def test_looking_into_a_string_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert code_of("```python\ns = '''\\d''' is 1\n```\n") is not None


def test_only_a_line_feed_ends_a_line() -> None:
    assert code_of("```python\nx = 1\x0c```\n") is None
    assert code_of("```python\nx = 1\u2028```\n") is None
    assert code_of("```python\nx\n```\x0c") is None


# --- native calls -----------------------------------------------------------------------------------------------
def native_call(body: str) -> ParsedCall:
    call = native.parse(f"<tool_call>{body}</tool_call>")
    assert call is not None
    return call


def test_a_native_call_carries_its_arguments() -> None:
    call = native_call('\n{"name": "python", "arguments": {"code": "1"}}\n')
    assert (call.tool, call.arguments, call.problem) == ("python", {"code": "1"}, None)


def test_a_native_call_without_an_end_is_none() -> None:
    assert native.parse('<tool_call>{"name": "python"}', ended=True) is None


def test_a_native_call_that_is_no_json_is_a_call_with_a_problem() -> None:
    for body in ("", "{", "python(1)", "[" * 100_000, "9" * 5_000):
        problem = native_call(body).problem
        assert problem is not None and "not valid JSON" in problem, body[:20]


def test_a_native_call_of_another_shape_is_a_call_with_a_problem() -> None:
    for body in (
        "[]",
        "5",
        "{}",
        '{"name": 5}',
        '{"name": null}',
        '{"name": "python", "arguments": "1"}',
        '{"name": "python", "arguments": [1]}',
        '{"name": "python", "arguments": "[1]"}',
    ):
        problem = native_call(body).problem
        assert problem is not None and "arguments" in problem, body


def test_a_native_call_of_an_unknown_tool_says_which_there_are() -> None:
    call = native_call('{"name": "pyhton", "arguments": {}}')
    assert call.problem == "there is no tool 'pyhton'; did you mean 'python'? there are: python"
    assert call.tool == "pyhton" and call.arguments == {}


def test_line_breaks_in_strings_and_arguments_in_a_string_are_understood() -> None:
    code = "for i in range(2):\n\tprint(i)"
    assert native_call(f'{{"name": "python", "arguments": {{"code": "{code}"}}}}').arguments == {"code": code}
    quoted = json.dumps({"name": "python", "arguments": json.dumps({"code": code})})
    assert native_call(quoted).arguments == {"code": code}
    for nothing in ('{"name": "python"}', '{"name": "python", "arguments": null}'):
        assert (native_call(nothing).arguments, native_call(nothing).problem) == ({}, None)


def test_half_of_a_surrogate_pair_is_a_problem_and_a_whole_one_a_character() -> None:
    half = '{"name": "python", "arguments": {"code": "\\ud83d"}}'
    assert "half of a character" in (native_call(half).problem or "")
    whole = native_call(half.replace("\\ud83d", "\\ud83d\\ude00"))
    assert (whole.arguments, whole.problem) == ({"code": "😀"}, None)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(JSON_VALUES)
def test_whatever_json_a_native_call_holds_it_is_a_call_that_can_be_written_down(value: object) -> None:
    call = native_call(json.dumps(value))
    assert call.problem is not None
    named = native_call(json.dumps({"name": "python", "arguments": value}))
    assert (named.problem is None) == (isinstance(named.arguments, dict) and named.tool == "python")
    json.dumps(named.arguments, ensure_ascii=False).encode()


@given(st.text(alphabet='{}[]":,\\ \nanmeargutspyho1\ud800', max_size=60))
def test_whatever_stands_between_the_tags_ends_in_a_call_or_a_problem(body: str) -> None:
    call = native_call(body.replace("\ud800", "\\ud800"))
    assert call.problem is not None or call.tool == "python"


def test_a_native_call_begins_at_the_last_opening() -> None:
    text = f"I could use <tool_call> here.<tool_call>{json.dumps({'name': 'python'})}</tool_call>"
    call = native.parse(text)
    assert call is not None and (call.tool, call.problem) == ("python", None)


# --- both -------------------------------------------------------------------------------------------------------
def test_the_call_that_is_complete_first_counts() -> None:
    a_fence = "```python\n1\n```\n"
    a_native = '<tool_call>{"name": "python"}</tool_call>'
    assert isinstance(both.parse(a_fence + a_native)[1], FenceParser)  # type: ignore[index]
    assert isinstance(both.parse(a_native + a_fence)[1], NativeParser)  # type: ignore[index]
    assert CallParser([]).parse(a_fence + a_native) is None and CallParser([]).stop == ()


def test_an_output_begins_on_a_line_of_its_own() -> None:
    assert fences.render("5\n\n", "```\n") == "```output\n5\n```\n"
    assert fences.render("5", "```") == "\n```output\n5\n```\n"
    assert native.render("5", "</tool_call>") == "\n<tool_response>\n5\n</tool_response>\n"
