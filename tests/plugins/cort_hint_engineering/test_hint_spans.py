from __future__ import annotations

import hashlib
from collections import Counter

from hint_spans import SPANS, LabelledSpan, labelled_spans

TEST_HALF = SPANS / "test.jsonl"
FROZEN = "fc35b187298ca91f717230cda28a5b15d16e0e5234db73676d315636bb98ecfa"
BLIND = "880b274d4197ee5bb9a40242de7992f2ba9fdabc42e4bfc9f8e3d9e4753ced4e"

ITEMS = labelled_spans(TEST_HALF)
POSITIVES = [(item, *item.span) for item in ITEMS if item.span is not None]


def count(kind: str, fault: bool) -> int:
    return sum(item.kind == kind and (item.span is not None) == fault for item in ITEMS)


def test_what_measures_is_what_was_frozen() -> None:
    assert hashlib.sha256(TEST_HALF.read_bytes()).hexdigest() == FROZEN
    assert hashlib.sha256((SPANS / "blind.jsonl").read_bytes()).hexdigest() == BLIND


def test_there_are_as_many_items_of_each_kind_as_promised() -> None:
    assert len(ITEMS) >= 300
    for kind in ("delayed-computation", "result-distrust"):
        assert count(kind, fault=True) >= 110
        assert count(kind, fault=False) >= 45


def test_a_fifth_of_every_part_is_chinese() -> None:
    for part in ([i for i in ITEMS if i.span], [i for i in ITEMS if not i.span]):
        for kind in ("delayed-computation", "result-distrust"):
            languages = Counter(item.language for item in part if item.kind == kind)
            assert languages["zh"] >= 0.2 * languages.total()


def test_ids_and_texts_are_unique() -> None:
    assert len({item.id for item in ITEMS}) == len(ITEMS)
    assert len({item.response for item in ITEMS}) == len(ITEMS)
    assert len({item.fault for item in ITEMS if item.span}) == len(POSITIVES)


def test_a_span_lies_in_the_text_and_begins_and_ends_with_a_character_that_is_no_space() -> None:
    for item, start, end in POSITIVES:
        assert 0 <= start < end <= len(item.response), item.id
        assert item.fault == item.fault.strip(), item.id


def test_a_span_begins_a_sentence_or_a_line() -> None:
    for item, start, _ in POSITIVES:
        before = item.response[:start].rstrip(" ")
        assert not before or before[-1] in "\n.?!:…。？！：", (item.id, before[-20:])


def test_a_span_lies_in_one_turn_that_the_model_wrote_and_holds_no_program() -> None:
    for item, start, end in POSITIVES:
        owners = [t.author for t, s, e in item.trajectory().segments() if s <= start and end <= e]
        assert owners == ["model"], item.id
        assert "```" not in item.fault, item.id


def test_a_result_is_distrusted_only_after_there_is_one() -> None:
    for item, start, _ in POSITIVES:
        if item.kind == "result-distrust":
            assert any(t.author == "tool" and e <= start for t, _, e in item.trajectory().segments()), item.id


def test_an_item_is_a_prompt_and_then_turns_of_model_and_tool() -> None:
    for item in ITEMS:
        authors = [turn.author for turn in item.trajectory().turns]
        assert authors[0] == "prompt" and set(authors[1:]) <= {"model", "tool"}, item.id
        assert item.trajectory().response == item.response


def test_a_hit_overlaps_the_span_and_starts_at_most_one_sentence_before_it() -> None:
    text = "One. Two. Three starts here and goes on. Four."
    start = text.index("Three")
    turns = [{"author": "prompt", "text": "P"}, {"author": "model", "text": text}]
    item = LabelledSpan("t", "delayed-computation", "en", "t", turns, (start, text.index(" Four")))
    assert item.hit_by((start, start + 5))
    assert item.hit_by((text.index("Two"), start + 1))
    assert item.hit_by((text.index("here"), len(text)))
    assert not item.hit_by((0, len(text)))
    assert not item.hit_by((text.index("Two"), start))
    assert not item.hit_by((text.index("Four"), len(text)))
