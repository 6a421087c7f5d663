from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 of some 90,000 parameters with its tokenizer."""
    import torch
    from tiny_models import save_tiny

    torch.set_num_threads(1)
    return save_tiny(tmp_path_factory.mktemp("tiny") / "qwen2")
