"""The likeliest token without all scores.

To choose greedily takes one number out of as many as the vocabulary has entries. To compute them all, the whole table is read
from memory, which for a small model is a third of what a token costs. Here they are computed in eight bits first, which reads a
quarter of it; how far each can be off is known (Cauchy and Schwarz), and those that can be the largest, a few hundred, are
computed in full. What comes of it is the largest score, not nearly the largest.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from qkv import device as machine
from qkv.decode.sample import greedy
from qkv.model.linear import InEightBits
from qkv.model.transformer import DecoderOnly

LARGE = 2**25  # bytes of a table, from which reading it is what costs
SLAB = 4096  # entries whose rounding is measured at once
SUMMED = 64  # times the smallest difference that fp32 knows: by more no sum of products is off
ROWS, TOKENS = 4, 64  # at most so many rows, and at least so many tokens, pay for the rounding of a table


class Peak:
    """The entry with the largest score, for a model that changes no more."""

    def __init__(self, model: DecoderOnly) -> None:
        self._model, self._table = model, model.output.weight.detach()
        self._rounded = machine.int8_weight(self._table, None)
        parts = self._table.split(SLAB)
        self._norms = torch.cat([part.float().norm(dim=1) for part in parts])
        self._distances = torch.cat([machine.int8_distances(part) for part in parts])

    @staticmethod
    def serves(model: DecoderOnly, rows: int, length: int) -> bool:
        """Whether this is any quicker: where reading a large table is what costs, it is not read in eight bits anyhow, and what
        is written pays for rounding it."""
        table = model.output.weight
        large = table.device.type == "cpu" and table.numel() * table.itemsize >= LARGE
        worth = large and rows <= ROWS and length >= TOKENS
        return worth and machine.has_int8() and not isinstance(model.output.packed, InEightBits)

    @torch.inference_mode()
    def __call__(self, hidden: Float[Tensor, "R D"], allowed: Bool[Tensor, " V"]) -> Int[Tensor, " R"]:
        """The allowed entry with the largest score, for each row: the first, if several are equal."""
        ready = self._model.head.ready(hidden)
        if not ready.isfinite().all():
            return greedy(self._model.logits(hidden))  # which finds the words for it
        near, far = self._near(ready)
        least = (near - far).masked_fill_(~allowed, -math.inf).amax(1, keepdim=True)
        hopeful = (near + far >= least) & allowed
        return torch.stack([self._largest(x, some.nonzero().flatten()) for x, some in zip(ready, hopeful, strict=True)])

    def _near(self, ready: Float[Tensor, "R D"]) -> tuple[Float[Tensor, "R V"], Float[Tensor, "R V"]]:
        """All scores in eight bits, and how far off each can be: with W and x rounded to V and y,
        |w x - v y| <= |w - v| |x| + |v| |x - y|, and |v| <= |w| + |w - v|."""
        x = ready.float()
        near = machine.int8_product(x, self._rounded)
        if (offset := self._model.head.offset) is not None:
            near += offset
        norms, moved = x.norm(dim=1, keepdim=True), machine.int8_step(x) * math.sqrt(x.shape[1])
        summed = SUMMED * torch.finfo(torch.float32).eps * norms
        far = (norms + moved) * self._distances + (moved + summed) * self._norms
        if ready.dtype != torch.float32:  # the scores are rounded once more
            far += torch.finfo(ready.dtype).eps * (near.abs() + far)
        return near, far

    def _largest(self, x: Float[Tensor, " D"], entries: Int[Tensor, " n"]) -> Int[Tensor, ""]:
        """The one with the largest score among some entries."""
        scores = functional.linear(x[None], self._table[entries])[0]
        if (offset := self._model.head.offset) is not None:
            scores = scores + offset[entries]
        return entries[scores.argmax()]
