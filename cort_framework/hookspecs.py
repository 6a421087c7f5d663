"""One hook a plugin kind. Each takes no argument and returns a list of classes.

A plugin is a module named by an entry point of the group ``cort``::

    [project.entry-points.cort]
    python = "cort_python"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from cort_framework.interfaces import (
    Engine,
    Executor,
    Filter,
    HealthCheck,
    HintInjector,
    RewardFunction,
    Stage,
    TaskSource,
    Tool,
    Trainer,
)

if TYPE_CHECKING:
    import click

GROUP = "cort"
"""The entry-point group, and pluggy's project name."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def cort_tools() -> Sequence[type[Tool]]:
    """Tools that a model can call."""


@hookspec
def cort_hint_injectors() -> Sequence[type[HintInjector]]:
    """What watches a trajectory and inserts hints."""


@hookspec
def cort_filters() -> Sequence[type[Filter]]:
    """What keeps or drops trajectories."""


@hookspec
def cort_reward_functions() -> Sequence[type[RewardFunction]]:
    """What scores them."""


@hookspec
def cort_trainers() -> Sequence[type[Trainer]]:
    """What makes a checkpoint of trajectories."""


@hookspec
def cort_engines() -> Sequence[type[Engine]]:
    """What generates tokens."""


@hookspec
def cort_task_sources() -> Sequence[type[TaskSource]]:
    """Where tasks come from."""


@hookspec
def cort_executors() -> Sequence[type[Executor]]:
    """Where rollouts run."""


@hookspec
def cort_stages() -> Sequence[type[Stage]]:
    """The kinds of stage that a recipe may have."""


@hookspec
def cort_commands() -> Sequence[click.Command]:
    """Commands under the plugin's own group."""


@hookspec
def cort_health_checks() -> Sequence[type[HealthCheck]]:
    """What ``cort doctor`` asks."""


@hookspec
def cort_models() -> Mapping[str, Path]:
    """Models that ship in the plugin: a name for a recipe's ``model``, and the ``save_pretrained`` folder."""
