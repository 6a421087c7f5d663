"""Measuring a detector on labelled spans, and what the detectors reach."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hint_spans import SPANS, LabelledSpan, labelled_spans

from cort_hint_engineering.measure import Share, figures, measure, measured

TEXT = "First a word. Then work by hand goes on. Then the end."
FAULT = (14, 40)


def item(name: str, span: tuple[int, int] | None, text: str = TEXT) -> LabelledSpan:
    turns = [{"author": "prompt", "text": "P"}, {"author": "model", "text": text}]
    return LabelledSpan(name, "delayed-computation", "en", "t", turns, span)


def test_an_item_is_found_missed_or_raises_a_false_alarm() -> None:
    items = [
        item("hit", FAULT),
        item("missed", FAULT),
        item("beside it", FAULT),
        item("clean", None),
        item("false", None),
    ]
    found: Sequence[Sequence[tuple[int, int]]] = [[(14, 20), (20, 30)], [], [(41, 50)], [], [(0, 9)]]
    result = figures(measured(items, found))
    assert (result.recall.right, result.recall.total) == (1, 3)
    assert (result.precision.right, result.precision.total, result.false) == (1, 3, 2)


def test_items_that_differ_by_their_numbers_alone_are_one_passage_and_widen_the_interval() -> None:
    words = [
        "I multiply 37 by 48 and get 1776 in the end.",
        "I multiply 41 by 52 and get 2132 in the end.",
        "Quite another story about tables.",
    ]
    items = [item(str(n), (0, len(text)), text) for n, text in enumerate(words)]
    rows = measured(items, [[(0, 3)]] * 3)
    assert [row.passage for row in rows] == [0, 0, 1]
    assert figures(rows).recall.passages == 2


def test_the_interval_is_wilsons() -> None:
    low, high = Share(81, 100, 100).interval or (0.0, 0.0)
    assert (round(low, 4), round(high, 4)) == (0.7222, 0.8749)
    assert Share(0, 0, 0).interval is None


@pytest.mark.parametrize(("name", "least"), [("test", 0.9), ("blind", 0.8), ("dev", 0.9), ("base", 0.95)])
def test_on_the_labelled_spans_precision_and_recall_of_both_kinds_are_high(name: str, least: float) -> None:
    groups = run(str(SPANS / f"{name}.jsonl"), "--json")["groups"]
    overall = [group for group in groups if group["group"] == "all"]
    assert [group["kind"] for group in overall] == ["delayed-computation", "result-distrust"]
    for group in overall:
        assert group["precision"]["value"] >= least, group
        assert group["recall"]["value"] >= least, group


def test_the_development_half_has_no_item_twice_and_its_spans_lie_where_the_model_wrote() -> None:
    for name in ("dev", "base", "blind"):
        items = labelled_spans(SPANS / f"{name}.jsonl")
        assert len({item.id for item in items}) == len(items)
        for each in items:
            assert each.trajectory().response == each.response
            assert each.fault == each.fault.strip()


def test_the_command_shows_a_line_for_each_language_and_phenomenon_and_the_misses_if_asked(
    tmp_path: Path,
) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text(
        "".join(
            json.dumps({**vars(item(str(n), span)), "phenomenon": f"p{n}"}) + "\n"
            for n, span in enumerate([FAULT, None])
        )
    )
    shown = CliRunner().invoke(measure, [str(file), "--misses"], catch_exceptions=False).stdout.splitlines()
    assert [line.split()[1] for line in shown[1:5]] == ["all", "en", "p0", "p1"]
    assert shown[-1] == "missed 0 (p0): Then work by hand goes on."
    other = tmp_path / "other.jsonl"
    other.write_text(file.read_text().splitlines()[1])
    shown = CliRunner().invoke(measure, [str(file), str(other)], catch_exceptions=False).stdout.splitlines()
    assert [line.split()[1:4] for line in shown[1:4]] == [
        ["some.jsonl", "1", "1"],
        ["other.jsonl", "0", "1"],
        ["all", "1", "2"],
    ]


def test_a_line_that_is_no_labelled_span_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"id": 1}\n')
    error = CliRunner().invoke(measure, [str(file)]).exception
    assert "line 1 is no labelled span" in str(error)


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(measure, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)
