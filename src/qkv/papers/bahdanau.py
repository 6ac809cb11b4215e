"""Neural Machine Translation by Jointly Learning to Align and Translate (Bahdanau et al. 2014): sections 3 and A.

An encoder that reads both ways, and a decoder whose state asks, before each word, where in the source to look; what it receives
comes in beside the word before. One maxout layer reads state, answer and word (section A.2.2), here as two linear maps and their
maximum. The model has one width: the paper's embeddings are narrower than its states, and here are as wide as what the encoder
makes of a word. Attention has the maps of a Transformer's around the paper's score, so that values are mapped, too; the first
state comes from both halves of the first word's vector.
"""

from __future__ import annotations

from dataclasses import replace

from qkv.papers.transformer import transformer
from qkv.spec.cell import Branch, Cell, Concatenate, Dense, Identity, Maximum, Node
from qkv.spec.model import Embedding, EncoderDecoder, Vocabulary
from qkv.spec.part import GRU, MemoryAttention, PostNorm, Recurrent, Stack
from qkv.spec.pattern import Full
from qkv.spec.pooling import FirstToken
from qkv.spec.position import NoPosition
from qkv.spec.score import Additive


def bahdanau(vocabulary: Vocabulary, *, width: int, dropout: float = 0.0) -> EncoderDecoder:
    """The model of section 3; states, on either way of the encoder and in the decoder, are half as wide as the model."""
    asks = MemoryAttention(1, score=Additive())
    reads = Cell(Node(Branch(0, Recurrent(GRU(), Full()))), norm=PostNorm(), dropout=dropout)
    writes = Cell(
        Node(Branch(0, Recurrent(GRU(), start=FirstToken(), asks=asks)), Branch(0, Identity()), Concatenate()),
        Node(Branch(1, Dense(), 1.0), Branch(1, Dense(), 1.0), Maximum()),
        norm=PostNorm(),
        dropout=dropout,
    )
    base = transformer(vocabulary, width=width, heads=1)
    embedding = Embedding(NoPosition(), scale=True, dropout=dropout)
    return replace(base, embedding=embedding, encoder=Stack(reads, depth=1), decoder=Stack(writes, depth=1))


def bahdanau_tiny(vocabulary: Vocabulary) -> EncoderDecoder:
    """For some ten thousand pairs."""
    return bahdanau(vocabulary, width=256, dropout=0.3)
