"""How queries ask: what a score has to learn, the vectors that it is the dot product of, and what becomes of its softmax."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from qkv.attention.choice import centres
from qkv.attention.score import folded_keys, folded_queries
from qkv.attention.sight import Sight
from qkv.spec.choice import Choice, Near, predicts
from qkv.spec.score import Dot, Product, Score, folds, learns


class Scored(nn.Module):
    """A score of so many heads. One that folds is folded where queries and keys are made, before keys are remembered: what asks
    them sees dot products."""

    def __init__(self, spec: Score, heads: int, width: int, choice: Choice) -> None:
        super().__init__()
        self.spec, self.choice = spec, choice
        self.names, own = tuple(learns(spec, heads, width)), learns(spec, heads, width) | predicts(choice, heads, width)
        for name, shape in own.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.looks = isinstance(choice, Near)
        self.plain = isinstance(spec, Product)
        self.said: Score = Dot() if folds(spec) and not self.plain else spec

    @property
    def how(self) -> dict[str, Any]:
        """What a call is to be given along: its score, what that learns, and the choice."""
        return {"score": self.said, "learned": {} if folds(self.spec) else self._own(), "choice": self.choice}

    def queries(self, q: Float[Tensor, "B H T K"]) -> Float[Tensor, "B H T _"]:
        """The vectors of queries."""
        return folded_queries(self.spec, self._own(), q) if folds(self.spec) else q

    def keys(self, k: Float[Tensor, "B G S K"]) -> Float[Tensor, "B G S _"]:
        """The vectors of keys."""
        return folded_keys(self.spec, k) if folds(self.spec) else k

    def centre(
        self, q: Float[Tensor, "B H T K"], at: Int[Tensor, " T"], keys: Sight, count: int
    ) -> Float[Tensor, "#B #H T"] | None:
        """Where queries that stand at these places look, before they are folded; None where they look everywhere."""
        learned = {name: getattr(self, name) for name in predicts(self.choice, 1, 1)}
        return centres(self.choice, learned, q, at, keys, count)

    def _own(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.names}
