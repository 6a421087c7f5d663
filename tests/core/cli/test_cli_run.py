"""The commands that run models, on a scripted model and real tasks, tools, rewards and filters."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import cort_framework as cort
from cort_framework.cli import main
from cort_framework.testing import says, scripted_engine

HINT = "Let us compute. "
RECIPE = """
schema = 1
name = "sums"
model = "model"

[tasks.easy]
source = "sums"
size = 6

[tasks.hard]
source = "sums"
start = 100
size = 3

[rollout]
engine = "scripted"
max_tokens = 300

[rollout.tools.calc]

[hints.start]

[rewards.answer]
use = "sum"

[filters.right]

[[stage]]
name = "base"
kind = "evaluate"
system = "natural"
tasks = ["easy", "hard"]
tools = []
rollout.prompt = "natural"

[[stage]]
name = "collect"
kind = "synthesize"
tasks = "easy"
target = 2
hints = ["start"]
filters = ["right"]

[[stage]]
name = "tune"
kind = "sft"
trainer = "copy"
data = ["collect"]

[[stage]]
name = "tuned"
kind = "evaluate"
system = "sft"
tasks = ["easy"]
"""


def write(prompt: str, response: str) -> str:
    """Multiplies by hand, wrongly, unless it is asked to use programs."""
    asked = re.search(r"(\d+) times", prompt)
    assert asked is not None
    factor = int(asked[1])
    if "step by step" in prompt:
        wrong = 7 * factor + 1
        return says(f"By hand \x1b[31mit is about {wrong}.</think>\\boxed{{{wrong}}}")(prompt, response)
    outputs = re.findall(r"```output\n(.*?)\n```", response, re.DOTALL)
    result = outputs[-1] if outputs else None
    model = says(
        f"I compute.\n```calc\n{factor} * 7\n```\n",
        f"So it is {result}.</think>The answer is \\boxed{{{result}}}.",
    )
    return model(prompt, response.removeprefix(HINT))


class Sums(cort.TaskSource):
    """Multiples of seven."""

    name = "sums"

    class Config(cort.PluginConfig):
        start: int = 10
        """The first factor."""
        size: int = 5
        """How many."""

    def tasks(self) -> list[cort.Task]:
        numbers = range(self.config.start, self.config.start + self.config.size)
        return [cort.Task(f"sum-{n}", f"What is {n} times 7?", str(7 * n)) for n in numbers]


class Calc(cort.Tool):
    """Products of two whole numbers."""

    name = "calc"
    language = "calc"

    @contextlib.asynccontextmanager
    async def session(self, task, *, trajectory_id, seed):  # type: ignore[no-untyped-def]
        class Session:
            async def call(self, call: cort.ToolCall) -> cort.ToolResult:
                a, b = (call.code or "").split("*")
                return cort.ToolResult(cort.Outcome.OK, str(int(a) * int(b)))

        yield Session()


class Start(cort.HintInjector):
    """Opens each response."""

    name = "start"

    def inject(self, trajectory: cort.Trajectory) -> cort.Hint | None:
        return None if trajectory.response else cort.Hint(HINT, reason="opening")


class Sum(cort.RewardFunction):
    """1 for the right box."""

    name = "sum"

    async def score(self, trajectory: cort.Trajectory) -> float:
        return float(f"\\boxed{{{trajectory.task.answer}}}" in trajectory.final_text)


class Right(cort.Filter):
    """Keeps right answers to even factors."""

    name = "right"

    def judge(self, trajectory: cort.Trajectory) -> cort.Verdict:
        odd = int(trajectory.task.id.split("-")[1]) % 2 == 1
        return cort.Verdict(not odd, f"an odd factor: {trajectory.task.id}" if odd else "")


class Copy(cort.Trainer):
    """Makes a checkpoint of the model as it is."""

    name = "copy"

    def train(self, context: cort.TrainContext) -> cort.Checkpoint:
        target = context.folder / "checkpoint"
        target.mkdir(exist_ok=True)
        (target / "config.json").write_text((Path(context.model) / "config.json").read_text())
        return cort.Checkpoint(target)


PLUGINS = (scripted_engine(write), Sums, Calc, Start, Sum, Right, Copy)


@pytest.fixture
def folder(tmp_path, monkeypatch, cort_registry):
    """A folder to work in, with a recipe, a model and the plugins that it names."""
    for plugin in PLUGINS:
        cort_registry.register(plugin)
    monkeypatch.setattr("cort_framework.recipe.planner.default_registry", lambda: cort_registry)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "sums.toml").write_text(RECIPE)
    return tmp_path


def test_a_run_shows_a_trajectory_the_tables_the_checkpoint_and_the_next_command(folder, capsys):
    assert main(["run", "sums.toml"]) == 0
    out, err = capsys.readouterr()
    assert "So it is 70.</think>The answer is \\boxed{70}." in out
    rows = {
        tuple(line.split()[:2]): line for line in out.splitlines() if line.startswith((" natural", " sft"))
    }
    assert list(rows) == [("natural", "easy"), ("natural", "hard"), ("sft", "easy")]
    assert "0.0 ± 0.0 %" in rows["natural", "easy"] and "100.0 ± 0.0 %" in rows["sft", "easy"]
    for stage in ("base", "collect", "tune", "tuned", "total"):
        assert re.search(rf"^ {stage} .*\d+\.\d", out, re.MULTILINE), stage
    assert f"checkpoint: {Path('runs/sums/tune/checkpoint')}" in out
    assert "cort solve --model runs/sums/tune/checkpoint 'What is 10 times 7?'" in out
    assert "natural on easy 6/6" in err and "\x1b" not in out
    assert (
        main(["solve", "--model", "runs/sums/tune/checkpoint", "What is 10 times 7?"]) == 0
    )  # as the run's recipe says
    assert capsys.readouterr().out.endswith("answer: 70\n")
    assert json.loads(Path("runs/sums/results.json").read_text())[0]["name"] == "natural"


def test_a_finished_run_is_not_run_again(folder, capsys):
    assert main(["run", "sums.toml"]) == 0
    first = capsys.readouterr().out
    assert main(["run", "sums.toml"]) == 0
    out, err = capsys.readouterr()
    assert err.count("done before") == 4
    assert "(before)" in out and out.splitlines()[:5] == first.splitlines()[:5]


def test_from_runs_a_stage_and_those_after_it_again(folder, capsys):
    assert main(["run", "sums.toml", "--run-dir", "here"]) == 0
    capsys.readouterr()
    assert main(["run", "sums.toml", "--run-dir", "here", "--from", "tune"]) == 0
    assert capsys.readouterr().err.count("done before") == 2
    assert len(list(Path("here").glob("tune~*"))) == 1


def test_a_dry_run_shows_the_plan_and_starts_nothing(folder, capsys):
    overrides = ["canaries.tool_use.action=stop", "stage.tune.canaries.loss.action=warn"]
    assert main(["run", "sums.toml", "--dry-run", *(f"--set={o}" for o in overrides)]) == 0
    out = capsys.readouterr().out
    assert "tune: canary tool_use stops the stage, the others warn" in out
    assert "base, collect, tuned: canary tool_use stops the stage, canary loss stops the stage" in out
    assert re.search(r"easy +sums .* 6\b", out)
    assert re.search(r"collect +synthesize .*tasks easy; hints start; filters right", out)
    assert re.search(r"tuned +evaluate +stage tune", out)
    assert re.search(r"base +2,700 +– +0 ", out) and "not known: engine 'scripted' does not say" in out
    assert not Path("runs").exists()


def test_a_dry_run_as_json_is_for_programs_and_can_be_for_another_device(folder, capsys):
    assert main(["run", "sums.toml", "--dry-run", "--json", "--gpu-gib", "80"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["device"]["bytes"] == 80 << 30 and plan["tasks"] == {"easy": 6, "hard": 3}
    assert plan["canaries"]["tuned"]["truncation"] == {"action": "warn", "most": 0.5, "rise": 0.2}
    base = plan["stages"][0]
    assert (base["stage"], base["trajectories_at_most"], base["tokens_made_at_most"]) == ("base", 9, 2700)
    assert base["memory"] is None and base["fits"] is None and base["unknown"]
    assert main(["run", "sums.toml", "--json"]) == 2
    assert "goes with --dry-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing.toml"], "nothing.toml"),
        (["run", "sums.toml", "--set", "stage.tunned.trainer=copy"], "did you mean 'tuned'"),
        (["run", "sums.toml", "--from", "tunned"], "tunned"),
        (["run", "sums.toml", "--set", "rollout.temprature=1"], "temprature"),
        (["run", "sums.toml", "--set", "model='no/such/model'"], "no/such/model"),
        (["solve", "--recipe", "sums.toml", "--model", "missing", "What is 3 times 7?"], "missing"),
        (["solve", "--recipe", "sums.toml", "--tools", "calk", "What is 3 times 7?"], "did you mean 'calc'"),
        (["eval", "--recipe", "sums.toml", "--model", "model", "--tasks", "esay"], "esay"),
    ],
)
def test_a_wrong_request_ends_with_2_and_starts_nothing(folder, capsys, arguments, message):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error:") and message in err
    assert not list(Path("runs").glob("*/*/trajectories.jsonl"))


def test_a_stage_whose_filters_keep_nothing_ends_with_1_and_the_funnel(folder, capsys):
    Path("sums.toml").write_text(
        RECIPE.replace("start = 100", "start = 101").replace('tasks = "easy"', 'tasks = "odd"')
    )
    with open("sums.toml", "a") as file:
        file.write('\n[tasks.odd]\nsource = "sums"\nstart = 11\nsize = 1\n')
    assert main(["run", "sums.toml"]) == 1
    err = capsys.readouterr().err
    assert "kept none of 4" in err and "4 by right" in err and "cort trace stats" in err


def test_solve_shows_each_author_and_the_answer(folder, capsys):
    arguments = [
        "solve",
        "--model",
        "model",
        "--recipe",
        "sums.toml",
        "--hints",
        "start",
        "What is 12 times 7?",
    ]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "Let us compute. I compute.\n```calc\n12 * 7\n```\n```output\n84\n```\nSo it is 84." in out
    assert out.splitlines()[-1] == "answer: 84"
    assert "1 calls" in err and "loading" in err


def test_solve_streams_text_as_it_grows_and_shows_control_characters_harmless(folder, capsys, monkeypatch):
    seen = []
    from cort_framework.cli.solve import Live

    real = Live.show
    monkeypatch.setattr(Live, "show", lambda self, t: (seen.append(len(t.ids)), real(self, t)))
    arguments = [
        "solve",
        "--recipe",
        "sums.toml",
        "--tools",
        "none",
        "--prompt",
        "natural",
        "What is 9 times 7?",
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "␛[31mit is about 64" in out
    assert len(seen) > 5 and seen == sorted(seen)


def test_solve_raw_shows_each_token_with_its_author_and_mask(folder, capsys):
    assert main(["solve", "--recipe", "sums.toml", "--raw", "What is 5 times 7?"]) == 0
    out = capsys.readouterr().out
    tokens = [
        line.split()
        for line in out.splitlines()
        if re.search(r" (prompt|model|tool) +\d+ +\d+ +[01]\b", line)
    ]
    authors = [next(w for w in words if w in ("prompt", "model", "tool")) for words in tokens]
    assert authors.index("prompt") < authors.index("model") < authors.index("tool")


def test_eval_measures_a_model_on_the_recipes_task_sets(folder, capsys):
    arguments = ["eval", "--model", "model", "--recipe", "sums.toml", "--tasks", "hard", "--samples", "2"]
    assert main([*arguments, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["test_set"], record["tasks"], record["samples_per_task"], record["accuracy"]) == (
        "hard",
        3,
        2,
        1.0,
    )
    assert main(arguments) == 0
    assert "100.0 ± 0.0 %" in capsys.readouterr().out


def test_eval_takes_benchmarks_as_their_recipe_evaluates_them(folder, capsys):
    arguments = ["eval", "--model", "model", "--recipe", "sums.toml", "--json"]
    budgets = ["--set", "stage.base.budgets=[1,9999]"]
    assert main([*arguments, "--benchmark", "hard", "--tools", "calc", "--prompt", "tool", *budgets]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["name"], record["test_set"], record["samples_per_task"]) == ("model", "hard", 1)
    assert record["accuracy_within"] == {"1": 0.0, "9999": 1.0}
    assert main([*arguments, "--benchmark", "hard, esay"]) == 2
    assert "evaluates no task set 'esay'" in capsys.readouterr().err
    assert main([*arguments, "--benchmark", "hard", "--tasks", "easy"]) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_soon_with_130_and_goes_on_where_it_was(tmp_path, number):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "sums.toml").write_text(RECIPE)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import asyncio, signal, sys
            from pathlib import Path
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for what a script starts in the background
            sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]!r}
            import cort_framework as cort
            import test_cli_run as here
            from cort_framework.cli import main

            class Slow(here.PLUGINS[0]):
                async def generate(self, ids, sampling):
                    text = self.tokenizer.decode(ids)
                    if "12 times" in text and not Path("go").exists():
                        await asyncio.sleep(600)
                    return await super().generate(ids, sampling)

            for plugin in (Slow, *here.PLUGINS[1:]):
                cort.register(plugin)
            sys.exit(main(["run", "sums.toml"]))
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment
    )
    collected = tmp_path / "runs" / "sums" / "base" / "trajectories.jsonl"
    while not collected.exists() or collected.read_text().count("\n") < 5:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "To go on from there: cort run sums.toml\n" in err
    before = collected.read_text().splitlines()
    (tmp_path / "go").touch()
    again = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert again.returncode == 0, again.stderr
    assert set(before) <= set(collected.read_text().splitlines())


def test_hints_are_compared_with_none_and_a_plugins_name_stands_for_its_own(folder, capsys, monkeypatch):
    arguments = ["eval", "--model", "model", "--recipe", "sums.toml", "--tasks", "easy"]
    assert main([*arguments, "--hints", "start", "--beside"]) == 0
    out = capsys.readouterr().out
    assert "model with hints" in out and "with hints minus without" in out
    assert main([*arguments, "--beside"]) == 2
    assert main([*arguments, "--hints", "sart"]) == 2
    assert "no hint 'sart'; did you mean 'start'?" in capsys.readouterr().err


def test_a_plugins_name_stands_for_all_hints_that_it_gives_a_recipe():
    from cort_framework.cli.solve import hints_named

    recipe = cort.load_recipe("cort_math")
    names = ["opening", "delayed-computation", "result-distrust"]
    assert (
        hints_named(recipe, ["hint-engineering"]) == hints_named(recipe, ["cort-hint-engineering"]) == names
    )
    assert hints_named(recipe, ["opening", "hint-engineering"]) == names
    with pytest.raises(cort.RequestError, match="did you mean 'hint-engineering'"):
        hints_named(recipe, ["hint-enginering"])


def test_the_cache_is_explained_and_nothing_is_started(folder, capsys):
    assert main(["run", "sums.toml", "--explain-cache"]) == 0
    assert "it has not run yet" in capsys.readouterr().out and not Path("runs").exists()
    assert main(["run", "sums.toml"]) == 0
    capsys.readouterr()
    changed = ["--set", "rollout.max_tokens=77"]
    assert main(["run", "sums.toml", "--explain-cache", *changed, "--json"]) == 0
    first, *_ = json.loads(capsys.readouterr().out)
    assert first["state"] == "runs" and "is 77" in first["because"][0]
    assert main(["run", "sums.toml", "--explain-cache"]) == 0
    assert "done" in capsys.readouterr().out
    assert main(["run", "sums.toml", *changed]) == 0
    assert "made again, as rollout.max_tokens was" in capsys.readouterr().err
    assert main(["run", "sums.toml", "--explain-cache", "--from", "nothing"]) == 2
