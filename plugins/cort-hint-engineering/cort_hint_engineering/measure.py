"""``cort hints measure``: how good a detector is, as precision and recall on labelled spans, with intervals, by language and by
phenomenon."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from cort_framework import RequestError
from cort_framework.cli.options import echo_json, echo_table, json_option
from cort_hint_engineering.detectors import delayed_computation, result_distrust
from cort_hint_engineering.judge import Judge, judge_installed
from cort_hint_engineering.labelled import LabelledSpan, labelled_spans

ALIKE = 0.4
"""Share of the wording that two items of one phenomenon have in common when they are one passage."""


@dataclass(frozen=True)
class Measured:
    """An item, and what a detector found in it."""

    item: LabelledSpan
    found: Sequence[tuple[int, int]]
    passage: int
    """Items that differ by their numbers or their surroundings alone are one passage."""

    @property
    def hit(self) -> bool:
        return any(self.item.hit_by(span) for span in self.found)

    @property
    def false(self) -> bool:
        """Something was found where nothing is: anything in a negative, and in a positive what does not meet the fault."""
        fault = self.item.span
        return any(fault is None or b <= fault[0] or a >= fault[1] for a, b in self.found)


@dataclass(frozen=True)
class Share:
    """``right`` of ``total`` items, which are ``passages`` independent ones."""

    right: int
    total: int
    passages: int

    @property
    def value(self) -> float | None:
        return self.right / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % by Wilson's score, with the passages as the number of observations."""
        if self.value is None:
            return None
        n, p, z = self.passages, self.value, 1.959964
        middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))


@dataclass(frozen=True)
class Figures:
    """Of a set of items of one kind."""

    precision: Share
    recall: Share
    positives: int
    negatives: int
    false: int
    """Items in which something was found that is no fault."""


def measured(items: Sequence[LabelledSpan], found: Iterable[Sequence[tuple[int, int]]]) -> list[Measured]:
    """Each item with the findings for it, and the passage that it belongs to."""
    known: list[tuple[tuple[str, str, bool], set[str]]] = []
    rows = []
    for item, spans in zip(items, found, strict=True):
        group, wording = (item.kind, item.phenomenon, item.span is not None), _wording(item)
        passage = next((n for n, (g, w) in enumerate(known) if g == group and _alike(wording, w)), len(known))
        if passage == len(known):
            known.append((group, wording))
        rows.append(Measured(item, spans, passage))
    return rows


def figures(rows: Sequence[Measured]) -> Figures:
    positives = [row for row in rows if row.item.span is not None]
    hits = [row for row in positives if row.hit]
    false = [row for row in rows if row.false]
    claimed = len({row.passage for row in hits}) + len({row.passage for row in false})
    return Figures(
        precision=Share(len(hits), len(hits) + len(false), claimed),
        recall=Share(len(hits), len(positives), len({row.passage for row in positives})),
        positives=len(positives),
        negatives=len(rows) - len(positives),
        false=len(false),
    )


def _wording(item: LabelledSpan) -> set[str]:
    letters = re.sub(r"[\d\W_]+", "", (item.fault or item.response).lower())
    return {letters[n : n + 4] for n in range(max(1, len(letters) - 3))}


def _alike(a: set[str], b: set[str]) -> bool:
    return len(a & b) >= ALIKE * min(len(a), len(b))


# --- the command --------------------------------------------------------------------------------------------------
@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@click.option("--misses", is_flag=True, help="Also each fault that was missed, and what was taken for one.")
@click.option("--judge", "url", metavar="URL", help="Measure a judge at this endpoint (…/v1), not the rules.")
@click.option("--judge-model", default="default", help="The judge's name there.")
@click.option("--judge-cache", type=click.Path(path_type=Path, file_okay=False), help="Keeps its answers.")
@click.option("--max-questions", type=click.IntRange(min=1), help="As many as the judge may be asked.")
@click.option(
    "--chat", "more", multiple=True, metavar="KEY=VALUE", help="Of its client: budget=2.5, price_in=1."
)
@json_option
def measure(
    files: tuple[Path, ...],
    misses: bool,
    url: str | None,
    judge_model: str,
    judge_cache: Path | None,
    max_questions: int | None,
    more: tuple[str, ...],
    as_json: bool,
) -> None:
    """Precision and recall of the detectors on FILEs of labelled spans, each file by itself and, where there are several,
    together.

    A fault is found where a detector's span overlaps it and begins inside it or at most one sentence before. Intervals are
    at 95 %, and count items that differ by their numbers alone as one passage.
    """
    labelled = [(file, item) for file in files for item in labelled_spans(file)]
    items = [item for _, item in labelled]
    judged = None
    if url is None:
        found: list[list[tuple[int, int]] | None] = [_by_rules(item) for item in items]
    else:
        judged = asyncio.run(_by_judge(items, url, judge_model, judge_cache, max_questions, more))
        found = judged.found
    there = [n for n, spans in enumerate(found) if spans is not None]
    if judged is not None and not there:
        raise RequestError(judged.limit or "there is no item to ask about")
    rows = measured([items[n] for n in there], [found[n] or [] for n in there])
    by_file = {
        file: [r for r, n in zip(rows, there, strict=True) if labelled[n][0] == file] for file in files
    }
    groups = list(_groups(rows, by_file if len(files) > 1 else {}))
    if as_json:
        result: dict[str, Any] = {"groups": [{"kind": k, "group": g, **_plain(f)} for k, g, f in groups]}
        if judged is not None:
            result |= {"malformed": judged.malformed, "left_out": len(items) - len(there)}
        if misses:
            result["misses"] = [{"kind": r.item.kind, "id": r.item.id, **said} for r, said in _wrong(rows)]
        echo_json(result)
        return
    header = ["kind", "items", "faults", "none", "precision", "95 %", "recall", "95 %"]
    table = []
    for kind, group, f in groups:
        cells = [str(f.positives), str(f.negatives), *_cells(f.precision), *_cells(f.recall)]
        table.append([kind, group, *cells])
    echo_table(header, table)
    if judged is not None:
        click.echo(f"\n{judged.malformed} answers of the judge, or parts of them, could not be used")
        if judged.limit is not None:
            click.echo(f"{len(items) - len(there)} items were left out: {judged.limit}")
    if misses:
        click.echo()
        for row, said in _wrong(rows):
            click.echo(f"{said['what']} {row.item.id} ({row.item.phenomenon}): {said['text']}")


def _by_rules(item: LabelledSpan) -> list[tuple[int, int]]:
    detect = delayed_computation if item.kind == "delayed-computation" else result_distrust
    return [(span.start, span.end) for span in detect(item.trajectory())]


@dataclass(frozen=True)
class Judged:
    """What a judge found."""

    found: list[list[tuple[int, int]] | None]
    """An entry an item; ``None`` for one that a limit left unasked."""
    malformed: int
    limit: str | None
    """What that limit says."""


async def _by_judge(
    items: Sequence[LabelledSpan],
    url: str,
    model: str,
    cache: Path | None,
    max_questions: int | None,
    more: Sequence[str],
) -> Judged:
    with judge_installed():
        from cort_openai.chat import SpendingLimit, read_settings
    settings = read_settings(more, url=url, judge=model, cache=cache, max_questions=max_questions)
    judges = {kind: Judge(kind, settings.model_dump()) for kind in dict.fromkeys(item.kind for item in items)}
    try:
        asking = (judges[item.kind].find(item.trajectory()) for item in items)
        answers = await asyncio.gather(*asking, return_exceptions=True)
    finally:
        await asyncio.gather(*(judge.close() for judge in judges.values()))
    found: list[list[tuple[int, int]] | None] = []
    limit = None
    for answer in answers:
        if isinstance(answer, SpendingLimit):
            limit = f"{answer.message}: {answer.hint}"
            found.append(None)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found.append([(span.start, span.end) for span in answer])
    return Judged(found, sum(judge.malformed for judge in judges.values()), limit)


def _groups(
    rows: Sequence[Measured], by_file: Mapping[Path, Sequence[Measured]]
) -> Iterator[tuple[str, str, Figures]]:
    for kind in sorted({row.item.kind for row in rows}):
        own = [row for row in rows if row.item.kind == kind]
        for file, its in by_file.items():
            yield kind, file.name, figures([row for row in its if row.item.kind == kind])
        yield kind, "all", figures(own)
        for language in sorted({row.item.language for row in own}):
            yield kind, language, figures([row for row in own if row.item.language == language])
        for phenomenon in sorted({row.item.phenomenon for row in own}):
            yield kind, phenomenon, figures([row for row in own if row.item.phenomenon == phenomenon])


def _wrong(rows: Sequence[Measured]) -> Iterator[tuple[Measured, dict[str, str]]]:
    for row in rows:
        if row.item.span is not None and not row.hit:
            yield row, {"what": "missed", "text": _short(row.item.fault)}
        if row.false:
            text = " … ".join(row.item.response[a:b] for a, b in row.found)
            yield row, {"what": "false", "text": _short(text)}


def _cells(share: Share) -> tuple[str, str]:
    if share.value is None or share.interval is None:
        return "-", "-"
    low, high = share.interval
    return f"{share.value:.3f} ({share.right}/{share.total})", f"{low:.3f}–{high:.3f}"


def _plain(f: Figures) -> dict[str, Any]:
    shares = {"precision": f.precision, "recall": f.recall}
    return {
        "positives": f.positives,
        "negatives": f.negatives,
        "false": f.false,
        **{k: {**asdict(s), "value": s.value, "interval": s.interval} for k, s in shares.items()},
    }


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else f"{text[:157]}..."
