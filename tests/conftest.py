"""For all tests: no timed asserts, not by hypothesis either, and a length of run that a laptop bears."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("cort", deadline=None, max_examples=50)
settings.load_profile("cort")
