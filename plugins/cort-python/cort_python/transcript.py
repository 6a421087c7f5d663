"""What one cell shows, bounded while it is written: a flood costs no memory, and a repeated run shows the same text."""

from __future__ import annotations

import re

MARGIN = 64
"""Characters kept beyond each end, so that what is scrubbed is never cut in two."""

_ADDRESS = re.compile(r"( at 0x)[0-9a-f]{6,16}(?=[>,])")


def scrub(text: str, folder: str = "") -> str:
    """The text without what differs between equal runs (addresses in default reprs, the name of the scratch folder),
    and with plain line ends."""
    if "\r\n" in text:
        text = text.replace("\r\n", "\n")
    if folder and folder in text:
        text = text.replace(folder, "/scratch")
    return _ADDRESS.sub(r"\1...", text) if " at 0x" in text else text


class Transcript:
    """Everything that a cell shows, in the order in which it was written, whoever wrote it.

    Holds about ``limit`` characters however much is written: the first and the last half (CoRT's outputs over 800
    characters keep the first and last 400).
    """

    def __init__(self, limit: int, folder: str = "") -> None:
        self.limit = limit
        self.folder = folder
        self.reset()

    def reset(self) -> None:
        self.total = 0
        self._head = ""
        self._tail = ""
        self._fresh = True

    def write(self, text: str) -> None:
        if not text:
            return
        self.total += len(text)
        self._fresh = text[-1] == "\n"
        size = self.limit // 2 + MARGIN
        room = size - len(self._head)
        if room > 0:
            self._head += text[:room]
        if len(text) > room:
            self._tail = (self._tail + text[max(room, len(text) - size, 0) :])[-size:]

    def line(self, text: str) -> None:
        """Write ``text`` as lines of its own."""
        if not self._fresh:
            self.write("\n")
        self.write(text)
        if not self._fresh:
            self.write("\n")

    def render(self) -> tuple[str, int]:
        """The text to show and the number of characters that it leaves out."""
        half = self.limit // 2
        between = self.total - len(self._head) - len(self._tail)
        if between:
            head, end = scrub(self._head, self.folder), scrub(self._tail, self.folder).rstrip("\n")
        else:
            head, end = "", scrub(self._head + self._tail, self.folder).rstrip("\n")
        size = len(head) + between + len(end)
        if size <= self.limit:
            return end, 0
        dropped = size - 2 * half
        return f"{(head or end)[:half]}\n[... {dropped} characters left out ...]\n{end[-half:]}", dropped
