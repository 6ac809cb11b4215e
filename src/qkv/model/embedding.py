"""Token vectors and where the tokens stand."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from qkv.model.context import Context
from qkv.model.linear import Product, multiply
from qkv.model.position import sinusoids
from qkv.spec import model as spec


class Embedding(nn.Module):
    """ids -> vectors: dropout(scale * table[id] + position) (Vaswani et al. 2017, sections 3.4, 3.5 and 5.4)."""

    packed: Product | None = None  # the same matrix as the output map of a finished model

    def __init__(self, spec: spec.Embedding, entries: int, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(entries, width))
        self._positions = torch.empty(0, width)  # a table that grows; not a buffer, since it is no part of what was learned

    def forward(self, ids: Int[Tensor, "B T"], ctx: Context) -> Float[Tensor, "B T D"]:
        scale = math.sqrt(self.weight.shape[1]) if self.spec.scale else 1.0
        x = torch.add(self._at(ctx.first, ids.shape[1]), functional.embedding(ids, self.weight), alpha=scale)
        if ctx.noise is None or self.spec.dropout == 0:
            return x
        return x * ctx.noise.mask(x, self.spec.dropout, ctx.path)

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """The same matrix as the output map: a score for every entry."""
        return multiply(hidden, self.weight, None, self.packed)

    def _at(self, first: int, length: int) -> Float[Tensor, "T D"]:
        table = self._positions
        if first + length > len(table) or table.device != self.weight.device or table.dtype != self.weight.dtype:
            grown = sinusoids(self.spec.position, max(64, 2 * (first + length)), self.weight.shape[1])
            table = self._positions = grown.to(self.weight)
        return table[first : first + length]
