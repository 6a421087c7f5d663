"""What a person sees while a run goes on."""

from __future__ import annotations

import io

from rich.console import Console

from cort_framework.display import Display, SilentDisplay


def display(terminal: bool, interval: float = 0.0) -> tuple[Display, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=120, color_system=None)
    return Display(console, interval), shown


def test_without_a_terminal_progress_is_plain_lines_with_rate_and_time_left() -> None:
    it, shown = display(terminal=False)
    with it.progress("texts [x]", 4) as progress:
        progress.advance(2, loss=0.123456)
        progress.advance(2, loss=0.1)
    first, second = shown.getvalue().splitlines()
    assert first.startswith("  texts [x] 2/4, ") and "/s, " in first and "s left, loss 0.123" in first
    assert second.startswith("  texts [x] 4/4, ")


def test_lines_come_at_intervals_and_once_at_the_end() -> None:
    it, shown = display(terminal=False, interval=1000)
    with it.progress("texts") as progress:
        for _ in range(100):
            progress.advance()
    (line,) = shown.getvalue().splitlines()
    assert line.startswith("  texts 100, ") and "left" not in line


def test_what_was_done_before_is_no_part_of_the_rate() -> None:
    it, shown = display(terminal=False, interval=1000)
    with it.progress("texts", 50) as progress:
        progress.skip(50)
    assert shown.getvalue() == "  texts 50/50, 0.0/s\n"


def test_on_a_terminal_progress_is_a_bar() -> None:
    it, shown = display(terminal=True)
    with it.progress("texts [x]", 4) as progress:
        progress.skip(1)
        progress.advance(3, loss=0.5, note="[y]")
    text = shown.getvalue()
    assert "texts [x]" in text and "4/4" in text and "loss 0.5, note [y]" in text


def test_a_long_note_is_one_line() -> None:
    it, shown = display(terminal=False)
    it.note("word " * 60)
    assert shown.getvalue().count("\n") == 1


def test_a_silent_display_shows_nothing() -> None:
    it = SilentDisplay()
    it.note("x")
    with it.progress("x", 1) as progress:
        progress.advance()
        progress.skip(1)
