"""What the doctor says of torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cort_framework import HealthContext
from cort_framework.machine.footprint import Device
from cort_transformers import health


def test_a_product_is_right_on_this_machine() -> None:
    assert health.product(torch, "cpu", "here").state == "good"


def test_a_device_that_cannot_compute_or_computes_wrongly_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = health.product(torch, "cuda:99", "a card")
    assert absent.state == "broken" and "CUDA" in absent.detail and "pytorch.org" in absent.fix
    monkeypatch.setattr(health, "TOLERANCE", 0.0)
    assert "wrong by" in health.product(torch, "cpu", "here").detail


def test_a_gpu_that_torch_does_not_see_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(health, "find_device", lambda: Device("H100", 80 << 30, gpu=True))
    processor, unseen = health.TorchCheck().check(HealthContext(tmp_path))
    assert processor.state == "good" and unseen.state == "warning" and torch.__version__ in unseen.detail
    assert "CUDA 13.0" in health.unseen("2.13.0", "13.0").detail
    assert "processors alone" in health.unseen("2.13.0", None).detail
