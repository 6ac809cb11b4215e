"""Effective Approaches to Attention-based Neural Machine Translation (Luong et al. 2015): section 3.

Stacks of LSTM on both sides; the highest state of the decoder asks the encoder's, by any of the paper's scores, and one layer
joins what it receives with it: tanh(W [c; h]) (equation 5). Attention has no maps of its own, but that of the concat score: there
they are the two halves of the paper's W. The decoder's states begin with a map of the vector of the last word, where the paper
hands over those of the encoder level by level; and what is said is not fed back into the next step (the paper's section 3.3).
"""

from __future__ import annotations

from dataclasses import replace

from qkv.papers.transformer import transformer
from qkv.spec.cell import Branch, Cell, Concatenate, Dense, Identity, Node
from qkv.spec.choice import Choice, LocalPredictive, Soft
from qkv.spec.model import Embedding, EncoderDecoder, Untied, Vocabulary
from qkv.spec.part import LSTM, MemoryAttention, PostNorm, Projected, Recurrent, Stack, Tanh, Unprojected, Zeros
from qkv.spec.pooling import LastToken
from qkv.spec.position import NoPosition
from qkv.spec.score import Additive, General, Score


def luong(
    vocabulary: Vocabulary,
    *,
    width: int = 1000,
    depth: int = 4,
    dropout: float = 0.2,
    score: Score = General(),
    choice: Choice = Soft(),
) -> EncoderDecoder:
    """The model of section 3 with so many levels on each side; the defaults are the sizes of section 4.1."""
    maps = Projected() if isinstance(score, Additive) else Unprojected()
    asks = MemoryAttention(1, score=score, choice=choice, maps=maps)

    def level(start: Zeros | LastToken) -> Node:
        return Node(Branch(0, Recurrent(LSTM(), start=start)))

    reads, writes = (Cell(level(start), norm=PostNorm(), dropout=dropout) for start in (Zeros(), LastToken()))
    highest = Cell(
        level(LastToken()),
        Node(Branch(1, asks), Branch(1, Identity()), Concatenate()),
        Node(Branch(2, Dense(offset=False), 1.0, activation=Tanh())),
        norm=PostNorm(),
        dropout=dropout,
    )
    base = transformer(vocabulary, width=width, heads=1)
    embedding = Embedding(NoPosition(), scale=True, dropout=dropout)
    decoder = Stack(*[writes] * (depth - 1), highest, depth=depth)
    return replace(base, embedding=embedding, encoder=Stack(reads, depth=depth), decoder=decoder)


def luong_base(vocabulary: Vocabulary) -> EncoderDecoder:
    """Section 4.1, with the score that did best, and where each query says where it looks (table 4)."""
    return replace(luong(vocabulary, choice=LocalPredictive(10)), tie=Untied())


def luong_tiny(vocabulary: Vocabulary) -> EncoderDecoder:
    """For some ten thousand pairs."""
    return luong(vocabulary, width=256, depth=2, dropout=0.3)
