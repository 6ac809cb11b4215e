"""Blocks one upon the other."""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from qkv.model.block import Block, in_a_row, normaliser
from qkv.model.context import Context, Step
from qkv.spec import part


class Stack(nn.Module):
    """Different weights at every level; where the norm stands before each sublayer, one more norm closes the stack."""

    def __init__(self, spec: part.Stack, width: int) -> None:
        super().__init__()
        blocks = spec.tiled()
        self.blocks = nn.ModuleList(Block(block, width) for block in blocks)
        norm = blocks[-1].norm
        self.norm = nn.LayerNorm(width, eps=norm.epsilon) if isinstance(norm, part.PreNorm) else nn.Identity()

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        for level, block in enumerate(self.blocks):
            x = block(x, ctx.at(str(level)))
        return self.norm(x)

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        steps = [cast(Block, block).stepper(ctx.at(str(level))) for level, block in enumerate(self.blocks)]
        return in_a_row([*steps, normaliser(self.norm)] if isinstance(self.norm, nn.LayerNorm) else steps)
