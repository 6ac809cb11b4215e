"""Sparse Transformers (Child et al. 2019): sections 4 to 7.

The decoder of a language model whose attention is factorised: every position sees a few others, and any two are two hops apart.
Norms before the sublayers, a sigmoid GELU, places whose rows and columns have vectors of their own, an output map of its own that
begins with zeros, and dropout at the end of every residual branch alone. `strided` and `fixed` are the patterns of section 4.3.
"""

from __future__ import annotations

from qkv.spec.model import DecoderOnly, Embedding, Joint, Reduced, Untied, Vocabulary
from qkv.spec.part import AsValues, Attention, Block, FeedForward, PreNorm, SigmoidGELU, Stack
from qkv.spec.pattern import Causal, Local, Pattern, PerHead, SameBlock, Stride, Summary
from qkv.spec.position import Factorised


def strided(stride: int) -> Pattern:
    """The last positions and every `stride`-th before, in one softmax: for what has a period, as pictures have their rows. It has
    `stride` local keys, as the released code; the formula of section 4.3 has one more."""
    return Causal() & (Local(stride) | Stride(stride))


def fixed(block: int, count: int, slots: int = 1) -> Pattern:
    """A block, and the last `count` positions of all blocks before it, in one softmax: for what has no period, as text. With
    several slots, different heads see different parts of these blocks."""
    patterns = [Causal() & (SameBlock(block) | Summary(block, count, slot)) for slot in range(slots)]
    return patterns[0] if slots == 1 else PerHead(*patterns)


def sparse(
    vocabulary: Vocabulary,
    *,
    width: int,
    heads: int,
    depth: int,
    pattern: Pattern,
    places: tuple[int, ...],
    dropout: float,
    hidden: int | None = None,
    key_width: int | AsValues = AsValues(),
) -> DecoderOnly:
    """The network of section 5, with as many places as the product of the sizes of their tables."""
    attention = Attention(heads, pattern, offset=True, key_width=key_width)
    forward = FeedForward(4 * width if hidden is None else hidden, SigmoidGELU())
    return DecoderOnly(
        vocabulary=Joint(vocabulary.target),
        width=width,
        embedding=Embedding(Factorised(places), scale=False),
        decoder=Stack(Block(attention, forward, norm=PreNorm(), dropout=dropout), depth=depth),
        tie=Untied(),
        initial=Reduced(),
    )


def sparse_tiny(vocabulary: Vocabulary) -> DecoderOnly:
    """For an hour on a laptop: texts of 2048 bytes."""
    pattern = fixed(64, 8, slots=4)
    return sparse(vocabulary, width=256, heads=4, depth=6, pattern=pattern, places=(32, 64), dropout=0.1)


def sparse_digits(vocabulary: Vocabulary) -> DecoderOnly:
    """For minutes on a laptop: pictures of 28 x 28 grey points, strided by their rows."""
    return sparse(vocabulary, width=128, heads=4, depth=6, pattern=strided(28), places=(28, 28), dropout=0.1)


def sparse_cifar10(vocabulary: Vocabulary) -> DecoderOnly:
    """Section 7.1: 59M parameters, queries, keys and feed-forwards of half the width. The stride is not stated: ours is a row."""
    pattern, places = strided(96), (32, 32, 3)
    return sparse(
        vocabulary, width=256, heads=2, depth=128, pattern=pattern, places=places, dropout=0.25, hidden=512, key_width=64
    )


def sparse_enwik8(vocabulary: Vocabulary) -> DecoderOnly:
    """Section 7.2: 95M parameters, texts of 12,288 bytes, merged heads with slots of their own as far as a block has room."""
    pattern = fixed(128, 32, slots=4)
    return sparse(vocabulary, width=512, heads=8, depth=30, pattern=pattern, places=(96, 128), dropout=0.40)


def sparse_imagenet64(vocabulary: Vocabulary) -> DecoderOnly:
    """Section 7.3: 152M parameters, pictures of 64 x 64 points in three colours."""
    return sparse(vocabulary, width=512, heads=16, depth=48, pattern=strided(128), places=(64, 64, 3), dropout=0.01)
