"""One call of attention: queries, keys, values, and who may see whom. It knows nothing of where they came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qkv.attention.sight import Plain, Sight
from qkv.spec.pattern import Full, Pattern


@dataclass(frozen=True, slots=True)
class Call:
    """Queries q against keys k with values v.

    Keys stand at positions 0 .. S-1, queries at first .. first+T-1. A query that may see nothing receives nothing (zeros).
    """

    q: Float[Tensor, "B H T K"]
    k: Float[Tensor, "B H S K"]
    v: Float[Tensor, "B H S K"]
    pattern: Pattern = Full()
    keys: Sight = field(default_factory=Plain)
    first: int = 0

    def mask(self) -> Bool[Tensor, "#B 1 #T S"] | None:
        """True where a query may see a key; None where all of them may see all."""
        queries, keys = self.q.shape[2], self.k.shape[2]
        present = self.keys.present(keys)
        if self.pattern.spares(self.first, keys):
            return present
        i = torch.arange(self.first, self.first + queries, device=self.q.device)
        j = torch.arange(keys, device=self.q.device)
        allowed = self.pattern.allows(i[:, None], j[None, :])[None, None]
        return allowed if present is None else allowed & present
