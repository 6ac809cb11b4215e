"""What decoding remembers: slots, addressed by the path by which a module was reached.

Rows are hypotheses, equally many for each sentence, those of a sentence side by side. `reorder` and `keep` are written once,
over all slots, so that the search never asks what the model is; only rows that change their place are copied.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
        held = self._held
        if held is None or end > held.shape[1]:
            held = self._held = self._grown(end, k)
        new = held[:, self.length : end].permute(2, 0, 3, 1, 4)
        new[0], new[1] = k, v
        self.length = end
        keys, values = held[:, :end].permute(2, 0, 3, 1, 4)
        return keys, values

    def _grown(self, end: int, like: Tensor) -> Tensor:
        rows, heads, _, width = like.shape
        grown = like.new_empty(rows, max(16, 2 * end), 2, heads, width)
        if self._held is not None:
            grown[:, : self.length] = self._held[:, : self.length]
        return grown

    def reorder(self, rows: Move) -> None:
        assert self._held is not None, "nothing was appended yet"
        used = self.length * self._held.shape[2:].numel()
        self._held = rows.apply(self._held.flatten(1), used).view(-1, *self._held.shape[1:])

    def keep(self, sentences: Move, rows: Move) -> None:
        self.reorder(rows)

    def trim(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self.length = min(self.length, length)


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


class State:
    """All slots of one decoding, and how far it has come."""

    def __init__(self) -> None:
        self.slots: dict[Path, Slot] = {}
        self.length = 0

    def keys(self, path: Path) -> Keys:
        """The slot of a self-attention, new at its first use."""
        slot = self.slots.get(path)
        if slot is None:
            slot = self.slots[path] = Keys()
        assert isinstance(slot, Keys)
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
