"""BERT (Devlin et al. 2018, section 3; the smaller sizes are Turc et al. 2019).

The encoder of Vaswani et al. with learned places, a vector for the segment, a norm after the embedding, offsets everywhere and
GELU; a vector is transformed once more before it is compared with every word. The paper also drops attention weights while it
trains; we drop the sublayers' outputs and the embeddings alone. There is no second objective, and so no pooled vector but in a
classifier.
"""

from __future__ import annotations

from qkv.spec.model import Embedding, EncoderOnly, Joint, Normed, Output, Transform, Vocabulary
from qkv.spec.part import GELU, Attention, Block, FeedForward, PostNorm, Stack
from qkv.spec.position import Learned

EPSILON = 1e-12


def bert(
    vocabulary: Vocabulary, *, width: int = 768, heads: int = 12, depth: int = 12, longest: int = 512, dropout: float = 0.1
) -> EncoderOnly:
    """The encoder of section 3; the defaults are the base model."""
    block = Block(Attention(heads, offset=True), FeedForward(4 * width, GELU()), norm=PostNorm(EPSILON), dropout=dropout)
    return EncoderOnly(
        vocabulary=Joint(vocabulary.source),
        width=width,
        embedding=Embedding(Learned(longest), scale=False, dropout=dropout, norm=Normed(EPSILON), segments=2),
        encoder=Stack(block, depth=depth),
        output=Output(Transform(GELU(), EPSILON), offset=True),
    )


def bert_tiny(vocabulary: Vocabulary) -> EncoderOnly:
    """Turc et al. 2019: 2 blocks of width 128."""
    return bert(vocabulary, width=128, heads=2, depth=2)


def bert_mini(vocabulary: Vocabulary) -> EncoderOnly:
    """Turc et al. 2019: 4 blocks of width 256."""
    return bert(vocabulary, width=256, heads=4, depth=4)


def bert_small(vocabulary: Vocabulary) -> EncoderOnly:
    """Turc et al. 2019: 4 blocks of width 512."""
    return bert(vocabulary, width=512, heads=8, depth=4)


def bert_base(vocabulary: Vocabulary) -> EncoderOnly:
    """Section 3, base: 110M parameters in the paper with its vocabulary of 30,522."""
    return bert(vocabulary)


def bert_large(vocabulary: Vocabulary) -> EncoderOnly:
    """Section 3, large: 340M parameters in the paper."""
    return bert(vocabulary, width=1024, heads=16, depth=24)
