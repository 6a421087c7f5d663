"""``cort trace`` on run folders written as the pipeline writes them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

import cort_framework as cort
from cort_framework.cli import main
from cort_framework.cli.pager import page
from cort_framework.cli.show import coloured
from cort_framework.testing import make_trajectory

TASK = cort.Task("t1", "What is 2+2?", "4")
ASK = ("prompt", "<user>What is 2+2?\nUse programs.<assistant>")


def right(**fields):
    pieces = [
        ASK,
        ("hint", "Let us compute.\n"),
        ("model", "```python\nprint(2+2)\n```\n"),
        ("tool", "4"),
        ("model", "So</think>\\boxed{4}"),
    ]
    return make_trajectory(pieces, TASK, rewards={"answer": cort.Reward(1.0)}, **fields)


def wrong(text="By hand: 5</think>\\boxed{5}", **fields):
    return make_trajectory([ASK, ("model", text)], TASK, rewards={"answer": cort.Reward(0.0)}, **fields)


@pytest.fixture
def run(tmp_path):
    """Two stages: a collection with a rewind and two drops, and an evaluation; one folder that was moved aside."""
    kept = right(
        verdicts=[cort.Verdict(True, filter="correct"), cort.Verdict(True, filter="no-delayed-computation")]
    )
    kept.id, kept.parent, kept.discarded_tokens = "t1/0~1", "t1/0", 7
    distrusted = right(
        verdicts=[
            cort.Verdict(True, filter="correct"),
            cort.Verdict(False, "checks a number again: 4", (0, 15), "no-result-distrust"),
        ]
    )
    stages = {
        "collect": [
            wrong("By hand", stop_reason="rewound"),
            kept,
            distrusted,
            wrong(verdicts=[cort.Verdict(False, "wrong answer: 5", filter="correct")]),
        ],
        "base": [right(), wrong(), wrong(stop_reason="error", error="the worker died")],
        "base~0a1b": [wrong()],
    }
    for name, trajectories in stages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "trajectories.jsonl").write_text("".join(t.to_json() + "\n" for t in trajectories))
    planned = [
        {"name": "base", "stage": {"config": {"system": "natural"}}, "prompt": "{problem}\nUse programs."},
        {"name": "collect", "stage": {"config": {}}, "prompt": "{problem}\nUse programs."},
    ]
    (tmp_path / "plan.json").write_text(json.dumps({"stages": planned}))
    return tmp_path


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# --- view -------------------------------------------------------------------------------------------------------
def test_view_prints_header_and_text_of_each_trajectory_in_the_order_of_the_stages(run, capsys):
    assert main(["trace", "view", str(run)]) == 0
    out = capsys.readouterr().out
    assert out.index(" base ") < out.index(" collect ") and "~0a1b" not in out
    assert out.count("So</think>\\boxed{4}") == 3
    assert "drop by no-result-distrust: checks a number again: 4 'Let us compute." in out
    assert "(7 more discarded)" in out and "cut from t1/0" in out
    assert "error: the worker died" in out and "ended by rewound" in out
    assert "rewards: answer 1; weighted sum 1" in out and "\x1b" not in out


def test_view_takes_a_run_a_stage_or_a_file_and_chooses_by_stage_task_system_and_number(run, capsys):
    def shown(*arguments):
        assert main(["trace", "view", "--json", *map(str, arguments)]) == 0
        return [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]

    assert len(shown(run)) == 7
    assert len(shown(run / "collect")) == len(shown(run / "collect" / "trajectories.jsonl")) == 4
    assert shown(run, "--stage", "collect", "--task", "t1/0~1") == ["t1/0~1"]
    assert len(shown(run, "--system", "natural")) == 3
    assert len(shown(run, "--limit", "2")) == 2


def test_raw_shows_each_token_with_author_mask_and_log_probability(run, capsys):
    assert main(["trace", "view", "--raw", "--limit", "1", str(run)]) == 0
    out, err = capsys.readouterr()
    rows = re.findall(
        r" (prompt|model|tool|hint) +(\d+) +(\d+) +([01])( +-?\d+\.\d{4})? *$", out, re.MULTILINE
    )
    expected = right()
    assert [int(row[2]) for row in rows] == expected.ids
    assert [int(row[1]) for row in rows] == list(range(len(rows)))
    authors = [turn.author for turn in expected.turns for _ in turn.ids]
    assert [row[0] for row in rows] == authors
    assert all(
        (row[3] == "1") == (row[0] in ("model", "hint")) and bool(row[4]) == (row[0] == "model")
        for row in rows
    )
    assert "text of tokens is shown by the turn" in err  # this folder has no recipe to find a tokenizer by


@pytest.mark.parametrize("command", [["view"], ["stats"], ["export", "--out", "rows.jsonl"]])
@pytest.mark.parametrize("where", ["missing", "empty", "base~0a1b --stage sft", "damaged.txt"])
def test_a_path_without_trajectories_is_a_wrong_request(run, capsys, monkeypatch, command, where):
    monkeypatch.chdir(run)
    (run / "empty").mkdir()
    (run / "damaged.txt").write_bytes(b"hello \xff\n")
    code = main(["trace", command[0], *where.split(), *command[1:]])
    err = capsys.readouterr().err
    assert code == 2 and err.startswith("error:") and "hint:" in err


def test_a_damaged_line_is_named(run, capsys):
    with open(run / "base" / "trajectories.jsonl", "a") as file:
        file.write('{"id": "half\n')
    assert main(["trace", "stats", str(run)]) == 1
    assert "line 4" in capsys.readouterr().err


def test_each_author_has_a_colour_of_its_own():
    text = coloured(right())
    styles = {text.plain[s.start : s.end]: str(s.style) for s in text.spans}
    assert styles["Let us compute.\n"] != styles["```output\n4\n```\n"] != styles[ASK[1]]
    assert text.plain == "".join(t.text for t in right().turns)


def test_the_pager_scrolls_and_goes_to_the_next_and_the_previous(monkeypatch):
    seen = []

    def draw(item, raw):
        seen.append((item, raw))
        return Text("\n".join(f"{item} line {n}" for n in range(1, 31)))

    keys = iter([" ", "b", "n", "r", "p", "n", "n", "n", "q"])
    monkeypatch.setattr("click.getchar", lambda: next(keys))
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=11)
    assert page(console, iter("abc"), draw) == 3
    assert "".join(item for item, _ in seen) == "aaabbabcc"
    assert [raw for _, raw in seen] == [False] * 4 + [True] * 5
    output = console.file.getvalue()
    assert "a line 19" in output and "a line 20" not in output and "lines 1–10 of 30" in output
    assert page(console, iter(()), draw) == 0


# --- stats ------------------------------------------------------------------------------------------------------
def test_stats_give_the_funnel_the_reasons_the_outcomes_and_the_ends(run, capsys):
    assert main(["trace", "stats", "--json", str(run)]) == 0
    base, collect = json.loads(capsys.readouterr().out)
    assert (base["stage"], base["collected"], base["right"], base["errors"], base["kept"]) == (
        "base",
        3,
        1,
        1,
        None,
    )
    assert {k: collect[k] for k in ("collected", "rewound", "right", "without_faults", "kept")} == {
        "collected": 3,
        "rewound": 1,
        "right": 2,
        "without_faults": 1,
        "kept": 1,
    }
    assert collect["dropped"] == {
        "correct": {"wrong answer": 1},
        "no-result-distrust": {"checks a number again": 1},
    }
    assert collect["outcomes"] == {"ok": 2} and base["stop_reasons"] == {"eos": 2, "error": 1}
    assert main(["trace", "stats", str(run)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"collect +3 +1 +0 +2 +1 +1", out)
    assert re.search(r"collect +no-result-distrust +checks a number again +1", out)


# --- export -----------------------------------------------------------------------------------------------------
def test_conversational_rows_hold_what_was_asked_and_answered(run, tmp_path):
    assert (
        main(["trace", "export", str(run), "--stage", "collect", "--out", str(tmp_path / "rows.jsonl")]) == 0
    )
    (row,) = lines(tmp_path / "rows.jsonl")
    assert row == {
        "messages": [
            {"role": "user", "content": "What is 2+2?\nUse programs."},
            {"role": "assistant", "content": right().response},
        ]
    }


def test_trl_rows_hold_the_exact_tokens_and_a_mask_of_the_authors_asked_for(run, tmp_path):
    out = tmp_path / "rows.jsonl"
    assert (
        main(
            [
                "trace",
                "export",
                str(run / "collect"),
                "--format",
                "trl",
                "--train-on",
                "model",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    (row,) = lines(out)
    trajectory = right()
    assert row["prompt"] + row["completion"] == "".join(t.text for t in trajectory.turns)
    assert row["input_ids"] == trajectory.ids
    assert row["completion_mask"] == [int(t.author == "model") for t in trajectory.turns for _ in t.ids]


def test_verl_rows_have_the_prompt_and_the_ground_truth(run, tmp_path):
    out = tmp_path / "deeper" / "rows.jsonl"
    assert main(["trace", "export", str(run), "--format", "verl", "--all", "--out", str(out)]) == 0
    rows = lines(out)
    assert len(rows) == 6  # all but the one that was cut back
    assert rows[0]["prompt"] == [{"role": "user", "content": "What is 2+2?\nUse programs."}]
    assert (
        rows[0]["reward_model"] == {"style": "rule", "ground_truth": "4"}
        and rows[0]["extra_info"]["reward"] == 1.0
    )


# --- compare ------------------------------------------------------------------------------------------------------
@pytest.fixture
def seeds(tmp_path):
    """Two runs that evaluate two systems on three tasks; ``long`` is right more often, and four tokens longer."""
    runs = []
    for seed in range(2):
        run = tmp_path / f"seed-{seed}"
        stages = []
        for system, extra in (("short", 0), ("long", 4)):
            made = []
            for n in range(3):
                good = n < (2 if extra else 1) + seed
                t = make_trajectory([ASK, ("model", "x" * (10 + extra))], cort.Task(f"t{n}", "P", "4"))
                t.rewards = {"answer": cort.Reward(float(good))}
                made.append(t)
            (run / system).mkdir(parents=True)
            (run / system / "trajectories.jsonl").write_text("".join(t.to_json() + "\n" for t in made))
            stages.append({"name": system, "stage": {"config": {"system": system}}, "seed": seed})
        (run / "plan.json").write_text(json.dumps({"stages": stages}))
        runs.append(str(run))
    return runs


def test_compare_pairs_systems_by_task_and_seed(seeds, capsys):
    assert main(["trace", "compare", *seeds, "--against", "short", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["system"], record["against"], record["accuracy"]["tasks"]) == ("long", "short", 3)
    # by hand: t0 right in all four; t1 in one of two against two of two; t2 in none of two against one
    assert record["runs"] == 2
    assert record["accuracy"]["mean"] == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert record["accuracy"]["by_run"] == pytest.approx([1 / 3, 1 / 3])
    assert record["accuracy"]["against"]["mean"] == 0.5
    assert record["tokens"]["mean"] == 4 and record["tokens"]["ci"] == [4, 4]
    assert main(["trace", "compare", *seeds, "--against", "short", "--tasks", "t[12]"]) == 0
    out = capsys.readouterr().out
    assert "+50.0" in out and "+4 (4 to 4)" in out and "2 × 2" in out and "over tasks and seeds" in out


def test_folders_of_one_seed_are_one_run(seeds, capsys, tmp_path):
    """A variant that was run in a folder of its own stands beside the rest."""
    other = tmp_path / "other"
    (tmp_path / "seed-1").rename(other)
    for system in ("short", "long"):
        (other / system).rename(other / f"{system}-other")
    names = ("short-other", "long-other")
    stages = [{"name": n, "stage": {"config": {"system": n}}, "seed": 0} for n in names]
    (other / "plan.json").write_text(json.dumps({"stages": stages}))
    folders = [seeds[0], str(other)]
    assert main(["trace", "compare", *folders, "--against", "short", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [(r["system"], r["runs"]) for r in records] == [("long", 1), ("short-other", 1), ("long-other", 1)]


def test_compare_prints_markdown_rows_that_are_whole(seeds, capsys):
    assert main(["trace", "compare", *seeds, "--against", "short", "--markdown"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    names = [row[1].strip() for row in rows if "-" not in row[1]]
    assert names == ["system", "short", "long", "system", "long"]
    assert {len(row) for row in rows} == {9, 8}


def test_compare_shows_the_share_of_a_subject_where_it_is_asked_for(seeds, capsys):
    asked = ["trace", "compare", *seeds, "--against", "short"]
    assert main([*asked, "--subject", "chemistry"]) == 0
    assert "chemistry %" in capsys.readouterr().out
    for options, there in (([], False), (["--subject", "chemistry"], True)):
        assert main([*asked, *options, "--json"]) == 0
        (record,) = json.loads(capsys.readouterr().out)
        assert ("subject_share" in record) is there
    assert main([*asked, "--subject", "alchemy"]) == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--against", "shrt"], "did you mean 'short'"),
        (["--against", "short", "--system", "none"], "no system 'none' was evaluated there"),
        (["--against", "short", "--system", "short"], "there is no system but 'short'"),
        (["--against", "short", "--tasks", "z*"], "cannot be compared on the tasks that match 'z*'"),
    ],
)
def test_compare_says_what_there_is_not(seeds, capsys, options, complaint):
    assert main(["trace", "compare", *seeds, *options]) == 2
    assert complaint in capsys.readouterr().err
