"""What runs in vLLM's worker processes, through its ``worker_extension_cls``."""

from __future__ import annotations

from typing import Any


class Reloading:
    """Gives a vLLM worker one more method."""

    model_runner: Any
    reload_weights: Any

    def cort_load_weights(self, path: str) -> None:
        """vLLM's own reload from disk, and after it the output head.

        vLLM's CPU build multiplies with copies of the weights in a layout of oneDNN's. A head that is tied to the
        embeddings has a copy of its own, but no weights of its own in a checkpoint, so the reload passes it by.
        """
        self.reload_weights(weights_path=path)
        for layer in self.model_runner.get_model().modules():
            weight = getattr(layer, "weight", None)
            # where nothing but the copy is kept, it was made from the new weights
            if hasattr(layer, "cpu_linear") and weight is not None and weight.numel():
                layer.quant_method.process_weights_after_loading(layer)
