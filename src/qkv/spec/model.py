"""Whole models as values: every place named. Counting, saving, drawing and converting read the value; only `qkv.model` builds
it."""

from __future__ import annotations

from dataclasses import dataclass

from qkv.error import QkvError
from qkv.spec.part import Attention, MemoryAttention, Stack
from qkv.spec.position import Position, Sinusoid


@dataclass(frozen=True)
class Embedding:
    """Token vectors: times sqrt(width) if scaled, plus positions, then dropout (Vaswani et al. 2017, sections 3.4 and 5.4)."""

    position: Position = Sinusoid()
    scale: bool = True
    dropout: float = 0.0


@dataclass(frozen=True)
class AllThree:
    """Source embedding, target embedding and output map are one matrix; both sides share one vocabulary."""


@dataclass(frozen=True)
class TargetAndOutput:
    """Target embedding and output map are one matrix; the source has its own."""


@dataclass(frozen=True)
class Untied:
    """Source embedding, target embedding and output map are three matrices."""


Tie = AllThree | TargetAndOutput | Untied


@dataclass(frozen=True)
class Joint:
    """One vocabulary for both sides; the four special symbols count among its entries."""

    size: int

    def __post_init__(self) -> None:
        _more_than_specials(self.size)

    @property
    def source(self) -> int:
        return self.size

    @property
    def target(self) -> int:
        return self.size


@dataclass(frozen=True)
class Separate:
    """A vocabulary for each side; the four special symbols count among the entries of both."""

    source: int
    target: int

    def __post_init__(self) -> None:
        _more_than_specials(min(self.source, self.target))


Vocabulary = Joint | Separate


def _more_than_specials(size: int) -> None:
    if size < 5:
        raise QkvError(f"a vocabulary needs the four special symbols and at least one entry more, not {size}")


@dataclass(frozen=True)
class EncoderDecoder:
    """An encoder that reads the source and a decoder that writes the target, attending to the encoder's memory."""

    vocabulary: Vocabulary
    width: int
    embedding: Embedding
    encoder: Stack
    decoder: Stack
    tie: Tie = AllThree()

    def __post_init__(self) -> None:
        if isinstance(self.tie, AllThree) and not isinstance(self.vocabulary, Joint):
            raise QkvError(
                f"AllThree() ties both sides to one vocabulary, but there is one for each: {self.vocabulary}; use "
                f"TargetAndOutput()"
            )
        for block in (*self.encoder.blocks, *self.decoder.blocks):
            for sublayer in block.sublayers:
                if isinstance(sublayer, Attention | MemoryAttention) and self.width % sublayer.heads:
                    raise QkvError(f"a width of {self.width} cannot be shared by {sublayer.heads} heads")
        if any(isinstance(s, MemoryAttention) for block in self.encoder.blocks for s in block.sublayers):
            raise QkvError("MemoryAttention stands in the encoder, where there is no memory yet")


Model = EncoderDecoder
