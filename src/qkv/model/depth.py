"""Blocks one upon the other."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from qkv.model.block import Block
from qkv.model.context import Context
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
