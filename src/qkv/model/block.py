"""Sublayers in a row, each beside its residual connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qkv.model.attention import Attention, MemoryAttention
from qkv.model.context import Context, Step
from qkv.model.convolution import SeparableFeedForward
from qkv.model.feedforward import FeedForward
from qkv.model.recurrent import Recurrent
from qkv.spec import part

AnySublayer = Attention | MemoryAttention | FeedForward | SeparableFeedForward | Recurrent


def sublayer(spec: part.Sublayer, width: int) -> AnySublayer:
    """The module of a sublayer."""
    match spec:
        case part.Attention():
            return Attention(spec, width)
        case part.MemoryAttention():
            return MemoryAttention(spec, width)
        case part.FeedForward():
            return FeedForward(spec, width)
        case part.SeparableFeedForward():
            return SeparableFeedForward(spec, width)
        case part.Recurrent():
            return Recurrent(spec, width)


AnyNorm = nn.LayerNorm | nn.RMSNorm


def norm_of(spec: part.Norm, width: int) -> AnyNorm:
    """The module of a norm."""
    return (nn.LayerNorm if isinstance(spec.by, part.LayerNorm) else nn.RMSNorm)(width, eps=spec.epsilon)


def closing(spec: part.Norm, width: int) -> nn.Module:
    """What closes blocks of such norms: one more norm where they stand before the sublayers."""
    return norm_of(spec, width) if isinstance(spec, part.PreNorm) else nn.Identity()


def normaliser(norm: AnyNorm) -> Step:
    """A norm for many calls."""
    if isinstance(norm, nn.RMSNorm):
        return norm.forward
    shape, weight, bias, epsilon = norm.normalized_shape, norm.weight, norm.bias, norm.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, epsilon)


def in_a_row(steps: Sequence[Step]) -> Step:
    """One step after the other."""

    def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R E"]:
        for each in steps:
            x = each(x)
        return x

    return step


class Residual(nn.Module):
    """One sublayer with its norm, its dropout and the connection around it (Vaswani et al. 2017, sections 3.1 and 5.4)."""

    def __init__(self, spec: part.Sublayer, norm: part.Norm, dropout: float, width: int) -> None:
        super().__init__()
        self.sublayer = sublayer(spec, width)
        self.norm = norm_of(norm, width)
        self.before = isinstance(norm, part.PreNorm)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        if self.before:
            return self._add(x, self.sublayer(self.norm(x), ctx), ctx)
        return self.norm(self._add(x, self.sublayer(x, ctx), ctx))

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        through, norm = self.sublayer.stepper(ctx), normaliser(self.norm)
        if self.before:
            return lambda x: x + through(norm(x))
        return lambda x: norm(x + through(x))

    def _add(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        if ctx.noise is None or self.dropout == 0:
            return x + y
        return torch.addcmul(x, y, ctx.noise.mask(y, self.dropout, ctx.path))


class Block(nn.Module):
    """Sublayers in a row."""

    def __init__(self, spec: part.Block, width: int) -> None:
        super().__init__()
        self.sublayers = nn.ModuleList(Residual(s, spec.norm, spec.dropout, width) for s in spec.sublayers)

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        for index, residual in enumerate(self.sublayers):
            x = residual(x, ctx.at(str(index)))
        return x

    def stay(self, ctx: Context) -> None:
        """A step of a recurrence at which every position has halted: what others see of it is put into the slots."""
        for index, residual in enumerate(self.sublayers):
            sublayer = cast(Residual, residual).sublayer
            if isinstance(sublayer, Attention | SeparableFeedForward):
                sublayer.stay(ctx.at(str(index)))

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        return in_a_row([cast(Residual, residual).stepper(ctx.at(str(index))) for index, residual in enumerate(self.sublayers)])
