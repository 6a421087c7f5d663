"""Executor ``ray``: rollouts over a cluster."""

from __future__ import annotations

from cort_framework import Executor, hookimpl


@hookimpl
def cort_executors() -> list[type[Executor]]:
    from cort_ray.executor import RayExecutor

    return [RayExecutor]
