"""The parts of a model: sublayers, norms, blocks and stacks, as frozen values.

Every choice is a value. `Stack(Block(Attention(8), FeedForward(2048)), depth=6)` is Vaswani et al.'s encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from qkv.error import QkvError
from qkv.spec.pattern import Full, Pattern


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise QkvError(f"{type(owner).__name__}.{name} must be a whole number of at least 1, not {value!r}")


@dataclass(frozen=True)
class ReLU:
    """max(0, x)."""


@dataclass(frozen=True)
class PostNorm:
    """x = norm(x + sublayer(x)): the norm of Vaswani et al. 2017, section 3.1."""

    epsilon: float = 1e-5


@dataclass(frozen=True)
class PreNorm:
    """x = x + sublayer(norm(x)); a stack of such blocks ends with one more norm (Xiong et al. 2020)."""

    epsilon: float = 1e-5


Norm = PostNorm | PreNorm


@dataclass(frozen=True)
class Attention:
    """Multi-head attention of a sequence to itself (Vaswani et al. 2017, section 3.2.2); a head is width / heads wide."""

    heads: int
    pattern: Pattern = Full()
    offset: bool = False

    def __post_init__(self) -> None:
        _positive(self, "heads")


@dataclass(frozen=True)
class MemoryAttention:
    """Multi-head attention of the decoder to what the encoder made of the source (also called cross attention)."""

    heads: int
    offset: bool = False

    def __post_init__(self) -> None:
        _positive(self, "heads")


@dataclass(frozen=True)
class FeedForward:
    """Two linear maps with offsets and an activation between (Vaswani et al. 2017, section 3.3, equation 2)."""

    hidden: int
    activation: ReLU = ReLU()

    def __post_init__(self) -> None:
        _positive(self, "hidden")


Sublayer = Attention | MemoryAttention | FeedForward


@dataclass(frozen=True, init=False)
class Block:
    """Sublayers in a row, each with a residual connection, a norm, and dropout before the residual is added."""

    sublayers: tuple[Sublayer, ...]
    norm: Norm
    dropout: float

    def __init__(self, *sublayers: Sublayer, norm: Norm = PostNorm(), dropout: float = 0.0) -> None:
        if not sublayers:
            raise QkvError("a Block needs at least one sublayer, such as Attention(8)")
        if not 0 <= dropout < 1:
            raise QkvError(f"Block.dropout is a probability below 1, not {dropout!r}")
        object.__setattr__(self, "sublayers", tuple(sublayers))
        object.__setattr__(self, "norm", norm)
        object.__setattr__(self, "dropout", dropout)


@dataclass(frozen=True, init=False)
class Stack:
    """Blocks one upon the other with weights of their own; the given blocks are tiled over the depth."""

    blocks: tuple[Block, ...]
    depth: int

    def __init__(self, *blocks: Block, depth: int) -> None:
        if not blocks:
            raise QkvError("a Stack needs at least one Block")
        object.__setattr__(self, "blocks", tuple(blocks))
        object.__setattr__(self, "depth", depth)
        _positive(self, "depth")

    def tiled(self) -> tuple[Block, ...]:
        """The blocks as they stand, from the lowest to the highest, `depth` of them."""
        return tuple(self.blocks[level % len(self.blocks)] for level in range(self.depth))
