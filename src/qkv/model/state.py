"""What decoding remembers: slots, addressed by the path by which a module was reached.

Rows are hypotheses, equally many for each sentence, those of a sentence side by side. `reorder` and `keep` are written once,
over all slots, so that the search never asks what the model is; only rows that change their place are copied.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from qkv.attention.sight import Sight
from qkv.error import QkvError
from qkv.spec.pattern import Single

Path = tuple[str, ...]
SPARE = 64  # tokens that a text may be trimmed by where what is seen no more is forgotten
LEAST_KEPT = 128  # tokens, up to which nothing is forgotten


class Move:
    """New rows from old ones: new row r is old row `rows[r]`. Most stay where they are, and none of these is touched."""

    def __init__(self, rows: Int[Tensor, " R"]) -> None:
        self.rows = rows
        self._to = (rows != torch.arange(len(rows), device=rows.device)).nonzero().flatten()
        self._from = rows[self._to]

    def apply(self, held: Shaped[Tensor, "old N ..."], used: int) -> Shaped[Tensor, "new N ..."]:
        """The new rows, of which the first `used` entries count: in place, unless there are more of them than before."""
        if len(self.rows) > len(held):
            more = held.new_empty(len(self.rows), *held.shape[1:])
            more[:, :used] = held[:, :used][self.rows]
            return more
        if len(self._to):
            entries = held[:, :used]
            entries.index_copy_(0, self._to, entries.index_select(0, self._from))
        return held[: len(self.rows)]


@runtime_checkable
class Slot(Protocol):
    """What one sublayer remembers."""

    def reorder(self, rows: Move) -> None: ...

    def keep(self, sentences: Move, rows: Move) -> None: ...

    def trim(self, length: int) -> None: ...


class Keys:
    """Keys and values of the tokens so far: room for some tokens in every row, so that a step copies nothing."""

    def __init__(self) -> None:
        self.length = 0
        self._held: Float[Tensor, "R capacity E"] | None = None  # of a token first its keys, then its values

    def append(self, k: Float[Tensor, "R H T K"], v: Float[Tensor, "R H T W"]) -> tuple[Tensor, Tensor]:
        """Take the keys and values of the next tokens; give back all of them, (R, H, S, K) and (R, H, S, W)."""
        end, wide = self.length + k.shape[2], k.shape[1] * k.shape[3]
        held = self._held = roomy(self._held, self.length, end, k.new_empty(len(k), 0, wide + v.shape[1] * v.shape[3]))
        _by_head(held[:, self.length : end, :wide], k.shape[1]).copy_(k)
        _by_head(held[:, self.length : end, wide:], v.shape[1]).copy_(v)
        self.length = end
        return _by_head(held[:, :end, :wide], k.shape[1]), _by_head(held[:, :end, wide:], v.shape[1])

    def append_to(
        self, rows: Int[Tensor, " A"], among: int, k: Float[Tensor, "A H 1 K"], v: Float[Tensor, "A H 1 W"]
    ) -> tuple[Tensor, Tensor]:
        """`append` of one token to some rows alone, among so many; what the others have there means nothing."""
        end, wide = self.length + 1, k.shape[1] * k.shape[3]
        held = self._held = roomy(self._held, self.length, end, k.new_zeros(among, 0, wide + v.shape[1] * v.shape[3]))
        held[:, self.length].index_copy_(0, rows, torch.cat([k.flatten(1), v.flatten(1)], 1))
        self.length = end
        return _by_head(held[:, :end, :wide], k.shape[1]), _by_head(held[:, :end, wide:], v.shape[1])

    def reorder(self, rows: Move) -> None:
        self._held = _moved(self._held, rows, self.length)

    def keep(self, sentences: Move, rows: Move) -> None:
        self.reorder(rows)

    def trim(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self.length = min(self.length, length)

    def only(self, kept: Int[Tensor, " kept"]) -> None:
        """Forget all tokens but these, which are numbered from the first that is held."""
        assert self._held is not None, "nothing was appended yet"
        self._held, self.length = self._held.index_select(1, kept), len(kept)


class Kept:
    """Keys and values of those tokens alone that the pattern of some heads may still see. What nobody can see any more is
    forgotten when room is needed: there is never room for more than twice as many tokens as are kept, and a few."""

    def __init__(self, pattern: Single) -> None:
        self.length = 0
        self._pattern, self._keys = pattern, Keys()
        self._stands: Int[Tensor, " S"] | None = None
        self._forgotten = 0  # up to where a token may have been forgotten
        self._full = LEAST_KEPT  # tokens from which it is asked what may be forgotten

    def append(
        self, k: Float[Tensor, "R H T K"], v: Float[Tensor, "R H T W"], sight: Sight
    ) -> tuple[Tensor, Tensor, Int[Tensor, " S"] | None]:
        """Take the keys and values of the next tokens; give back those that these may see, and where they stand, None where none
        is missing."""
        start, end = self.length, self.length + k.shape[2]
        new = torch.arange(start, end, device=k.device)
        self.length = end
        if start == 0 and end > LEAST_KEPT:  # a long text to begin with is seen as it is given, and not kept whole
            kept = self._seen(new, sight)
            self._keys.append(k.index_select(2, kept), v.index_select(2, kept))
            self._stands, self._full = kept, 2 * len(kept) + LEAST_KEPT
            self._forgotten = end if len(kept) < end else 0
            return k, v, None
        if self._stands is not None and len(self._stands) + len(new) > self._full:
            self._forget(sight, start)
        keys, values = self._keys.append(k, v)
        self._stands = new if self._stands is None else torch.cat([self._stands, new])
        return keys, values, self._stands if self._forgotten else None

    def reorder(self, rows: Move) -> None:
        self._keys.reorder(rows)

    def keep(self, sentences: Move, rows: Move) -> None:
        self._keys.keep(sentences, rows)

    def trim(self, length: int) -> None:
        """Forget the tokens after the first `length`. Raises QkvError where what these would see is forgotten."""
        if length >= self.length:
            return
        if self._forgotten and length < self._forgotten - SPARE:
            raise QkvError(f"a sparse model remembers what the last {SPARE} tokens see, and cannot go back further")
        self.length = length
        assert self._stands is not None, "what is trimmed was there"
        left = int((self._stands < length).sum())
        self._stands = self._stands[:left]
        self._keys.trim(left)

    def _seen(self, stands: Int[Tensor, " S"], sight: Sight, now: int | None = None) -> Int[Tensor, " kept"]:
        """Which of some tokens, the last of all so far, may still be seen by one of the last ones or of those to come."""
        now = max(0, (self.length if now is None else now) - SPARE)
        places = sight.places(0, max(now, int(stands[-1])) + 1) if self._pattern.anchored else None
        if places is None:
            return stands[self._pattern.keeps(stands, now)]
        return stands[self._pattern.keeps(places.index_select(1, stands), places[:, now, None]).any(0)]

    def _forget(self, sight: Sight, now: int) -> None:
        assert self._stands is not None, "there is something to forget"
        kept = torch.searchsorted(self._stands, self._seen(self._stands, sight, now))
        if len(kept) < len(self._stands):
            self._keys.only(kept)
            self._stands, self._forgotten = self._stands[kept], now
        self._full = max(self._full, 2 * len(kept) + LEAST_KEPT)


class Tail:
    """What a convolution has seen, or the states of what is recurrent: of all tokens so far, since a text may be trimmed to any
    of them."""

    def __init__(self) -> None:
        self.length = 0
        self._held: Float[Tensor, "R capacity E"] | None = None

    def append(self, x: Float[Tensor, "R T E"], before: int) -> Float[Tensor, "R before_and_T E"]:
        """Take the inputs for the next tokens; give them back with so many before them, zeros where there were none."""
        start, end = self.length, self.length + x.shape[1]
        held = self._held = roomy(self._held, start, end, x[:, :0])
        held[:, start:end] = x
        self.length = end
        if start >= before:
            return held[:, start - before : end]
        return functional.pad(held[:, :end], (0, 0, before - start, 0))

    def last(self) -> Float[Tensor, "R E"]:
        """What was taken for the last token."""
        assert self._held is not None and self.length, "nothing was appended yet"
        return self._held[:, self.length - 1]

    def reorder(self, rows: Move) -> None:
        self._held = _moved(self._held, rows, self.length)

    def keep(self, sentences: Move, rows: Move) -> None:
        self.reorder(rows)

    def trim(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self.length = min(self.length, length)


def _by_head(x: Float[Tensor, "R S E"], heads: int) -> Float[Tensor, "R H S K"]:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def roomy(held: Tensor | None, length: int, end: int, empty: Tensor) -> Float[Tensor, "R capacity ..."]:
    """Memory for tokens up to `end`, in which the first `length` are kept; `empty`, (R, 0, ...), says what a token is."""
    if held is not None and end <= held.shape[1]:
        return held
    grown = empty.new_empty(len(empty), max(16, 2 * end), *empty.shape[2:])
    if held is not None:
        grown[:, :length] = held[:, :length]
    return grown


def _moved(held: Tensor | None, rows: Move, length: int) -> Tensor:
    assert held is not None, "nothing was appended yet"
    return rows.apply(held.flatten(1), length * held.shape[2:].numel()).view(-1, *held.shape[1:])


class Once:
    """Keys and values that never change: the projected memory of a sentence, or its tokens for values, shared by all its
    hypotheses."""

    def __init__(self, k: Float[Tensor, "B H S K"], v: Shaped[Tensor, "B H S W"], sight: Sight) -> None:
        self.k, self.v, self.sight = k, v, sight

    def reorder(self, rows: Move) -> None:
        """Unmoved: hypotheses change places within their sentence only."""

    def keep(self, sentences: Move, rows: Move) -> None:
        self.k, self.v = (sentences.apply(each, each.shape[1]) for each in (self.k, self.v))
        self.sight = self.sight.keep(sentences.rows)

    def trim(self, length: int) -> None:
        """Nothing: it has no part in how far decoding has come."""


AnySlot = TypeVar("AnySlot", Keys, Kept, Tail)


class State:
    """All slots of one decoding, and how far it has come.

    A step may leave out rows that nobody goes on from. It then computes a row for each of the others, and what remembers or looks
    at memory asks here for those of all, which keep their places.
    """

    def __init__(self) -> None:
        self.slots: dict[Path, Slot] = {}
        self.length = 0
        self._rows, self._alive = 0, None

    _alive: Int[Tensor, " A"] | None

    @property
    def alive(self) -> tuple[Int[Tensor, " A"], int] | None:
        """The rows that are computed, and among how many; None is all of them."""
        return None if self._alive is None else (self._alive, self._rows)

    def leave(self, alive: Int[Tensor, " A"] | None, rows: int) -> None:
        """Only these of so many rows are computed in the steps to come; None is all of them."""
        self._alive, self._rows = alive, rows

    def spread(self, x: Float[Tensor, "A E"]) -> Float[Tensor, "R E"]:
        """A row for each; zeros for those that are left out."""
        return x if self._alive is None else x.new_zeros(self._rows, x.shape[1]).index_copy_(0, self._alive, x)

    def own(self, x: Float[Tensor, "R E"]) -> Float[Tensor, "A E"]:
        """The rows of those that are computed."""
        return x if self._alive is None else x.index_select(0, self._alive)

    def keys(self, path: Path) -> Keys:
        """The slot of a self-attention, new at its first use."""
        return self._slot(path, Keys)

    def kept(self, path: Path, pattern: Single) -> Kept:
        """The slot of some heads of a sparse self-attention, new at its first use."""
        return self._slot(path, Kept, pattern)

    def tail(self, path: Path) -> Tail:
        """The slot of a convolution, or of what is recurrent, new at its first use."""
        return self._slot(path, Tail)

    def _slot(self, path: Path, kind: type[AnySlot], *how: Single) -> AnySlot:
        if path not in self.slots:
            self.slots[path] = kind(*how)
        slot = self.slots[path]
        assert isinstance(slot, kind)
        return slot

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Row r goes on from what row rows[r] remembers; rows change places within their sentence, or become more."""
        move = Move(rows)
        for slot in self.slots.values():
            slot.reorder(move)

    def keep(self, sentences: Int[Tensor, " B"], beam: int) -> None:
        """Only these sentences go on; those that keep their place cost nothing."""
        rows = (sentences[:, None] * beam + torch.arange(beam, device=sentences.device)).flatten()
        moves = Move(sentences), Move(rows)
        for slot in self.slots.values():
            slot.keep(*moves)

    def trim(self, length: int) -> None:
        """Go back to where only the first `length` tokens had been seen."""
        self.length = min(self.length, length)
        for slot in self.slots.values():
            slot.trim(length)
