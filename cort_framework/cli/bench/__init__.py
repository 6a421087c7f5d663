"""``cort bench``: what things cost, each figure beside its baseline, measured in one run on this machine.

The group is shared: a plugin adds a command to it with an entry point named ``bench`` whose module has ``cort_commands``.
"""

from __future__ import annotations

import click

from cort_framework.hookspecs import hookimpl


@hookimpl
def cort_commands() -> list[click.Command]:
    from cort_framework.cli.bench.rollout import rollout

    return [rollout]
