"""``cort tools check``: tries the walls around the Python kernel on this machine, and says what held."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cort_framework import CortError, HealthCheck, HealthContext, HealthReport, RequestError, hookimpl

if TYPE_CHECKING:
    from cort_python.isolation import Layer


@hookimpl
def cort_commands() -> list[click.Command]:
    return [check]


@hookimpl
def cort_health_checks() -> list[type[HealthCheck]]:
    return [IsolationCheck]


class IsolationCheck(HealthCheck):
    """Starts sessions, and tries the walls around them: files, network, processes, memory, rights and time."""

    name = "isolation"
    requires = ("ipykernel>=7.0", "jupyter-client>=8.6")
    timeout_s = 300.0

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        from cort_python.health import look

        yield from look(context.plan)


@click.command()
@click.option(
    "--require", multiple=True, metavar="LAYER", help="As isolation.require in a recipe. May be repeated."
)
@click.option(
    "--without", multiple=True, metavar="LAYER", help="As isolation.without in a recipe. May be repeated."
)
@click.option("--user", metavar="NAME", help="For root: check as this user.")
@click.option("--attacks/--no-attacks", default=True, help="Try the thirty attacks.")
@click.option("--hangs/--no-hangs", default=True, help="Try the thirteen hangs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    require: tuple[str, ...],
    without: tuple[str, ...],
    user: str | None,
    attacks: bool,
    hangs: bool,
    as_json: bool,
) -> None:
    """Run attacks and hangs against the isolation in force here.

    Exit code 1 where something got through; 2 where a required layer is missing.
    """
    options: dict[str, Any] = {"require": require, "without": without, "attacks": attacks, "hangs": hangs}
    report = as_user(user, options) if user else examine(**options)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _show(report)
    failed = [t["name"] for kind in ("attacks", "hangs") for t in report[kind] if not t["held"]]
    if failed:
        raise CortError(
            f"{len(failed)} got through: {'; '.join(failed)}",
            "the table above names the layer that is missing",
        )


def examine(
    require: Sequence[str] = (), without: Sequence[str] = (), attacks: bool = True, hangs: bool = True
) -> dict[str, Any]:
    """``user``; ``layers``: name to ``in_force``, ``detail`` and ``gap``; ``attacks`` and ``hangs``: lists of ``name``, ``held``,
    ``detail``, ``seconds``. Raises ``RequestError`` where a layer of ``require`` is missing or unknown."""
    import pwd  # not on every system, and this module is imported on all of them

    from pydantic import ValidationError

    from cort_python.isolation import LAYERS
    from cort_python.isolation.settings import IsolationConfig
    from cort_python.isolation.trials import run_attacks, run_hangs
    from cort_python.tool import PythonTool

    try:
        isolation = IsolationConfig.model_validate({"require": require, "without": without})
    except ValidationError as error:
        unknown = error.errors()[0]["input"]
        raise RequestError(f"there is no layer {unknown!r}", f"the layers: {', '.join(LAYERS)}") from None
    settings: dict[str, Any] = {"isolation": isolation, "spares": 0}
    _note("trying the attacks" if attacks else "looking at the layers")
    config = PythonTool.Config(timeout_s=10, memory_mb=256, scratch_mb=128, **settings)
    layers, attacked = asyncio.run(run_attacks(config) if attacks else run_attacks(config, ()))
    hung = []
    if hangs:
        _note("waiting for the hangs")
        hung = asyncio.run(run_hangs(PythonTool.Config(timeout_s=1, grace_s=0.5, **settings)))
    return {
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "layers": {layer: asdict(state) for layer, state in layers.items()},
        "attacks": [asdict(trial) for trial in attacked],
        "hangs": [asdict(trial) for trial in hung],
    }


def as_user(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """``examine`` in a process of that user. Raises ``RequestError`` where there is no such user or we may not, and
    ``CortError`` where it fails: that user cannot read this Python, say."""
    import pwd

    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise RequestError(f"there is no user {name!r} on this machine", "nobody is one on most") from None
    if os.geteuid() != 0:
        raise RequestError("only root can check as another user", "leave --user out")
    code = f"import json\nfrom cort_python.checks import examine\nprint(json.dumps(examine(**{options!r})))"
    folder = tempfile.mkdtemp(prefix="cort-check-")
    try:
        os.chown(folder, user.pw_uid, user.pw_gid)
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "HOME": folder, "TMPDIR": folder},
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
        )
        error = done.stderr.strip()
    except OSError as failure:
        raise CortError(f"{name} cannot run {sys.executable}: {failure.strerror}", _READABLE) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        raise CortError(f"the check as {name} failed: {error.rpartition(chr(10))[2]}", _READABLE)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


_READABLE = "every user has to be able to read this Python and its packages: is it in a private home folder?"


def _note(text: str) -> None:
    click.echo(text, err=True)


def _show(report: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from cort_python.isolation import REMEDY, WHAT, State

    console = Console(width=None if sys.stdout.isatty() else 160)

    def table(title: str, rows: Iterable[tuple[str, bool, str]], good: str, bad: str) -> None:
        shown = Table(title, "", "", box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for name, held, detail in rows:
            shown.add_row(name, f"[green]{good}[/]" if held else f"[red]{bad}[/]", detail)
        console.print(shown)

    console.print(f"Python sessions of the user [bold]{report['user']}[/]")
    states: dict[Layer, State] = {name: State(**state) for name, state in report["layers"].items()}
    rows = [(name, bool(s.in_force), str(s) or WHAT[name]) for name, s in states.items() if s.in_force]
    rows += [(name, False, f"{s}: {REMEDY[name]}") for name, s in states.items() if not s.in_force]
    table("layer", rows, "in force", "missing")
    for kind, good in (("attacks", "refused"), ("hangs", "ended")):
        if trials := report[kind]:
            held = sum(t["held"] for t in trials)
            results = [(t["name"], t["held"], t["detail"]) for t in trials]
            table(f"{kind}: {held} of {len(trials)} {good}", results, good, "NOT " + good)
