"""An ordinary ipykernel process with our kernel class, for where forking is not to be had.

``python -m cort_python.cold -f CONNECTION_FILE``, with options in the environment (see ``KERNEL_OPTIONS``).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from contextlib import suppress
from typing import Any

from ipykernel.kernelapp import IPKernelApp

from cort_python.folders import KERNEL_OPTIONS
from cort_python.kernel import CortKernel, quiet_logger, shell_config
from cort_python.limits import limit_memory

DEFAULTS: dict[str, Any] = {"output_limit": 100_000, "memory_mb": None, "preload": []}
"""Of a kernel that another Jupyter client starts."""


class ColdKernelApp(IPKernelApp):
    """ipykernel's own start, then what ``kernel.serve`` does after a fork."""

    kernel_class = CortKernel
    outstream_class = "cort_python.kernel.CellStream"
    capture_fd_output = False

    def init_io(self) -> None:
        super().init_io()
        self.outputs: tuple[Any, Any] = (sys.stdout, sys.stderr)

    def init_kernel(self) -> None:
        super().init_kernel()
        kernel: CortKernel = self.kernel
        options = {**DEFAULTS, **json.loads(os.environ.pop(KERNEL_OPTIONS, "{}"))}
        kernel.settle_in(options["output_limit"])
        for stream in self.outputs:
            stream.kernel = kernel
        for module in options["preload"]:
            importlib.import_module(module)
        limit_memory(options["memory_mb"])


def main() -> None:
    warnings.filterwarnings("ignore", message="To exit: use")
    app = ColdKernelApp.instance(config=shell_config(), log=quiet_logger())
    with suppress(KeyboardInterrupt):
        app.initialize()
        app.start()


if __name__ == "__main__":
    main()
