"""The value of a hypothesis, and the best entries of a row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.decode.rule import Beam, best


@settings(max_examples=80)
@given(rows=st.integers(1, 5), entries=st.integers(1, 900), count=st.integers(1, 12), seed=st.integers(0, 2**20))
def test_the_best_are_those_of_topk(rows: int, entries: int, count: int, seed: int) -> None:
    count = min(count, entries)
    logits = torch.randn(rows, entries, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values, places = best(logits, count)
    expected = logits.topk(count, dim=1)
    assert torch.equal(values, expected.values)
    assert torch.equal(places, expected.indices)


@given(entries=st.integers(1, 400), count=st.integers(1, 6), seed=st.integers(0, 2**20))
def test_among_ties_and_infinities_the_values_are_those_of_topk_and_no_place_comes_twice(
    entries: int, count: int, seed: int
) -> None:
    count = min(count, entries)
    logits = torch.randint(-2, 2, (3, entries), generator=torch.Generator().manual_seed(seed)).float()
    logits[logits == -2] = -torch.inf
    values, places = best(logits, count)
    assert torch.equal(values, logits.topk(count, dim=1).values)
    assert torch.equal(logits.gather(1, places), values)
    assert all(len(set(row)) == count for row in places.tolist())


@pytest.mark.parametrize(
    ("length", "alpha", "penalty"),
    [(1, 0.6, 1.0), (7, 1.0, 2.0), (19, 0.5, 2.0), (7, 0.0, 1.0), (7, -1.0, 0.5), (43, 0.6, 8**0.6)],
)
def test_the_length_penalty_is_that_of_gnmt(length: int, alpha: float, penalty: float) -> None:
    assert Beam(length_penalty=alpha).penalty(length) == pytest.approx(penalty)
    assert Beam(length_penalty=alpha).value(-6.0, length) == pytest.approx(-6.0 / penalty)
