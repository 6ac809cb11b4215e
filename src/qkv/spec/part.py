"""The parts of a model: sublayers, norms, blocks and stacks, as frozen values.

Every choice is a value. `Stack(Block(Attention(8), FeedForward(2048)), depth=6)` is Vaswani et al.'s encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qkv.error import QkvError
from qkv.spec.choice import Choice, Near, Sampled, Soft
from qkv.spec.halt import AllSteps, Halting
from qkv.spec.pattern import Causal, Full, Pattern, by_head
from qkv.spec.pooling import Pooling
from qkv.spec.position import ALiBi, Coordinates, NoBias, NoRotation, Relative, Rotary, Rotation, Signal
from qkv.spec.score import ScaledDot, Score


def positive(owner: object, *names: str) -> None:
    """Raises QkvError where a field is no whole number of at least 1."""
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise QkvError(f"{type(owner).__name__}.{name} must be a whole number of at least 1, not {value!r}")


def refuse_dropout(owner: object, dropout: float) -> None:
    """Raises QkvError for what is no probability of dropout."""
    if not 0 <= dropout < 1:
        raise QkvError(f"{type(owner).__name__}.dropout is a probability below 1, not {dropout!r}")


@dataclass(frozen=True)
class ReLU:
    """max(0, x)."""


@dataclass(frozen=True)
class LeakyReLU:
    """max(0.2 x, x) (Maas et al. 2013), with the slope of the library in which So et al. 2019 searched."""


@dataclass(frozen=True)
class GELU:
    """x times the probability that a standard normal variable is below x (Hendrycks and Gimpel 2016)."""


@dataclass(frozen=True)
class TanhGELU:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the same paper's approximation, which GPT-2 uses."""


@dataclass(frozen=True)
class Swish:
    """x / (1 + e^-x) (Ramachandran et al. 2017); also called SiLU."""


@dataclass(frozen=True)
class SigmoidGELU:
    """x / (1 + e^(-1.702 x)): the other approximation of the same paper, which Child et al. 2019 use."""


@dataclass(frozen=True)
class Tanh:
    """The hyperbolic tangent: what came before all of these."""


Activation = ReLU | LeakyReLU | GELU | TanhGELU | SigmoidGELU | Swish | Tanh


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / deviation x scale + offset (Ba et al. 2016)."""


@dataclass(frozen=True)
class RMSNorm:
    """x / root of its mean square x scale (Zhang and Sennrich 2019; T5)."""


@dataclass(frozen=True)
class PostNorm:
    """x = norm(x + sublayer(x)): the norm of Vaswani et al. 2017, section 3.1."""

    epsilon: float = 1e-5
    by: LayerNorm | RMSNorm = LayerNorm()


@dataclass(frozen=True)
class PreNorm:
    """x = x + sublayer(norm(x)); a stack of such blocks ends with one more norm (Xiong et al. 2020)."""

    epsilon: float = 1e-5
    by: LayerNorm | RMSNorm = LayerNorm()


Norm = PostNorm | PreNorm


@dataclass(frozen=True)
class Even:
    """The heads share the width of the model evenly."""


@dataclass(frozen=True)
class AsValues:
    """Queries and keys are as wide as values."""


@dataclass(frozen=True)
class Own:
    """Every head has keys and values of its own."""


@dataclass(frozen=True)
class Attention:
    """Multi-head attention of a sequence to itself (Vaswani et al. 2017, section 3.2.2).

    `kv_heads` fewer than `heads` serve several heads each with keys and values (Ainslie et al. 2023); `key_width` is that of the
    queries and keys of a head, where they are narrower than its values (Child et al. 2019, section 7.1, "half-size").
    """

    heads: int
    pattern: Pattern = Full()
    offset: bool = False
    head_width: int | Even = Even()
    kv_heads: int | Own = Own()
    score: Score = ScaledDot()
    rotate: Rotation = NoRotation()
    bias: NoBias | ALiBi = NoBias()
    key_width: int | AsValues = AsValues()
    choice: Choice = Soft()

    def __post_init__(self) -> None:
        said = [name for name in ("head_width", "kv_heads", "key_width") if isinstance(getattr(self, name), int)]
        positive(self, "heads", *said)
        if not isinstance(self.kv_heads, Own) and self.heads % self.kv_heads:
            raise QkvError(f"{self.kv_heads} heads of keys and values cannot serve {self.heads} heads evenly")
        by_head(self.pattern, self.heads)
        by_head(self.pattern, kv_heads(self))
        if isinstance(self.bias, ALiBi):
            self.bias.of(self.heads)
        if isinstance(self.choice, Near | Sampled):
            raise QkvError(f"{self.choice} says where in a source to look: it is for MemoryAttention, and no choice here")


@dataclass(frozen=True)
class Projected:
    """Queries, keys and values are linear maps of what comes in, and what is received is mapped once more."""


@dataclass(frozen=True)
class Unprojected:
    """Queries, keys and values are the vectors themselves, and so is what is received (Luong et al. 2015, section 3.1)."""


@dataclass(frozen=True)
class MemoryAttention:
    """Multi-head attention of the decoder to what the encoder made of the source (also called cross attention)."""

    heads: int
    offset: bool = False
    head_width: int | Even = Even()
    score: Score = ScaledDot()
    choice: Choice = Soft()
    maps: Projected | Unprojected = Projected()

    def __post_init__(self) -> None:
        positive(self, "heads", *(["head_width"] if not isinstance(self.head_width, Even) else []))
        if isinstance(self.maps, Unprojected) and (self.offset or not isinstance(self.head_width, Even)):
            raise QkvError("Unprojected() attention has no maps: no offset=True, and no head_width but Even()")


def head_width(attention: Attention | MemoryAttention, width: int) -> int:
    """How wide a head is in a model of some width. Raises QkvError where the heads cannot share it, or cannot be turned."""
    if not isinstance(attention.head_width, Even):
        wide = attention.head_width
    elif width % attention.heads:
        raise QkvError(f"a width of {width} cannot be shared by {attention.heads} heads")
    else:
        wide = width // attention.heads
    if isinstance(attention, Attention) and isinstance(attention.rotate, Rotary):
        turned = attention.key_width if isinstance(attention.key_width, int) else wide
        if turned % 2:
            raise QkvError(f"Rotary() turns pairs of channels, but a head has {turned}")
    return wide


def refuse_projection(attention: MemoryAttention, inputs: int, outputs: int, width: int) -> None:
    """Raises QkvError where attention without maps would have to change a width."""
    if isinstance(attention.maps, Unprojected) and not inputs == outputs == width:
        raise QkvError(
            f"Unprojected() attention in a model of width {width} takes {width} channels and gives as many back, not "
            f"{inputs} and {outputs}"
        )


def key_width(attention: Attention, width: int) -> int:
    """How wide the queries and keys of a head are in a model of some width."""
    return head_width(attention, width) if isinstance(attention.key_width, AsValues) else attention.key_width


def kv_heads(attention: Attention) -> int:
    """How many heads of keys and values there are."""
    return attention.heads if isinstance(attention.kv_heads, Own) else attention.kv_heads


@dataclass(frozen=True)
class FeedForward:
    """Two linear maps and an activation between (Vaswani et al. 2017, section 3.3, equation 2); gated, the activated half is
    multiplied by the result of a third map (Shazeer 2020)."""

    hidden: int
    activation: Activation = ReLU()
    offset: bool = True
    gated: bool = False

    def __post_init__(self) -> None:
        positive(self, "hidden")


@dataclass(frozen=True)
class SeparableFeedForward:
    """A feed-forward both of whose maps are separable convolutions: each channel is first summed over its neighbourhood, `first`
    and `second` positions wide, then a linear map joins the channels (Dehghani et al. 2018, section 2.1, as released).

    The pattern says on which side neighbours lie: on both (`Full()`), or none of them later (`Causal()`).
    """

    hidden: int
    first: int = 3
    second: int = 5
    activation: Activation = ReLU()
    pattern: Full | Causal = Full()
    offset: bool = True

    def __post_init__(self) -> None:
        positive(self, "hidden", "first", "second")


@dataclass(frozen=True)
class GRU:
    """s' = (1 - z) n + z s, where n = tanh(W x + r (U s)), and the gates r and z are sigmoids of linear maps of x and s (Cho et
    al. 2014; that r comes after U s is cuDNN's way, in which one product makes all three)."""


@dataclass(frozen=True)
class LSTM:
    """c' = f c + i g and s' = o tanh(c'), where g is the hyperbolic tangent, and the gates i, f and o are sigmoids, of linear
    maps of x and s (Hochreiter and Schmidhuber 1997, with the gate of Gers et al. 2000)."""


@dataclass(frozen=True)
class Zeros:
    """A state of zeros before the first token."""


@dataclass(frozen=True)
class NoMemory:
    """Nothing but what comes in."""


@dataclass(frozen=True)
class Recurrent:
    """A state that is handed from token to token, and comes out at each: the sublayer of the models before the Transformer.

    The pattern says which way: with `Causal()` forwards; with `Full()` both ways, where the first half of what comes out is the
    state on the way forwards and the second half the one on the way back (Schuster and Paliwal 1997). `start` is the state before
    the first token: zeros, or tanh of a linear map of one vector of the memory. Where it `asks`, the state before each token is a
    query to the memory, what it receives comes in beside the token, and comes out as the second half (Bahdanau et al. 2014,
    section A.1.2).
    """

    unit: GRU | LSTM = GRU()
    pattern: Full | Causal = Causal()
    start: Zeros | Pooling = Zeros()
    asks: NoMemory | MemoryAttention = NoMemory()

    def __post_init__(self) -> None:
        if isinstance(self.pattern, Full) and isinstance(self.asks, MemoryAttention):
            raise QkvError("a Recurrent that asks a memory is part of a decoder: its pattern is Causal()")

    @property
    def remembers(self) -> bool:
        """Whether it needs a memory."""
        return not (isinstance(self.start, Zeros) and isinstance(self.asks, NoMemory))

    @property
    def halves(self) -> bool:
        """Whether what comes out is two vectors beside each other."""
        return isinstance(self.pattern, Full) or isinstance(self.asks, MemoryAttention)


Sublayer = Attention | MemoryAttention | FeedForward | SeparableFeedForward | Recurrent


def recurrent_width(recurrent: Recurrent, outputs: int, width: int) -> int:
    """How wide the state of a recurrent sublayer is in a model of some width, whose result has so many channels. Raises QkvError
    where that is no whole number, or attention without maps would have to change a width."""
    if not recurrent.halves:
        return outputs
    if outputs % 2:
        raise QkvError(f"{recurrent.pattern} and asking make two halves of what comes out, and {outputs} channels have none")
    if isinstance(recurrent.asks, MemoryAttention):
        head_width(recurrent.asks, width)
        refuse_projection(recurrent.asks, outputs // 2, outputs // 2, width)
    return outputs // 2


class Unit:
    """What blocks and cells (`cell.py`) are: what is repeated in a stack or a recurrence."""

    sublayers: tuple[Any, ...]
    norm: Norm
    dropout: float


@dataclass(frozen=True, init=False)
class Block(Unit):
    """Sublayers in a row, each with a residual connection, a norm, and dropout before the residual is added."""

    sublayers: tuple[Sublayer, ...]
    norm: Norm
    dropout: float

    def __init__(self, *sublayers: Sublayer, norm: Norm = PostNorm(), dropout: float = 0.0) -> None:
        if not sublayers:
            raise QkvError("a Block needs at least one sublayer, such as Attention(8)")
        refuse_dropout(self, dropout)
        object.__setattr__(self, "sublayers", tuple(sublayers))
        object.__setattr__(self, "norm", norm)
        object.__setattr__(self, "dropout", dropout)


@dataclass(frozen=True, init=False)
class Stack:
    """Blocks one upon the other with weights of their own; the given blocks are tiled over the depth.

    What all of them share is said here: the `bias` that they add to the scores of their attention.
    """

    blocks: tuple[Unit, ...]
    depth: int
    bias: NoBias | Relative

    def __init__(self, *blocks: Unit, depth: int, bias: NoBias | Relative = NoBias()) -> None:
        if not blocks:
            raise QkvError("a Stack needs at least one Block")
        object.__setattr__(self, "blocks", tuple(blocks))
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "bias", bias)
        positive(self, "depth")
        if not isinstance(bias, NoBias) and len(self.heads()) != 1:
            raise QkvError(f"blocks that share {bias} need equally many heads each, not {sorted(self.heads())}")

    def tiled(self) -> tuple[Unit, ...]:
        """The blocks as they stand, from the lowest to the highest, `depth` of them."""
        return tuple(self.blocks[level % len(self.blocks)] for level in range(self.depth))

    def heads(self) -> set[int]:
        """The numbers of heads that self-attention has in these blocks."""
        return {s.heads for block in self.blocks for s in block.sublayers if isinstance(s, Attention)}


@dataclass(frozen=True)
class Recurrence:
    """The same block at each of `steps` steps, and so depth as time (Dehghani et al. 2018, section 2).

    The signal is added before every step, to what the residual connection carries, too. Where positions halt by themselves,
    `steps` is how many they make at most.
    """

    block: Unit
    steps: int
    signal: Signal = Coordinates()
    halt: Halting = AllSteps()

    def __post_init__(self) -> None:
        positive(self, "steps")
        if not isinstance(self.halt, AllSteps) and any(isinstance(each, Recurrent) for each in self.block.sublayers):
            raise QkvError("positions halt by themselves, but a Recurrent hands its state through all of them: use AllSteps()")

    @property
    def blocks(self) -> tuple[Unit, ...]:
        """The blocks that have weights of their own."""
        return (self.block,)

    def tiled(self) -> tuple[Unit, ...]:
        """The block as it is met, from the first step to the last."""
        return (self.block,) * self.steps

    def heads(self) -> set[int]:
        """The number of heads that self-attention has."""
        return {s.heads for s in self.block.sublayers if isinstance(s, Attention)}


Depth = Stack | Recurrence


def own_attention(depth: Depth) -> Iterator[Attention]:
    """The self-attention of blocks as they are met, from the lowest or first to the last."""
    for block in depth.tiled():
        yield from (sublayer for sublayer in block.sublayers if isinstance(sublayer, Attention))
