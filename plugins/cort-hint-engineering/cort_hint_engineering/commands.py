"""The commands under ``cort hints``."""

from __future__ import annotations

import click

from cort_framework import hookimpl


@hookimpl
def cort_commands() -> list[click.Command]:
    from cort_hint_engineering.measure import measure
    from cort_hint_engineering.review import review

    return [measure, review]
