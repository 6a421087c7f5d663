"""The builtin stage kinds, one file each, and the ``local`` executor; registered through the same hooks as any plugin's."""

from __future__ import annotations

from cort_framework.executor import LocalExecutor
from cort_framework.hookspecs import hookimpl
from cort_framework.interfaces import Executor, Stage
from cort_framework.stages.distill import Distill
from cort_framework.stages.evaluate import Evaluate
from cort_framework.stages.rft import RejectionFineTuning
from cort_framework.stages.rl import ReinforcementLearning
from cort_framework.stages.select import Select
from cort_framework.stages.sft import SupervisedFineTuning
from cort_framework.stages.synthesize import Synthesize


@hookimpl
def cort_stages() -> list[type[Stage]]:
    return [
        Evaluate,
        Select,
        Synthesize,
        SupervisedFineTuning,
        RejectionFineTuning,
        ReinforcementLearning,
        Distill,
    ]


@hookimpl
def cort_executors() -> list[type[Executor]]:
    return [LocalExecutor]
