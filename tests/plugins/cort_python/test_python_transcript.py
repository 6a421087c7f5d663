from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cort_python.transcript import Transcript, scrub


@given(st.lists(st.text(alphabet="ab\n", max_size=300), max_size=12), st.integers(2, 300))
def test_however_it_is_written_a_transcript_shows_the_ends_and_counts_the_rest(
    parts: list[str], limit: int
) -> None:
    transcript = Transcript(limit)
    for part in parts:
        transcript.write(part)
    whole = "".join(parts)
    text, dropped = transcript.render()
    half = limit // 2
    if dropped:
        kept = whole.rstrip("\n")
        assert len(kept) > limit
        assert text == f"{kept[:half]}\n[... {dropped} characters left out ...]\n{kept[-half:]}"
        assert dropped == len(kept) - 2 * half
    else:
        assert text == whole.rstrip("\n")
        assert len(text) <= limit


def test_a_line_starts_a_line() -> None:
    transcript = Transcript(100)
    transcript.write("printed")
    transcript.line("echo")
    transcript.line("again")
    assert transcript.render() == ("printed\necho\nagain", 0)


def test_addresses_are_scrubbed_where_a_repr_shows_them_and_hex_numbers_are_not() -> None:
    assert scrub("<function f at 0x7f3a5c001234>") == "<function f at 0x...>"
    assert scrub("0x38d7ea4c68000 at 0x10") == "0x38d7ea4c68000 at 0x10"


def test_an_address_at_the_cut_is_scrubbed_before_the_cut() -> None:
    transcript = Transcript(40)
    transcript.write("<object object at 0x7f3a5c001234>" * 10)
    other = Transcript(40)
    other.write("<object object at 0x7f3a5c00abcd>" * 10)
    assert transcript.render() == other.render()
