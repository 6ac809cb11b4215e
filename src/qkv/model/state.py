"""What decoding remembers: slots, addressed by the path by which a module was reached.

Rows are hypotheses, `beam` of them for each sentence, those of a sentence side by side. `reorder` and `keep` are written
once, over all slots, so that the search never asks what the model is.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.attention.sight import Sight

Path = tuple[str, ...]


@runtime_checkable
class Slot(Protocol):
    """What one sublayer remembers."""

    def reorder(self, rows: Int[Tensor, " R"]) -> None: ...

    def keep(self, sentences: Int[Tensor, " B"], rows: Int[Tensor, " R"]) -> None: ...


class Keys:
    """Keys and values of the tokens so far; time stands first, so that a step writes one slab and copies nothing."""

    def __init__(self) -> None:
        self.length = 0
        self._buffers: list[Tensor] = []  # keys, values, and their spares: (capacity, R, H, K)

    def append(self, k: Float[Tensor, "R H T K"], v: Float[Tensor, "R H T K"]) -> tuple[Tensor, Tensor]:
        """Take the keys and values of the next tokens; give back all of them, (R, H, S, K)."""
        end = self.length + k.shape[2]
        if not self._buffers or end > self._buffers[0].shape[0]:
            self._grow(end, k)
        for buffer, new in zip(self._buffers, (k, v), strict=False):
            buffer[self.length : end] = new.permute(2, 0, 1, 3)
        self.length = end
        return self._view(0), self._view(1)

    def _view(self, which: int) -> Tensor:
        return self._buffers[which][: self.length].permute(1, 2, 0, 3)

    def _grow(self, end: int, like: Tensor) -> None:
        rows, heads, _, width = like.shape
        capacity = max(16, 2 * end)
        grown = [like.new_empty(capacity, rows, heads, width) for _ in range(4)]
        for old, new in zip(self._buffers[:2], grown, strict=False):
            new[: self.length] = old[: self.length]
        self._buffers = grown

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        keys, values, spare_keys, spare_values = self._buffers
        for old, new in ((keys, spare_keys), (values, spare_values)):
            torch.index_select(old[: self.length], 1, rows, out=new[: self.length])
        self._buffers = [spare_keys, spare_values, keys, values]

    def keep(self, sentences: Int[Tensor, " B"], rows: Int[Tensor, " R"]) -> None:
        kept = [buffer.new_empty(buffer.shape[0], len(rows), *buffer.shape[2:]) for buffer in self._buffers]
        for old, new in zip(self._buffers[:2], kept, strict=False):
            torch.index_select(old[: self.length], 1, rows, out=new[: self.length])
        self._buffers = kept


class Once:
    """Keys and values that never change: the projected memory of a sentence, shared by all its hypotheses."""

    def __init__(self, k: Float[Tensor, "B H S K"], v: Float[Tensor, "B H S K"], sight: Sight) -> None:
        self.k, self.v, self.sight = k, v, sight

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Unmoved: hypotheses change places within their sentence only."""

    def keep(self, sentences: Int[Tensor, " B"], rows: Int[Tensor, " R"]) -> None:
        self.k, self.v, self.sight = self.k[sentences], self.v[sentences], self.sight.keep(sentences)


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
        """Row r goes on from what row rows[r] remembers; rows change places within their sentence."""
        for slot in self.slots.values():
            slot.reorder(rows)

    def keep(self, sentences: Int[Tensor, " B"], beam: int) -> None:
        """Only these sentences go on."""
        rows = (sentences[:, None] * beam + torch.arange(beam, device=sentences.device)).flatten()
        for slot in self.slots.values():
            slot.keep(sentences, rows)
