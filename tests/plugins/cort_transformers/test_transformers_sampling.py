"""From logits to tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cort_transformers.sampling import sample, uniform


def test_noise_depends_on_seed_and_position_alone_and_is_uniform() -> None:
    values = [uniform(seed, position) for seed in range(50) for position in range(200)]
    assert values[:3] == [uniform(0, 0), uniform(0, 1), uniform(0, 2)]
    assert len(set(values)) == len(values)
    counts = torch.histc(torch.tensor(values), 10, 0, 1)
    assert ((counts - 1000).abs() < 150).all()
    assert all(0 <= v < 1 for v in values)


def test_frequencies_are_the_softmax_at_the_temperature() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    n = 20_000
    picks, _ = sample(logits.expand(n, -1), [0.5] * n, [1.0] * n, [uniform(1, i) for i in range(n)])
    share = torch.bincount(torch.tensor(picks), minlength=4) / n
    assert (share - torch.softmax(logits[0] / 0.5, -1)).abs().max() < 0.01


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=20),
    st.floats(0.05, 1.0),
    st.floats(0.2, 2.0),
    st.floats(0, 1, exclude_max=True),
)
def test_top_p_samples_from_the_smallest_set_of_likeliest_tokens(
    logits: list[float], top_p: float, temperature: float, noise: float
) -> None:
    (pick,), (logprob,) = sample(torch.tensor([logits]), [temperature], [top_p], [noise])
    probs = torch.softmax(torch.tensor(logits) / temperature, -1).double()
    likelier = probs[probs > probs[pick] * (1 + 1e-6)].sum()
    assert likelier < top_p + 1e-6
    assert logprob == pytest.approx(
        float(torch.log_softmax(torch.tensor(logits) / temperature, -1)[pick]), abs=1e-5
    )


def test_rows_with_other_settings_do_not_change_a_row() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    temperatures, top_ps, noise = [0.0, 0.6, 1.0, 1.5], [1.0, 0.9, 1.0, 0.5], [0.1, 0.5, 0.7, 0.9]
    together = sample(logits, temperatures, top_ps, noise)
    for i in range(4):
        alone = sample(logits[i : i + 1], temperatures[i : i + 1], top_ps[i : i + 1], noise[i : i + 1])
        assert (alone[0][0], alone[1][0]) == (together[0][i], together[1][i])
    assert together[0][0] == int(logits[0].argmax())
