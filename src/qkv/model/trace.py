"""What a pass lets out besides its result, only if asked, and only from the places asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from qkv.attention.call import Call
from qkv.attention.reference import weights
from qkv.model.state import Path


class Ponder(NamedTuple):
    """How many steps each position of a recurrence made before it halted, and the remainder that was the weight of its last
    step: 0 where it never halted. The remainder has a gradient. Where a position is padding both are 0."""

    steps: Float[Tensor, "B T"]
    remainder: Float[Tensor, "B T"]


class Trace:
    """Attention weights by path, for which the softmax is recomputed beside the fused kernel, which stays in use; and ponder
    times by path, wherever positions halt by themselves."""

    def __init__(self, wants: Callable[[Path], bool] = lambda path: True) -> None:
        self._wants = wants
        self.weights: dict[Path, Float[Tensor, "B H T S"]] = {}
        self.pondered: dict[Path, Ponder] = {}

    def attention(self, path: Path, call: Call) -> None:
        """Note the weights of a call if its path is asked for."""
        if self._wants(path):
            self.weights[path] = weights(call).detach()

    def ponder(self, path: Path, steps: Float[Tensor, "..."], remainder: Float[Tensor, "..."]) -> None:
        """Note how long the positions of a recurrence took."""
        self.pondered[path] = Ponder(steps, remainder)
