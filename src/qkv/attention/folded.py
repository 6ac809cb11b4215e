"""Attention with sparse patterns in O(n sqrt n): every set of a pattern is dense attention of many short texts (`fold.py`).

Disjoint sets are joined by the logarithms of the sums of their exponentials (`join.py`). Back from the gradient of what was
attended, each set goes by itself, with the joined sum and attended in the place of its own (`short.py`). Scores are computed anew
on the way back, and nothing longer than the text is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from qkv.attention.call import Call
from qkv.attention.fold import Folds, Piece, Places, Tile, fold, terms, work
from qkv.attention.join import Partial, join_to, lowest
from qkv.attention.short import KERNELS, PRODUCTS, Given, Whole
from qkv.attention.sight import Plain
from qkv.spec.pattern import Causal, Full, Single, by_head

SHORT = 256  # keys up to which the whole square is quicker
WORTH = 0.5  # of the square's scores: with more, the square is quicker
AT_ONCE = 2**20  # numbers in the keys of problems that are taken at once


class Folded:
    """Products of short texts."""

    name, by_head, any_weights = "folded", True, False

    def declines(self, call: Call) -> str:
        """Why the call is not for this backend, in words; empty where it runs."""
        if isinstance(call.pattern, Full | Causal):
            return f"{call.pattern} is not sparse"
        queries, keys = call.q.shape[2], call.k.shape[2]
        if call.stands is not None or keys != call.first + queries:
            return "it is for texts that attend to themselves, all of whose keys are there"
        if not (call.q.dtype == call.k.dtype == call.v.dtype):
            return f"q, k and v differ in precision: {call.q.dtype}, {call.k.dtype}, {call.v.dtype}"
        if call.bias is not None:
            return "it adds no bias to scores"
        if keys <= SHORT:
            return f"a text of {keys} tokens is short: the whole square is quicker"
        patterns = by_head(call.pattern, call.q.shape[1])
        return next(filter(None, (_hides_little(pattern, call.first, keys) for _, pattern in patterns)), "")

    def run(self, call: Call) -> Float[Tensor, "B H T W"]:
        q, k, v = call.q, call.per_head(call.k), call.per_head(call.v)
        return _Folded.apply(q, k, v, _Texts.of(call))  # pyright: ignore


def _hides_little(pattern: Single, first: int, keys: int) -> str:
    """Why a pattern is not worth laying out, in words; empty where it is."""
    if terms(pattern) is None:
        return f"{pattern} is not a union of Local, Stride, SameBlock and Summary"
    if work(pattern, first, keys) > WORTH * (keys - first) * keys:
        return f"{pattern} hides too little of {keys} keys: the whole square is quicker"
    return ""


@dataclass(frozen=True)
class _Stretch:
    """A text by itself, as if it stood alone: some rows and heads, where in these its queries and keys are, and how the
    pattern is folded there."""

    rows: slice
    heads: slice
    queries: slice
    keys: slice
    folds: Folds

    def asking(self, *found: Float[Tensor, "B H T _"]) -> list[Float[Tensor, "b h t _"]]:
        """Of tensors with vectors for queries, those of the text."""
        return [x[self.rows, self.heads, self.queries] for x in found]

    def seen(self, *found: Float[Tensor, "B H S _"]) -> list[Float[Tensor, "b h s _"]]:
        """Of tensors with vectors for keys, those of the text."""
        return [x[self.rows, self.heads, self.keys] for x in found]


@dataclass(frozen=True)
class _Texts:
    """What a call is about besides vectors; whether every query of it is asked first by some tile, and so with the keys."""

    stretches: tuple[_Stretch, ...]
    scale: float
    all_ask: bool
    all_seen: bool

    @classmethod
    def of(cls, call: Call) -> _Texts:
        """The texts of a call: all rows at once where these are plain. What stands in padding sees nothing."""
        keys, at, found = call.k.shape[2], 0, list[_Stretch]()
        plain = isinstance(call.keys, Plain)
        texts = [(range(len(call.q)), 0, keys)] if isinstance(call.keys, Plain) else call.keys.stretches(keys)
        for count, pattern in by_head(call.pattern, call.q.shape[1]):
            for rows, start, stop in texts:
                first = max(call.first, start)
                if first < stop:
                    folds = fold(pattern, first - start, stop - start, call.q.dtype, call.q.device)
                    queries = slice(first - call.first, stop - call.first)
                    found.append(
                        _Stretch(slice(rows.start, rows.stop), slice(at, at + count), queries, slice(start, stop), folds)
                    )
            at += count
        all_ask, all_seen = (plain and all(getattr(each.folds, name) for each in found) for name in ("all_ask", "all_seen"))
        return cls(tuple(found), call.scale(), all_ask, all_seen)


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, texts: _Texts) -> Float[Tensor, "B H T W"]:
        short = PRODUCTS if KERNELS.declines(q) else KERNELS
        exact = torch.promote_types(q.dtype, torch.float32)
        out, sums = _made(q, v.shape[3], q.dtype), _made(q, 1, exact)
        if not texts.all_ask:
            out.zero_()
            sums.fill_(lowest(exact))
        with torch.autocast(q.device.type, enabled=False):
            for stretch in texts.stretches:
                queries, *found = stretch.asking(q, out, sums)
                for piece in stretch.folds.pieces:
                    given = Given(queries, *(_pooled(x, piece) for x in stretch.seen(k, v)))
                    for tile in _parts(piece, given.k):
                        _join(tile, *short.attend(tile, _given(tile, given), texts.scale), *found)
        blank = sums < lowest(exact) / 2
        if blank.any():  # a sum so large that no weight is left on the way back
            out.masked_fill_(blank, 0)
            sums.masked_fill_(blank, -lowest(exact) / 2)
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.how = (short, texts)  # pyright: ignore[reportAttributeAccessIssue]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        q, k, v, out, sums = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        short, texts = ctx.how  # pyright: ignore[reportAttributeAccessIssue]
        of_q, of_k, of_v = (_made(x, x.shape[3], sums.dtype) for x in (q, k, v))
        for x, whole in ((of_q, texts.all_ask), (of_k, texts.all_seen), (of_v, texts.all_seen)):
            if not whole:
                x.zero_()
        with torch.autocast(q.device.type, enabled=False):
            for stretch in texts.stretches:
                queries, of_queries, *asked = stretch.asking(q, of_q, out, sums, gradient)
                for piece in stretch.folds.pieces:
                    given = Given(queries, *(_pooled(x, piece) for x in stretch.seen(k, v)))
                    with _pool_added(piece, *stretch.seen(of_k, of_v)) as pools:
                        for tile in _parts(piece, given.k):
                            whole = Whole(*(_short(x, tile.queries) for x in asked))
                            found = short.back(tile, _given(tile, given), whole.to(tile.dtype), texts.scale)
                            _give(found.q, tile.queries, of_queries, tile.asks_first)
                            for x, pool in zip(found[1:], pools, strict=True):
                                _give(x, tile.keys, pool, tile.seen_first)
        return *(each.to(q.dtype) for each in (of_q, of_k, of_v)), None


def _parts(piece: Piece, k: Float[Tensor, "B H S K"]) -> Iterator[Tile]:
    """The tiles of a piece, of each no more problems at once than a processor's cache has room for."""
    for tile in piece.tiles:
        yield from tile.parts(max(1, AT_ONCE // (len(k) * k.shape[1] * tile.keys.positions * k.shape[3])))


def _given(tile: Tile, given: Given) -> Given:
    """Queries, keys and values of a tile."""
    places = (tile.queries, tile.keys, tile.keys)
    return Given(*(_short(x, at).to(tile.dtype) for x, at in zip(given, places, strict=True)))


def _join(
    tile: Tile,
    attended: Float[Tensor, "n H t W"],
    total: Float[Tensor, "n H t 1"],
    out: Float[Tensor, "B H T W"],
    sums: Float[Tensor, "B H T 1"],
) -> None:
    """What the queries of a tile receive, and the logarithms of their sums, joined with what tiles before have given."""
    there, before = tile.queries.view(out), tile.queries.view(sums)
    mine, total = attended.unflatten(0, there.shape[:2]), total.unflatten(0, there.shape[:2])
    if tile.asks_first:
        there.copy_(mine)
        before.copy_(total)
        return
    join_to(Partial(there, before), Partial(mine, total))


def _give(found: Float[Tensor, "n H t W"], places: Places, to: Float[Tensor, "B H T W"], first: bool) -> None:
    """Add what was found for some positions to what tiles before have given."""
    there = places.view(to)
    mine = found.unflatten(0, there.shape[:2])
    if first:
        there.copy_(mine)
        return
    for at in range(places.rounds):  # what overlaps cannot be added at once
        there[:, at :: places.rounds] += mine[:, at :: places.rounds]


def _short(x: Float[Tensor, "B H T W"], places: Places) -> Float[Tensor, "n H t W"]:
    """The vectors of many problems, problem by problem and row by row."""
    return places.view(x).flatten(0, 1)


def _pooled(x: Float[Tensor, "B H S W"], piece: Piece) -> Float[Tensor, "B H pool W"]:
    """The keys that a set is about, laid out as (B, pool, H, W) where these are not all."""
    return x if piece.pool is None else x.transpose(1, 2).index_select(1, piece.pool).transpose(1, 2)


@contextmanager
def _pool_added(piece: Piece, *found: Float[Tensor, "B H S _"]) -> Iterator[tuple[Float[Tensor, "B H pool _"], ...]]:
    """Zeros for the keys that a set is about, which are added to those of all keys at the end."""
    if piece.pool is None:
        yield found
        return
    pools = tuple(_made(x[:, :, : len(piece.pool)], x.shape[3], x.dtype).zero_() for x in found)
    yield pools
    for x, pool in zip(found, pools, strict=True):
        x[:, :, piece.pool] += pool


def _made(x: Float[Tensor, "B H T K"], width: int, dtype: torch.dtype) -> Float[Tensor, "B H T W"]:
    """Room for vectors of heads that will be joined: laid out as (B, T, H, W)."""
    batch, heads, length, _ = x.shape
    return torch.empty(batch, length, heads, width, dtype=dtype, device=x.device).transpose(1, 2)
