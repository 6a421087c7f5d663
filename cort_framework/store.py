"""Trajectories on disk: one JSON object a line, written as each finishes, found again by task and sample.

None of this holds trajectories in memory: files are read line by line, and what is where stands in an index on disk.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, overload

from cort_framework.errors import CortError
from cort_framework.types import Trajectory

Key = tuple[str, int]
"""Task id and sample."""

_LONE_SURROGATES = "backslashreplace"
"""UTF-8 has no place for one, which a model may well write as JSON; so escaped, it is JSON again."""


def write_json(path: Path, data: Any) -> None:
    """Write atomically: a reader sees the old file or the new one, never half of one."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    with replaced(path) as file:
        file.write(text.encode(errors=_LONE_SURROGATES))


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of the one at ``path`` once it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def mend(path: Path) -> int:
    """Cut off a last line that is not whole, of a file of lines. Returns the file's length."""
    with open(path, "rb+") as file:
        end = begin = file.seek(0, os.SEEK_END)
        while begin > 0:
            size = min(begin, 1 << 16)
            begin = file.seek(begin - size)
            newline = file.read(size).rfind(b"\n")
            if newline >= 0:
                begin += newline + 1
                break
        if begin < end:
            file.truncate(begin)
        return begin


# --- reading ----------------------------------------------------------------------------------------------------
def read_trajectories(path: Path, logprobs: bool = True) -> Iterator[Trajectory]:
    """Every trajectory of a file, those that were rewound included, one at a time. Raises ``CortError`` naming the line that
    is damaged.

    ``logprobs=False``: without the log-probabilities, which are two thirds of a file and of the time that it takes to
    read.
    """
    return (trajectory for _, _, trajectory in _located(path, logprobs))


def _located(path: Path, logprobs: bool) -> Iterator[tuple[int, int, Trajectory]]:
    """Each trajectory of a file with the bytes that it begins and ends at."""
    start = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            end = start + len(line)
            yield start, end, _parse(line, f"{path}, line {number}", logprobs)
            start = end


_LOGPROBS = re.compile(rb',"logprobs":\[[^]]*\](?=,"weights_version":)')
"""A turn's. Nothing inside a string looks like it: a quotation mark there is escaped."""


def _parse(line: bytes, where: str, logprobs: bool = True) -> Trajectory:
    try:
        return Trajectory.from_json((line if logprobs else _LOGPROBS.sub(b',"logprobs":null', line)).decode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CortError(
            f"{where} is no trajectory: {type(error).__name__}: {error}",
            "the file was changed by something else; move the stage's folder away to make it again",
        ) from error


class Trajectories(Sequence[Trajectory]):
    """Trajectories in files, each read anew whenever it is asked for. In memory they take 8 bytes each.

    They are those at these places: files that do not change while this is used, with the bytes that lines begin at.
    """

    def __init__(self, places: Iterable[tuple[Path, array[int]]] = ()) -> None:
        self._places = [(path, starts) for path, starts in places if starts]
        self._ends = list(accumulate(len(starts) for _, starts in self._places))

    @classmethod
    def kept(cls, *paths: Path) -> Trajectories:
        """The final trajectories of these files that all filters kept."""

        def starts(path: Path) -> Iterator[int]:
            for start, _, trajectory in _located(path, logprobs=False):
                if trajectory.kept and trajectory.stop_reason != "rewound":
                    yield start

        return cls((path, array("Q", starts(path))) for path in paths)

    @classmethod
    def decided(cls, path: Path) -> Trajectories:
        """Of a file to which a person's decisions are appended, of each sample the last, where that was to keep it."""
        with suppress(OSError):  # where it can only be read, nobody is in the middle of a line
            mend(path)
        last: dict[Key, int | None] = {}
        for start, _, trajectory in _located(path, logprobs=False):
            if trajectory.stop_reason != "rewound":
                key = trajectory.task.id, trajectory.sample
                last.pop(key, None)
                last[key] = start if trajectory.kept else None
        return cls([(path, array("Q", (start for start in last.values() if start is not None)))])

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> Trajectories: ...
    def __getitem__(self, index: int | slice) -> Trajectory | Trajectories:
        if isinstance(index, slice):
            places = groupby(map(self._place, range(len(self))[index]), itemgetter(0))
            return Trajectories((path, array("Q", (start for _, start in group))) for path, group in places)
        path, start = self._place(range(len(self))[index])
        with open(path, "rb") as file:
            return _read_at(file, start)

    def _place(self, index: int) -> tuple[Path, int]:
        part = bisect_right(self._ends, index)
        path, starts = self._places[part]
        return path, starts[index - self._ends[part]]  # counted from the part's end

    def __iter__(self) -> Iterator[Trajectory]:
        for path, starts in self._places:
            with open(path, "rb") as file:
                yield from (_read_at(file, start) for start in starts)

    def __add__(self, other: Trajectories) -> Trajectories:
        return Trajectories([*self._places, *other._places])


def _read_at(file: BinaryIO, start: int) -> Trajectory:
    file.seek(start)
    return _parse(file.readline(), f"{file.name}, at byte {start},")


# --- writing ----------------------------------------------------------------------------------------------------
class TrajectoryLog:
    """An append-only file of lines of descent. Opening it reads what is there; a last line that was cut off by a crash is
    dropped, with the line of descent that it belonged to. What comes again takes the place of what was there."""

    def __init__(self, path: Path, remember: bool = True) -> None:
        """``remember``: find again what is there and what comes. RL never asks, and would have to read all it has made."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab")  # noqa: SIM115 - open as long as the log
        self._reader = open(path, "rb")  # noqa: SIM115
        self._end = mend(path)
        self._index = _Index() if remember else None
        if self._index is not None:
            self._index.scan(path)

    # --- what is there ----------------------------------------------------------------------------------------
    def __len__(self) -> int:
        """How many lines of descent there are, those that failed included."""
        return self._known.count()

    def __contains__(self, key: Key) -> bool:
        return self._known.find(key) is not None

    def keys(self) -> Iterator[Key]:
        """Of all lines of descent, by sample and then by task."""
        return self._known.keys()

    def usable(self, key: Key) -> bool:
        """Whether it is there, and nothing of the machinery or of a reward failed in it."""
        place = self._known.find(key)
        return place is not None and place.error is None

    def errors(self) -> Counter[str]:
        """How many failed by which error of the machinery or of a reward."""
        return self._known.errors()

    def line(self, key: Key) -> list[Trajectory]:
        """The versions that were cut back, then the final one. Raises ``KeyError``."""
        place = self._known[key]
        lines = self._bytes(place.start, place.end).splitlines(keepends=True)
        return [_parse(line, f"{self.path}, after byte {place.start},") for line in lines]

    def final(self, key: Key, logprobs: bool = True) -> Trajectory:
        """Raises ``KeyError``."""
        place = self._known[key]
        return _parse(self._bytes(place.last, place.end), f"{self.path}, at byte {place.last},", logprobs)

    def finals(self, keys: Iterable[Key], logprobs: bool = True) -> Iterator[Trajectory]:
        """The final trajectories, read one at a time as they are asked for. Raises ``KeyError``."""
        return (self.final(key, logprobs) for key in keys)

    @property
    def _known(self) -> _Index:
        assert self._index is not None, "this log does not remember"
        return self._index

    def _bytes(self, start: int, end: int) -> bytes:
        self._file.flush()
        self._reader.seek(start)
        return self._reader.read(end - start)

    # --- what comes -------------------------------------------------------------------------------------------
    def append(self, line: Sequence[Trajectory]) -> None:
        """One line of descent, in one write that is on disk when this returns."""
        *cut, final = (_line(t.to_json()) for t in line)
        self._write(b"".join(cut), final, line[-1])
        self._file.flush()
        os.fsync(self._file.fileno())

    def revise(self, final: Trajectory) -> None:
        """The final trajectory of a line of descent again, with the verdicts that came later. Its turns are those on disk, copied
        as they lie there: to write numbers anew takes longer than all else."""
        place = self._known[final.task.id, final.sample]
        cut, old = self._bytes(place.start, place.last), self._bytes(place.last, place.end)
        head = _up_to_turns(old)
        if head is None:
            turns = _parse(old, f"{self.path}, at byte {place.last},").turns
            self._write(cut, _line(replace(final, turns=turns).to_json()), final)
        else:
            self._write(cut, head + _line("," + final.to_json(after="turns")[1:]), final)

    def _write(self, cut: bytes, last: bytes, final: Trajectory) -> None:
        self._file.write(cut + last)
        start, self._end = self._end, self._end + len(cut) + len(last)
        if self._index is not None:
            place = Place(start, start + len(cut), self._end, final.fault)
            self._index.put((final.task.id, final.sample), place)

    def finish(self, order: Iterable[Key]) -> None:
        """Write the file again in this order, without what was replaced, and close it."""
        with replaced(self.path) as file:
            for place in map(self._known.__getitem__, order):
                file.write(self._bytes(place.start, place.end))
        self.close()

    def close(self) -> None:
        self._reader.close()
        if self._index is not None:
            self._index.close()
        self._file.close()  # last: with a full disk it raises, though it closes


def _line(text: str) -> bytes:
    return (text + "\n").encode(errors=_LONE_SURROGATES)


def _up_to_turns(line: bytes) -> bytes | None:
    """What of a trajectory's line comes before its stop reason; ``None`` where its metadata has a key of that name."""
    head, found, rest = line.rpartition(b'],"stop_reason":')
    try:
        json.loads(b'{"stop_reason":' + rest)
    except ValueError:  # inside a nested object, which ends before the line does
        return None
    return head + b"]" if found else None


class Place(NamedTuple):
    """Where a line of descent lies in its file, in bytes."""

    start: int
    last: int
    """Where its final trajectory begins."""
    end: int
    error: str | None
    """The final trajectory's fault."""


class _Index:
    """The places by key, in a database that SQLite holds in a temporary file of its own: memory is its cache of 8 MB."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("", isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute("PRAGMA cache_size = -8000")  # in kB
        self._rows.execute(_TABLE)

    def scan(self, path: Path) -> None:
        """Put in what the file holds. A line of descent whose final trajectory is missing does not count."""
        begin: int | None = None
        for start, end, trajectory in _located(path, logprobs=False):
            if begin is None or trajectory.parent is None:
                begin = start
            if trajectory.stop_reason != "rewound":
                key = trajectory.task.id, trajectory.sample
                self.put(key, Place(begin, start, end, trajectory.fault))
                begin = None

    def put(self, key: Key, place: Place) -> None:
        error = place.error if place.error is None else json.dumps(place.error)
        self._rows.execute(_PUT, (*_columns(key), *place[:3], error))

    def find(self, key: Key) -> Place | None:
        row = self._rows.execute(_FIND, _columns(key)).fetchone()
        return None if row is None else Place(*row)

    def __getitem__(self, key: Key) -> Place:
        place = self.find(key)
        if place is None:
            raise KeyError(key)
        return place

    def keys(self) -> Iterator[Key]:
        for sample, task in self._rows.execute("SELECT sample, task FROM lines ORDER BY sample, task"):
            yield task.decode(errors="surrogatepass"), sample

    def count(self) -> int:
        return int(self._rows.execute("SELECT count(*) FROM lines").fetchone()[0])

    def errors(self) -> Counter[str]:
        """In the order in which they stand in the file."""
        return Counter({json.loads(error): count for error, count in self._rows.execute(_ERRORS)})

    def close(self) -> None:
        self._rows.close()


def _columns(key: Key) -> tuple[int, bytes]:
    return key[1], key[0].encode(errors="surrogatepass")


_TABLE = (
    "CREATE TABLE lines (sample, task, start, last, end, error, PRIMARY KEY (sample, task)) WITHOUT ROWID"
)
_PUT = """
INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET start = excluded.start, last = excluded.last, end = excluded.end, error = excluded.error
"""
_FIND = "SELECT start, last, end, error FROM lines WHERE sample = ? AND task = ?"
_ERRORS = "SELECT error, count(*) FROM lines WHERE error IS NOT NULL GROUP BY error ORDER BY min(start)"
