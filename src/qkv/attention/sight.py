"""Which keys are there at all: a batch says by construction whether it is plain or padded, nobody looks into tensors to find
out."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Plain:
    """Every key is a token."""

    blank = False

    def present(self, keys: int) -> None:
        """No mask: there is nothing to hide."""

    def keep(self, sentences: Int[Tensor, " kept"]) -> Plain:
        """The same for some of the sentences."""
        return self


@dataclass(frozen=True)
class Padded:
    """Key j of sentence b is a token where j < lengths[b], and padding after; `blank` says whether a sentence may have none."""

    lengths: Int[Tensor, " B"]
    blank: bool = True
    _made: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def present(self, keys: int) -> Bool[Tensor, "B 1 1 S"]:
        """True where a key is a token. Made once, since all layers ask."""
        if keys not in self._made:
            self._made[keys] = (torch.arange(keys, device=self.lengths.device) < self.lengths[:, None])[:, None, None, :]
        return self._made[keys]

    def keep(self, sentences: Int[Tensor, " kept"]) -> Padded:
        """The same for some of the sentences."""
        return Padded(self.lengths[sentences], self.blank)


Sight = Plain | Padded
