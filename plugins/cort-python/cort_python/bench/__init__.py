"""``cort bench tools``: what the tools cost, beside what others cost, measured in one run on this machine."""

from __future__ import annotations

import click

from cort_framework import hookimpl


@hookimpl
def cort_commands() -> list[click.Command]:
    from cort_python.bench.command import tools

    return [tools]
