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
from qkv.model.position import Places, trained_vectors
from qkv.spec import model as spec
from qkv.spec.model import Normed, Sentences


class Table(nn.Module):
    """A matrix with a row for every entry of a vocabulary."""

    packed: Product | None = None  # the same matrix as the output map of a finished model

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(entries, width))

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """How well vectors match every entry."""
        return multiply(hidden, self.weight, None, self.packed)


class Entries(Table):
    """No matrix: what comes in is a score for every entry already."""

    def __init__(self, entries: int) -> None:
        nn.Module.__init__(self)
        self.register_buffer("weight", torch.empty(entries, 0), persistent=False)

    def logits(self, hidden: Float[Tensor, "... V"]) -> Float[Tensor, "... V"]:
        return hidden


class Embedding(Table):
    """ids -> vectors: dropout(norm(scale * table[id] + position + segment)) (Vaswani et al. 2017, sections 3.4, 3.5 and 5.4);
    of a sentence, table[id] is the sum over its words."""

    def __init__(self, spec: spec.Embedding, entries: int, width: int) -> None:
        super().__init__(entries, width)
        self.spec = spec
        self.places = trained_vectors(spec.position, width)
        self.segments = nn.Parameter(torch.empty(spec.segments, width)) if spec.segments else None
        self.norm = nn.LayerNorm(width, eps=spec.norm.epsilon) if isinstance(spec.norm, Normed) else None
        self.words = nn.Parameter(torch.empty(spec.unit.longest, width)) if isinstance(spec.unit, Sentences) else None
        self._places = Places(spec.position, width)

    def forward(self, ids: Int[Tensor, "B T *words"], ctx: Context) -> Float[Tensor, "B T D"]:
        """Where a position is a sentence, it has words, and -1 where there are no more."""
        scale = math.sqrt(self.weight.shape[1]) if self.spec.scale else 1.0
        x = functional.embedding(ids, self.weight) if self.words is None else self._sentences(ids, self.words)
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

    def _sentences(self, ids: Int[Tensor, "B T words"], masks: Float[Tensor, "longest D"]) -> Float[Tensor, "B T D"]:
        """The sum of the vectors of the words, each times the mask of its place."""
        count = ids.shape[2]
        if count > len(masks):
            raise QkvError(f"the model knows sentences of {len(masks)} words, and one has {count}: train it with a longer unit")
        there = (ids >= 0)[..., None]
        return (functional.embedding(ids.clamp(min=0), self.weight) * there * masks[:count]).sum(2)

    def _beside(self, ctx: Context, length: int) -> Float[Tensor, "... T D"] | None:
        """What is added to the vectors of the tokens: their places and, all in the first, their segment."""
        places = self._places(self.places, self.weight, ctx.sight, ctx.first, length, ctx.noise)
        if self.segments is None:
            return places
        return self.segments[:1] if places is None else places + self.segments[:1]
