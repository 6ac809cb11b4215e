"""From the vectors of the last block to a score for every entry."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qkv.model.embedding import Table
from qkv.model.feedforward import ACTIVATIONS
from qkv.model.linear import Linear
from qkv.spec import model as spec


class Transform(nn.Module):
    """norm(activation(linear(x))) (Devlin et al. 2018, as released)."""

    def __init__(self, how: spec.Transform, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=how.epsilon)
        self._activation = ACTIVATIONS[how.activation]

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return self.norm(self._activation(self.linear(x)))


class Output(nn.Module):
    """logits = ready(x) W^T + offset, where W is the table of an embedding, or one that serves here alone."""

    def __init__(self, how: spec.Output, entries: int, width: int) -> None:
        super().__init__()
        self.transform = Transform(how.transform, width) if isinstance(how.transform, spec.Transform) else nn.Identity()
        self.offset = nn.Parameter(torch.empty(entries)) if how.offset else None
        self._scale = width**-0.5 if how.scaled else 1.0

    def ready(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """What is multiplied by the table."""
        x = self.transform(x)
        return x if self._scale == 1.0 else x * self._scale

    def logits(self, x: Float[Tensor, "... D"], table: Table) -> Float[Tensor, "... V"]:
        """A score for every entry."""
        scores = table.logits(self.ready(x))
        return scores if self.offset is None else scores + self.offset
