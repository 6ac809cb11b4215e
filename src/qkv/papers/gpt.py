"""Language models are decoders (Radford et al. 2018, GPT; 2019, GPT-2, section 2.3 and table 2).

The decoder of Vaswani et al. without its memory attention; norms before the sublayers and one more at the end; learned places;
GELU in its tanh form; offsets everywhere; embedding and output map are one matrix, not scaled; hidden width four times the width.
The papers also drop attention weights while they train; we drop the sublayers' outputs and the embeddings alone.
"""

from __future__ import annotations

from qkv.spec.model import DecoderOnly, Embedding, Joint, Vocabulary
from qkv.spec.part import Attention, Block, FeedForward, PreNorm, Stack, TanhGELU
from qkv.spec.pattern import Causal
from qkv.spec.position import Learned


def gpt(
    vocabulary: Vocabulary, *, width: int = 768, heads: int = 12, depth: int = 12, longest: int = 1024, dropout: float = 0.1
) -> DecoderOnly:
    """The decoder of section 2.3; the defaults are the smallest of table 2."""
    block = Block(Attention(heads, Causal(), offset=True), FeedForward(4 * width, TanhGELU()), norm=PreNorm(), dropout=dropout)
    return DecoderOnly(
        vocabulary=Joint(vocabulary.target),
        width=width,
        embedding=Embedding(Learned(longest), scale=False, dropout=dropout),
        decoder=Stack(block, depth=depth),
    )


def gpt_tiny(vocabulary: Vocabulary) -> DecoderOnly:
    """For minutes on a laptop: the width and depth that character models of a megabyte of text are usually shown with."""
    return gpt(vocabulary, width=128, heads=4, depth=4, longest=256)


def gpt_mini(vocabulary: Vocabulary) -> DecoderOnly:
    """For an hour on a laptop."""
    return gpt(vocabulary, width=256, heads=8, depth=6, longest=512)


def gpt2_small(vocabulary: Vocabulary) -> DecoderOnly:
    """Table 2, first row: 124,439,808 parameters with its vocabulary of 50,257."""
    return gpt(vocabulary)


def gpt2_medium(vocabulary: Vocabulary) -> DecoderOnly:
    """Table 2, second row."""
    return gpt(vocabulary, width=1024, heads=16, depth=24)


def gpt2_large(vocabulary: Vocabulary) -> DecoderOnly:
    """Table 2, third row."""
    return gpt(vocabulary, width=1280, heads=20, depth=36)


def gpt2_xl(vocabulary: Vocabulary) -> DecoderOnly:
    """Table 2, fourth row."""
    return gpt(vocabulary, width=1600, heads=25, depth=48)
