"""A pager for things that are longer than the terminal: scroll in one, go to the next and back again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import click
from rich.console import Console, Group, RenderableType
from rich.segment import SegmentLines
from rich.text import Text

T = TypeVar("T")

DOWN, UP = (" ", "\r", "\x1b[B", "\x1b[6~"), ("b", "\x1b[A", "\x1b[5~")
NEXT, PREVIOUS = ("n", "\x1b[C"), ("p", "\x1b[D")
END = ("q", "\x1b", "\x03", "\x04")
KEYS = "space and b scroll · n next · p previous · r text or tokens · q end"


def page(
    console: Console, items: Iterator[T], draw: Callable[[T, bool], RenderableType], raw: bool = False
) -> int:
    """Shows one item at a time, driven by keys, until the person ends it. Items are taken as they are reached.

    Returns how many items were seen; 0 if there are none.
    """
    seen: list[T] = []
    position = top = 0
    with console.screen() as screen:
        while True:
            while len(seen) <= position:
                try:
                    seen.append(next(items))
                except StopIteration:
                    position = len(seen) - 1
                    break
            if not seen:
                return 0
            height = max(1, console.height - 1)
            lines = console.render_lines(draw(seen[position], raw), pad=False)
            last = max(0, len(lines) - height)
            top = min(top, last)
            window = SegmentLines(lines[top : top + height], new_lines=True)
            status = Text(
                f"{position + 1} · lines {top + 1}–{min(top + height, len(lines))} of {len(lines)} · {KEYS}",
                "reverse",
            )
            status.no_wrap = True
            screen.update(Group(window, status))
            try:
                key = click.getchar()
            except (KeyboardInterrupt, EOFError):
                return len(seen)
            if key in END:
                return len(seen)
            if key == "r":
                raw, top = not raw, 0
            elif key in NEXT or (key in DOWN and top == last):
                position, top = position + 1, 0
            elif key in PREVIOUS:
                position, top = max(0, position - 1), 0
            elif key in DOWN:
                top += height - 1
            elif key in UP:
                top = max(0, top - height + 1)
