"""What is read from disk as it passes is what would be found in memory."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cort_framework import CortError, Outcome, Reward, Task, ToolCall, ToolResult, Trajectory, Turn, Verdict
from cort_framework.cli.export import FORMATS, export_row
from cort_framework.cli.trace import Trace, stage_stats
from cort_framework.evaluation.quantiles import RELATIVE_ERROR, Quantiles
from cort_framework.rendering import render
from cort_framework.store import Trajectories, TrajectoryLog, read_trajectories

TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        '"',
        "\\",
        '\\"logprobs":[1]',
        ',"logprobs":[0.5]',
        '],"stop_reason":"eos"',
        "\r\n\u2028",
        "\ud800",
        "```",
    ]
)
NUMBERS = st.floats(-30, 0) | st.sampled_from([-math.inf, -1e-300, 0.0])
METADATA = st.dictionaries(
    TEXTS | st.sampled_from(["logprobs", "stop_reason", "turns"]),
    st.recursive(
        TEXTS | st.integers() | st.none() | st.lists(st.sampled_from(["]", "a"]), max_size=2),
        lambda inner: st.dictionaries(st.sampled_from(["x", "logprobs", "stop_reason"]), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    author = draw(st.sampled_from(["prompt", "model", "tool", "hint"]))
    ids = tuple(draw(st.lists(st.integers(0, 151_000), max_size=5)))
    logprobs = tuple(draw(NUMBERS) for _ in ids) if author == "model" else None
    call = result = None
    if author == "tool":
        call = ToolCall("python", draw(TEXTS), draw(st.none() | METADATA))
        result = ToolResult(draw(st.sampled_from(list(Outcome))), draw(TEXTS), draw(st.floats(0, 9)))
    return Turn(author, ids, draw(TEXTS), logprobs, draw(st.none() | st.just(3)), call, result)


@st.composite
def lines(draw: st.DrawFn) -> list[list[Trajectory]]:
    """Lines of descent of a few tasks, all samples of all of them in any order of arrival."""
    keys = [
        (f"{draw(TEXTS)}{n}", s)
        for n in range(draw(st.integers(1, 3)))
        for s in range(draw(st.integers(1, 3)))
    ]
    made = []
    for task, sample in draw(st.permutations(keys)):
        line: list[Trajectory] = []
        for version in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
            line.append(
                Trajectory(
                    f"{task}/{sample}~{version}",
                    Task(task, draw(TEXTS), draw(st.none() | TEXTS), draw(METADATA)),
                    sample,
                    turns=draw(st.lists(turns(), max_size=3)),
                    stop_reason="rewound",
                    error=draw(st.sampled_from([None, None, None, "broke: a"])),
                    rewards={"answer": Reward(draw(st.sampled_from([None, 0.0, 1.0])))},
                    verdicts=[
                        Verdict(draw(st.booleans()), f"{draw(TEXTS)}: so", None, name)
                        for name in draw(
                            st.sampled_from([[], ["correct"], ["no-result-distrust", "correct"]])
                        )
                    ],
                    parent=line[-1].id if line else None,
                    seconds=draw(st.floats(0, 1e4)),
                    metadata=draw(METADATA),
                )
            )
        line[-1].stop_reason = draw(st.sampled_from(["eos", "length", "error"]))
        made.append(line)
    return made


@contextmanager
def on_disk(lines: list[list[Trajectory]]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        log = TrajectoryLog(Path(folder) / "trajectories.jsonl")
        for line in lines:
            log.append(line)
        log.close()
        yield log.path


def bare(trajectory: Trajectory) -> Trajectory:
    return dataclasses.replace(
        trajectory, turns=[dataclasses.replace(t, logprobs=None) for t in trajectory.turns]
    )


def key_of(line: list[Trajectory]) -> tuple[str, int]:
    return line[-1].task.id, line[-1].sample


# --- reading ----------------------------------------------------------------------------------------------------
@given(lines())
@settings(max_examples=20, deadline=None)
def test_the_log_probabilities_and_nothing_else_are_left_out(made: list[list[Trajectory]]) -> None:
    everything = list(itertools.chain(*made))
    with on_disk(made) as path:
        assert list(read_trajectories(path)) == everything
        assert list(read_trajectories(path, logprobs=False)) == [bare(t) for t in everything]


@given(lines(), st.data())
@settings(max_examples=25, deadline=None)
def test_trajectories_on_disk_are_the_sequence_of_those_that_were_kept(
    made: list[list[Trajectory]], data: st.DataObject
) -> None:
    with on_disk(made) as path:
        expected = [line[-1] for line in made if line[-1].kept]
        kept = Trajectories.kept(path)
        assert len(kept) == len(expected) and list(kept) == expected
        assert [kept[i] for i in range(-len(kept), len(kept))] == expected * 2
        part = slice(
            *(data.draw(st.none() | st.integers(-7, 7)) for _ in "ab"), data.draw(st.sampled_from([1, 2, -1]))
        )
        assert list(kept[part]) == expected[part]
        twice = pickle.loads(pickle.dumps(kept + Trajectories.kept(path, path)))
        assert list(twice) == expected * 3 and list(twice[1:]) == (expected * 3)[1:]
        for index in (len(kept), -len(kept) - 1):
            with pytest.raises(IndexError):
                kept[index]


# --- the log ----------------------------------------------------------------------------------------------------
@given(lines(), st.data())
@settings(max_examples=25, deadline=None)
def test_a_log_gives_finds_and_orders_as_a_dictionary_in_memory_would(
    made: list[list[Trajectory]], data: st.DataObject
) -> None:
    memory = {key_of(line): line for line in made}
    with on_disk(made) as path:
        log = TrajectoryLog(path)
        for line in data.draw(st.lists(st.sampled_from(made), max_size=3)):  # those that failed come again
            again = [dataclasses.replace(t, seed=7) for t in line]
            log.append(again)
            memory[key_of(line)] = again
        for key in data.draw(st.lists(st.sampled_from(list(memory)), max_size=4)):
            *cut, final = memory[key]
            final = dataclasses.replace(
                final, verdicts=[*final.verdicts, Verdict(False, "late", (0, 1), "f")], metadata={"n": 1}
            )
            log.revise(final)
            memory[key] = [*cut, final]
        order = data.draw(st.permutations(list(memory)))
        assert list(log.keys()) == sorted(memory, key=lambda key: (key[1], key[0]))
        assert len(log) == len(memory) and all(log.line(key) == line for key, line in memory.items())
        assert list(log.finals(order)) == [memory[key][-1] for key in order]
        assert list(log.finals(order, logprobs=False)) == [bare(memory[key][-1]) for key in order]
        assert [log.usable(key) for key in order] == [memory[key][-1].usable for key in order]
        failed = [line[-1].error for line in memory.values() if line[-1].error is not None]
        assert list(log.errors().elements()) == failed
        log.finish(order)
        assert path.read_bytes() == b"".join(
            (t.to_json() + "\n").encode(errors="backslashreplace") for key in order for t in memory[key]
        )


@given(lines(), st.data())
@settings(max_examples=20, deadline=None)
def test_a_crash_among_revisions_loses_none_of_what_was_there(
    made: list[list[Trajectory]], data: st.DataObject
) -> None:
    with on_disk(made) as path:
        size = path.stat().st_size
        log = TrajectoryLog(path)
        for line in made:
            log.revise(line[-1])
        log.close()
        with open(path, "rb+") as file:
            file.truncate(data.draw(st.integers(size, path.stat().st_size)))
        log = TrajectoryLog(path)
        assert [log.line(key_of(line)) for line in made] == made
        log.close()


@given(lines(), st.data())
@settings(max_examples=20, deadline=None)
def test_a_damaged_line_is_named_by_whatever_reads_it(
    made: list[list[Trajectory]], data: st.DataObject
) -> None:
    with on_disk(made) as path:
        whole = path.read_bytes().splitlines(keepends=True)
        number = data.draw(st.integers(0, len(whole) - 1))
        line = whole[number]
        whole[number] = line[: data.draw(st.integers(0, len(line) - 2))] + b"\n"
        path.write_bytes(b"".join(whole))
        trace = Trace("stage", path)
        for reading in (
            lambda: TrajectoryLog(path),
            lambda: Trajectories.kept(path),
            lambda: list(read_trajectories(path)),
            lambda: stage_stats(trace),
        ):
            with pytest.raises(CortError, match=rf"trajectories\.jsonl, line {number + 1} is no trajectory"):
                reading()


# --- what is made of them ---------------------------------------------------------------------------------------
@given(lines())
@settings(max_examples=25, deadline=None)
def test_statistics_of_a_stream_are_those_of_a_list(made: list[list[Trajectory]]) -> None:
    with on_disk(made) as path:
        stats = stage_stats(Trace("stage", path))
    final = [line[-1] for line in made]
    judged = any(t.verdicts for line in made for t in line)
    right = [t for t in final if t.error is None and t.rewards["answer"].value == 1]
    faultless = [t for t in right if all(v.keep for v in t.verdicts if v.filter == "no-result-distrust")]
    assert (stats["collected"], stats["rewound"]) == (len(final), sum(map(len, made)) - len(final))
    assert stats["errors"] == sum(t.error is not None for t in final) and stats["right"] == len(right)
    assert stats["kept"] == (sum(t.kept for t in final) if judged else None)
    assert stats["without_faults"] == (len(faultless) if judged else None)
    assert sum(n for reasons in stats["dropped"].values() for n in reasons.values()) == sum(
        not all(v.keep for v in t.verdicts) for t in final
    )
    outcomes = [str(turn.result.outcome) for t in final for turn in t.calls if turn.result]
    assert stats["calls"] == len(outcomes) and stats["outcomes"] == {o: outcomes.count(o) for o in outcomes}
    ends = [t.stop_reason for t in final]
    assert stats["stop_reasons"] == {end: ends.count(end) for end in ends}
    lengths = sorted(t.response_tokens for t in final)
    assert (
        stats["tokens"]["p50"] == lengths[(len(lengths) - 1) // 2] and stats["tokens"]["max"] == lengths[-1]
    )
    assert stats["seconds"]["max"] == max(t.seconds for t in final)


@given(lines(), st.sampled_from(FORMATS))
@settings(max_examples=25, deadline=None)
def test_rows_and_tokens_do_not_depend_on_the_log_probabilities(
    made: list[list[Trajectory]], form: str
) -> None:
    for trajectory in itertools.chain(*made):
        assert export_row(bare(trajectory), form) == export_row(trajectory, form)
        with_them, without = render(trajectory), render(bare(trajectory))
        assert (with_them.input_ids, with_them.mask) == (without.input_ids, without.mask)


# --- quantiles --------------------------------------------------------------------------------------------------
def at(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


@given(st.lists(st.integers(0, 10**6), min_size=1), st.floats(0, 1))
def test_quantiles_of_whole_numbers_are_exact(values: list[int], share: float) -> None:
    quantiles = Quantiles()
    for value in values:
        quantiles.add(value)
    assert quantiles.at(share) == at(values, share) and quantiles.count == len(values)


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0, 1))
def test_quantiles_of_fractions_are_within_their_relative_error(values: list[float], share: float) -> None:
    quantiles = Quantiles()
    for value in values:
        quantiles.add(value)
    assert quantiles.at(share) == pytest.approx(at(values, share), rel=RELATIVE_ERROR * 1.0001, abs=1e-300)
    assert quantiles.at(1) == max(values)


def test_quantiles_hold_no_more_for_more_values() -> None:
    noise, quantiles = random.Random(0), Quantiles()
    for _ in range(20_000):
        quantiles.add(noise.lognormvariate(0, 1))
    held = len(quantiles._counts)
    for _ in range(20_000):
        quantiles.add(noise.lognormvariate(0, 1))
    assert held < 450 and len(quantiles._counts) < held * 1.1


def test_quantiles_of_nothing_are_none_and_nonsense_is_refused() -> None:
    quantiles = Quantiles()
    assert quantiles.summary() == dict.fromkeys(("p50", "p90", "p99", "max"))
    for value in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="has no place"):
            quantiles.add(value)
