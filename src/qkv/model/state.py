"""What decoding remembers: slots, addressed by the path by which a module was reached.

Rows are hypotheses, equally many for each sentence, those of a sentence side by side. `reorder` and `keep` are written once,
over all slots, so that the search never asks what the model is; only rows that change their place are copied.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from qkv.attention.sight import Sight

Path = tuple[str, ...]


class Move:
    """New rows from old ones: new row r is old row `rows[r]`. Most stay where they are, and none of these is touched."""

    def __init__(self, rows: Int[Tensor, " R"]) -> None:
        self.rows = rows
        self._to = (rows != torch.arange(len(rows), device=rows.device)).nonzero().flatten()
        self._from = rows[self._to]

    def apply(self, held: Float[Tensor, "old N ..."], used: int) -> Float[Tensor, "new N ..."]:
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
        self._held: Float[Tensor, "R capacity 2 H K"] | None = None  # of a token first its keys, then its values

    def append(self, k: Float[Tensor, "R H T K"], v: Float[Tensor, "R H T K"]) -> tuple[Tensor, Tensor]:
        """Take the keys and values of the next tokens; give back all of them, (R, H, S, K)."""
        end = self.length + k.shape[2]
        rows, heads, _, width = k.shape
        held = self._held = roomy(self._held, self.length, end, k.new_empty(rows, 0, 2, heads, width))
        new = held[:, self.length : end].permute(2, 0, 3, 1, 4)
        new[0], new[1] = k, v
        self.length = end
        keys, values = held[:, :end].permute(2, 0, 3, 1, 4)
        return keys, values

    def reorder(self, rows: Move) -> None:
        self._held = _moved(self._held, rows, self.length)

    def keep(self, sentences: Move, rows: Move) -> None:
        self.reorder(rows)

    def trim(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self.length = min(self.length, length)


class Tail:
    """What a convolution has seen: of all tokens so far, since a text may be trimmed to any of them."""

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

    def reorder(self, rows: Move) -> None:
        self._held = _moved(self._held, rows, self.length)

    def keep(self, sentences: Move, rows: Move) -> None:
        self.reorder(rows)

    def trim(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self.length = min(self.length, length)


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
    """Keys and values that never change: the projected memory of a sentence, shared by all its hypotheses."""

    def __init__(self, k: Float[Tensor, "B H S K"], v: Float[Tensor, "B H S K"], sight: Sight) -> None:
        self.k, self.v, self.sight = k, v, sight

    def reorder(self, rows: Move) -> None:
        """Unmoved: hypotheses change places within their sentence only."""

    def keep(self, sentences: Move, rows: Move) -> None:
        self.k, self.v = (sentences.apply(each, each.shape[1]) for each in (self.k, self.v))
        self.sight = self.sight.keep(sentences.rows)

    def trim(self, length: int) -> None:
        """Nothing: it has no part in how far decoding has come."""


AnySlot = TypeVar("AnySlot", Keys, Tail)


class State:
    """All slots of one decoding, and how far it has come."""

    def __init__(self) -> None:
        self.slots: dict[Path, Slot] = {}
        self.length = 0

    def keys(self, path: Path) -> Keys:
        """The slot of a self-attention, new at its first use."""
        return self._slot(path, Keys)

    def tail(self, path: Path) -> Tail:
        """The slot of a convolution, new at its first use."""
        return self._slot(path, Tail)

    def _slot(self, path: Path, kind: type[AnySlot]) -> AnySlot:
        slot = self.slots.setdefault(path, kind())
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
