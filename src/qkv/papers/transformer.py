"""Attention Is All You Need (Vaswani et al. 2017): sections 3 and 5.4, table 3.

Post-norm; no offsets in the attention maps; one matrix for source embedding, target embedding and output; embeddings scaled by
sqrt(width); sinusoids; dropout on every sublayer's output and on the sum of embedding and position, and nowhere else.
"""

from __future__ import annotations

from qkv.spec.model import AllThree, Embedding, EncoderDecoder, Joint, TargetAndOutput, Vocabulary
from qkv.spec.part import Attention, Block, FeedForward, MemoryAttention, Norm, PostNorm, PreNorm, ReLU, Stack
from qkv.spec.pattern import Causal
from qkv.spec.position import Sinusoid


def transformer(
    vocabulary: Vocabulary,
    *,
    width: int = 512,
    hidden: int = 2048,
    heads: int = 8,
    depth: int = 6,
    dropout: float = 0.1,
    norm: Norm = PostNorm(),
    offset: bool = False,
) -> EncoderDecoder:
    """The encoder-decoder of section 3 with `depth` blocks on each side; the defaults are the base model of table 3."""
    feed_forward = FeedForward(hidden, ReLU())
    reads = Block(Attention(heads, offset=offset), feed_forward, norm=norm, dropout=dropout)
    writes = Block(
        Attention(heads, Causal(), offset=offset), MemoryAttention(heads, offset=offset), feed_forward, norm=norm, dropout=dropout
    )
    return EncoderDecoder(
        vocabulary=vocabulary,
        width=width,
        embedding=Embedding(Sinusoid(), scale=True, dropout=dropout),
        encoder=Stack(reads, depth=depth),
        decoder=Stack(writes, depth=depth),
        # two vocabularies cannot share one matrix: then the two places on the target side share theirs
        tie=AllThree() if isinstance(vocabulary, Joint) else TargetAndOutput(),
    )


def transformer_base(vocabulary: Vocabulary) -> EncoderDecoder:
    """Table 3, base: 65M parameters in the paper with its own vocabulary."""
    return transformer(vocabulary)


def transformer_big(vocabulary: Vocabulary) -> EncoderDecoder:
    """Table 3, big: 213M parameters in the paper with its own vocabulary."""
    return transformer(vocabulary, width=1024, hidden=4096, heads=16, dropout=0.3)


def transformer_small(vocabulary: Vocabulary) -> EncoderDecoder:
    """Half the hidden width and half the heads of base: the usual size for some hundred thousand pairs."""
    return transformer(vocabulary, hidden=1024, heads=4, dropout=0.3)


def transformer_tiny(vocabulary: Vocabulary) -> EncoderDecoder:
    """For some ten thousand pairs: the size with which Wu et al. 2021 translate Multi30k.

    Its norms stand before the sublayers. With those of the paper a model this narrow, with this much dropout, comes to hand its
    decoder nearly the same vector for every word, and stays a long time with attention that looks everywhere at once.
    """
    return transformer(vocabulary, width=128, hidden=256, heads=4, depth=4, dropout=0.3, norm=PreNorm())
