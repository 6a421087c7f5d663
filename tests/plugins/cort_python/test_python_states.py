"""A session is a real kernel: cell by cell it shows what ipykernel's own shows, to a stock client."""

from __future__ import annotations

import asyncio

import pytest

from cort_python.bench.states import REPLAYED, differences, replays_that_agree


def test_every_cell_shows_what_it_shows_in_a_real_kernel() -> None:
    assert asyncio.run(differences()) == []


def test_sessions_get_right_what_a_replayed_history_gets_wrong(cells: object) -> None:
    for *codes, wanted in REPLAYED:
        assert cells(*codes)[-1].text.splitlines()[-1:] == [wanted]  # type: ignore[operator]


@pytest.mark.slow
def test_a_replayed_history_gets_all_of_them_wrong() -> None:
    assert asyncio.run(replays_that_agree()) == 0
