"""Pointer Networks (Vinyals et al. 2015): section 2.

One LSTM reads, another writes, and what it writes are places of what was read: its additive scores, made a softmax, are the
answer itself. In the paper the source is a row of points in the plane; here, as everywhere, of entries of a vocabulary, a vector
each, so that a point is a word of a grid. The decoder's state begins with a map of the vector of the last word, where the paper
hands over the encoder's; what was pointed at goes into the next step, as in the paper.
"""

from __future__ import annotations

from dataclasses import replace

from qkv.papers.transformer import transformer
from qkv.spec.cell import Branch, Cell, Node
from qkv.spec.model import Embedding, EncoderDecoder, Pointing, Vocabulary
from qkv.spec.part import LSTM, PostNorm, Recurrent, Stack
from qkv.spec.pattern import Causal, Full
from qkv.spec.pooling import LastToken
from qkv.spec.position import NoPosition


def pointer(vocabulary: Vocabulary, *, width: int = 256, dropout: float = 0.0, both: bool = False) -> EncoderDecoder:
    """The model of section 2.3, in the size of section 4; the encoder may read both ways, which the paper's does not."""
    reads = Cell(Node(Branch(0, Recurrent(LSTM(), Full() if both else Causal()))), norm=PostNorm(), dropout=dropout)
    writes = Cell(Node(Branch(0, Recurrent(LSTM(), start=LastToken()))), norm=PostNorm(), dropout=dropout)
    base = transformer(vocabulary, width=width, heads=1)
    embedding = Embedding(NoPosition(), scale=True, dropout=dropout)
    return replace(base, embedding=embedding, encoder=Stack(reads, depth=1), decoder=Stack(writes, depth=1), output=Pointing())


def pointer_tiny(vocabulary: Vocabulary) -> EncoderDecoder:
    """For a laptop: narrower, and reading both ways."""
    return pointer(vocabulary, width=128, both=True)
