"""Tool ``python``: a persistent Jupyter kernel a trajectory, forked from a warm template process."""

from __future__ import annotations

from cort_framework import Tool, hookimpl


@hookimpl
def cort_tools() -> list[type[Tool]]:
    from cort_python.tool import PythonTool

    return [PythonTool]
