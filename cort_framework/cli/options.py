"""Arguments and output that several commands share."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def recipe_options(command: F) -> F:
    """``--profile P`` and ``--set K=V``: as ``profile`` (or ``None``) and ``overrides`` (a tuple)."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change a key: --set stage.rl.options.lr=5e-7.",
    )(command)
    return click.option("--profile", metavar="NAME", help="Put one of the recipe's profiles over it.")(
        command
    )


def system_options(command: F) -> F:
    """``--prompt P``, ``--tools NAME`` and ``--hints NAME``: what the model gets, as ``prompt`` (or ``None``), ``tools`` and
    ``hints`` (tuples)."""
    command = click.option(
        "--hints",
        multiple=True,
        metavar="NAME",
        help="Hint injectors of the recipe to put to work; a plugin's name, hint-engineering, for all that it gives.",
    )(command)
    command = click.option(
        "--tools",
        multiple=True,
        metavar="NAME",
        help="Only these tools of the recipe; `--tools none` for none.",
    )(command)
    return click.option("--prompt", help="Another prompt template of the recipe: tool, natural.")(command)


def json_option(command: F) -> F:
    """``--json``: as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def echo_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def echo_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be; a line is a record, cut at the terminal's edge but whole in a pipe."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for number, row in enumerate([header, *rows]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()[:room]
        click.echo(click.style(line, bold=True) if number == 0 else line)
