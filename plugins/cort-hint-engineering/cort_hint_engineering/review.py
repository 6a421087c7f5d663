"""``cort hints review``: a person accepts, rejects or mends the samples of a synthesis, with the model and the tools live
(paper: every one of the 30 samples was verified by hand).

Each decision is on disk before the next sample is shown. Accepted samples are what later stages train on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from cort_framework.cli.show import STYLES, header, legend, visible
from cort_framework.cli.solve import Live
from cort_framework.errors import RequestError
from cort_framework.executor import open_tools
from cort_framework.interfaces import Filter, HintInjector, RewardFunction
from cort_framework.recipe import load_recipe, make_plan
from cort_framework.recipe.plan import Plan, PlannedStage
from cort_framework.rollout import RolloutSetup, go_on
from cort_framework.runs.folder import REVIEWED, locked
from cort_framework.runtime import Runtime
from cort_framework.scoring import judge, score
from cort_framework.store import TrajectoryLog
from cort_framework.types import Group, Hint, Trajectory, Verdict, Weights

FILTER = "review"
"""What a person's verdict is signed with."""

ANSWERS = ("accept", "reject", "edit", "versions", "skip", "quit")
HELP = "  ".join(f"[{answer[0]}]{answer[1:]}" for answer in ANSWERS)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--stage", "name", help="The synthesis to review; the only one of RUN by default.")
@click.option("--all", "everything", is_flag=True, help="Also what a filter has dropped.")
@click.option("--again", is_flag=True, help="Also what was decided before.")
@click.option("--unaided", is_flag=True, help="After an edit, go on without the stage's hint injectors.")
def review(run: Path, name: str | None, everything: bool, again: bool, unaided: bool) -> None:
    """Accept, reject or mend the samples that RUN has synthesized.

    \b
    accept   it becomes a sample to train on
    reject   it does not
    edit     cut it back to a place, insert a hint there, and let the model go on live
    versions what it was before each hint, and why the hint was put there
    """
    if not (run / "recipe.toml").is_file():
        raise RequestError(f"{run} is no run: it has no recipe.toml", "give the folder of a `cort run`")
    plan = make_plan(load_recipe(str(run / "recipe.toml")))
    stage = _synthesis(plan, run, name)
    console = Console(highlight=False, emoji=False, markup=False)
    with locked(run), ExitStack() as stack:
        source = TrajectoryLog(run / stage.name / "trajectories.jsonl")
        stack.callback(source.close)
        decided = TrajectoryLog(run / stage.name / REVIEWED)
        stack.callback(decided.close)
        known = source.keys()
        keys = [key for key in known if everything or source.final(key, logprobs=False).kept]
        open_keys = [key for key in keys if again or key not in decided]
        desk = _Desk(console, plan, stage, run, unaided, stack)
        try:
            for number, key in enumerate(open_keys, 1):
                console.print(Rule(f"{number} of {len(open_keys)}"))
                line = desk.decide((decided if key in decided else source).line(key))
                if line is not None:
                    decided.append(line)
        except (_Quit, EOFError, KeyboardInterrupt, click.Abort):
            console.print()
        kept = sum(t.kept for t in decided.finals(decided.keys(), logprobs=False))
        left = sum(key not in decided for key in keys)
        console.print(f"{kept} accepted, {len(decided) - kept} rejected, {left} left", soft_wrap=True)
        if kept:
            console.print(
                f"to train on what was accepted, and on nothing else: cort run {run / 'recipe.toml'} --run-dir {run}",
                soft_wrap=True,
            )
        elif len(decided):
            console.print("nothing is left to train on until a sample is accepted")


def _synthesis(plan: Plan, run: Path, name: str | None) -> PlannedStage:
    """Raises ``RequestError``."""
    found = [s for s in plan.stages if s.stage.cls.name == "synthesize" and name in (None, s.name)]
    if len(found) != 1:
        known = ", ".join(s.name for s in plan.stages if s.stage.cls.name == "synthesize") or "none"
        raise RequestError(
            f"{run} has {len(found)} stages to review", f"choose one with --stage; it has: {known}"
        )
    if not (run / found[0].name / "trajectories.jsonl").is_file():
        raise RequestError(
            f"stage '{found[0].name}' of {run} has no samples yet", f"cort run {run / 'recipe.toml'}"
        )
    return found[0]


class _Quit(Exception):
    pass


@dataclass
class _Desk:
    """One person, one sample at a time; the model is loaded when it is first needed."""

    console: Console
    plan: Plan
    stage: PlannedStage
    run: Path
    unaided: bool
    stack: ExitStack
    _runtime: Runtime | None = None

    def decide(self, line: list[Trajectory]) -> list[Trajectory] | None:
        """The line of descent with the person's verdict on its last version; ``None`` for one that was skipped. Raises
        ``_Quit``."""
        self.show(line)
        edited = False
        while True:
            # an empty answer skips, but for what was edited: that would be gone
            said = click.prompt(HELP, default="" if edited else "skip", show_default=False).strip().lower()
            answer = next((known for known in ANSWERS if said in (known, known[0])), None)
            if answer == "quit":
                raise _Quit
            if answer == "skip":
                return None
            if answer == "accept":
                return [*line[:-1], accepted(line[-1])]
            if answer == "reject":
                reason = click.prompt("why", default="rejected", show_default=False)
                return [*line[:-1], replace(line[-1], verdicts=[Verdict(False, reason, filter=FILTER)])]
            if answer == "versions":
                self.show_versions(line)
            elif answer == "edit":
                grown = self.edit(line)
                edited, line = edited or grown is not line, grown
            else:
                self.console.print(
                    "accept or reject what was edited, or skip and lose it" if edited else "one of these:"
                )

    # --- looking ----------------------------------------------------------------------------------------------
    def show(self, line: Sequence[Trajectory]) -> None:
        final = line[-1]
        self.console.print(header(final))
        self.console.print(Text(f"problem: {visible(final.task.prompt)}", "dim"))
        self.console.print(Rule(legend(), style="dim"))
        for number, text in enumerate(numbered(final), 1):
            self.console.print(Text(f"{number:4} ", "dim") + text, soft_wrap=True)

    def show_versions(self, line: Sequence[Trajectory]) -> None:
        """Each version that was cut back: where, which hint came there, and why."""
        for before, after in pairwise(line):
            hint = next(
                (t for t in reversed(after.turns[: _hinted(before, after)]) if t.author == "hint"), None
            )
            if hint is None:
                continue
            start = next(a for turn, a, _ in after.segments() if turn is hint)
            dropped = " ".join(before.response[start:].split())
            line_number = before.response.count("\n", 0, start) + 1
            place = f"{before.id}, line {line_number}: {hint.reason}"
            self.console.print(Text(place, "magenta"), soft_wrap=True)
            self.console.print(Text(f"  cut: {visible(dropped[:200])}", "dim"), soft_wrap=True)
            self.console.print(Text(f"  hint: {visible(' '.join(hint.text.split()))}"), soft_wrap=True)

    # --- mending ----------------------------------------------------------------------------------------------
    def edit(self, line: list[Trajectory]) -> list[Trajectory]:
        """The line with one more version, or as it was where the person thinks better of it."""
        position = self.ask_position(line[-1])
        text = None if position is None else self.ask_hint()
        if position is None or text is None:
            return line
        before = line[-1].response[:position]
        if before and not before.endswith("\n"):
            text = "\n" + text
        grown = self.live(line, Hint(text, position, reason=f"{FILTER}: put there by hand"))
        if grown[-1].error is not None:
            self.console.print(Text(f"it failed, and the sample is as it was: {grown[-1].error}", "red"))
            return line
        self.show(grown)
        return grown

    def ask_position(self, trajectory: Trajectory) -> int | None:
        """Where to cut: the beginning of a line, or of a text."""
        response = trajectory.response
        starts = line_starts(response)
        while True:
            where = click.prompt(
                "cut before which line, or before which text (empty: nowhere)", default="", show_default=False
            )
            if not where.strip():
                return None
            if where.strip().isdigit():
                number = int(where)
                if 1 <= number <= len(starts):
                    return starts[number - 1]
                self.console.print(f"there are lines 1 to {len(starts)}")
            elif (count := response.count(where)) == 1:
                return response.index(where)
            else:
                self.console.print(
                    f"that stands there {count} times: give more of it" if count else "that is not there"
                )

    def ask_hint(self) -> str | None:
        """One of the recipe's hints, or the person's own."""
        known = [
            (key, str(resolved.config.text))
            for key, resolved in self.plan.hints.items()
            if hasattr(resolved.config, "text")
        ]
        for number, (key, text) in enumerate(known, 1):
            self.console.print(Text(f"{number:4} {key}: {visible(' '.join(text.split()))}"), soft_wrap=True)
        while True:
            answer = click.prompt(
                "which hint, or your own text (\\n begins a line; empty: none)",
                default="",
                show_default=False,
            )
            if not answer.strip():
                return None
            if not answer.strip().isdigit():
                return answer.replace("\\n", "\n").rstrip("\n") + "\n"
            if 1 <= int(answer) <= len(known):
                return known[int(answer) - 1][1]
            self.console.print(f"there are hints 1 to {len(known)}")

    def live(self, line: list[Trajectory], hint: Hint) -> list[Trajectory]:
        """The model and the tools, from there on; scored and judged as the stage does it."""
        plan, stage, runtime = self.plan, self.stage, self.runtime()
        model = stage.model or str(self.run / str(stage.model_from) / "checkpoint")
        names = () if self.unaided else stage.uses.get("hints", ())
        setup = RolloutSetup(
            runtime.engine(stage.engine, Weights(model)),
            open_tools((plan.tools[k] for k in stage.uses.get("tools", plan.tools)), stage.rollout, runtime),
            stage.rollout,
            plan.recipe.prompts[stage.rollout.prompt],
            injectors=[runtime.plugin(plan.hints[k], HintInjector) for k in names],
            observe=Live(self.console).show,
        )
        grown = runtime.call(go_on(line, hint, setup), stage.rollout.batch_timeout_s, "the rollout")
        self.console.print()
        rewards = {
            k: (runtime.plugin(plan.rewards[k], RewardFunction), plan.weights[k])
            for k in stage.uses.get("rewards", plan.rewards)
        }
        filters = {k: runtime.plugin(plan.filters[k], Filter) for k in stage.uses.get("filters", ())}
        runtime.call(score(grown[-1], rewards))
        runtime.call(judge([Group(grown[-1].task, [grown[-1]])], filters))
        return grown

    def runtime(self) -> Runtime:
        if self._runtime is None:
            recipe = self.plan.recipe
            preload = tuple(dict.fromkeys(m for tool in self.plan.tools.values() for m in tool.cls.preload))
            self.console.print(Text("loading the model", "dim"))
            self._runtime = self.stack.enter_context(Runtime(recipe.seed, recipe.deterministic, preload))
        return self._runtime


def accepted(trajectory: Trajectory) -> Trajectory:
    """With a person's word for it, which stands above the filters'; what they said against it goes into the reason."""
    against = ", ".join(v.filter for v in trajectory.verdicts if not v.keep)
    verdict = Verdict(True, f"accepted against {against}" if against else "accepted", filter=FILTER)
    return replace(
        trajectory, verdicts=[*(v for v in trajectory.verdicts if v.keep and v.filter != FILTER), verdict]
    )


def line_starts(text: str) -> list[int]:
    """Where each line of a text begins."""
    starts = [0, *(n + 1 for n, character in enumerate(text) if character == "\n")]
    return starts[:-1] if len(starts) > 1 and starts[-1] == len(text) else starts


def numbered(trajectory: Trajectory) -> Iterator[Text]:
    """The lines of the response, each author in its colour; as ``line_starts`` counts them."""
    whole = Text()
    for turn, _, _ in trajectory.segments():
        whole.append(visible(turn.text), STYLES[turn.author])
    lines: Any = whole.split("\n", allow_blank=True)
    return iter(lines[:-1] if trajectory.response.endswith("\n") else lines)


def _hinted(before: Trajectory, after: Trajectory) -> int:
    """How many turns ``after`` had when the hint had come: those that it kept, and the hint's."""
    kept = 0
    for number, turn in enumerate(after.turns):
        if kept >= after.kept_tokens and turn.author == "hint":
            return number + 1
        kept += len(turn.ids)
    return len(after.turns)
