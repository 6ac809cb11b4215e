"""A long text as many short ones: the sets of a sparse pattern, laid out so that each is dense attention of few positions.

| set             | what becomes a short problem                           | their number | queries, keys          |
|-----------------|--------------------------------------------------------|--------------|------------------------|
| `Local(w)`      | neighbouring queries, with the keys around them        | n / 64       | 64, 64 + w             |
| `Stride(l)`     | positions of equal residue mod l                       | l            | n / l, n / l           |
| `SameBlock(l)`  | a block                                                | n / l        | l, l                   |
| `Summary(l, c)` | many blocks at a time: with all summaries before them, | n / 1024     | 1024, up to n c / l    |
|                 | and with their own, which are stairs                   | n / 1024     | 128, up to 1024 c / l  |

(Child et al. 2019, sections 4.2 and 5.5.) A layout only has to cover a set; who sees whom in it is decided by the formula of the
pattern, at every place of it. Where sets are joined, a pair that an earlier set allows is hidden in the later ones: so they are
disjoint, and their results can be joined exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qkv.spec.pattern import Both, Causal, Either, Full, Local, SameBlock, Single, Stride, Summary

Basic = Local | Stride | SameBlock | Summary
NEIGHBOURS = 64  # queries of a problem of `Local`: fewer waste less, more are quicker each
FLIGHT = 1024  # queries that see all summaries before them at once
LARGE = 2**16  # scores of a problem: with fewer, a processor's products of 16 bits are not worth their preparation
QUERIES = 128  # of problems with something hidden that are taken at once: what is hidden from all of them is never computed


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
class Places:
    """Positions of many problems: number t of problem p is start + p x apart + t x step. Problems whose numbers are equal mod
    `rounds` have no position in common."""

    start: int
    problems: int
    apart: int
    positions: int
    step: int
    rounds: int

    @classmethod
    def of(cls, table: Int[Tensor, "m t"]) -> Places:
        """The same positions, from a table of them all."""
        problems, positions = table.shape
        start = int(table[0, 0])
        apart = int(table[1, 0]) - start if problems > 1 else 0
        step = int(table[0, 1]) - start if positions > 1 else 0
        rounds = 1
        while any(len(part.unique()) < part.numel() for part in (table[at::rounds] for at in range(rounds))):
            rounds += 1
        return cls(start, problems, apart, positions, step, rounds)

    def table(self) -> Int[Tensor, "m t"]:
        """All of the positions."""
        return self.start + torch.arange(self.problems)[:, None] * self.apart + torch.arange(self.positions) * self.step

    def some(self, start: int, stop: int) -> Places:
        """Those of some of the problems."""
        return replace(self, start=self.start + start * self.apart, problems=min(stop, self.problems) - start)

    def view(self, x: Float[Tensor, "B H T W"]) -> Float[Tensor, "B m H t W"]:
        """The vectors at these positions, where they are in memory."""
        row, head, position, unit = x.stride()
        sizes = (x.shape[0], self.problems, x.shape[1], self.positions, x.shape[3])
        strides = (row, self.apart * position, head, self.step * position, unit)
        return x.as_strided(sizes, strides, x.storage_offset() + self.start * position)


@dataclass(frozen=True)
class Tile:
    """Problems that look alike. Each query sees each key; or where `diagonal`, the first one, the second two, and so on; or what
    `hidden`, which is added to the scores, lets it see. `asks_first` says that no tile before has these queries, `seen_first`
    that none before it or beside it has these keys. Its products are of numbers of `dtype`."""

    queries: Places
    keys: Places
    diagonal: bool
    hidden: Float[Tensor, "t s"] | None
    asks_first: bool
    seen_first: bool
    dtype: torch.dtype

    def parts(self, count: int) -> Iterator[Tile]:
        """So many of its problems at a time."""
        for start in range(0, self.queries.problems, count):
            yield replace(self, queries=self.queries.some(start, start + count), keys=self.keys.some(start, start + count))


@dataclass(frozen=True)
class Piece:
    """One set. Places of queries are counted from the first query; those of keys are places in `pool`, which has the positions of
    the keys that the set is about, where these are not all."""

    pool: Int[Tensor, " keys"] | None
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Folds:
    """The sets of a pattern; whether each query is one of a tile that `asks_first`, and each key of one that is `seen_first`."""

    pieces: tuple[Piece, ...]
    all_ask: bool
    all_seen: bool


class _Layout(NamedTuple):
    """Problems of one size; what is no position of the text, or no place in the pool, is none of theirs."""

    queries: Int[Tensor, "m t"]
    keys: Int[Tensor, "m s"]


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
def fold(pattern: Single, first: int, keys: int, dtype: torch.dtype, device: torch.device) -> Folds:
    """The pieces of a pattern for queries at first .. keys-1 and keys at 0 .. keys-1."""
    found = terms(pattern)
    assert found is not None, f"{pattern} is not a union of sets that can be laid out"
    made: list[Piece] = []
    asked, seen = _Known(keys - first), _Known(keys)
    for number, term in enumerate(found, 1):
        pool = _pool(term, keys)
        tiles: list[Tile] = []
        for queries, of_keys, diagonal, visible in _shapes(found[:number], pool, first, keys):
            asks, sees, hidden = Places.of(queries - first), Places.of(of_keys), None
            small = device.type == "cpu" and dtype.itemsize < 4 and asks.positions * sees.positions < LARGE
            computed = torch.float32 if small else dtype
            if visible is not None:
                hidden = torch.zeros(visible.shape, dtype=computed, device=device)
                hidden.masked_fill_(~visible.to(device), torch.finfo(computed).min / 2)
            seen_first = pool is None and seen.first(sees)
            tiles.append(Tile(asks, sees, diagonal, hidden, asked.first(asks), seen_first, computed))
        if pool is not None:
            seen.some[pool] = True
            pool = pool.to(device)
        made.append(Piece(pool, tuple(tiles)))
    return Folds(tuple(made), bool(asked.sure.all()), bool(seen.sure.all()))


class _Known:
    """Positions that some tile before has, and those which one tile was surely the first to have."""

    def __init__(self, length: int) -> None:
        self.some, self.sure = torch.zeros(2, length, dtype=torch.bool)

    def first(self, places: Places) -> bool:
        """Whether a tile is the first to have any of its positions, each of them once."""
        table = places.table()
        first = places.rounds == 1 and not self.some[table].any()
        self.some[table] = True
        if first:
            self.sure[table] = True
        return first


@lru_cache(maxsize=256)
def work(pattern: Single, first: int, keys: int) -> int:
    """How many scores are computed for it, at most: what a dense square has (keys - first) x keys of."""
    total = 0
    for term in terms(pattern) or ():
        for number, (queries, seen) in enumerate(_layouts(term, first, keys)):
            asked = int(((queries >= first) & (queries < keys)).sum()) * seen.shape[1]
            stairs = isinstance(term.basic, Summary) and term.causal and number == 0
            total += asked // 2 if stairs else asked
    return total


def _pool(term: Term, keys: int) -> Int[Tensor, " pool"] | None:
    """The positions of the keys that a set is about, where these are not all."""
    if not isinstance(term.basic, Summary):
        return None
    columns = term.basic.columns
    found = torch.arange(0, keys, term.basic.block)[:, None] + torch.arange(columns.start, columns.stop)
    return found[found < keys]


def _layouts(term: Term, first: int, keys: int) -> Iterator[_Layout]:
    """Problems that cover a set."""
    match term.basic:
        case Local(width=width):
            block = min(max(width // 2, 16), NEIGHBOURS, keys - first)
            starts = torch.arange(first, keys, block)[:, None]
            around = torch.arange(1 - width, block + (0 if term.causal else width - 1))
            yield _Layout(starts + torch.arange(block), starts + around)
        case Stride(stride=stride):
            residues = torch.arange(min(stride, keys))[:, None]
            rows = torch.arange(0, keys, stride)
            yield _Layout(residues + rows[first // stride :], residues + rows)
        case SameBlock(block=block):
            starts = torch.arange(first // block * block, keys, block)[:, None]
            positions = starts + torch.arange(min(block, keys))
            yield _Layout(positions, positions)
        case Summary(block=block, count=count):
            if not term.causal:
                yield _Layout(torch.arange(first, keys)[None], torch.arange(-(-keys // block) * count)[None])
                return
            blocks = max(1, FLIGHT // block)
            flight = blocks * block
            starts = torch.arange(first // flight * flight, keys, flight)[:, None]
            own = starts // block * count + torch.arange(blocks * count)
            yield _Layout(starts + torch.arange(min(flight, keys)), own)
            for start in starts.flatten().tolist():
                if start:
                    queries = torch.arange(max(start, first), min(start + flight, keys))
                    yield _Layout(queries[None], torch.arange(start // block * count)[None])


Shape = tuple[Int[Tensor, "m t"], Int[Tensor, "m s"], bool, Bool[Tensor, "t s"] | None]
"""Queries, keys, whether these are a diagonal, and if they are none and something is hidden, what is visible."""


def _shapes(found: tuple[Term, ...], pool: Tensor | None, first: int, keys: int) -> Iterator[Shape]:
    """The last of some sets, without what the others allow."""
    if pool is None or len(pool):
        for layout in _layouts(found[-1], first, keys):
            yield from _alike(found, layout, pool, first, keys)


def _alike(found: tuple[Term, ...], layout: _Layout, pool: Tensor | None, first: int, keys: int) -> Iterator[Shape]:
    """Problems of one size, as many together as look alike."""
    queries, seen = layout
    asks = (queries >= first) & (queries < keys)
    there = (seen >= 0) & (seen < (keys if pool is None else len(pool)))
    positions = seen.where(there, 0) if pool is None else pool[seen.where(there, 0)]

    def visible(problems: slice, some: slice) -> Bool[Tensor, "m t s"]:
        known = asks[problems, some, None] & there[problems, None, :]
        return _visible(found, queries[problems, some], positions[problems]) & known

    rows = [slice(start, min(start + QUERIES, queries.shape[1])) for start in range(0, queries.shape[1], QUERIES)]
    changed = torch.zeros(len(queries) - 1, dtype=torch.bool)
    for some in rows if len(queries) > 1 else ():
        each = visible(slice(None), some)
        changed |= (each[1:] != each[:-1]).flatten(1).any(1)
    bounds = [0, *(changed.nonzero().flatten() + 1).tolist(), len(queries)]
    for start, stop in pairwise(bounds):
        for some, columns, diagonal, mask in _cut([visible(slice(start, start + 1), some)[0] for some in rows], rows):
            yield queries[start:stop, some], seen[start:stop, columns], diagonal, mask


def _cut(parts: list[Bool[Tensor, "_ s"]], rows: list[slice]) -> Iterator[tuple[slice, slice, bool, Bool[Tensor, "t s"] | None]]:
    """What a problem has to compute: all of it at once where it is a diagonal or nothing is hidden, else some queries at a time,
    with the keys that these see."""
    bounds = torch.cat([_bounds(part) for part in parts])
    asking = bounds[:, 2].nonzero().flatten()
    if not len(asking):
        return
    top, bottom = int(asking[0]), int(asking[-1]) + 1
    low, high, seen = bounds[top:bottom].unbind(1)
    if bool((seen == high - low).all()) and bool((low == low[0]).all()):
        left, ends = int(low[0]), high - high[0]
        if not ends.any():
            yield slice(top, bottom), slice(left, int(high[0])), False, None
            return
        if int(high[0]) == left + 1 and torch.equal(ends, torch.arange(len(ends))):
            yield slice(top, bottom), slice(left, int(high[-1])), True, None
            return
    for some, part in zip(rows, parts, strict=True):
        asks, keys = part.any(1).nonzero().flatten(), part.any(0).nonzero().flatten()
        if len(asks):
            inner, columns = slice(int(asks[0]), int(asks[-1]) + 1), slice(int(keys[0]), int(keys[-1]) + 1)
            mask = part[inner, columns]
            yield slice(some.start + inner.start, some.start + inner.stop), columns, False, None if mask.all() else mask


def _bounds(visible: Bool[Tensor, "t s"]) -> Int[Tensor, "t three"]:
    """The first key that each query sees, that after the last one, and how many it sees; 0 where it sees none."""
    queries, keys = visible.shape
    if visible.all():
        return torch.tensor([0, keys, keys]).expand(queries, 3)
    seen, numbers = visible.sum(1), visible.byte()
    low, high = numbers.argmax(1), keys - numbers.flip(1).argmax(1)
    return torch.stack([low, high, seen], 1) * (seen > 0)[:, None]


def _visible(found: tuple[Term, ...], queries: Int[Tensor, "m t"], keys: Int[Tensor, "m s"]) -> Bool[Tensor, "m t s"]:
    """What the last of some sets allows and the others do not."""
    i, j = queries.int()[:, :, None], keys.int()[:, None, :]
    visible = found[-1].allows(i, j)
    for earlier in found[:-1]:
        visible &= ~earlier.allows(i, j)
    return visible
