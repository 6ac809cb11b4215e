"""BART (Lewis et al. 2019, section 2.1).

The encoder-decoder of Vaswani et al. with learned places, a norm after the embeddings, offsets everywhere and GELU; one matrix
for both embeddings and the output, not scaled. The paper also drops attention weights while it trains; we drop the sublayers'
outputs and the embeddings alone.
"""

from __future__ import annotations

from qkv.spec.model import AllThree, Embedding, EncoderDecoder, Joint, Normal, Normed, Output, TargetAndOutput, Vocabulary
from qkv.spec.part import GELU, Attention, Block, FeedForward, MemoryAttention, Stack
from qkv.spec.pattern import Causal
from qkv.spec.position import Learned


def bart(
    vocabulary: Vocabulary, *, width: int = 768, heads: int = 12, depth: int = 6, longest: int = 1024, dropout: float = 0.1
) -> EncoderDecoder:
    """The encoder-decoder of section 2.1; the defaults are the base model."""
    feed_forward = FeedForward(4 * width, GELU())
    reads = Block(Attention(heads, offset=True), feed_forward, dropout=dropout)
    writes = Block(Attention(heads, Causal(), offset=True), MemoryAttention(heads, offset=True), feed_forward, dropout=dropout)
    return EncoderDecoder(
        vocabulary=vocabulary,
        width=width,
        embedding=Embedding(Learned(longest), scale=False, dropout=dropout, norm=Normed()),
        encoder=Stack(reads, depth=depth),
        decoder=Stack(writes, depth=depth),
        tie=AllThree() if isinstance(vocabulary, Joint) else TargetAndOutput(),
        output=Output(offset=True),
        initial=Normal(shrink=False),
    )


def bart_tiny(vocabulary: Vocabulary) -> EncoderDecoder:
    """For a laptop."""
    return bart(vocabulary, width=128, heads=4, depth=3, longest=512)


def bart_base(vocabulary: Vocabulary) -> EncoderDecoder:
    """Section 2.1, base: 6 blocks on each side."""
    return bart(vocabulary)


def bart_large(vocabulary: Vocabulary) -> EncoderDecoder:
    """Section 2.1, large: 12 blocks on each side."""
    return bart(vocabulary, width=1024, heads=16, depth=12)
