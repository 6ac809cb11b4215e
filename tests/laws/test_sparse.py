"""Sparse patterns: every route is the reference, forward and backward, and nothing becomes a whole square in silence."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention

from qkv.attention.attend import BACKENDS, attend, choose
from qkv.attention.call import Call
from qkv.attention.flex import TURNS, Flex
from qkv.attention.fold import fold, terms
from qkv.attention.folded import Folded
from qkv.attention.fused import LARGEST_MASK, Fused
from qkv.attention.products import Products
from qkv.attention.reference import Reference
from qkv.attention.short import KERNELS, Kernels
from qkv.attention.sight import Late, Packed, Padded, Plain, Sight
from qkv.error import QkvError
from qkv.spec.pattern import Both, Causal, Either, Full, Local, PerHead, SameBlock, Single, Stride, Summary

SMALL = st.integers(1, 9)


def summaries() -> st.SearchStrategy[Summary]:
    """Any `Summary` of a small block."""

    def made(block: int, count: int, slot: int) -> Summary:
        count = min(count, block)
        return Summary(block, count, min(slot, block // count - 1))

    return st.builds(made, SMALL, SMALL, st.integers(0, 3))


BASIC = st.one_of(st.builds(Local, SMALL), st.builds(Stride, SMALL), st.builds(SameBlock, SMALL), summaries())
UNIONS = st.recursive(BASIC, lambda below: st.builds(Either, below, below), max_leaves=3)
SINGLE = st.one_of(UNIONS, st.builds(Both, st.just(Causal()), UNIONS), st.builds(Both, UNIONS, st.just(Full())))


@st.composite
def sights(draw: st.DrawFn, batch: int, keys: int, first: int) -> Sight:
    """Any sight of texts that attend to themselves."""

    def each() -> torch.Tensor:
        return torch.tensor(draw(st.lists(st.integers(0, keys), min_size=batch, max_size=batch)))

    match draw(st.sampled_from(["plain", "padded", "late", "packed"])):
        case "padded":
            return Padded(each())
        case "late":
            return Late(each())
        case "packed":
            starts = torch.tensor(draw(st.lists(st.booleans(), min_size=batch * keys, max_size=batch * keys))).view(batch, keys)
            documents, places = starts.long().cumsum(1), torch.arange(keys).expand(batch, keys)
            changed = starts.clone()
            changed[:, 0] = True
            return Packed(documents, places - (places * changed).cummax(1).values)
        case _:
            return Plain()


@st.composite
def calls(draw: st.DrawFn, dtype: torch.dtype = torch.float64, patterns: st.SearchStrategy[Any] = SINGLE) -> Call:
    """Any call with a sparse pattern: any length, queries that do not start at 0, values of another width than keys, keys that
    serve several heads, memory laid out in different ways."""
    batch, groups, share = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    keys, width, wide = draw(st.integers(1, 70)), draw(SMALL), draw(SMALL)
    first = draw(st.integers(0, keys - 1)) if draw(st.booleans()) else 0
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def made(heads: int, length: int, across: int) -> torch.Tensor:
        if draw(st.booleans()):
            return torch.randn(batch, length, heads, across, dtype=torch.float64, generator=generator).to(dtype).transpose(1, 2)
        return torch.randn(batch, heads, length, across, dtype=torch.float64, generator=generator).to(dtype)

    pattern = draw(patterns)
    if isinstance(pattern, PerHead):
        groups *= len(pattern.patterns)
    q, k, v = made(groups * share, keys - first, width), made(groups, keys, width), made(groups, keys, wide)
    return Call(q, k, v, pattern, draw(sights(batch, keys, first)), first)


def run(backend: Any, call: Call, precision: torch.dtype | None = None) -> list[torch.Tensor]:
    """What a backend gives to the tokens that there are, and its gradients."""
    qkv = {name: getattr(call, name).detach().clone().requires_grad_() for name in ("q", "k", "v")}
    learning = replace(call, **qkv)
    attended = attend(learning, [backend])
    upstream = torch.randn(attended.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(attended.dtype)
    present = call.keys.present(call.first, call.q.shape[2])
    if present is not None:
        attended = attended * present[:, None, :, None]
    found = [attended.detach(), *torch.autograd.grad((attended * upstream).sum(), list(qkv.values()))]
    return found if precision is None else [each.to(precision) for each in found]


class Willing(Folded):
    """The backend itself, also where another would be quicker."""

    def declines(self, call: Call) -> str:
        return ""


SHORT = pytest.mark.parametrize("declined", [pytest.param("", id="kernels"), pytest.param("not these", id="products")])
"""Short texts by PyTorch's kernels, and as where it has others."""


@contextmanager
def kernels(declined: str) -> Iterator[None]:
    """With PyTorch's kernels for a CPU, or without."""
    assert not Kernels().declines(torch.zeros(1)), "the pinned version of PyTorch has the kernels"
    with mock.patch.object(Kernels, "declines", lambda self, x: declined):
        yield


@SHORT
@settings(max_examples=300)
@given(call=calls())
def test_the_folded_text_is_the_reference_forward_and_backward(declined: str, call: Call) -> None:
    with kernels(declined):
        torch.testing.assert_close(run(Willing(), call), run(Reference(), call), rtol=0, atol=1e-11)


@settings(max_examples=100)
@given(call=calls(patterns=st.builds(lambda one, other: PerHead(one, other), SINGLE, SINGLE)))
def test_heads_may_have_different_patterns(call: Call) -> None:
    expected = run(Reference(), call)
    torch.testing.assert_close(run(Willing(), call), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(run(Fused(), call), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("backend", [Products(), Fused()], ids=lambda backend: backend.name)
@given(call=calls())
def test_a_short_text_is_a_masked_square(backend: Any, call: Call) -> None:
    torch.testing.assert_close(run(backend, call), run(Reference(), call), rtol=0, atol=1e-11)


@SHORT
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=str)
@given(data=st.data())
def test_lower_precisions_stay_near_fp64(declined: str, dtype: torch.dtype, tolerance: float, data: st.DataObject) -> None:
    call = data.draw(calls(dtype))
    exact = replace(call, **{name: getattr(call, name).double() for name in ("q", "k", "v")})
    with kernels(declined):
        found = run(Willing(), call, torch.float64)
    for mine, wanted in zip(found, run(Reference(), exact), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=tolerance * max(3.0, wanted.abs().max().item()))


PAPER = {
    "strided": Causal() & (Local(32) | Stride(32)),
    "strided, one more key": Causal() & (Local(33) | Stride(32)),
    "fixed": Causal() & (SameBlock(32) | Summary(32, 8)),
    "two-sided": Local(32) | Stride(32),
    "heads": Causal() & PerHead(SameBlock(32) | Summary(32, 4), SameBlock(32) | Summary(32, 4, slot=1)),
}


@SHORT
@pytest.mark.parametrize("length", [1023, 1024, 1025, 2500])
@pytest.mark.parametrize("pattern", PAPER.values(), ids=PAPER)
def test_the_patterns_of_the_paper_on_long_texts(declined: str, pattern: Any, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(1, length, 2, 16, generator=generator).transpose(1, 2) for _ in range(3))
    call = Call(q, k, v, pattern)
    assert choose(replace(call, q=q.requires_grad_())).backend.name == "folded"
    with kernels(declined):
        found = run(Folded(), call)
    for mine, wanted in zip(found, run(Reference(), call), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile", "ignore:_FLEX")
@settings(max_examples=40, deadline=None)
@given(call=calls(torch.float32, st.one_of(SINGLE, st.builds(lambda one, other: PerHead(one, other), SINGLE, SINGLE))))
def test_what_flex_attention_is_told_is_the_same_formula(call: Call) -> None:
    """Forward and backward, as PyTorch defines them without a kernel, which a CPU does not have for the way back; and not traced,
    since traced functions cannot be checked for types."""
    with without_kernel():
        found = run(Asked(), call)
    for mine, wanted in zip(found, run(Reference(), call), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-5)


class Asked(Flex):
    """FlexAttention, also where it has no kernel."""

    def declines(self, call: Call) -> str:
        return ""


@contextmanager
def without_kernel() -> Iterator[None]:
    """FlexAttention by its definition."""
    with (
        mock.patch.object(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True),
        mock.patch.object(flex_attention, "_validate_device"),
    ):
        yield


class Rival(Reference):
    """The reference, after a pause, or what somebody else makes of it."""

    name = "rival"

    def __init__(self, seconds: float = 0.0, wrong: float = 0.0) -> None:
        self.seconds, self.wrong, self.calls = seconds, wrong, 0

    def run(self, call: Call) -> torch.Tensor:
        self.calls += 1
        time.sleep(self.seconds)
        return super().run(call) + self.wrong


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile", "ignore:_FLEX")
def test_flex_attention_takes_what_it_computes_quicker_and_alike() -> None:
    """It is tried on the first call of a kind, of which there is one for sizes up to each power of two."""
    q = torch.randn(1, 2, 40, 8, generator=torch.Generator().manual_seed(0))
    call = Call(q, q, q, Causal() & Stride(3))
    longer = replace(call, **dict.fromkeys("qkv", torch.randn(1, 2, 60, 8)))
    with without_kernel():
        slow = Rival(0.3)
        assert Flex(slow).outrun(call) == "" and slow.calls == 1 + TURNS
        assert re.fullmatch(r"rival took [\d.]+ ms here, and it [\d.]+", Flex(Rival()).outrun(call))
        other = Flex(Rival(0.3, wrong=0.1))
        assert re.fullmatch(r"it is 0.\d+ from what rival finds", other.outrun(call))
        assert Flex(Rival(wrong=math.nan)).outrun(call) == "it is nan from what rival finds"
        quick = Rival()
        judged = Flex(quick)
        assert judged.outrun(call) and judged.outrun(longer) and quick.calls == 1 + TURNS, "the second is of the same kind"
        assert judged.outrun(replace(call, pattern=Causal() & Stride(4))) and quick.calls == 2 + 2 * TURNS
        learning = replace(call, q=q.clone().requires_grad_())
        assert "took" in judged.outrun(learning) and quick.calls == 3 + 3 * TURNS, "forward and backward"
        with mock.patch("qkv.attention.flex.flex_attention", side_effect=NotImplementedError("no kernel\nat all")):
            assert Flex(Rival()).outrun(call) == "it failed here: NotImplementedError: no kernel"
    alone = Call(q, q, q, Local(5) & Stride(2))
    assert Flex(Folded()).outrun(alone) == "", "a rival that declines is none"
    with without_kernel():
        assert "took" in Flex(Folded(), Rival()).outrun(alone), "the next one is"
        heads = replace(call, pattern=Causal() & PerHead(Stride(3), Stride(2)))
        assert Flex(Rival()).outrun(heads) == "", "a rival for one pattern is none for several"


@given(pattern=SINGLE, keys=st.integers(1, 60), data=st.data())
def test_pieces_are_disjoint_and_cover_what_is_allowed(pattern: Single, keys: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, keys - 1))
    counts = torch.zeros(keys - first, keys, dtype=torch.long)
    asked = torch.zeros(keys - first, dtype=torch.bool)
    for piece in fold(pattern, first, keys, torch.float64, torch.device("cpu")).pieces:
        for tile in piece.tiles:
            asks, seen = tile.queries.table(), tile.keys.table()
            assert tile.asks_first is not bool(asked[asks].any())
            asked[asks] = True
            visible = torch.ones(asks.shape[1], seen.shape[1], dtype=torch.bool)
            if tile.diagonal:
                visible.tril_()
            if tile.hidden is not None:
                visible = tile.hidden == 0
            for queries, of_keys in zip(asks, seen, strict=True):
                positions = of_keys if piece.pool is None else piece.pool[of_keys]
                for place, query in enumerate(queries.tolist()):
                    counts[query].index_add_(0, positions, visible[place].long())
            for at in range(tile.keys.rounds):
                together = seen[at :: tile.keys.rounds].flatten().tolist()
                assert len(set(together)) == len(together), "what is added at once must not overlap"
    i, j = torch.arange(first, keys)[:, None], torch.arange(keys)[None]
    assert torch.equal(counts, pattern.allows(i, j).long())


def test_a_query_that_sees_no_summary_receives_nothing_and_gives_no_gradient() -> None:
    q, k, v = torch.randn(3, 1, 1, 300, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    attended, of_q, *_ = run(Folded(), Call(q, k, v, Causal() & Summary(16, 2)))
    assert (attended[0, 0, :14] == 0).all() and (of_q[0, 0, :14] == 0).all()
    assert (attended[0, 0, 14:] != 0).any(1).all()


def test_other_kernels_than_those_that_were_tested_are_not_used() -> None:
    """They are private to PyTorch: where it changes them, it is said in words, and matrix products take their place."""
    assert not KERNELS.declines(torch.zeros(1))
    with mock.patch.object(Kernels, "FORWARD", "_kernels_of_another_day"):
        assert "has no _kernels_of_another_day" in Kernels().declines(torch.zeros(1))
    with mock.patch.object(Kernels, "TAKES", ("query, key", "grad_out")):
        assert "take query, key, value, dropout_p" in Kernels().declines(torch.zeros(1))
    assert "for a CPU, not for meta" in KERNELS.declines(torch.zeros(1, device="meta"))


def test_what_cannot_be_laid_out_is_said_in_words() -> None:
    q = torch.zeros(1, 2, 600, 4)
    assert "not a union" in Folded().declines(Call(q, q, q, Local(5) & Stride(2)))
    assert "hides too little" in Folded().declines(Call(q, q, q, Causal() & Local(500)))
    assert "short" in Folded().declines(Call(q[:, :, :100], q[:, :, :100], q[:, :, :100], Stride(9)))
    assert "all of whose keys" in Folded().declines(Call(q[:, :, :10], q, q, Stride(9)))
    assert "precision" in Folded().declines(Call(q, q, q.double(), Stride(9)))
    assert "bias" in Folded().declines(Call(q, q, q, Stride(9), bias=torch.zeros(1, 2, 600, 600)))
    assert terms(Causal()) is None


def test_nothing_becomes_a_whole_square_in_silence() -> None:
    """Where no backend fits, each says why: none spreads a long text out to a mask."""
    length = 24000
    assert length**2 > LARGEST_MASK
    q = torch.empty(1, 2, length, 4, device="meta", requires_grad=True)
    with pytest.raises(QkvError, match=r"flex: .*folded: .*not a union.*products: .*fused: a mask of 24000 x 24000.*GiB"):
        choose(Call(q, q, q, Causal() & Local(50) & Stride(3)))
    with pytest.raises(QkvError, match="not a union"):
        attend(Call(q, q, q, PerHead(Causal() & Stride(2) & Local(9), Causal())), BACKENDS)
