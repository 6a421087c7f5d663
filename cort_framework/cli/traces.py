"""Where the trajectories of a run are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cort_framework.errors import CortError, RequestError
from cort_framework.store import read_trajectories
from cort_framework.types import Trajectory

FILE = "trajectories.jsonl"
WANTED = f"give a run's folder, a stage's folder or a {FILE}"


@dataclass(frozen=True)
class Trace:
    """One stage's file of trajectories, and what the run's ``plan.json`` says of the stage."""

    stage: str
    path: Path
    system: str | None = None
    """For an evaluation: the name of the system."""
    template: str | None = None
    """The prompt template, with ``{problem}``."""
    seed: int | None = None
    """The run's."""

    def read(self, task: str | None = None, logprobs: bool = True) -> Iterator[Trajectory]:
        """Its trajectories, one at a time; of one task if named."""
        return (t for t in read_trajectories(self.path, logprobs) if task in (None, t.task.id, t.id))


def find_traces(run: Path, stage: str | None = None, system: str | None = None) -> list[Trace]:
    """The files of trajectories of a run folder (in the order of its stages), a stage's folder, or one such file.

    Raises ``RequestError`` where there is none.
    """
    if run.is_file():
        try:
            next(read_trajectories(run), None)
        except (CortError, UnicodeDecodeError) as error:
            raise RequestError(f"{run} is no file of trajectories", WANTED) from error
        file = run.resolve()
        traces = _planned(file.parent.parent, {file.parent.name: file})
    elif (run / FILE).is_file():
        folder = run.resolve()
        traces = _planned(folder.parent, {folder.name: folder / FILE})
    elif run.is_dir():
        traces = _planned(
            run, {p.parent.name: p for p in sorted(run.glob(f"*/{FILE}")) if "~" not in p.parent.name}
        )
    else:
        raise RequestError(f"there is no {run}", WANTED)
    if not traces:
        raise RequestError(f"{run} holds no trajectories", WANTED)
    chosen = [t for t in traces if stage in (None, t.stage) and system in (None, t.system)]
    if not chosen:
        stages = ", ".join(f"{t.stage} ({t.system})" if t.system else t.stage for t in traces)
        raise RequestError(f"no stage of {run} matches", f"it has: {stages}")
    return chosen


def _planned(run: Path, paths: dict[str, Path]) -> list[Trace]:
    try:
        stages = json.loads((run / "plan.json").read_text(encoding="utf-8"))["stages"]
        tables = {str(s["name"]): s for s in stages}
    except (OSError, ValueError, KeyError, TypeError):
        tables = {}
    ordered = [name for name in tables if name in paths] + [name for name in paths if name not in tables]
    traces = []
    for name in ordered:
        planned = tables.get(name, {})
        system = planned.get("stage", {}).get("config", {}).get("system")
        traces.append(Trace(name, paths[name], system, planned.get("prompt"), planned.get("seed")))
    return traces
