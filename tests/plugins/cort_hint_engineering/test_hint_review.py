"""``cort hints review`` on a synthesis by the shipped model: every decision lasts, edits go on live, and what was accepted is
what is trained on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import cort_framework as cort
from cort_framework.cli import main
from cort_framework.cli.trace import stage_stats
from cort_framework.cli.traces import find_traces
from cort_framework.display import SilentDisplay
from cort_framework.pipeline import run
from cort_framework.recipe import load_recipe, make_plan
from cort_framework.runs.folder import REVIEWED
from cort_framework.runs.inputs import digest
from cort_framework.runs.keys import standings
from cort_framework.store import Trajectories, read_trajectories
from cort_hint_engineering.review import line_starts, numbered, review

RECIPE = """
schema = 1
name = "samples"
model = "tiny"
deterministic = true

[tasks.train]
source = "tiny"
size = 6

[rollout]
engine = "transformers"
max_tokens = 500
max_tool_calls = 4
check_every = 32

[rollout.tools.python]
timeout_s = 10

[engines.transformers]
threads = 1

[hints.opening]
[hints.delayed-computation]
[hints.result-distrust]

[rewards.answer]

[filters.correct]

[[stage]]
name = "make"
kind = "synthesize"
tasks = "train"
target = 3
hints = ["opening", "delayed-computation", "result-distrust"]
filters = ["correct"]

[[stage]]
name = "sft"
kind = "sft"
data = ["make"]
options.max_steps = 1
options.batch_size = 2
"""


@pytest.fixture(scope="module")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthesis")
    (folder / "recipe.toml").write_text(RECIPE)
    run(make_plan(load_recipe(str(folder / "recipe.toml"))), folder / "run", display=SilentDisplay())
    return folder / "run"


@pytest.fixture
def folder(synthesized: Path, tmp_path: Path) -> Path:
    return shutil.copytree(synthesized, tmp_path / "run")


def samples(folder: Path, name: str = "trajectories.jsonl") -> list[cort.Trajectory]:
    return [t for t in read_trajectories(folder / "make" / name) if t.stop_reason != "rewound"]


def answer(folder: Path, *lines: str, options: Sequence[str] = ()) -> Result:
    result = CliRunner().invoke(review, [str(folder), *options], input="".join(f"{line}\n" for line in lines))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_what_is_accepted_is_trained_on_and_nothing_else(folder: Path) -> None:
    kept = [t for t in samples(folder) if t.kept]
    assert len(kept) == 3
    result = answer(folder, "a", "r", "it guesses", "v", "s")
    assert "1 accepted, 1 rejected, 1 left" in result.output
    first, second = samples(folder, REVIEWED)
    assert [v.filter for v in first.verdicts] == ["correct", "review"] and first.kept
    assert (second.verdicts[-1].reason, second.kept) == ("it guesses", False)

    before = (folder / "sft" / "stage.json").read_text()
    report = run(make_plan(load_recipe(str(folder / "recipe.toml"))), folder, display=SilentDisplay())
    assert [s.cached for s in report.stages] == [True, False]
    assert report.stages[1].result.summary["samples"] == 1
    assert (folder / "sft" / "stage.json").read_text() != before
    again = run(make_plan(load_recipe(str(folder / "recipe.toml"))), folder, display=SilentDisplay())
    assert all(s.cached for s in again.stages)


def test_a_review_goes_on_where_it_was(folder: Path) -> None:
    assert "1 accepted, 0 rejected, 2 left" in answer(folder, "a", "q").output
    result = answer(folder, "a", "a")
    assert "1 of 2" in result.output and "3 accepted, 0 rejected, 0 left" in result.output
    assert "3 accepted, 0 rejected, 0 left" in answer(folder).output  # nothing is asked
    first = samples(folder, REVIEWED)[0].id
    assert "2 accepted, 1 rejected" in answer(folder, "r", "", "q", options=["--again"]).output
    taken = Trajectories.decided(folder / "make" / REVIEWED)
    assert len(taken) == 2 and first not in [t.id for t in taken]
    report = run(make_plan(load_recipe(str(folder / "recipe.toml"))), folder, display=SilentDisplay())
    assert report.stages[1].result.summary["samples"] == 2
    out = folder / "rows.jsonl"
    assert (
        main(["trace", "export", str(folder), "--stage", "make", "--format", "trl", "--out", str(out)]) == 0
    )
    assert len(out.read_text().splitlines()) == 2
    assert stage_stats(find_traces(folder, "make")[0])["reviewed"] == 2


def test_a_review_without_a_sample_to_train_on_says_so_and_so_does_the_run(folder: Path) -> None:
    result = answer(folder, "r", "", "q")
    assert (
        "0 accepted, 1 rejected, 2 left" in result.output and "nothing is left to train on" in result.output
    )
    with pytest.raises(cort.CortError, match="the review of stage 'make' has accepted none"):
        run(make_plan(load_recipe(str(folder / "recipe.toml"))), folder, display=SilentDisplay())


def test_a_reviewed_stage_stays_under_another_version_and_goes_aside_with_other_settings(
    folder: Path,
) -> None:
    """What a version that made it wrote down is put in place of this one's."""
    answer(folder, "a", "q")
    state = json.loads((folder / "make" / "stage.json").read_text())
    state["made_from"]["stage"]["version"] = "0.0.1"
    state["key"] = digest(state["made_from"])
    (folder / "make" / "stage.json").write_text(json.dumps(state))
    plan = make_plan(load_recipe(str(folder / "recipe.toml")))
    assert [s.state for s in standings(plan, folder)] == ["done", "runs"]
    report = run(plan, folder, display=SilentDisplay())
    assert report.stages[0].cached and report.stages[1].result.summary["samples"] == 1

    changed = make_plan(load_recipe(str(folder / "recipe.toml"), overrides=["stage.make.target=2"]))
    assert not run(changed, folder, display=SilentDisplay()).stages[0].cached
    (aside,) = folder.glob("make~*")
    assert (aside / REVIEWED).exists() and not (folder / "make" / REVIEWED).exists()


def test_unknown_answers_decide_nothing_and_an_empty_one_does_not_drop_an_edit(folder: Path) -> None:
    result = answer(folder, "abort", "e", "</think>", "Mine.", "", "accept", "q")
    assert "one of these" in result.output and "skip and lose it" in result.output
    (made,) = samples(folder, REVIEWED)
    assert "Mine.\n" in made.response and made.kept


def test_an_edit_goes_on_live_from_the_place_with_the_hint(folder: Path) -> None:
    kept = next(t for t in samples(folder) if t.kept)
    line = next(n for n, start in enumerate(line_starts(kept.response), 1) if start > 0)
    result = answer(folder, "e", str(line), "2", "a", "q")
    assert "1 accepted" in result.output
    versions = list(read_trajectories(folder / "make" / REVIEWED))
    parent, made = versions[-2:]
    assert (parent.stop_reason, made.parent) == ("rewound", parent.id)
    assert len({t.id for t in versions}) == len(versions)
    hint = next(t for t in made.turns if t.author == "hint" and "review" in t.reason)
    assert hint.text.endswith("```python\n") and made.error is None
    assert (
        made.response[: line_starts(kept.response)[line - 1]]
        == kept.response[: line_starts(kept.response)[line - 1]]
    )
    assert "answer" in made.rewards and made.verdicts[-1].filter == "review"
    (taught,) = Trajectories.kept(folder / "make" / REVIEWED)
    assert taught.id == made.id


def test_a_place_is_a_line_or_a_text_and_what_is_unclear_is_asked_again(folder: Path) -> None:
    result = answer(folder, "e", "9999", "no such text", "", "e", "1", "", "q")
    assert "there are lines 1 to" in result.output and "that is not there" in result.output
    assert samples(folder, REVIEWED) == []
    answer(folder, "e", "</think>", "My own words.\\nTwo lines.", "r", "", "q")
    assert any("My own words.\nTwo lines.\n" in t.response for t in samples(folder, REVIEWED))


def decided(folder: Path) -> int:
    """How many decisions are on disk whole; each is a line for every version of its sample."""
    file = folder / "make" / REVIEWED
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return sum(json.loads(line)["stop_reason"] != "rewound" for line in lines)


def test_nothing_that_was_accepted_is_lost_when_the_review_is_killed(folder: Path) -> None:
    code = f"from cort_hint_engineering.review import review; review([{str(folder)!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert process.stdin is not None
    process.stdin.write(b"a\na\n")
    process.stdin.flush()
    limit = time.monotonic() + 60
    while time.monotonic() < limit and decided(folder) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert "2 accepted, 0 rejected, 1 left" in answer(folder, "q").output


def test_what_cannot_be_reviewed_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(cort.RequestError, match="is no run"):
        answer(tmp_path / "nothing")
    with pytest.raises(cort.RequestError, match="has 0 stages to review"):
        answer(folder, options=["--stage", "sft"])
    (folder / "make" / "trajectories.jsonl").unlink()
    with pytest.raises(cort.RequestError, match="has no samples yet"):
        answer(folder)


@pytest.mark.parametrize("text", ["", "a", "a\n", "a\nb", "\n\na", "a\n\n"])
def test_lines_are_counted_as_they_are_shown(text: str) -> None:
    made = cort.Trajectory(
        "t/0", cort.Task("t", "P"), turns=[cort.Turn("prompt", (), "P"), cort.Turn("model", (), text)]
    )
    assert len(list(numbered(made))) == len(line_starts(text))
