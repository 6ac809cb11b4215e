"""Universal Transformers (Dehghani et al. 2018): sections 2 and 3; sizes as in the released code.

A Transformer whose encoder and decoder are one block each, met again and again, with a signal for place and step before every
step. The paper's norms stand after the sublayers, as ours; the released code puts them before. Positions make all steps unless
`halt=Halt()` lets them stop by themselves.
"""

from __future__ import annotations

from dataclasses import replace

from qkv.papers.transformer import transformer
from qkv.spec.halt import AllSteps, Halting
from qkv.spec.model import DecoderOnly, Embedding, EncoderDecoder, EncoderOnly, Glorot, Joint, Vocabulary
from qkv.spec.part import Attention, Block, FeedForward, Norm, PostNorm, PreNorm, Recurrence
from qkv.spec.pattern import Causal, Full, Pattern
from qkv.spec.position import Coordinates, NoPosition, Signal


def universal(
    vocabulary: Vocabulary,
    *,
    width: int,
    hidden: int,
    heads: int,
    steps: int = 6,
    dropout: float = 0.1,
    norm: Norm = PostNorm(),
    signal: Signal = Coordinates(),
    halt: Halting = AllSteps(),
) -> EncoderDecoder:
    """The encoder-decoder of section 2 with the same block at each of `steps` steps, on each side."""
    vanilla = transformer(vocabulary, width=width, hidden=hidden, heads=heads, depth=1, dropout=dropout, norm=norm)
    (reads,), (writes,) = vanilla.encoder.blocks, vanilla.decoder.blocks
    return replace(
        vanilla,
        embedding=replace(vanilla.embedding, position=NoPosition()),  # the signal says it
        encoder=Recurrence(reads, steps, signal, halt),
        decoder=Recurrence(writes, steps, signal, halt),
    )


def universal_base(vocabulary: Vocabulary) -> EncoderDecoder:
    """Section 3.5: as many parameters as the base Transformer, 63.5M with 33,288 entries."""
    return universal(vocabulary, width=1024, hidden=4096, heads=16, dropout=0.3)


def universal_small(vocabulary: Vocabulary) -> EncoderDecoder:
    """Section 3.5, small: the base Transformer's width with one block on each side."""
    return universal(vocabulary, width=512, hidden=2048, heads=8)


def universal_tiny(vocabulary: Vocabulary) -> EncoderDecoder:
    """For some ten thousand pairs, with norms before the sublayers, as `transformer-tiny`."""
    return universal(vocabulary, width=256, hidden=512, heads=4, steps=6, dropout=0.2, norm=PreNorm())


def universal_gpt_tiny(vocabulary: Vocabulary) -> DecoderOnly:
    """The decoder by itself, as a language model of section 3.3 has it."""
    return DecoderOnly(Joint(vocabulary.target), 256, _embedding(), _alone(Causal()), initial=Glorot())


def universal_bert_tiny(vocabulary: Vocabulary) -> EncoderOnly:
    """The encoder by itself."""
    return EncoderOnly(Joint(vocabulary.source), 256, _embedding(), _alone(Full()), initial=Glorot())


def _embedding() -> Embedding:
    return Embedding(NoPosition(), scale=True, dropout=0.1)  # scaled, or the signal would drown it


def _alone(pattern: Pattern) -> Recurrence:
    return Recurrence(Block(Attention(4, pattern), FeedForward(1024), norm=PreNorm(), dropout=0.1), steps=6)
