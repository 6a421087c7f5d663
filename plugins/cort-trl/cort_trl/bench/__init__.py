"""``cort bench train`` and ``cort bench gpu``: what training costs, beside TRL alone, and on this machine's card."""

from __future__ import annotations

import click

import cort_framework as cort


@cort.hookimpl
def cort_commands() -> list[click.Command]:
    from cort_trl.bench.command import gpu, train

    return [train, gpu]
