"""The commands under ``cort behaviour``."""

from __future__ import annotations

import click

from cort_framework import hookimpl


@hookimpl
def cort_commands() -> list[click.Command]:
    from cort_openai.agreement import measure

    return [measure]
