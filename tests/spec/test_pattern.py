"""A pattern is one formula: the same on numbers, arrays and tensors, and all else follows from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qkv.error import QkvError
from qkv.spec import plain
from qkv.spec.part import Attention
from qkv.spec.pattern import Causal, Full, Local, Others, Pattern, PerHead, SameBlock, Single, Stride, Summary, by_head, periods

DENSE = pytest.mark.parametrize("pattern", [Full(), Causal(), Others()], ids=["full", "causal", "others"])
BASIC = [Local(1), Local(3), Stride(1), Stride(4), SameBlock(1), SameBlock(5), Summary(5, 2), Summary(5, 2, slot=1), Others()]
JOINED = [Causal() & (Local(3) | Stride(4)), Causal() & (SameBlock(4) | Summary(4, 1)), Local(2) & Stride(3), Full() | Local(2)]
CAUSAL = [Causal() & each for each in BASIC]
PATTERNS = pytest.mark.parametrize("pattern", [Full(), Causal(), *BASIC, *CAUSAL, *JOINED], ids=str)
LONG = 12
FAR = 40  # in which every pattern here has shown all that it does


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


def test_full_sees_all_causal_the_past_and_itself_and_others_all_but_itself() -> None:
    assert table(Full()) == [[True] * LONG] * LONG
    assert table(Others()) == [[j != i for j in range(LONG)] for i in range(LONG)]
    assert table(Causal()) == [[j <= i for j in range(LONG)] for i in range(LONG)]


@DENSE
@given(first=st.integers(0, LONG - 1), keys=st.integers(1, LONG))
def test_spares_a_mask_only_where_all_is_seen(pattern: Pattern, first: int, keys: int) -> None:
    seen = all(pattern.allows(i, j) for i in range(first, LONG) for j in range(keys))
    assert pattern.spares(first, keys) == seen


@PATTERNS
@given(first=st.integers(0, LONG - 1), keys=st.integers(1, LONG))
def test_never_spares_a_mask_that_hides_something(pattern: Single, first: int, keys: int) -> None:
    if pattern.spares(first, keys):
        assert all(pattern.allows(i, j) for i in range(first, FAR) for j in range(keys))


@PATTERNS
@given(j=st.integers(0, LONG - 1), now=st.integers(0, LONG - 1))
def test_keeps_what_may_still_be_seen(pattern: Single, j: int, now: int) -> None:
    """And nothing else, but where two patterns are joined by &."""
    still, keeps = any(pattern.allows(i, j) for i in range(now, FAR)), bool(pattern.keeps(j, now))
    assert keeps or not still
    if pattern not in JOINED and not (j > now and pattern in CAUSAL):
        assert keeps == still


@PATTERNS
def test_what_a_pattern_says_of_itself(pattern: Single) -> None:
    table = [[bool(pattern.allows(i, j)) for j in range(FAR)] for i in range(FAR)]
    shifted = [[bool(pattern.allows(i, j)) for j in range(1, FAR)] for i in range(1, FAR)]
    looks_ahead = any(table[i][j] for i in range(FAR) for j in range(i + 1, FAR))
    assert pattern.ahead == looks_ahead or (pattern.ahead and pattern in JOINED)
    assert pattern.anchored or shifted == [row[:-1] for row in table[:-1]]
    assert pattern.blank or all(any(row) for row in table)


def test_the_sets_of_the_paper() -> None:
    """Child et al. 2019, section 4.3, for l = 4 and c = 1, written out for one query."""
    assert [j for j in range(13) if (Causal() & Local(5)).allows(10, j)] == [6, 7, 8, 9, 10]  # the formula: l + 1 keys
    assert [j for j in range(13) if (Causal() & Local(4)).allows(10, j)] == [7, 8, 9, 10]  # the released code: l keys
    assert [j for j in range(13) if (Causal() & Stride(4)).allows(10, j)] == [2, 6, 10]
    assert [j for j in range(13) if (Causal() & SameBlock(4)).allows(10, j)] == [8, 9, 10]
    assert [j for j in range(13) if (Causal() & Summary(4, 1)).allows(10, j)] == [3, 7]
    assert [j for j in range(13) if (Causal() & Summary(4, 1, slot=1)).allows(10, j)] == [2, 6, 10]
    assert [j for j in range(13) if (Causal() & (SameBlock(4) | Summary(4, 1))).allows(10, j)] == [3, 7, 8, 9, 10]
    assert [j for j in range(13) if Local(3).allows(6, j)] == [4, 5, 6, 7, 8]


@given(length=st.integers(1, 60), stride=st.integers(1, 9))
def test_any_two_positions_are_two_hops_apart(length: int, stride: int) -> None:
    """Section 4.2: what a later position does not see, some position that it sees does; of the fixed pattern after one block."""
    i, j = np.arange(length)[:, None], np.arange(length)
    for one, other in ((Local(stride), Stride(stride)), (SameBlock(stride), Summary(stride, 1))):
        merged = (Causal() & (one | other)).allows(i, j)
        assert ((merged.astype(int) @ merged.astype(int) > 0) == (j <= i)).all()


def test_heads_are_dealt_out_from_the_first() -> None:
    pattern = Causal() & PerHead(Local(2), Stride(3))
    assert pattern == PerHead(Causal() & Local(2), Causal() & Stride(3))
    assert by_head(pattern, 4) == ((2, Causal() & Local(2)), (2, Causal() & Stride(3)))
    assert by_head(Causal(), 3) == ((3, Causal()),)
    assert PerHead(Local(2), Stride(3)) | PerHead(Stride(4), Local(5)) == PerHead(Local(2) | Stride(4), Stride(3) | Local(5))
    assert periods(pattern | Summary(7, 2)) == {3, 7}
    assert not pattern.ahead and pattern.keeps(0, 50) and not pattern.anchored
    for heads in (Attention(4, pattern), Attention(4, pattern, kv_heads=2)):
        assert heads.pattern == pattern


def test_patterns_are_written_as_they_are_joined() -> None:
    for text in ("Causal() & (Local(4) | Stride(4))", "PerHead(SameBlock(8), Summary(8, 2, 1)) & Causal()"):
        assert plain.parse(text) == eval(text)
        assert plain.from_plain(plain.to_plain(plain.parse(text))) == eval(text)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Local(0), r"Local\.width must be a whole number of at least 1, not 0"),
        (lambda: Stride(0), r"Stride\.stride must be a whole number of at least 1, not 0"),
        (lambda: SameBlock(-1), r"at least 1, not -1"),
        (lambda: Summary(8, 9), r"a block of 8 positions has no slot 0 of 9: expected .* at most 8"),
        (lambda: Summary(8, 3, slot=2), r"no slot 2 of 3"),
        (lambda: Summary(8, 3, slot=-1), r"Summary\.slot must be a whole number of at least 0"),
        (lambda: PerHead(), r"at least one"),
        (lambda: PerHead(Full(), Full()) & PerHead(Full()), r"different numbers of patterns"),
        (lambda: by_head(PerHead(Full(), Causal()), 3), r"3 heads cannot be dealt out evenly to 2 patterns"),
        (lambda: Attention(3, PerHead(Full(), Causal())), r"3 heads cannot be dealt out evenly"),
        (lambda: Attention(4, PerHead(Full(), Causal()), kv_heads=1), r"1 heads cannot be dealt out evenly"),
        (lambda: plain.parse("Causal() & 3"), r"& and \| join patterns"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(QkvError, match=said):
        make()
