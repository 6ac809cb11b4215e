"""One call of attention: queries, keys, values, and who may see whom. It knows nothing of where they came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qkv.attention.sight import Plain, Sight
from qkv.spec.pattern import Full, Pattern
from qkv.spec.score import ScaledDot, Score


@dataclass(frozen=True, slots=True)
class Call:
    """Queries q against keys k with values v.

    Keys stand at positions 0 .. S-1, queries at first .. first+T-1. A query that may see nothing receives nothing (zeros). With G
    heads of keys and values, fewer than H, head h asks those of number h // (H/G). The bias, if there is one, is added to the
    scores.
    """

    q: Float[Tensor, "B H T K"]
    k: Float[Tensor, "B G S K"]
    v: Float[Tensor, "B G S K"]
    pattern: Pattern = Full()
    keys: Sight = field(default_factory=Plain)
    first: int = 0
    score: Score = ScaledDot()
    bias: Float[Tensor, "#B H T S"] | None = None

    def mask(self) -> Bool[Tensor, "#B 1 #T S"] | None:
        """True where a query may see a key; None where all of them may see all."""
        queries, keys = self.q.shape[2], self.k.shape[2]
        visible = self.keys.visible(self.first, queries, keys)
        if self.pattern.spares(self.first, keys):
            return visible
        i = torch.arange(self.first, self.first + queries, device=self.q.device)
        j = torch.arange(keys, device=self.q.device)
        allowed = self.pattern.allows(i[:, None], j[None, :])[None, None]
        return allowed if visible is None else allowed & visible

    def scale(self) -> float:
        """What the dot products are multiplied by."""
        return self.score.scale(self.q.shape[3])

    def per_head(self, x: Float[Tensor, "B G S K"]) -> Float[Tensor, "B H S K"]:
        """Keys or values, one for each head of the queries."""
        heads, groups = self.q.shape[1], x.shape[1]
        return x if heads == groups else x.repeat_interleave(heads // groups, dim=1)
