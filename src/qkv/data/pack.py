"""Documents packed into rows of one length, one after the other, for models that predict the next token.

Before its first token a document has the start symbol, after its last the end symbol: it is as many predictions as it has tokens,
and one more. The predictions of all documents make one stream, which is cut into rows; a document that a cut goes through is two,
and the second has lost what came before.

Pictures, all of one size, are a row each. Their end is known and not predicted: position p is where byte p is predicted, and a
model needs as many places as a picture has bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from qkv.attention.sight import Packed, Plain, Sight
from qkv.data.batch import Given, Movable
from qkv.data.sides import Side
from qkv.data.symbols import Symbols
from qkv.error import QkvError


@dataclass(frozen=True, eq=False)
class Rows(Movable):
    """Rows of tokens, what follows each of them, and which document each belongs to.

    `whole` says that no row has a part of more than one document; `tokens` are the predictions.
    """

    given: Int64[Tensor, "B T"]
    truth: Int64[Tensor, "B T"]
    documents: Int64[Tensor, "B T"]
    pos: Int64[Tensor, "B T"]
    whole: bool
    tokens: int

    @property
    def sides(self) -> dict[str, Given]:
        """What the decoder is given."""
        return {"decoder": Given(self.given, None)}

    @property
    def sight(self) -> Sight:
        """Documents do not see each other."""
        return Plain() if self.whole else Packed(self.documents, self.pos)


@dataclass(frozen=True, eq=False)
class PackedPlan:
    """The batches of one epoch: `plan[b]` are the numbers of the rows in batch b, (B,); `rows` makes tensors of them."""

    side: Side
    symbols: Symbols
    length: int
    padding: float
    _order: np.ndarray  # documents, as they follow each other
    _ends: np.ndarray  # of each of them, in the stream
    _first: int  # where the first row begins in the stream
    _batches: list[np.ndarray]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._batches[index]

    @property
    def size(self) -> int:
        """The predictions of the whole stream."""
        return int(self._ends[-1])

    def rows(self, numbers: np.ndarray) -> Rows:
        """Some rows as tensors; all are equally long."""
        made = [self._row(int(number)) for number in numbers]
        given, truth, documents, pos = (torch.from_numpy(np.stack(each)) for each in zip(*made, strict=True))
        return Rows(given, truth, documents, pos, bool((documents == 0).all()), truth.numel())

    def _row(self, number: int) -> tuple[np.ndarray, ...]:
        start = self._first + number * self.length
        stop = min(start + self.length, int(self._ends[-1]))
        given, truth, documents, pos = (np.empty(stop - start, dtype=np.int64) for _ in range(4))
        place = int(np.searchsorted(self._ends, start, side="right"))
        at, count = start, 0
        while at < stop:
            begins = int(self._ends[place - 1]) if place else 0
            until = min(stop, int(self._ends[place]))
            there = slice(at - start, until - start)
            ids = self.side[int(self._order[place])]
            given[there], truth[there] = self._shifted(ids, at - begins, until - begins)
            documents[there], pos[there] = count, np.arange(until - at)
            at, place, count = until, place + 1, count + 1
        return given, truth, documents, pos

    def _shifted(self, ids: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens first-1 .. last-2 of a document, with the start symbol before its first, and first .. last-1, with the end
        symbol after its last."""
        piece = ids[max(first - 1, 0) : last].astype(np.int64)
        before = [self.symbols.start] if first == 0 else []
        after = [self.symbols.end] if last > len(ids) else []
        whole = np.concatenate([before, piece, after]).astype(np.int64)
        return whole[:-1], whole[1:]


def pack(side: Side, symbols: Symbols, *, length: int, tokens: int, seed: int, epoch: int) -> PackedPlan:
    """Rows for training: the documents in another order in every epoch, and the cuts in other places.

    A batch has as many rows as make up `tokens` positions. What is left at both ends of the stream, less than a row, has its turn
    in another epoch. A pure function of its arguments.
    """
    if length < 1 or tokens < 1:
        raise QkvError(f"a row and a batch have at least one token, not {length} and {tokens}")
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(side))
    ends = np.cumsum(side.lengths[order] + 1)
    spare = int(ends[-1]) - length
    first = int(random.integers(0, min(length, spare + 1))) if spare > 0 else 0
    count = max(1, (int(ends[-1]) - first) // length)
    numbers = random.permutation(count)
    size = max(1, tokens // length)
    batches = [numbers[start : start + size] for start in range(0, count, size)]
    return PackedPlan(side, symbols, length, 0.0, order, ends, first, batches)


def in_order(side: Side, symbols: Symbols, *, length: int, tokens: int) -> PackedPlan:
    """Rows for validation: every prediction of every document once, in the order of the text; the last row may be shorter, and is
    a batch by itself."""
    order, ends = np.arange(len(side)), np.cumsum(side.lengths + 1)
    count, rest = divmod(int(ends[-1]), length)
    size = max(1, tokens // length)
    batches = [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
    if rest:
        batches.append(np.array([count]))
    return PackedPlan(side, symbols, length, 0.0, order, ends, 0, batches)


def each_whole(side: Side, symbols: Symbols, *, tokens: int, seed: int, epoch: int) -> PackedPlan:
    """Rows for training, each a document of equally many tokens without its end; in every epoch they follow each other in
    another order. A pure function of its arguments."""
    return _rows(side, symbols, tokens, np.random.default_rng((seed, epoch)).permutation(len(side)))


def each_in_order(side: Side, symbols: Symbols, *, tokens: int) -> PackedPlan:
    """The same for validation."""
    return _rows(side, symbols, tokens, np.arange(len(side)))


def _rows(side: Side, symbols: Symbols, tokens: int, order: np.ndarray) -> PackedPlan:
    length = int(side.lengths[0])
    assert (side.lengths == length).all(), "documents of a row each are equally long"
    size = max(1, tokens // length)
    batches = [np.arange(start, min(start + size, len(side))) for start in range(0, len(side), size)]
    return PackedPlan(side, symbols, length, 0.0, order, np.cumsum(side.lengths[order]), 0, batches)
