"""What a pass lets out besides its result, only if asked, and only from the places asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from qkv.attention.call import Call
from qkv.attention.reference import log_probability, weights
from qkv.model.state import Path


class Ponder(NamedTuple):
    """How many steps each position of a recurrence made before it halted, and the remainder that was the weight of its last
    step: 0 where it never halted. The remainder has a gradient. Where a position is padding both are 0."""

    steps: Float[Tensor, "B T"]
    remainder: Float[Tensor, "B T"]


class Trace:
    """Attention weights by path, for which the softmax is recomputed beside the fused kernel, which stays in use; ponder times by
    path, wherever positions halt by themselves; and, where keys were drawn, the log probabilities of these."""

    def __init__(self, wants: Callable[[Path], bool] = lambda path: True) -> None:
        self._wants = wants
        self.weights: dict[Path, Float[Tensor, "B H T S"]] = {}
        self.pondered: dict[Path, Ponder] = {}
        self.chosen: dict[Path, Float[Tensor, "B H T"]] = {}
        self.told: Float[Tensor, "B T"] | None = None  # the loss of each prediction, for those who chose

    def attention(self, path: Path, *calls: Call) -> None:
        """Note the weights of a call, or of several one after the other, if their path is asked for."""
        if self._wants(path):
            self.weights[path] = torch.cat([weights(call).detach() for call in calls], 2)

    def choice(self, path: Path, *calls: Call) -> None:
        """Note the log probabilities of the keys that were drawn, of calls one after the other; they have a gradient."""
        self.chosen[path] = torch.cat([log_probability(call) for call in calls], 2)

    def ponder(self, path: Path, steps: Float[Tensor, "..."], remainder: Float[Tensor, "..."]) -> None:
        """Note how long the positions of a recurrence took."""
        self.pondered[path] = Ponder(steps, remainder)
