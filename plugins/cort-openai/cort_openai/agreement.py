"""``cort behaviour measure``: how far the rules and a judge agree on what calls are for, as a percentage and as Cohen's kappa."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any, cast

import click

from cort_framework import RequestError, Trajectory
from cort_framework.cli.options import echo_json, echo_table, json_option
from cort_framework.cli.traces import find_traces
from cort_framework.evaluation import RESAMPLES, quantile
from cort_framework.evaluation.behaviour import label_calls, subject
from cort_framework.types import derive_seed
from cort_openai.behaviour import BehaviourJudge
from cort_openai.chat import Chat, ChatSettings, SpendingLimit, read_settings

Pair = tuple[str, str]
"""The rules' word and the judge's."""


@dataclass(frozen=True)
class Call:
    """One call, and what the two say of it; ``None`` where one of them says nothing."""

    stage: str
    trajectory: str
    task: str
    number: int
    label: tuple[str | None, str | None]
    subject: tuple[str | None, str | None]
    code: str


@dataclass(frozen=True)
class Agreement:
    """On the calls of which both say something. Intervals at 95 % are from a bootstrap over tasks."""

    calls: int
    same: float | None
    same_ci: list[float] | None
    kappa: float | None
    """Cohen 1960: 1 for full agreement, 0 for what chance would do; ``None`` where both say one thing of all calls."""
    kappa_ci: list[float] | None


def agreement(calls: Iterable[tuple[str, Pair]], seed: int = 0) -> Agreement:
    """Of calls, each with its task."""
    tasks: dict[str, list[Pair]] = {}
    for task, pair in calls:
        tasks.setdefault(task, []).append(pair)
    groups = list(tasks.values())
    whole = Counter(chain.from_iterable(groups))
    rng = Random(derive_seed("agreement", seed))
    drawn = [
        Counter(chain.from_iterable(rng.choices(groups, k=len(groups))))
        for _ in range(RESAMPLES if groups else 0)
    ]
    return Agreement(
        whole.total(), share(whole), _ci(map(share, drawn)), kappa(whole), _ci(map(kappa, drawn))
    )


def share(pairs: Counter[Pair]) -> float | None:
    """Of pairs whose two words are the same."""
    same = sum(n for (rule, judge), n in pairs.items() if rule == judge)
    return same / pairs.total() if pairs else None


def kappa(pairs: Counter[Pair]) -> float | None:
    """(p - e) / (1 - e): p is the share of equal pairs, e what it would be by chance, with the words as often as they are."""
    total, same = pairs.total(), share(pairs)
    rules: Counter[str] = Counter()
    judges: Counter[str] = Counter()
    for (rule, judge), n in pairs.items():
        rules[rule] += n
        judges[judge] += n
    chance = sum(n * judges[word] for word, n in rules.items()) / total**2 if total else 1.0
    return None if same is None or chance == 1 else (same - chance) / (1 - chance)


def _ci(values: Iterable[float | None]) -> list[float] | None:
    ordered = sorted(value for value in values if value is not None)
    return [quantile(ordered, 0.025), quantile(ordered, 0.975)] if ordered else None


# --- asking -----------------------------------------------------------------------------------------------------
@dataclass
class Asked:
    """What came of asking."""

    calls: list[Call]
    malformed: int = 0
    """Answers of the judge, or parts of them, that could not be used."""
    left_out: int = 0
    """Trajectories that the limit on questions or spending left unasked."""
    limit: str | None = None
    """What that limit says."""


async def ask(trajectories: Iterable[tuple[str, Trajectory]], settings: ChatSettings) -> Asked:
    """Rules and judge on the calls of all trajectories, each with its stage; a few at a time are held. Raises what
    ``Chat.ask`` raises, but for ``SpendingLimit``."""
    asked, chat = Asked([]), Chat(settings)
    judge = BehaviourJudge(chat)
    left = iter(trajectories)
    try:
        while some := list(islice(left, 4 * settings.concurrency)):
            answers = await asyncio.gather(*(judge.label(t) for _, t in some), return_exceptions=True)
            for (stage, trajectory), answer in zip(some, answers, strict=True):
                if isinstance(answer, SpendingLimit):
                    asked.left_out += 1
                    asked.limit = f"{answer.message}: {answer.hint}"
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    asked.calls += _both(stage, trajectory, answer)
    finally:
        await chat.close()
    asked.malformed = judge.malformed
    return asked


def _both(stage: str, trajectory: Trajectory, answer: Sequence[Any]) -> Iterator[Call]:
    rules = label_calls(trajectory)
    for number, (turn, label, judged) in enumerate(zip(trajectory.calls, rules, answer, strict=True), 1):
        done = None if turn.call is None else subject(turn.call)
        labels = (label, judged and judged.label)
        subjects = (done, judged and judged.subject)
        code = "" if turn.call is None else turn.call.code or str(turn.call.arguments)
        yield Call(stage, trajectory.id, trajectory.task.id, number, labels, subjects, code)


# --- the command ------------------------------------------------------------------------------------------------
@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--judge", "url", metavar="URL", required=True, help="The judge's endpoint: …/v1.")
@click.option("--judge-model", default="default", help="The judge's name there.")
@click.option("--judge-cache", type=click.Path(path_type=Path, file_okay=False), help="Keeps its answers.")
@click.option("--max-questions", type=click.IntRange(min=1), help="As many as the judge may be asked.")
@click.option(
    "--chat", "more", multiple=True, metavar="KEY=VALUE", help="Of its client: budget=2.5, price_in=1."
)
@click.option("--stage", help="Only this stage.")
@click.option("--system", help="Only the evaluations of this system.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many trajectories of a stage.")
@click.option("--disagreements", is_flag=True, help="Also each call of which the two say different things.")
@json_option
def measure(
    run: Path,
    url: str,
    judge_model: str,
    judge_cache: Path | None,
    max_questions: int | None,
    more: Sequence[str],
    stage: str | None,
    system: str | None,
    limit: int | None,
    disagreements: bool,
    as_json: bool,
) -> None:
    """Let a judge say of each call in RUN whether it calculates or verifies and what it does, and hold it against the rules.

    RUN is a run folder, a stage's folder, or a trajectories.jsonl. Agreement is a percentage, and Cohen's kappa: how much
    more that is than chance would give. What a judge has answered once is not asked again where --judge-cache keeps it.
    """
    chat = read_settings(more, url=url, judge=judge_model, cache=judge_cache, max_questions=max_questions)
    traces = find_traces(run, stage, system)
    asked = asyncio.run(
        ask(
            ((t.stage, made) for t in traces for made in islice(with_calls(t.read(logprobs=False)), limit)),
            chat,
        )
    )
    if not asked.calls:
        raise RequestError(asked.limit or f"{run} holds no call that a judge could be asked about")
    stages = list(dict.fromkeys(call.stage for call in asked.calls))
    groups = [(name, [c for c in asked.calls if c.stage == name]) for name in stages]
    if len(groups) > 1:
        groups.append(("all", asked.calls))
    records = [record(name, calls) for name, calls in groups]
    different = [c for c in asked.calls if any(differs(pair) for pair in (c.label, c.subject))]
    if as_json:
        counts = {"malformed": asked.malformed, "left_out": asked.left_out}
        echo_json({"groups": records, **counts, "calls": [asdict(call) for call in asked.calls]})
        return
    echo_table(HEADER, [row(r) for r in records])
    silent = sum(call.label[1] is None for call in asked.calls)
    click.echo(
        f"\n{silent} calls have no label of the judge; {asked.malformed} parts of its answers were no use"
    )
    if asked.limit:
        click.echo(f"{asked.left_out} trajectories were left out: {asked.limit}")
    for what in ("label", "subject"):
        apart = Counter(pair for c in asked.calls if differs(pair := getattr(c, what)))
        for (rule, judge), n in apart.most_common(8):
            click.echo(f"{what}: {rule} by rule, {judge} by judge: {n}")
    if disagreements:
        for call in different:
            words = [f"{a} / {b}" for a, b in (call.label, call.subject) if differs((a, b))]
            click.echo(
                f"\n{call.stage} {call.trajectory} call {call.number}: {'; '.join(words)}\n{call.code}"
            )


def with_calls(trajectories: Iterable[Trajectory]) -> Iterator[Trajectory]:
    return (t for t in trajectories if t.calls and t.stop_reason != "rewound")


def differs(pair: tuple[str | None, str | None]) -> bool:
    return None not in pair and pair[0] != pair[1]


def record(name: str, calls: Sequence[Call]) -> dict[str, Any]:
    """The agreement of a stage's labels and subjects, and the share of calculations as each of the two sees it."""
    found: dict[str, Any] = {"stage": name, "calls": len(calls)}
    for what in ("label", "subject"):
        pairs = [(c.task, cast(Pair, p)) for c in calls if None not in (p := getattr(c, what))]
        found[what] = asdict(agreement(pairs))
    for who, place in (("rules", 0), ("judge", 1)):
        said = [c.label[place] for c in calls if None not in c.label]
        found[f"calculation_share_{who}"] = said.count("calculation") / len(said) if said else None
    return found


HEADER = (
    "stage",
    "calls",
    "same label %",
    "kappa",
    "calculation %: rules",
    "judge",
    "same subject %",
    "kappa",
)


def row(record: dict[str, Any]) -> list[str]:
    label, subject = record["label"], record["subject"]
    return [
        record["stage"],
        str(record["calls"]),
        _shown(label["same"], label["same_ci"], 100, 1),
        _shown(label["kappa"], label["kappa_ci"], 1, 2),
        _shown(record["calculation_share_rules"], None, 100, 1),
        _shown(record["calculation_share_judge"], None, 100, 1),
        _shown(subject["same"], subject["same_ci"], 100, 1),
        _shown(subject["kappa"], subject["kappa_ci"], 1, 2),
    ]


def _shown(value: float | None, interval: Sequence[float] | None, scale: float, digits: int) -> str:
    if value is None:
        return "–"
    ends = "" if interval is None else " ({:.{d}f}–{:.{d}f})".format(*(scale * x for x in interval), d=digits)
    return f"{scale * value:.{digits}f}{ends}"
