"""Blocks one upon the other, or one again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qkv.model.block import AnyNorm, Block, closing, in_a_row, normaliser
from qkv.model.cell import Cell, unit
from qkv.model.context import Context, Step
from qkv.model.position import RelativeBias
from qkv.model.recurrence import Recurrence
from qkv.spec import part
from qkv.spec.position import NoBias


class Stack(nn.Module):
    """Different weights at every level; where the norm stands before each sublayer, one more norm closes the stack."""

    def __init__(self, spec: part.Stack, width: int) -> None:
        super().__init__()
        blocks = spec.tiled()
        self.blocks = nn.ModuleList(unit(block, width) for block in blocks)
        self.norm = closing(blocks[-1].norm, width)
        self.recomputes = False
        self.bias = nn.Identity() if isinstance(spec.bias, NoBias) else RelativeBias(spec.bias, spec.heads().pop())

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        ctx = self._biased(ctx)
        for level, block in enumerate(self.blocks):
            x = self._through(cast(Block | Cell, block), x, ctx.at(str(level)))
        return self.norm(x)

    def _through(self, block: Block | Cell, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        """A block; if it is to be computed anew on the way back, what it has in between is forgotten meanwhile. Its dropout is a
        function of the step, and so the same again (Child et al. 2019, section 5.4)."""
        if not (self.recomputes and torch.is_grad_enabled()):
            return block(x, ctx)
        return cast(Tensor, checkpoint(block, x, ctx, use_reentrant=False, preserve_rng_state=False))

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        ctx = self._biased(ctx)
        steps = [cast(Block | Cell, block).stepper(ctx.at(str(level))) for level, block in enumerate(self.blocks)]
        return in_a_row(steps if isinstance(self.norm, nn.Identity) else [*steps, normaliser(cast(AnyNorm, self.norm))])

    def _biased(self, ctx: Context) -> Context:
        return replace(ctx, bias=self.bias.during_a_pass()) if isinstance(self.bias, RelativeBias) else ctx


def deep(spec: part.Depth, width: int) -> Stack | Recurrence:
    """The module of a stack or a recurrence."""
    return Stack(spec, width) if isinstance(spec, part.Stack) else Recurrence(spec, width)
