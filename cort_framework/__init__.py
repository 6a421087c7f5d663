"""cort_framework: teach reasoning models to think with tools.

``import cort_framework as cort`` gives the public API; everything that a plugin needs is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cort_framework.errors import CortError, InfrastructureError, RequestError
from cort_framework.hookspecs import hookimpl
from cort_framework.interfaces import (
    Engine,
    Executor,
    Filter,
    HealthCheck,
    HealthContext,
    HealthReport,
    HintInjector,
    OpenContext,
    Plugin,
    PluginConfig,
    Reporter,
    RewardFunction,
    RolloutRequest,
    Stage,
    StageResult,
    TaskSource,
    Tokenizer,
    Tool,
    ToolSession,
    TrainContext,
    Trainer,
)
from cort_framework.machine.footprint import Footprint, Need, Work
from cort_framework.types import (
    Author,
    Checkpoint,
    Generation,
    Group,
    Hint,
    Outcome,
    Reward,
    Sampling,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    Verdict,
    Weights,
    derive_seed,
)

if TYPE_CHECKING:
    from cort_framework.pipeline import run
    from cort_framework.recipe import Recipe, RolloutSettings, load_recipe, make_plan
    from cort_framework.registry import register

__all__ = [
    "Author",
    "Checkpoint",
    "CortError",
    "Engine",
    "Executor",
    "Filter",
    "Footprint",
    "Generation",
    "Group",
    "HealthCheck",
    "HealthContext",
    "HealthReport",
    "Hint",
    "HintInjector",
    "InfrastructureError",
    "Need",
    "OpenContext",
    "Outcome",
    "Plugin",
    "PluginConfig",
    "Recipe",
    "Reporter",
    "RequestError",
    "Reward",
    "RewardFunction",
    "RolloutRequest",
    "RolloutSettings",
    "Sampling",
    "Stage",
    "StageResult",
    "Task",
    "TaskSource",
    "Tokenizer",
    "Tool",
    "ToolCall",
    "ToolResult",
    "ToolSession",
    "TrainContext",
    "Trainer",
    "Trajectory",
    "Turn",
    "Verdict",
    "Weights",
    "Work",
    "__version__",
    "derive_seed",
    "hookimpl",
    "load_recipe",
    "make_plan",
    "register",
    "run",
]

__version__ = "0.1.0"

_LATER = {
    "Recipe": "recipe",
    "RolloutSettings": "recipe",
    "load_recipe": "recipe",
    "make_plan": "recipe",
    "register": "registry",
    "run": "pipeline",
}
"""Imported at their first use: a plugin that is only listed needs none of it."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
