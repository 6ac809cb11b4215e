"""Linear maps, and how those of a finished model are made quick on a CPU.

PyTorch hands a product to a library that lays both factors out anew each time. A finished model multiplies by the same weights
again and again, often a handful of rows at a time: so its weights are laid out once, by oneDNN, and a few rows may be
multiplied from the other side. The results are those of `functional.linear` but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from qkv import device as machine

FEW = 16  # rows
WIDE = 4096  # columns of the result, above which it costs too much to turn it back

Product = Callable[[Float[Tensor, "... D"]], Float[Tensor, "... E"]]


class Linear(nn.Linear):
    """x -> x W^T + offset."""

    packed: Product | None = None

    def forward(self, input: Float[Tensor, "... D"]) -> Float[Tensor, "... E"]:
        return multiply(input, self.weight, self.bias, self.packed)

    def product(self) -> Product:
        """This map for many calls that want no gradient."""
        return self.packed or self.forward


def multiply(
    x: Float[Tensor, "... D"], weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None, packed: Product | None
) -> Float[Tensor, "... E"]:
    """x W^T + offset, by way of what was packed where there is such a thing and nobody wants a gradient."""
    return functional.linear(x, weight, offset) if packed is None or torch.is_grad_enabled() else packed(x)


def packed(weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None = None) -> Product:
    """x -> x W^T + offset for a weight that changes no more, with a copy of it as oneDNN likes it."""
    weight, offset = weight.detach(), None if offset is None else offset.detach()
    laid_out = machine.packed_weight(weight)
    if weight.dtype != torch.float32 or not machine.turns() or len(weight) > WIDE:
        return lambda x: machine.packed_product(x, laid_out, offset)
    few, most = of_few_rows(weight, offset), FEW * weight.shape[1]
    return lambda x: few(x) if x.numel() <= most else machine.packed_product(x, laid_out, offset)


def in_eight_bits(weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None = None) -> Product:
    """x -> x W^T + offset, with W rounded to eight bits, row by row."""
    laid_out = machine.int8_weight(weight, offset)
    return lambda x: machine.int8_product(x, laid_out)


def of_few_rows(weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None) -> Product:
    """x -> x W^T + offset for a handful of rows, with the weight as it lies."""
    width, turned = weight.shape[1], machine.turns()
    column = weight.new_zeros(1, 1) if offset is None else offset[:, None]

    def product(x: Tensor) -> Tensor:
        if x.numel() == width or not turned:
            return functional.linear(x, weight, offset)
        y = torch.addmm(column, weight, x.view(-1, width).t())
        return y.t().contiguous().view(*x.shape[:-1], -1)

    return product
