"""T5 (Raffel et al. 2019, section 2.1, as released).

The encoder-decoder of Vaswani et al. with root-mean-square norms before the sublayers, no offsets anywhere, scores without a
scale, and no places but a bias for each head by the distance of query and key, one table for all blocks of a stack; one matrix
for both embeddings and the output, whose scores are multiplied by width^-0.5. The paper also drops attention weights and the
inside of the feed-forward while it trains; we drop the sublayers' outputs and the embeddings alone.
"""

from __future__ import annotations

from qkv.spec.model import AllThree, Embedding, EncoderDecoder, FanIn, Joint, Output, TargetAndOutput, Vocabulary
from qkv.spec.part import Attention, Block, FeedForward, MemoryAttention, PreNorm, ReLU, RMSNorm, Stack
from qkv.spec.pattern import Causal
from qkv.spec.position import NoPosition, Relative
from qkv.spec.score import Dot


def t5(
    vocabulary: Vocabulary, *, width: int = 512, hidden: int = 2048, heads: int = 8, depth: int = 6, dropout: float = 0.1
) -> EncoderDecoder:
    """The encoder-decoder of section 2.1; the defaults are the small model, heads 64 wide in every size."""
    norm, wide = PreNorm(1e-6, RMSNorm()), width // heads
    feed_forward = FeedForward(hidden, ReLU(), offset=False)
    reads = Block(Attention(heads, head_width=wide, score=Dot()), feed_forward, norm=norm, dropout=dropout)
    writes = Block(
        Attention(heads, Causal(), head_width=wide, score=Dot()),
        MemoryAttention(heads, head_width=wide, score=Dot()),
        feed_forward,
        norm=norm,
        dropout=dropout,
    )
    return EncoderDecoder(
        vocabulary=vocabulary,
        width=width,
        embedding=Embedding(NoPosition(), scale=False, dropout=dropout),
        encoder=Stack(reads, depth=depth, bias=Relative(32, 128)),
        decoder=Stack(writes, depth=depth, bias=Relative(32, 128, two_sided=False)),
        tie=AllThree() if isinstance(vocabulary, Joint) else TargetAndOutput(),
        output=Output(scaled=True),
        initial=FanIn(),
    )


def t5_tiny(vocabulary: Vocabulary) -> EncoderDecoder:
    """For a laptop: a quarter of the small model's width."""
    return t5(vocabulary, width=128, hidden=512, heads=4, depth=4)


def t5_small(vocabulary: Vocabulary) -> EncoderDecoder:
    """Section 3.7.2, small: 60M parameters with its vocabulary of 32,128."""
    return t5(vocabulary)


def t5_base(vocabulary: Vocabulary) -> EncoderDecoder:
    """Section 3.1.1, base: 220M parameters."""
    return t5(vocabulary, width=768, hidden=3072, heads=12, depth=12)


def t5_large(vocabulary: Vocabulary) -> EncoderDecoder:
    """Section 3.7.2, large: 770M parameters."""
    return t5(vocabulary, width=1024, hidden=4096, heads=16, depth=24)
