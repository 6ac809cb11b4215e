"""What a pass lets out besides its result, only if asked, and only from the places asked for."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from qkv.attention.call import Call
from qkv.attention.reference import weights
from qkv.model.state import Path


class Trace:
    """Attention weights by path; the softmax is recomputed beside the fused kernel, which stays in use."""

    def __init__(self, wants: Callable[[Path], bool] = lambda path: True) -> None:
        self._wants = wants
        self.weights: dict[Path, Float[Tensor, "B H T S"]] = {}

    def attention(self, path: Path, call: Call) -> None:
        """Note the weights of a call if its path is asked for."""
        if self._wants(path):
            self.weights[path] = weights(call).detach()
