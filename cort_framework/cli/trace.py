"""``cort trace``: look at the trajectories of a run, count where they went, and hand them on to other tools."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table

from cort_framework.cli.compare import compare
from cort_framework.cli.export import FORMATS, export_row
from cort_framework.cli.options import echo_json, json_option
from cort_framework.cli.pager import page
from cort_framework.cli.same import same
from cort_framework.cli.show import STYLES, coloured, header, legend, number, stdout, table, visible
from cort_framework.cli.traces import Trace, find_traces
from cort_framework.errors import CortError, RequestError
from cort_framework.evaluation import funnel
from cort_framework.evaluation.quantiles import Quantiles
from cort_framework.interfaces import Tokenizer
from cort_framework.rendering import render, token_texts
from cort_framework.runs.folder import review_of
from cort_framework.store import Trajectories
from cort_framework.types import Author, Outcome, Trajectory, Weights


@click.group()
def trace() -> None:
    """Look at trajectories, count them, compare them, export them."""


trace.add_command(compare)
trace.add_command(same)


def selection(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument RUN with ``--stage`` and ``--system``: as ``traces``."""
    command = click.option("--system", help="Only the evaluations of this system.")(command)
    command = click.option("--stage", help="Only this stage.")(command)
    return click.argument("run", type=click.Path(path_type=Path))(command)


@trace.command()
@selection
@click.option("--task", help="Only the trajectories of this task id, or the one of this id.")
@click.option("--raw", is_flag=True, help="Token by token: index, id, text, author, mask, log-probability.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many.")
@json_option
def view(
    run: Path,
    stage: str | None,
    system: str | None,
    task: str | None,
    raw: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """Page through the trajectories of RUN: a run folder, a stage's folder, or a trajectories.jsonl."""
    traces = find_traces(run, stage, system)
    found = islice(((trace, t) for trace in traces for t in trace.read(task)), limit)
    if as_json:
        for _, trajectory in found:
            click.echo(trajectory.to_json())
        return
    console = stdout()
    with tokenizers() as tokenizer_of:

        def draw(item: tuple[Trace, Trajectory], tokens: bool) -> RenderableType:
            trace, trajectory = item
            body = token_table(trajectory, tokenizer_of(trace)) if tokens else coloured(trajectory)
            return Group(
                Rule(trace.stage, style="dim"), header(trajectory), Rule(legend(), style="dim"), body
            )

        if console.is_terminal and sys.stdin.isatty():
            shown = page(console, found, draw, raw)
        else:
            shown = 0
            for item in found:
                console.print(draw(item, raw), soft_wrap=not raw)
                shown += 1
    if not shown:
        raise RequestError(f"{run} has no trajectory" + (f" of task {task}" if task else ""))


@trace.command()
@selection
@json_option
def stats(run: Path, stage: str | None, system: str | None, as_json: bool) -> None:
    """The funnel of each stage of RUN: collected, right, without faults, kept, and why the others went; then calls, ends, and
    quantiles of response tokens (exact) and of seconds (within 1 %)."""
    records = [stage_stats(trace) for trace in find_traces(run, stage, system)]
    if as_json:
        echo_json(records)
        return
    console = stdout()
    keys = ("collected", "rewound", "errors", "right", "without_faults", "kept")
    rows = [(r["stage"], *(number(r[k]) for k in keys)) for r in records]
    console.print(table(("stage", *(k.replace("_", " ") for k in keys)), rows))
    for r in records:
        if r["reviewed"] is not None:
            console.print(
                f"{r['stage']} was reviewed: {r['reviewed']} accepted, which later stages train on\n"
            )
    reasons = [
        (r["stage"], name, reason, str(count))
        for r in records
        for name, counts in r["dropped"].items()
        for reason, count in counts.items()
    ]
    if reasons:
        console.print(table(("stage", "dropped by", "reason", "trajectories"), reasons, names=3))
    outcomes = [str(o) for o in Outcome]
    calls = [
        (r["stage"], str(r["calls"]), *(str(r["outcomes"].get(o, 0)) for o in outcomes)) for r in records
    ]
    console.print(table(("stage", "calls", *(o.replace("_", " ") for o in outcomes)), calls))
    ends = list(dict.fromkeys(end for r in records for end in r["stop_reasons"]))
    rows = [(r["stage"], *(str(r["stop_reasons"].get(end, 0)) for end in ends)) for r in records]
    console.print(table(("stage", *(f"ended by {end}" for end in ends)), rows))
    columns = [(k, q) for k in ("tokens", "seconds") for q in ("p50", "p90", "p99", "max")]
    rows = [(r["stage"], *(number(r[k][q], int(k == "seconds")) for k, q in columns)) for r in records]
    console.print(table(("stage", *(f"{k}\n{q}" for k, q in columns)), rows))


@trace.command()
@selection
@click.option("--format", "form", type=click.Choice(FORMATS), default="conversational", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The JSONL file to write.")
@click.option("--all", "everything", is_flag=True, help="Also those that a filter dropped or that failed.")
@click.option(
    "--train-on",
    type=click.Choice(list(STYLES)),
    multiple=True,
    default=("model", "hint"),
    show_default=True,
    help="trl: the authors whose tokens the mask marks.",
)
def export(
    run: Path,
    stage: str | None,
    system: str | None,
    form: str,
    out: Path,
    everything: bool,
    train_on: tuple[Author, ...],
) -> None:
    """Write RUN's kept trajectories as rows for another trainer; of a stage that was reviewed, the accepted ones.

    \b
    conversational  Hugging Face: messages of user and assistant
    trl             prompt, completion, and input_ids with completion_mask: the exact tokens, and the authors trained on
    verl            messages, and verl's prompt, reward_model and extra_info
    """
    count = 0
    traces = find_traces(run, stage, system)
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "w", encoding="utf-8") as file:
        for trace in traces:
            review = review_of(trace.path)
            for t in (
                Trajectories.decided(review) if review and not everything else trace.read(logprobs=False)
            ):
                if t.stop_reason == "rewound" or not (everything or (t.kept and t.usable)):
                    continue
                file.write(
                    json.dumps(export_row(t, form, trace.template, train_on), ensure_ascii=False) + "\n"
                )
                count += 1
    click.echo(f"{count} rows in {out}", err=True)


# --- statistics -------------------------------------------------------------------------------------------------
def stage_stats(trace: Trace) -> dict[str, Any]:
    """The funnel of a stage, the outcomes of its calls, how its trajectories ended, and how many tokens (those of the response)
    and seconds they took. Where no filter judged, ``without_faults`` and ``kept`` are ``None``."""
    outcomes: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    tokens, seconds = Quantiles(), Quantiles()
    judged = False

    def passing() -> Iterator[Trajectory]:
        nonlocal judged
        for t in trace.read(logprobs=False):
            judged = judged or bool(t.verdicts)
            if t.stop_reason != "rewound":
                outcomes.update(str(turn.result.outcome) for turn in t.calls if turn.result is not None)
                ends[t.stop_reason or "none"] += 1
                tokens.add(t.response_tokens)
                seconds.add(float(t.seconds))
            yield t

    counts = funnel(passing())
    review = review_of(trace.path)
    if not judged:
        counts |= {"without_faults": None, "kept": None}
    return {
        "stage": trace.stage,
        "system": trace.system,
        **counts,
        "reviewed": None if review is None else len(Trajectories.decided(review)),
        "calls": outcomes.total(),
        "outcomes": dict(outcomes),
        "stop_reasons": dict(ends.most_common()),
        "tokens": tokens.summary(),
        "seconds": seconds.summary(),
    }


# --- tokens -----------------------------------------------------------------------------------------------------
def token_table(trajectory: Trajectory, tokenizer: Tokenizer | None = None) -> Table:
    """A row a token: index, id, text, author, mask (1 where trained on by default) and log-probability. Without a
    tokenizer the text of a turn stands in its first row, since the disk holds text by the turn."""
    mask = render(trajectory).mask
    shown = table(("text", "author", "index", "id", "mask", "log-prob"), (), names=2)
    index = 0
    for turn in trajectory.turns:
        if not turn.ids:
            continue
        texts = token_texts(tokenizer, turn.ids) if tokenizer is not None else [turn.text]
        for token, text, logprob in zip_longest(turn.ids, texts, turn.logprobs or ()):
            quoted = "" if text is None else json.dumps(visible(text), ensure_ascii=False)[1:-1]
            shown.add_row(
                quoted,
                turn.author,
                str(index),
                str(token),
                str(mask[index]),
                "" if logprob is None else f"{logprob:.4f}",
                style=STYLES[turn.author],
            )
            index += 1
    return shown


@contextlib.contextmanager
def tokenizers() -> Iterator[Callable[[Trace], Tokenizer | None]]:
    """Gives the tokenizer that a stage's trajectories were made with, loaded when it is first asked for; ``None`` where it
    is not at hand any more, which is noted once."""
    found: dict[Path, Tokenizer | None] = {}
    with contextlib.ExitStack() as stack:

        def of(trace: Trace) -> Tokenizer | None:
            if trace.path not in found:
                try:
                    found[trace.path] = _load_tokenizer(trace, stack)
                except CortError as error:
                    click.echo(f"the text of tokens is shown by the turn: {error.message}", err=True)
                    found[trace.path] = None
            return found[trace.path]

        yield of


def _load_tokenizer(trace: Trace, stack: contextlib.ExitStack) -> Tokenizer:
    """The run's own recipe says which engine and model it was. Raises ``CortError``."""
    from cort_framework.recipe import load_recipe, make_plan
    from cort_framework.runtime import Runtime

    run = trace.path.parent.parent
    plan = make_plan(load_recipe(run / "recipe.toml"))
    stage = next((s for s in plan.stages if s.name == trace.stage), None)
    if stage is None:
        raise RequestError(f"{run / 'recipe.toml'} has no stage '{trace.stage}'")
    model = str(run / stage.model_from / "checkpoint") if stage.model_from else stage.model
    return stack.enter_context(Runtime()).engine(stage.engine, Weights(model)).tokenizer
