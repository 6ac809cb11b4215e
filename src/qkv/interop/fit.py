"""Whether a model of ours is one of another engine's: what cannot hold it is refused, and the part that does not fit is
named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn, TypeVar

from qkv.error import QkvError
from qkv.spec.halt import Halt
from qkv.spec.model import Embedding, NoNorm, Normed, Output, Pointing
from qkv.spec.part import (
    Activation,
    Attention,
    Depth,
    FeedForward,
    LayerNorm,
    MemoryAttention,
    PostNorm,
    PreNorm,
    Recurrence,
    Recurrent,
    RMSNorm,
    SeparableFeedForward,
    Stack,
    Sublayer,
    head_width,
)
from qkv.spec.pattern import Pattern
from qkv.spec.position import NoBias
from qkv.spec.score import ScaledDot, Score

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """What all blocks of a stack have in common; the dropout is the first one's, since it is no part of what a model says."""

    depth: int
    heads: int
    head_width: int
    hidden: int
    activation: Activation
    gated: bool
    epsilon: float
    dropout: float


@dataclass(frozen=True)
class Fit:
    """An architecture by name, and what it asks of a model."""

    name: str

    def refuse(self, found: object, wanted: object) -> NoReturn:
        """Raises QkvError that names what was found and what would fit."""
        raise QkvError(f"{self.name} cannot hold {found}: it wants {wanted}")

    def be(self, what: str, found: object, wanted: object) -> None:
        """Refuse all values of a place but one."""
        if found != wanted:
            self.refuse(f"{what}={found}", f"{what}={wanted}")

    def one(self, values: Iterable[T], what: str) -> T:
        """The one value that all places have."""
        different = list(dict.fromkeys(values))
        if len(different) > 1:
            self.refuse(f"different values of {what} ({', '.join(map(str, different))})", "the same in all blocks")
        return different[0]

    def activation(self, found: Activation, names: Mapping[Activation, str]) -> str:
        """What the engine calls an activation; refuse one that it does not have."""
        if found not in names:
            self.refuse(f"activation={found}", " or ".join(map(str, names)))
        return names[found]

    def embedding(self, embedding: Embedding, norm: bool, segments: bool = False) -> None:
        """Refuse an embedding with a norm where there is none, or without one where there is one; and so with segments."""
        if isinstance(embedding.norm, Normed) != norm:
            self.refuse(f"an embedding with {embedding.norm}", "Normed()" if norm else NoNorm())
        if bool(embedding.segments) != segments:
            self.refuse(f"an embedding with segments={embedding.segments}", "some" if segments else "none")

    def scores(self, output: Output | Pointing) -> Output:
        """How entries are scored; refuse what points at the source."""
        if isinstance(output, Pointing):
            self.refuse(f"output={output}", Output())
        return output

    def own(self, depth: Depth) -> Stack:
        """The stack, whose blocks have weights of their own; refuse a recurrence."""
        if isinstance(depth, Recurrence):
            halting = " whose positions halt by themselves" if isinstance(depth.halt, Halt) else ""
            self.refuse(f"a Recurrence{halting}", "a Stack, with weights of its own for every block")
        return depth

    def stack(
        self,
        depth: Depth,
        width: int,
        pattern: Pattern,
        norm: type[PostNorm | PreNorm],
        *,
        by: LayerNorm | RMSNorm = LayerNorm(),
        memory: bool = False,
        score: Score = ScaledDot(),
        gates: bool = False,
    ) -> Row:
        """What the blocks of a stack have in common, where they are attention, memory attention if there is a memory, and a
        feed-forward, with norms of this kind."""
        stack = self.own(depth)
        blocks = stack.blocks
        kinds = (Attention, MemoryAttention, FeedForward) if memory else (Attention, FeedForward)
        for block in blocks:
            if tuple(map(type, block.sublayers)) != kinds:
                row = ", ".join(type(each).__name__ for each in block.sublayers)
                self.refuse(f"a block of {row}", ", ".join(kind.__name__ for kind in kinds))
            if not isinstance(block.norm, norm) or block.norm.by != by:
                self.refuse(block.norm, norm(by=by))
        sublayers = [each for block in blocks for each in block.sublayers]
        for each in sublayers:
            self._plain(each, pattern, score, gates)
        attending = [each for each in sublayers if isinstance(each, Attention | MemoryAttention)]
        forward = [each for each in sublayers if isinstance(each, FeedForward)]
        return Row(
            stack.depth,
            self.one((each.heads for each in attending), "heads"),
            self.one((head_width(each, width) for each in attending), "head_width"),
            self.one((each.hidden for each in forward), "hidden"),
            self.one((each.activation for each in forward), "activation"),
            self.one((each.gated for each in forward), "gated"),
            self.one((block.norm.epsilon for block in blocks), "epsilon"),
            blocks[0].dropout,
        )

    def _plain(self, sublayer: Sublayer, pattern: Pattern, score: Score, gates: bool) -> None:
        """Refuse a sublayer that has more to it than its sizes."""
        match sublayer:
            case Attention(heads=heads, offset=offset, head_width=wide):
                plain: Sublayer = Attention(heads, pattern, offset, wide, score=score)
            case MemoryAttention(heads=heads, offset=offset, head_width=wide):
                plain = MemoryAttention(heads, offset, wide, score)
            case FeedForward():
                plain = replace(sublayer, gated=sublayer.gated and gates)
            case SeparableFeedForward() | Recurrent():
                raise AssertionError("the kinds of sublayers were asked for")
        if sublayer != plain:
            name, found = next((name, value) for name, value in vars(sublayer).items() if value != getattr(plain, name))
            self.refuse(f"{type(sublayer).__name__} with {name}={found}", f"{name}={getattr(plain, name)}")

    def no_shared_bias(self, *stacks: Depth) -> None:
        """Refuse what a stack adds to all scores."""
        for bias in (self.own(stack).bias for stack in stacks):
            if not isinstance(bias, NoBias):
                self.refuse(f"a stack with bias={bias}", NoBias())

    def even(self, row: Row, width: int) -> None:
        """Refuse heads that do not share the width evenly."""
        if row.heads * row.head_width != width:
            self.refuse(
                f"{row.heads} heads of width {row.head_width} in a model of width {width}", f"{width // row.heads} for each"
            )

    def epsilon(self, *found: float, wanted: float = 1e-5) -> None:
        """Refuse a norm with another epsilon than the only one there is."""
        for each in found:
            if each != wanted:
                self.refuse(f"a norm with epsilon={each:g}", f"{wanted:g}, for it has no setting for this")
