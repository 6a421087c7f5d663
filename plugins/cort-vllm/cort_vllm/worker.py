"""What runs in vLLM's worker processes, through its ``worker_extension_cls``."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any

import psutil

from cort_vllm.backends import OWNER
from cort_vllm.transfer import register


def end_with(owner: int) -> None:
    """vLLM does not notice that the process which it works for was killed, and would keep its devices' memory for ever.

    Its core is a child of that process; this worker is the core, or a child of it.
    """
    core = os.getpid() if os.getppid() == owner else os.getppid()

    def watch() -> None:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            while psutil.Process(core).ppid() == owner:
                time.sleep(1)
            os.kill(core, signal.SIGKILL)
        time.sleep(5)  # its workers end with it, but may take their time
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="cort-owner").start()


register()  # a worker imports its extension before it makes its transfer engine
if OWNER in os.environ:
    end_with(int(os.environ[OWNER]))


class Reloading:
    """Gives a vLLM worker one more method."""

    model_runner: Any
    reload_weights: Any

    def cort_load_weights(self, path: str) -> None:
        """vLLM's own reload from disk, and after it the output head."""
        self.reload_weights(weights_path=path)
        repack_head(self.model_runner.get_model())


def repack_head(model: Any) -> None:
    """Make the output head that vLLM multiplies with anew from its weights.

    vLLM's CPU build multiplies with copies of the weights in a layout of oneDNN's. A head that is tied to the embeddings
    has a copy of its own, but no weights of its own among those that come, so neither reload nor transfer makes it anew.
    """
    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        # where nothing but the copy is kept, it was made from the new weights
        if hasattr(layer, "cpu_linear") and weight is not None and weight.numel():
            layer.quant_method.process_weights_after_loading(layer)
