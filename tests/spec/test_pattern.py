"""A pattern is one formula: the same on numbers, arrays and tensors, and all else follows from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qkv.spec.pattern import Causal, Full, Pattern

PATTERNS = pytest.mark.parametrize("pattern", [Full(), Causal()], ids=["full", "causal"])
LONG = 12


def table(pattern: Pattern) -> list[list[bool]]:
    return [[bool(pattern.allows(i, j)) for j in range(LONG)] for i in range(LONG)]


@PATTERNS
def test_numbers_arrays_and_tensors_agree(pattern: Pattern) -> None:
    i, j = np.arange(LONG), np.arange(LONG)
    assert pattern.allows(i[:, None], j[None]).tolist() == table(pattern)
    assert pattern.allows(torch.from_numpy(i)[:, None], torch.from_numpy(j)[None]).tolist() == table(pattern)
    assert pattern.allows(i[:, None], j[None]).dtype == bool
    assert pattern.allows(torch.from_numpy(i)[:, None], torch.from_numpy(j)[None]).dtype == torch.bool
    assert pattern.keeps(j, 3).shape == (LONG,) and pattern.keeps(torch.from_numpy(j), torch.tensor(3)).shape == (LONG,)


def test_full_sees_all_and_causal_the_past_and_itself() -> None:
    assert table(Full()) == [[True] * LONG] * LONG
    assert table(Causal()) == [[j <= i for j in range(LONG)] for i in range(LONG)]


@PATTERNS
@given(first=st.integers(0, LONG - 1), keys=st.integers(1, LONG))
def test_spares_a_mask_only_where_all_is_seen(pattern: Pattern, first: int, keys: int) -> None:
    seen = all(pattern.allows(i, j) for i in range(first, LONG) for j in range(keys))
    assert pattern.spares(first, keys) == seen


@PATTERNS
@given(j=st.integers(0, LONG - 1), now=st.integers(0, LONG - 1))
def test_keeps_what_may_still_be_seen(pattern: Pattern, j: int, now: int) -> None:
    still = any(pattern.allows(i, j) for i in range(now, LONG))
    assert bool(pattern.keeps(j, now)) == still
