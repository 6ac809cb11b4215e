"""The position-wise feed-forward sublayer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from qkv.model.context import Context, Step
from qkv.model.linear import Linear
from qkv.spec import part

ACTIVATIONS: dict[part.Activation, Callable[[Tensor], Tensor]] = {
    part.ReLU(): lambda x: functional.relu(x, inplace=True),
    part.LeakyReLU(): lambda x: functional.leaky_relu(x, 0.2),
    part.GELU(): functional.gelu,
    part.TanhGELU(): lambda x: functional.gelu(x, approximate="tanh"),
    part.SigmoidGELU(): lambda x: x * torch.sigmoid(1.702 * x),
    part.Swish(): functional.silu,
    part.Tanh(): torch.tanh,
}


class FeedForward(nn.Module):
    """activation(x W1 + b1) W2 + b2 (Vaswani et al. 2017, equation 2); gated, (activation(x W1) * x W3) W2 (Shazeer 2020)."""

    def __init__(self, spec: part.FeedForward, width: int) -> None:
        super().__init__()
        self.into = Linear(width, spec.hidden * (2 if spec.gated else 1), bias=spec.offset)  # gated: what is activated, the gate
        self.out = Linear(spec.hidden, width, bias=spec.offset)
        self.gated, self._activation = spec.gated, ACTIVATIONS[spec.activation]

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        return self.out(self._activated(self.into(x)))

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        into, out, activated = self.into.product(), self.out.product(), self._activated
        return lambda x: out(activated(into(x)))

    def _activated(self, h: Float[Tensor, "... _"]) -> Float[Tensor, "... F"]:
        if not self.gated:
            return self._activation(h)
        active, gate = h.chunk(2, dim=-1)
        return self._activation(active) * gate
