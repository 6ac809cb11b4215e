"""The position-wise feed-forward sublayer."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from qkv.model.context import Context, Step
from qkv.model.linear import Linear
from qkv.spec import part


class FeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2 (Vaswani et al. 2017, equation 2)."""

    def __init__(self, spec: part.FeedForward, width: int) -> None:
        super().__init__()
        self.into = Linear(width, spec.hidden)
        self.out = Linear(spec.hidden, width)

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        return self.out(functional.relu(self.into(x), inplace=True))

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        into, out = self.into.product(), self.out.product()
        return lambda x: out(into(x).relu_())
