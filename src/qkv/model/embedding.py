"""Token vectors and where the tokens stand."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from qkv.error import QkvError
from qkv.model.context import Context
from qkv.model.linear import Product, multiply
from qkv.model.position import sinusoids
from qkv.spec import model as spec
from qkv.spec.model import Normed
from qkv.spec.position import Learned, NoPosition, Sinusoid


class Table(nn.Module):
    """A matrix with a row for every entry of a vocabulary."""

    packed: Product | None = None  # the same matrix as the output map of a finished model

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(entries, width))

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """How well vectors match every entry."""
        return multiply(hidden, self.weight, None, self.packed)


class Embedding(Table):
    """ids -> vectors: dropout(norm(scale * table[id] + position + segment)) (Vaswani et al. 2017, sections 3.4, 3.5 and 5.4)."""

    def __init__(self, spec: spec.Embedding, entries: int, width: int) -> None:
        super().__init__(entries, width)
        self.spec = spec
        self.places = nn.Parameter(torch.empty(spec.position.longest, width)) if isinstance(spec.position, Learned) else None
        self.segments = nn.Parameter(torch.empty(spec.segments, width)) if spec.segments else None
        self.norm = nn.LayerNorm(width, eps=spec.norm.epsilon) if isinstance(spec.norm, Normed) else None
        self._sinusoids = torch.empty(0, width)  # a table that grows; not a buffer, since it is no part of what was learned

    def forward(self, ids: Int[Tensor, "B T"], ctx: Context) -> Float[Tensor, "B T D"]:
        scale = math.sqrt(self.weight.shape[1]) if self.spec.scale else 1.0
        x = functional.embedding(ids, self.weight)
        beside = self._beside(ctx, ids.shape[1])
        if beside is not None:
            x = torch.add(beside, x, alpha=scale)
        elif self.spec.scale:
            x = x * scale
        if self.norm is not None:
            x = self.norm(x)
        if ctx.noise is None or self.spec.dropout == 0:
            return x
        return x * ctx.noise.mask(x, self.spec.dropout, ctx.path)

    def _beside(self, ctx: Context, length: int) -> Float[Tensor, "... T D"] | None:
        """What is added to the vectors of the tokens: their places and, all in the first, their segment."""
        match self.spec.position:
            case NoPosition():
                places = None
            case Learned(longest=longest):
                assert self.places is not None
                # where rows have places of their own, whoever laid them out has measured them
                if ctx.sight.places(ctx.first, length) is None and ctx.first + length > longest:
                    raise QkvError(f"the model knows {longest} places, and a text has {ctx.first + length} tokens: give it less")
                places = _rows(self.places, ctx, length)
            case Sinusoid() as position:
                places = _rows(self._table(position, ctx.first + length), ctx, length)
        if self.segments is None:
            return places
        return self.segments[0] if places is None else places + self.segments[0]

    def _table(self, position: Sinusoid, length: int) -> Float[Tensor, "longer D"]:
        table = self._sinusoids
        if length > len(table) or table.device != self.weight.device or table.dtype != self.weight.dtype:
            table = self._sinusoids = sinusoids(position, max(64, 2 * length), self.weight.shape[1]).to(self.weight)
        return table


def _rows(table: Float[Tensor, "longer D"], ctx: Context, length: int) -> Float[Tensor, "... T D"]:
    """A vector for the place of each token; where all rows have the same places, once for all of them."""
    places = ctx.sight.places(ctx.first, length)
    return table[ctx.first : ctx.first + length] if places is None else functional.embedding(places, table)
