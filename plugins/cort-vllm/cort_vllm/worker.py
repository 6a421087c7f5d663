"""What runs in vLLM's worker processes, through its ``worker_extension_cls``."""

from __future__ import annotations

from typing import Any

from cort_vllm.transfer import register

register()  # a worker imports its extension before it makes its transfer engine


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
