"""The Evolved Transformer (So et al. 2019): the cells of figure 3, which the search of section 3 found, and its sizes.

A cell is about two Transformer blocks deep. Widths are multiples of the model's, as in the search; the first attention of the
decoder has twice the heads, but no more than 16. One norm before the last map of the decoder is in the released code, which has
as many parameters as the paper says, and not in the figure.
"""

from __future__ import annotations

from dataclasses import replace

from qkv.papers.transformer import transformer
from qkv.spec.cell import Branch, Cell, Convolution, Dense, Gate, Node, Separable
from qkv.spec.model import DecoderOnly, EncoderDecoder, Glorot, Joint, Vocabulary
from qkv.spec.part import Attention, MemoryAttention, Recurrence, ReLU, Stack, Swish
from qkv.spec.pattern import Causal
from qkv.spec.position import Coordinates, NoPosition

MOST_HEADS = 16  # of the first attention of a decoder, where twice the others' would be more


def encoder(heads: int, dropout: float = 0.0) -> Cell:
    """Figure 3, on the left."""
    return Cell(
        Node(Branch(0, Gate(), norm=True), Branch(0)),
        Node(
            Branch(1, Dense(), 4.0, norm=True, activation=ReLU()),
            Branch(1, Convolution(3), 0.5, norm=True, activation=ReLU()),
            shared=True,
        ),
        Node(Branch(2, Separable(9), 0.5, norm=True), Branch(1)),
        Node(Branch(3, Attention(heads), norm=True), Branch(3)),
        Node(Branch(4, Dense(), 4.0, norm=True, activation=ReLU())),
        Node(Branch(5, Dense(), 1.0), Branch(4)),
        dropout=dropout,
    )


def decoder(heads: int, dropout: float = 0.0) -> Cell:
    """Figure 3, on the right."""
    first = Attention(max(heads, min(2 * heads, MOST_HEADS)), Causal())
    return Cell(
        Node(Branch(0, first, norm=True), Branch(0, MemoryAttention(heads), norm=True), shared=True),
        Node(Branch(1), Branch(0)),
        Node(
            Branch(2, Separable(11, Causal()), 2.0, norm=True, activation=ReLU()),
            Branch(2, Separable(7, Causal()), 0.5, norm=True),
            shared=True,
        ),
        Node(Branch(3, Separable(7, Causal()), 1.0, norm=True), Branch(2)),
        Node(Branch(4, Attention(heads, Causal()), norm=True), Branch(4)),
        Node(Branch(5, MemoryAttention(heads), norm=True), Branch(5)),
        Node(Branch(6, Dense(), 4.0, norm=True, activation=Swish())),
        Node(Branch(7, Dense(), 1.0, norm=True), Branch(6)),
        dropout=dropout,
    )


def writer(heads: int, dropout: float = 0.0) -> Cell:
    """The decoder without an encoder, as the language model of section 5.3 has it: what attends to the source is left out."""
    first = Attention(max(heads, min(2 * heads, MOST_HEADS)), Causal())
    nodes = decoder(heads).nodes
    beginning = (Node(Branch(0, first, norm=True), Branch(0)),)
    before, after = nodes[2:5], nodes[6:]  # what stood third comes second, and what stood seventh fifth
    return Cell(*beginning, *(_moved(each, 1) for each in before), *(_moved(each, 2) for each in after), dropout=dropout)


def _moved(node: Node, places: int) -> Node:
    """The same, where so many nodes before it are left out."""
    return replace(node, left=_taken(node.left, places), right=_taken(node.right, places))


def _taken(branch: Branch, places: int) -> Branch:
    return replace(branch, input=max(0, branch.input - places))


def evolved(
    vocabulary: Vocabulary,
    *,
    width: int = 512,
    heads: int = 8,
    dropout: float = 0.1,
    encoder_depth: int = 3,
    decoder_depth: int = 4,
) -> EncoderDecoder:
    """The encoder-decoder of section 5; the defaults are its base model."""
    vanilla = transformer(vocabulary, width=width, heads=heads, dropout=dropout)
    return replace(
        vanilla,
        encoder=Stack(encoder(heads, dropout), depth=encoder_depth),
        decoder=Stack(decoder(heads, dropout), depth=decoder_depth),
    )


def evolved_tiny(vocabulary: Vocabulary) -> EncoderDecoder:
    """Table 3, the smallest: 7.2M parameters with 33,288 entries."""
    return evolved(vocabulary, width=128, heads=4)


def evolved_base(vocabulary: Vocabulary) -> EncoderDecoder:
    """Tables 2 and 3, base: 64.1M parameters with 33,288 entries."""
    return evolved(vocabulary)


def evolved_big(vocabulary: Vocabulary) -> EncoderDecoder:
    """Tables 2 and 3, big: 221.7M parameters with 33,288 entries."""
    return evolved(vocabulary, width=1024, heads=16, dropout=0.3)


def evolved_deep(vocabulary: Vocabulary) -> EncoderDecoder:
    """Table 2, deep: 218.1M parameters with 33,288 entries."""
    return evolved(vocabulary, width=640, dropout=0.3, encoder_depth=9, decoder_depth=10)


def evolved_gpt_tiny(vocabulary: Vocabulary) -> DecoderOnly:
    """The decoder by itself, for a laptop."""
    embedding = evolved(vocabulary, width=256, heads=4).embedding
    return DecoderOnly(Joint(vocabulary.target), 256, embedding, Stack(writer(4, 0.1), depth=2), initial=Glorot())


def universal_evolved_tiny(vocabulary: Vocabulary) -> EncoderDecoder:
    """One cell on each side, met again and again: depth as time, as Dehghani et al. 2018 have it."""
    base = evolved(vocabulary, width=256, heads=4, dropout=0.2)
    return replace(
        base,
        embedding=replace(base.embedding, position=NoPosition()),
        encoder=Recurrence(encoder(4, 0.2), 3, Coordinates()),
        decoder=Recurrence(decoder(4, 0.2), 3, Coordinates()),
    )
