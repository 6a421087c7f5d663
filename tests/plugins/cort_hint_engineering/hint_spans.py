"""The labelled spans: trajectories with the fault marked, or with none (``spans/README.md``)."""

from __future__ import annotations

from pathlib import Path

from cort_hint_engineering.labelled import Kind, LabelledSpan, labelled_spans

SPANS = Path(__file__).parent / "spans"

__all__ = ["SPANS", "Kind", "LabelledSpan", "labelled_spans"]
