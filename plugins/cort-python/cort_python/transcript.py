"""What one cell shows, bounded while it is written: a flood costs no memory, and a repeated run shows the same text."""

from __future__ import annotations

import os
import re
import sysconfig
import tempfile

MARGIN = 64
"""Characters kept beyond each end, so that what is scrubbed is never cut in two."""

_ADDRESS = re.compile(r"( at 0x)[0-9a-f]{6,16}(?=[>,])")


_PYTHON = {
    sysconfig.get_path("purelib"): "/python/site-packages",
    sysconfig.get_path("stdlib"): "/python/lib",
}


def scrub(text: str, folder: str = "") -> str:
    """The text without what differs between equal runs and machines: addresses in default reprs, the name of the
    scratch folder, where Python is installed. Line ends become plain, and halves of surrogate pairs escapes."""
    if "\r\n" in text:
        text = text.replace("\r\n", "\n")
    if folder and folder in text:
        text = text.replace(folder, "/scratch")
    for path, name in _PYTHON.items():
        if path in text:
            text = text.replace(path, name)
    if " at 0x" in text:
        text = _ADDRESS.sub(r"\1...", text)
    return text.encode(errors="backslashreplace").decode()


def clip(text: str, limit: int) -> str:
    """The text, or its first and last half where it is longer than ``limit``."""
    transcript = Transcript(limit)
    transcript.write(text)
    return transcript.render()[0]


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


class Capture:
    """File descriptors 1 and 2 (subprocesses, C libraries) become a file that is read when a cell ends.

    A file needs no thread, is never full, and holds all that a finished subprocess wrote.
    """

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 1)
        os.dup2(1, 2)
        os.set_inheritable(1, True)
        os.set_inheritable(2, True)

    def read(self) -> str:
        """Put into the transcript what came since the last time, and give its first part."""
        size = os.fstat(1).st_size
        if not size:
            return ""
        keep = 4 * self.transcript.limit  # a character has at most four bytes
        head = os.pread(1, keep, 0).decode(errors="replace")
        tail = os.pread(1, keep, max(keep, size - keep)).decode(errors="replace")
        self.transcript.line(head)
        self.transcript.total += max(0, size - 2 * keep)
        self.transcript.write(tail)
        self.discard()
        return head

    def discard(self) -> None:
        """Forget what came between two cells."""
        if os.fstat(1).st_size:
            os.ftruncate(1, 0)
            os.lseek(1, 0, os.SEEK_SET)
