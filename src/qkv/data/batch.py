"""Batches: which pairs go together, and the tensors that a model is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from qkv.data.sides import Corpus
from qkv.data.symbols import Symbols
from qkv.error import QkvError


@dataclass(frozen=True, eq=False)
class Plan:
    """The batches of one epoch, in order: `plan[b]` are the indices of the pairs in batch b, (B,).

    `padding` is the share of padded positions among all positions of both sides; `alone` counts the pairs that are longer than a
    whole batch may be, and are one all the same.
    """

    padding: float
    alone: int
    _pairs: np.ndarray
    _bounds: np.ndarray  # (batches, 2): where each batch starts and stops in `_pairs`

    def __len__(self) -> int:
        return len(self._bounds)

    def __getitem__(self, index: int) -> np.ndarray:
        start, stop = self._bounds[index]
        return self._pairs[start:stop]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))


def plan(source_lengths: np.ndarray, target_lengths: np.ndarray, *, tokens: int, seed: int, epoch: int) -> Plan:
    """Batches of pairs of like length: none has more than `tokens` positions on either side, padding and end symbols included.

    The lengths, (N,), are those of the text, without the end symbol. The result is a pure function of the arguments; in every
    epoch pairs of equal lengths are met in another order, and so are the batches.
    """
    if tokens < 1 or seed < 0 or epoch < 0:
        raise QkvError(
            f"a batch needs at least one token, and seed and epoch must not be negative: not {tokens}, {seed} and {epoch}"
        )
    if len(source_lengths) != len(target_lengths) or len(source_lengths) == 0:
        raise QkvError(
            f"expected lengths of as many sources as targets, at least one: not {len(source_lengths)} and {len(target_lengths)}"
        )
    random = np.random.default_rng((seed, epoch))
    pairs = random.permutation(len(source_lengths))
    source, target = source_lengths[pairs].astype(np.int64) + 1, target_lengths[pairs].astype(np.int64) + 1
    order = _by_length(source, target)
    pairs, source, target = pairs[order], source[order], target[order]
    starts = _cut(np.maximum(source, target), tokens)
    sizes = np.diff(starts, append=len(pairs))
    positions = sum(int((np.maximum.reduceat(side, starts) * sizes).sum()) for side in (source, target))
    padding = 1 - int(source.sum() + target.sum()) / positions
    bounds = np.stack([starts, starts + sizes], axis=1)
    alone = int((np.maximum(source, target) > tokens).sum())
    return Plan(padding, alone, pairs, random.permutation(bounds))


def _by_length(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """An order in which neighbours are of like length on both sides; equals stay in the order they had.

    By the longer side, on which the size of a batch depends; then by how much longer the source is, now up, now down, so that the
    end of one stretch is like the start of the next and a batch that reaches over both pads little.
    """
    longer, difference = np.maximum(source, target), source - target
    reach = int(longer.max()) + 1
    return np.argsort(longer * 2 * reach + np.where(longer % 2 == 0, difference, -difference), kind="stable")


def _cut(lengths: np.ndarray, tokens: int) -> np.ndarray:
    """Where each batch starts, if each takes as many as it can: at most `tokens` for its number of pairs times its longest."""
    starts, start, longest = [0], 0, 0
    for place, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if (place + 1 - start) * longest > tokens and place > start:
            starts.append(place)
            start, longest = place, length
    return np.array(starts, dtype=np.int64)


class Movable:
    """A frozen dataclass, some of whose fields are tensors."""

    def to(self, device: torch.device | str) -> Any:
        """The same on a device."""
        assert is_dataclass(self)
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in held.items() if isinstance(value, Tensor)})


def by_sentence(rows: Sequence[Sequence[int] | np.ndarray], line_end: int) -> tuple[np.ndarray, np.ndarray]:
    """Texts as words of sentences, (B, S, words), -1 where a sentence has no more; and their numbers of sentences, (B,).

    Lines without words are left out; a text without any has one sentence, which is empty.
    """
    ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    text, ended = np.repeat(np.arange(len(rows)), [len(row) for row in rows]), np.cumsum(ids == line_end)
    words = ids != line_end
    ids, text, ended = ids[words], text[words], ended[words]
    begins = (np.diff(text, prepend=-1) != 0) | (np.diff(ended, prepend=-1) != 0)
    starts, sentence = np.flatnonzero(begins), np.cumsum(begins) - 1
    sentences = np.bincount(text[starts], minlength=len(rows))
    place = np.arange(len(ids)) - starts[sentence]
    numbers = np.maximum(sentences, 1)
    made = np.full((len(rows), numbers.max(), place.max(initial=0) + 1), -1, dtype=np.int64)
    made[text, sentence - (np.cumsum(sentences) - sentences)[text], place] = ids
    return made, numbers


class Given(NamedTuple):
    """What one side of a model is given: tokens, and how many of a row these are where some are padded."""

    ids: Int64[Tensor, "B T *words"]
    lengths: Int64[Tensor, "B"] | None


@dataclass(frozen=True, eq=False)
class Batch(Movable):
    """Pairs as tensors.

    The source ends with the end symbol; the target goes in with the start symbol before it, and comes out with the end symbol
    after it. Lengths count the end symbol. Whether a side is padded is known from the lengths, so that nobody has to look into
    tensors on a device; `tokens` are the target's positions that are not padding.
    """

    source: Int64[Tensor, "B S"]
    source_lengths: Int64[Tensor, "B"]
    target_in: Int64[Tensor, "B T"]
    target_out: Int64[Tensor, "B T"]
    target_lengths: Int64[Tensor, "B"]
    padded_source: bool
    padded_target: bool
    tokens: int

    @property
    def sides(self) -> dict[str, Given]:
        """What the encoder and the decoder are given."""
        return {
            "encoder": Given(self.source, self.source_lengths if self.padded_source else None),
            "decoder": Given(self.target_in, self.target_lengths if self.padded_target else None),
        }


def collate(corpus: Corpus, indices: np.ndarray, source: Symbols, target: Symbols) -> Batch:
    """The batch of the pairs with these indices, (B,), given the special entries of both sides."""
    read, written = ([side[int(index)] for index in indices] for side in (corpus.source, corpus.target))
    return of_rows(read, written, source, target)


def of_rows(read: Sequence[np.ndarray], written: Sequence[np.ndarray], source: Symbols, target: Symbols) -> Batch:
    """The batch of some sources and their targets, each a row of tokens without start or end."""
    sources, source_lengths = padded(read, source.before, source.end, source.pad)
    targets, target_lengths = padded(written, target.opening, target.end, target.pad)
    target_lengths = target_lengths - 1  # what goes in lacks the end, what comes out the start
    given = targets[:, :-1].copy()
    given[np.arange(len(given))[target_lengths < given.shape[1]], target_lengths[target_lengths < given.shape[1]]] = target.pad
    return Batch(
        source=torch.from_numpy(sources),
        source_lengths=torch.from_numpy(source_lengths),
        target_in=torch.from_numpy(given),
        target_out=torch.from_numpy(targets[:, 1:]),
        target_lengths=torch.from_numpy(target_lengths),
        padded_source=bool((source_lengths != sources.shape[1]).any()),
        padded_target=bool((target_lengths != given.shape[1]).any()),
        tokens=int(target_lengths.sum()),
    )


def padded(rows: Sequence[np.ndarray], before: tuple[int, ...], end: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of tokens with what stands before them and the end symbol after, (B, longest), and their lengths with these, (B,)."""
    first = len(before)
    lengths = np.array([len(row) for row in rows], dtype=np.int64) + first + 1
    made = np.full((len(rows), int(lengths.max())), pad, dtype=np.int64)
    made[:, :first] = before
    column = np.arange(made.shape[1])
    made[(column >= first) & (column < lengths[:, None] - 1)] = np.concatenate(rows) if len(rows) else 0
    made[np.arange(len(rows)), lengths - 1] = end
    return made, lengths
