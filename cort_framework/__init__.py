"""cort_framework: teach reasoning models to think with tools.

``import cort_framework as cort`` gives the public API; everything that a plugin needs is here.
"""

from __future__ import annotations

from cort_framework.errors import CortError, InfrastructureError, RequestError
from cort_framework.hookspecs import hookimpl
from cort_framework.interfaces import (
    Engine,
    Executor,
    Filter,
    HealthCheck,
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

__version__ = "0.1.0"
