"""A long text as many short ones: the sets of a sparse pattern, laid out so that each is dense attention of few positions.

| set             | what becomes a short problem                                       | their number | their length    |
|-----------------|--------------------------------------------------------------------|--------------|-----------------|
| `Local(w)`      | neighbouring queries, with the keys around them                    | n / 64       | 64, 64 + w      |
| `Stride(l)`     | positions of equal residue mod l                                   | l            | n / l           |
| `SameBlock(l)`  | a block                                                            | n / l        | l               |
| `Summary(l, c)` | all queries with all summaries, some queries at a time: the stairs | 1            | n, n c / l      |

(Child et al. 2019, sections 4.2 and 5.5.) A layout only has to cover a set; who sees whom in it is decided by the formula of the
pattern, at every place of it. Where sets are joined, a pair that an earlier set allows is hidden in the later ones: so they are
disjoint, and their results can be joined exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qkv.spec.pattern import Both, Causal, Either, Full, Local, SameBlock, Single, Stride, Summary

Basic = Local | Stride | SameBlock | Summary
QUERIES = 128  # of one problem that are taken at once: what is hidden behind the last key of all of them is never computed
NEIGHBOURS = 64  # queries of a problem of `Local`: fewer waste less, more are quicker each
ALIGNED = 16  # keys: products of such lengths are quicker


@dataclass(frozen=True)
class Term:
    """A set that may be laid out, without what lies in the future or not."""

    basic: Basic
    causal: bool

    def allows(self, i: Tensor, j: Tensor) -> Tensor:
        """The formula of the set."""
        allowed = self.basic.allows(i, j)
        return allowed & (j <= i) if self.causal else allowed


@dataclass(frozen=True)
class Tile:
    """Some queries of some problems with the first keys of these; `hidden` is added to the scores from key `edge` on."""

    problems: slice
    queries: slice
    seen: int
    edge: int
    hidden: Float[Tensor, "#m t edge_to_seen"] | None


@dataclass(frozen=True)
class Piece:
    """One set: query `queries[p, t]`, counted from the first query, asks the keys `keys[p]`. Where there is none stands 0, and
    everything is hidden; `asks` says where there is a query, unless everywhere."""

    queries: Int[Tensor, "m t"]
    keys: Int[Tensor, "m s"]
    asks: Bool[Tensor, "m t"] | None
    tiles: tuple[Tile, ...]


def terms(pattern: Single) -> tuple[Term, ...] | None:
    """The sets that a pattern is the union of; None where it is not one of such sets."""
    match pattern:
        case Local() | Stride() | SameBlock() | Summary():
            return (Term(pattern, False),)
        case Either(first=first, second=second):
            one, other = terms(first), terms(second)
            return None if one is None or other is None else one + other
        case Both(first=Causal(), second=rest) | Both(first=rest, second=Causal()):
            found = terms(rest)
            return None if found is None else tuple(Term(each.basic, True) for each in found)
        case Both(first=Full(), second=rest) | Both(first=rest, second=Full()):
            return terms(rest)
        case _:
            return None


@lru_cache(maxsize=256)
def pieces(pattern: Single, first: int, keys: int, dtype: torch.dtype, device: torch.device) -> tuple[Piece, ...]:
    """The pieces of a pattern for queries at first .. keys-1 and keys at 0 .. keys-1."""
    found = terms(pattern)
    assert found is not None, f"{pattern} is not a union of sets that can be laid out"
    return tuple(_piece(found[: index + 1], first, keys, dtype, device) for index in range(len(found)))


def work(pattern: Single, first: int, keys: int) -> int:
    """How many scores are computed for it, about: what a dense square has (keys - first) x keys of."""
    total = 0
    for term in terms(pattern) or ():
        queries, seen = _layout(term, first, keys, torch.device("meta"))
        total += queries.numel() * seen.shape[1] // (2 if isinstance(term.basic, Summary) and term.causal else 1)
    return total


def _layout(term: Term, first: int, keys: int, device: torch.device) -> tuple[Int[Tensor, "m t"], Int[Tensor, "m s"]]:
    """The positions of queries and keys in each problem of a set; what is no position of the text is none of theirs."""
    match term.basic:
        case Local(width=width):
            block = min(NEIGHBOURS, keys - first)
            count = -(-(keys - first) // block)
            after = 0 if term.causal else width - 1
            span = -(-(block + width - 1 + after) // ALIGNED) * ALIGNED
            starts = torch.arange(first, first + count * block, block, device=device)[:, None]
            ends = starts + block + after
            return starts + torch.arange(block, device=device), ends + torch.arange(-span, 0, device=device)
        case Stride(stride=stride):
            residues = torch.arange(stride, device=device)[:, None]
            rows = torch.arange(0, -(-keys // stride) * stride, stride, device=device)
            return residues + rows[first // stride :], residues + rows
        case SameBlock(block=block):
            starts = torch.arange(first // block * block, keys, block, device=device)[:, None]
            positions = starts + torch.arange(block, device=device)
            return positions, positions
        case Summary(block=block) as summary:
            starts = torch.arange(0, keys, block, device=device)[:, None]
            columns = torch.arange(summary.columns.start, summary.columns.stop, device=device)
            return torch.arange(first, keys, device=device)[None], (starts + columns).flatten()[None]


def _piece(found: tuple[Term, ...], first: int, keys: int, dtype: torch.dtype, device: torch.device) -> Piece:
    """The last of some sets, without what the others allow."""
    queries, seen = _layout(found[-1], first, keys, device)
    asks, there = (queries >= first) & (queries < keys), (seen >= 0) & (seen < keys)
    tiles: list[Tile] = []
    length = QUERIES if len(queries) > 1 else 2 * QUERIES  # a problem that is alone is a long one
    for start in range(0, queries.shape[1], length):
        some = slice(start, min(start + length, queries.shape[1]))
        visible = _visible(found, queries[:, some], seen) & asks[:, some, None] & there[:, None, :]
        for problems in _alike(visible):
            tiles += _tile(problems, some, visible[problems], dtype)
    every = bool(asks.all())
    return Piece((queries - first).where(asks, 0), seen.where(there, 0), None if every else asks, tuple(tiles))


def _visible(found: tuple[Term, ...], queries: Int[Tensor, "m t"], keys: Int[Tensor, "m s"]) -> Bool[Tensor, "m t s"]:
    """What the last of some sets allows and the others do not."""
    i, j = queries.int()[:, :, None], keys.int()[:, None, :]
    visible = found[-1].allows(i, j)
    for earlier in found[:-1]:
        visible &= ~earlier.allows(i, j)
    return visible


def _alike(visible: Bool[Tensor, "m t s"]) -> list[slice]:
    """The problems in runs within which the same is visible."""
    changes = (visible[1:] != visible[:-1]).flatten(1).any(1).nonzero().flatten() + 1
    bounds = [0, *changes.tolist(), len(visible)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _tile(problems: slice, queries: slice, visible: Bool[Tensor, "m t s"], dtype: torch.dtype) -> list[Tile]:
    """The tile of problems in which the same is visible; none where nothing is."""
    mask = visible[0]
    columns = mask.any(0).nonzero().flatten()
    if not len(columns):
        return []
    seen = int(columns[-1]) + 1
    ragged = (~mask[:, :seen].all(0)).nonzero().flatten()
    if not len(ragged):
        return [Tile(problems, queries, seen, seen, None)]
    edge = int(ragged[0])
    hidden = torch.zeros(mask.shape[0], seen - edge, dtype=dtype, device=mask.device)
    return [Tile(problems, queries, seen, edge, hidden.masked_fill_(~mask[:, edge:seen], torch.finfo(dtype).min / 2)[None])]
