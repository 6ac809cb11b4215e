"""From the vectors of the last block to a score for every entry."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from qkv.error import QkvError
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


class Spelling(nn.Module):
    """A vector for each label: the sum of those of its words, from the second on each times a trained mask for its place."""

    def __init__(self, how: spec.Spelled, width: int) -> None:
        super().__init__()
        self.spec = how
        rows = {entry: row for row, entry in enumerate(how.entries)}
        self._words = [(rows[word], label, place) for label, said in enumerate(how.words) for place, word in enumerate(said)]
        self.weight = nn.Parameter(torch.empty(len(how.entries), width))
        self.masks = nn.Parameter(torch.empty(how.longest - 1, width)) if how.longest > 1 else None

    def forward(self) -> Float[Tensor, "L D"]:
        """Raises QkvError where nobody has said which the words are."""
        if not self.spec.words:
            raise QkvError("nobody has said which words the labels are: Spelled((...)) names the entries of each")
        numbers, labels, places = torch.tensor(self._words, device=self.weight.device).unbind(1)
        vectors = functional.embedding(numbers, self.weight)
        if self.masks is not None:
            vectors = vectors * torch.cat([torch.ones_like(self.masks[:1]), self.masks])[places]
        return vectors.new_zeros(len(self.spec.words), vectors.shape[1]).index_add(0, labels, vectors)
