"""What ``cort plugins new`` writes: a distribution of one small class, its entry point, and a test that passes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from cort_framework.errors import RequestError
from cort_framework.registry.discovery import KINDS


@dataclass(frozen=True)
class Scaffold:
    """One kind's class and test. NAME, CLASS and PACKAGE are filled in."""

    imports: str
    body: str
    check: str
    recipe: str


PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "DISTRIBUTION"
version = "0.1.0"
description = "NAME: KIND for cort-framework."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["cort-framework"]

[project.entry-points.cort]
NAME = "PACKAGE"

[tool.hatch.build.targets.wheel]
packages = ["PACKAGE"]
"""

README = """\
# DISTRIBUTION

KIND for cort-framework. `pip install -e . && pytest` checks it; a recipe uses it so:

```toml
RECIPE
```
"""

MODULE = '''\
"""NAME: KIND for cort-framework."""

from __future__ import annotations

IMPORTS


BODY


@cort.hookimpl
def HOOK() -> list[type[cort.BASE]]:
    return [CLASS]
'''

TEST = """\
from __future__ import annotations

CHECK
"""

SCAFFOLDS = {
    "tool": Scaffold(
        imports="import contextlib\nfrom collections.abc import AsyncIterator\n\nimport cort_framework as cort",
        body='''\
            class CLASS(cort.Tool):
                """Answers a ```NAME fence with its text in capitals."""

                name = "NAME"
                language = "NAME"

                class Config(cort.PluginConfig):
                    ending: str = "!"
                    """What is put after the text."""

                @contextlib.asynccontextmanager
                async def session(
                    self, task: cort.Task, *, trajectory_id: str, seed: int
                ) -> AsyncIterator[cort.ToolSession]:
                    yield Session(self.config.ending)


            class Session:
                """One trajectory's view of the tool: what it remembers between calls belongs here."""

                def __init__(self, ending: str) -> None:
                    self.ending = ending

                async def call(self, call: cort.ToolCall) -> cort.ToolResult:
                    return cort.ToolResult(cort.Outcome.OK, (call.code or "").strip().upper() + self.ending)''',
        check="""\
            from cort_framework.testing import ToolCase, check_tool, check_tool_conformance
            from PACKAGE import CLASS


            def test_a_call_is_answered_in_capitals() -> None:
                assert check_tool(CLASS, "hello\\n").text == "HELLO!"


            def test_it_keeps_the_contract_of_tools() -> None:
                check_tool_conformance(ToolCase(CLASS, works="hello", text="HELLO!"))""",
        recipe='[rollout.tools.NAME]\nending = "!"',
    ),
    "hint-injector": Scaffold(
        imports="import cort_framework as cort",
        body='''\
            class CLASS(cort.HintInjector):
                """Cuts back to where the model sets out to work by hand, and suggests code."""

                name = "NAME"

                class Config(cort.PluginConfig):
                    phrase: str = "by hand"
                    """What gives the fault away."""

                def inject(self, trajectory: cort.Trajectory) -> cort.Hint | None:
                    at = trajectory.response.find(self.config.phrase)
                    return None if at < 0 else cort.Hint("with code:\\n```python\\n", rewind_to=at, reason="works by hand")''',
        check="""\
            from cort_framework.testing import check_injector, make_trajectory
            from PACKAGE import CLASS


            def test_working_by_hand_is_cut_back() -> None:
                trajectory = make_trajectory([("prompt", "2+2?"), ("model", "I do it by hand")])
                (hint,) = check_injector(CLASS, trajectory)
                assert hint is not None and hint.rewind_to == len("I do it ")


            def test_it_bears_every_sample() -> None:
                check_injector(CLASS)""",
        recipe='[hints.NAME]\nphrase = "by hand"',
    ),
    "filter": Scaffold(
        imports="import cort_framework as cort",
        body='''\
            class CLASS(cort.Filter):
                """Keeps trajectories that are short enough."""

                name = "NAME"

                class Config(cort.PluginConfig):
                    tokens: int = 500
                    """Longest response that is kept."""

                def judge(self, trajectory: cort.Trajectory) -> cort.Verdict:
                    length = trajectory.response_tokens
                    return cort.Verdict(length <= self.config.tokens, f"{length} tokens")''',
        check="""\
            from cort_framework.testing import check_filter
            from PACKAGE import CLASS


            def test_short_ones_are_kept() -> None:
                assert all(verdict.keep for verdict in check_filter(CLASS))


            def test_long_ones_are_dropped() -> None:
                assert not check_filter(CLASS, config={"tokens": 1})[-1].keep""",
        recipe="[filters.NAME]\ntokens = 500",
    ),
    "reward-function": Scaffold(
        imports="import cort_framework as cort",
        body='''\
            class CLASS(cort.RewardFunction):
                """1 for a short response, 0 for a long one."""

                name = "NAME"

                class Config(cort.PluginConfig):
                    tokens: int = 200
                    """Longest response that counts as short."""

                async def score(self, trajectory: cort.Trajectory) -> float | None:
                    return 1.0 if trajectory.response_tokens <= self.config.tokens else 0.0''',
        check="""\
            from cort_framework.testing import check_reward
            from PACKAGE import CLASS


            def test_short_is_1_and_long_is_0() -> None:
                assert check_reward(CLASS)[-1] == 1.0
                assert check_reward(CLASS, config={"tokens": 1})[-1] == 0.0""",
        recipe="[rewards.NAME]\nweight = 0.1\ntokens = 200",
    ),
    "task-source": Scaffold(
        imports="from collections.abc import Iterable\n\nimport cort_framework as cort",
        body='''\
            class CLASS(cort.TaskSource):
                """Sums, always the same ones."""

                name = "NAME"

                class Config(cort.PluginConfig):
                    size: int = 10
                    """How many."""

                def tasks(self) -> Iterable[cort.Task]:
                    for n in range(self.config.size):
                        yield cort.Task(f"NAME-{n}", f"What is {n} + {n}?", str(2 * n))''',
        check="""\
            from cort_framework.testing import check_task_source
            from PACKAGE import CLASS


            def test_there_are_as_many_tasks_as_asked_for() -> None:
                assert [task.answer for task in check_task_source(CLASS, {"size": 3})] == ["0", "2", "4"]""",
        recipe='[tasks.train]\nsource = "NAME"\nsize = 10',
    ),
    "engine": Scaffold(
        imports="from collections.abc import Mapping, Sequence\n\nimport cort_framework as cort",
        body='''\
            class Characters:
                """A token a character; 0 ends the sequence."""

                eos_ids = frozenset({0})

                def encode(self, text: str, *, special: bool = False) -> list[int]:
                    return [ord(c) for c in text]

                def decode(self, ids: Sequence[int]) -> str:
                    return "".join(map(chr, ids))

                def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
                    return self.encode("".join(m["content"] for m in messages) + "\\n")


            class CLASS(cort.Engine):
                """Knows one sentence: put your model here."""

                name = "NAME"

                class Config(cort.PluginConfig):
                    sentence: str = "I do not know."
                    """What it says."""

                async def load_weights(self, weights: cort.Weights) -> None:
                    self.tokenizer, self.version = Characters(), weights.version

                async def generate(self, ids: Sequence[int], sampling: cort.Sampling) -> cort.Generation:
                    whole = [*self.tokenizer.encode(self.config.sentence), 0]
                    said = whole[: sampling.max_tokens]
                    stop = "eos" if len(said) == len(whole) else "length"
                    return cort.Generation(tuple(said), (0.0,) * len(said), stop, self.version)''',
        check='''\
            from cort_framework.testing import check_engine
            from PACKAGE import CLASS


            def test_it_keeps_to_the_limit_and_to_its_end() -> None:
                assert check_engine(CLASS, "any").stop == "length"
                assert check_engine(CLASS, "any", {"sentence": "No."}).stop == "eos"''',
        recipe='[rollout]\nengine = "NAME"',
    ),
    "trainer": Scaffold(
        imports="import shutil\n\nimport cort_framework as cort",
        body='''\
            class CLASS(cort.Trainer):
                """Hands the model on as it is: put your training here."""

                name = "NAME"

                class Config(cort.PluginConfig):
                    learning_rate: float = 1e-5
                    """Peak learning rate."""

                def train(self, context: cort.TrainContext) -> cort.Checkpoint:
                    result = context.folder / "checkpoint"
                    shutil.copytree(context.model, result, dirs_exist_ok=True)
                    context.reporter.metrics(samples=len(context.trajectories))
                    return cort.Checkpoint(result)''',
        check="""\
            from pathlib import Path
            from unittest.mock import Mock

            import cort_framework as cort
            from PACKAGE import CLASS


            def test_a_checkpoint_comes_out(tmp_path: Path) -> None:
                model = tmp_path / "model"
                model.mkdir()
                (model / "config.json").write_text("{}")
                context = cort.TrainContext(tmp_path / "stage", str(model), seed=0, reporter=Mock())
                assert (CLASS().train(context).path / "config.json").is_file()""",
        recipe='[[stage]]\nname = "sft"\nkind = "sft"\ntrainer = "NAME"\noptions.learning_rate = 1e-5',
    ),
    "stage": Scaffold(
        imports="from typing import Any\n\nimport cort_framework as cort",
        body='''\
            class CLASS(cort.Stage):
                """Counts the tasks of a set."""

                name = "NAME"
                needs_model = False

                class Config(cort.PluginConfig):
                    tasks: str
                    """The set, a key of `[tasks]`."""

                def run(self, run: Any) -> cort.StageResult:
                    return cort.StageResult(summary={"tasks": len(run.tasks(self.config.tasks))})''',
        check="""\
            from types import SimpleNamespace

            from PACKAGE import CLASS


            def test_the_tasks_are_counted() -> None:
                stage = CLASS(CLASS.Config(tasks="train"))
                assert stage.run(SimpleNamespace(tasks=lambda name: [name, name])).summary == {"tasks": 2}""",
        recipe='[[stage]]\nname = "count"\nkind = "NAME"\ntasks = "train"',
    ),
}


def write_plugin(name: str, kind: str, folder: Path) -> list[Path]:
    """Writes the distribution ``cort-<name>`` below ``folder``; returns its files, the pyproject first.

    Raises ``RequestError`` where the name is not fit or something is there already.
    """
    name = name.removeprefix("cort-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise RequestError(
            f"{name!r} is no name for a plugin", "small letters, digits and single hyphens: word-count"
        )
    root = folder / f"cort-{name}"
    if root.exists():
        raise RequestError(f"{root} is there already", "choose another name or --dir")
    scaffold, (base, hook) = SCAFFOLDS[kind], KINDS[kind]
    package = f"cort_{name.replace('-', '_')}"
    words = {
        "IMPORTS": scaffold.imports,
        "BODY": dedent(scaffold.body),
        "CHECK": dedent(scaffold.check),
        "RECIPE": scaffold.recipe,
        "HOOK": hook,
        "BASE": base.__name__,
        "CLASS": "".join(part.capitalize() for part in name.split("-")),
        "PACKAGE": package,
        "DISTRIBUTION": f"cort-{name}",
        "KIND": f"{'an' if kind[0] in 'aeiou' else 'a'} {kind.replace('-', ' ')}",
        "NAME": name,
    }
    files = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"{package}/__init__.py": MODULE,
        f"{package}/py.typed": "",
        f"tests/test_{package}.py": TEST,
    }
    for place, template in files.items():
        text = template
        for (
            word,
            replacement,
        ) in words.items():  # in this order: what is put in for the first ones holds the others
            text = re.sub(rf"\b{word}\b", replacement.replace("\\", r"\\"), text)
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [root / place for place in files]
