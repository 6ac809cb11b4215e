"""Attention with sparse patterns in O(n sqrt n): every set of a pattern is dense attention of many short texts (`fold.py`).

With s the scores of a query in one set, m their largest and p = softmax(s), the logarithm of the sum of their exponentials is
L = m - log max(p). Disjoint sets are joined by it: of attended a_1, a_2 and sums L_1, L_2 become, with L = log(e^L_1 + e^L_2),

    a = e^(L_1 - L) a_1 + e^(L_2 - L) a_2 .

Back from the gradient g of a, the weight of a key in any set is e^(s - L) with the joined L, and the gradient of its score is
e^(s - L) (g v^T - g a^T) with the joined a: each set goes back by itself. Scores are computed anew on the way back, and nothing
longer than the text is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from qkv.attention.call import Call
from qkv.attention.fold import Piece, Tile, pieces, terms, work
from qkv.attention.sight import Plain
from qkv.spec.pattern import Causal, Full, Single, by_head

SHORT = 256  # keys up to which the whole square is quicker
WORTH = 0.5  # of the square's scores: with more, the square is quicker
BITS = 1 / math.log(2)  # in a nat: powers of 2 of very small numbers are quick, those of e are not


class Folded:
    """Products of short texts."""

    name, by_head = "folded", True

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
        return _Folded.apply(q, k, v, tuple(_stretches(call)), call.scale())  # pyright: ignore


def _hides_little(pattern: Single, first: int, keys: int) -> str:
    """Why a pattern is not worth laying out, in words; empty where it is."""
    if terms(pattern) is None:
        return f"{pattern} is not a union of Local, Stride, SameBlock and Summary"
    if work(pattern, first, keys) > WORTH * (keys - first) * keys:
        return f"{pattern} hides too little of {keys} keys: the whole square is quicker"
    return ""


@dataclass(frozen=True)
class _Stretch:
    """A text by itself, as if it stood alone: some rows and heads, where their queries and keys begin, and the pieces of the
    pattern in it."""

    rows: range
    heads: range
    queries: int
    keys: int
    pieces: tuple[Piece, ...]


def _stretches(call: Call) -> Iterator[_Stretch]:
    """The texts of a call: all rows at once where these are plain. What stands in padding sees nothing."""
    keys, at = call.k.shape[2], 0
    texts = [(range(len(call.q)), 0, keys)] if isinstance(call.keys, Plain) else call.keys.stretches(keys)
    for count, pattern in by_head(call.pattern, call.q.shape[1]):
        for rows, start, stop in texts:
            first = max(call.first, start)
            if first < stop:
                found = pieces(pattern, first - start, stop - start, call.q.dtype, call.q.device)
                yield _Stretch(rows, range(at, at + count), first - call.first, start, found)
        at += count


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, stretches: tuple[_Stretch, ...], scale: float
    ) -> Float[Tensor, "B H T W"]:
        exact = _exact(q.dtype)
        out, sums = _zeros(q, v.shape[3], q.dtype), _zeros(q, 1, exact).fill_(torch.finfo(exact).min / 2)
        rows = _There(*(_Rows.of(x) for x in (q, k, v, out, sums)))
        with torch.autocast(q.device.type, enabled=False):
            for stretch in stretches:
                for number, piece in enumerate(stretch.pieces):
                    for part in _parts(stretch, piece, q.dtype):
                        _attend(part, rows, scale, alone=number == 0)
        blank = sums < torch.finfo(exact).min / 4
        if blank.any():  # a sum so large that no weight is left on the way back
            out.masked_fill_(blank, 0)
            sums.masked_fill_(blank, -torch.finfo(exact).min / 4)
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.how = (stretches, scale)  # pyright: ignore[reportAttributeAccessIssue]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        q, k, v, out, sums = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        stretches, scale = ctx.how  # pyright: ignore[reportAttributeAccessIssue]
        found = [_zeros(x, x.shape[3], sums.dtype) for x in (q, k, v)]
        means = (gradient * out).sum(-1, keepdim=True, dtype=sums.dtype)
        rows = _Back(*(_Rows.of(x) for x in (q, k, v, gradient, sums, means, *found)))
        with torch.autocast(q.device.type, enabled=False):
            for stretch in stretches:
                for piece in stretch.pieces:
                    for part in _parts(stretch, piece, q.dtype):
                        _go_back(part, rows, scale)
        return *(each.to(q.dtype) for each in found), None, None


@dataclass(frozen=True)
class _Rows:
    """The vectors of a tensor (B, H, T, W) as the rows of a matrix, wherever they lie in memory."""

    matrix: Float[Tensor, "rows W"]
    strides: tuple[int, int, int]

    @classmethod
    def of(cls, x: Float[Tensor, "B H T W"]) -> _Rows:
        width = x.shape[3]
        if x.stride(3) != 1 or any(stride % width for stride in x.stride()[:3]):
            x = x.contiguous()
        row, head, position = (stride // width for stride in x.stride()[:3])
        count = 1 + (x.shape[0] - 1) * row + (x.shape[1] - 1) * head + (x.shape[2] - 1) * position
        return cls(x.as_strided((count, width), (width, 1)), (row, head, position))


class _There(NamedTuple):
    """What the way there reads, and what it writes."""

    q: _Rows
    k: _Rows
    v: _Rows
    out: _Rows
    sums: _Rows


class _Back(NamedTuple):
    """What the way back reads, and the gradients that it adds to."""

    q: _Rows
    k: _Rows
    v: _Rows
    gradient: _Rows
    sums: _Rows
    means: _Rows
    of_q: _Rows
    of_k: _Rows
    of_v: _Rows


@dataclass(frozen=True)
class _Part:
    """Some problems of a tile, for some heads of a row; where their queries and keys stand in the row, and which of the queries
    there are, if not all."""

    tile: Tile
    row: int
    heads: range
    queries: Int[Tensor, "m t"]
    keys: Int[Tensor, "m seen"]
    asks: Int[Tensor, " asked"] | None

    def taken(self, x: _Rows, positions: Int[Tensor, "m t"]) -> Float[Tensor, "n t W"]:
        """The vectors of some positions, problem by problem."""
        return x.matrix.index_select(0, self._places(x, positions.flatten())).view(-1, positions.shape[1], x.matrix.shape[1])

    def of_queries(self, x: _Rows) -> Float[Tensor, "asked W"]:
        """The vectors of the queries that there are."""
        return x.matrix.index_select(0, self._asked(x))

    def put(self, x: _Rows, found: Float[Tensor, "asked W"]) -> None:
        """Write the vectors of the queries that there are."""
        x.matrix.index_copy_(0, self._asked(x), found)

    def add(self, x: _Rows, positions: Int[Tensor, "m t"], found: Float[Tensor, "n t W"]) -> None:
        """Add to the vectors of some positions, of which some may come more than once."""
        x.matrix.index_add_(0, self._places(x, positions.flatten()), found.flatten(0, 1).to(x.matrix.dtype))

    def asked(self, found: Float[Tensor, "n t W"]) -> Float[Tensor, "asked W"]:
        """Of what was found, what belongs to queries that there are."""
        if self.asks is None:
            return found.flatten(0, 1)
        return found.view(len(self.heads), -1, found.shape[2]).index_select(1, self.asks).flatten(0, 1)

    def _asked(self, x: _Rows) -> Int[Tensor, " asked"]:
        positions = self.queries.flatten()
        return self._places(x, positions if self.asks is None else positions.index_select(0, self.asks))

    def _places(self, x: _Rows, positions: Int[Tensor, " p"]) -> Int[Tensor, " heads_p"]:
        """The rows of some positions, head by head."""
        row, head, position = x.strides
        places = positions * position + (self.row * row + self.heads.start * head)
        if len(self.heads) == 1:
            return places
        return (torch.arange(len(self.heads), device=positions.device)[:, None] * head + places).flatten()


def _parts(stretch: _Stretch, piece: Piece, dtype: torch.dtype) -> Iterator[_Part]:
    """The tiles of a piece, of each as much at once as a processor's cache has room for."""
    for tile in piece.tiles:
        problems = tile.problems.stop - tile.problems.start
        fit = max(1, _scores(dtype) // ((tile.queries.stop - tile.queries.start) * tile.seen))
        together, heads = min(fit, problems), max(1, fit // problems)
        for start in range(tile.problems.start, tile.problems.stop, together):
            some = slice(start, min(start + together, tile.problems.stop))
            queries = piece.queries[some, tile.queries] + stretch.queries
            keys = piece.keys[some, : tile.seen] + stretch.keys
            asks = None if piece.asks is None else piece.asks[some, tile.queries].flatten().nonzero().flatten()
            if asks is not None and len(asks) == queries.numel():
                asks = None
            for row in stretch.rows:
                for head in range(stretch.heads.start, stretch.heads.stop, heads):
                    yield _Part(tile, row, range(head, min(head + heads, stretch.heads.stop)), queries, keys, asks)


def _attend(part: _Part, rows: _There, scale: float, alone: bool) -> None:
    """What the queries of a part receive, and the logarithms of their sums, joined with what sets before have given."""
    scores = _scored(part.taken(rows.q, part.queries), part.taken(rows.k, part.keys), part.tile, scale)
    weights = torch.softmax(scores, -1)
    largest = weights.amax(-1, keepdim=True).to(rows.sums.matrix.dtype)
    total = part.asked(scores.amax(-1, keepdim=True) - largest.log_())
    attended = part.asked(torch.bmm(weights, part.taken(rows.v, part.keys)))
    if not alone:
        before, mine = part.of_queries(rows.sums), attended
        both = torch.logaddexp(before, total)
        attended = (part.of_queries(rows.out) * (before - both).exp_()).addcmul_(mine, (total - both).exp_()).to(mine.dtype)
        total = both
    part.put(rows.out, attended)
    part.put(rows.sums, total)


def _go_back(part: _Part, rows: _Back, scale: float) -> None:
    """The gradients that come of a part."""
    queries, upstream, total, mean = (part.taken(x, part.queries) for x in (rows.q, rows.gradient, rows.sums, rows.means))
    keys, values = (part.taken(x, part.keys) for x in (rows.k, rows.v))
    scores = _scored(queries, keys, part.tile, scale * BITS)
    total = total.mul_(BITS)
    rounded = total.to(scores.dtype)
    if rounded.dtype != total.dtype:  # what rounding takes from the sums is given to the gradients
        lost = (rounded - total).exp2_()
        upstream, mean = (upstream * lost).to(scores.dtype), (mean * lost).to(scores.dtype)
    weights = scores.sub_(rounded).exp2_()
    part.add(rows.of_v, part.keys, torch.bmm(weights.transpose(1, 2), upstream))
    of_scores = torch.bmm(upstream, values.transpose(1, 2)).sub_(mean).mul_(weights)
    part.add(rows.of_q, part.queries, torch.bmm(of_scores, keys).mul_(scale))
    part.add(rows.of_k, part.keys, torch.bmm(of_scores.transpose(1, 2), queries).mul_(scale))


def _scored(q: Float[Tensor, "n t K"], k: Float[Tensor, "n s K"], tile: Tile, scale: float) -> Float[Tensor, "n t s"]:
    """The scores of some problems of a tile, tiny where a key is hidden."""
    keys = k.transpose(1, 2)
    if tile.hidden is not None and tile.edge == 0:
        return torch.baddbmm(tile.hidden, q, keys, alpha=scale)
    scores = torch.bmm(q * scale, keys)
    if tile.hidden is not None:
        scores[:, :, tile.edge :] += tile.hidden
    return scores


def _zeros(x: Float[Tensor, "B H T K"], width: int, dtype: torch.dtype) -> Float[Tensor, "B H T W"]:
    """Zeros for heads that will be joined: laid out as (B, T, H, W)."""
    batch, heads, length, _ = x.shape
    return torch.zeros(batch, length, heads, width, dtype=dtype, device=x.device).transpose(1, 2)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """In what is added up: fp32 or better."""
    return torch.promote_types(dtype, torch.float32)


def _scores(dtype: torch.dtype) -> int:
    """Scores that are computed at once, measured: some, for a processor's cache, and more where products are so quick that each
    call should do much."""
    return 2**22 // dtype.itemsize**2
