"""Tool ``sympy``: exact mathematics by name, and what it preloads into the Python kernel."""

from __future__ import annotations

from cort_framework import HealthCheck, Tool, hookimpl


@hookimpl
def cort_tools() -> list[type[Tool]]:
    from cort_sympy.tool import SympyTool

    return [SympyTool]


@hookimpl
def cort_health_checks() -> list[type[HealthCheck]]:
    from cort_sympy.health import SympyCheck

    return [SympyCheck]
