"""Parameters, operations and cache bytes, against numbers made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qkv.error import QkvError
from qkv.papers.catalogue import CATALOGUE, named
from qkv.papers.transformer import transformer
from qkv.papers.universal import universal
from qkv.spec import plain
from qkv.spec.count import cache_bytes, flops, parameters
from qkv.spec.halt import Halt
from qkv.spec.model import DecoderOnly, Embedding, EncoderDecoder, Joint, Pointing, Separate, Untied
from qkv.spec.model import sides as sides_of
from qkv.spec.part import Attention, Block, PreNorm, Recurrence, Stack, head_width, key_width
from qkv.spec.pattern import Causal, Local, Pattern, PerHead, SameBlock, Stride, Summary
from qkv.spec.position import Coordinates, Learned, LearnedStep, vectors

# width 4, hidden 6, one block on each side, 10 entries
ATTENTION = 4 * 4 * 4
FEED_FORWARD = 4 * 6 + 6 + 6 * 4 + 4
NORM = 2 * 4
BLOCKS = (ATTENTION + NORM + FEED_FORWARD + NORM) + (2 * (ATTENTION + NORM) + FEED_FORWARD + NORM)


def small(**more) -> object:
    return transformer(**{"vocabulary": Joint(10), "width": 4, "hidden": 6, "heads": 2, "depth": 1} | more)


def test_parameters_by_hand() -> None:
    assert (ATTENTION, FEED_FORWARD, BLOCKS) == (64, 58, 348)
    assert parameters(small()) == 348 + 40
    assert parameters(small(norm=PreNorm())) == 348 + 40 + 2 * 8
    assert parameters(small(offset=True)) == 348 + 40 + 3 * 16
    assert parameters(small(depth=3)) == 3 * 348 + 40
    assert parameters(small(vocabulary=Separate(7, 10))) == 348 + 28 + 40
    assert parameters(plain.change(small(), "tie=Untied()")) == 348 + 3 * 40
    assert parameters(plain.change(small(vocabulary=Separate(7, 10)), "tie=Untied()")) == 348 + 28 + 2 * 40
    assert parameters(small(heads=1)) == parameters(small(heads=4)), "heads share the width"


def test_operations_by_hand() -> None:
    # three attentions: four maps of 4 x 4, and scores and sums over 8 keys; two feed-forwards; 10 logits
    attention = 2 * (4 * 16) + 2 * (2 * 8 * 4)
    feed_forward = 2 * (4 * 6 + 6 * 4)
    assert flops(small(), length=8) == 3 * attention + 2 * feed_forward + 2 * 4 * 10 == 1040
    assert flops(small(vocabulary=Separate(99, 10)), length=8) == 1040, "looking up an embedding is no operation"
    assert flops(small(), length=16) - flops(small(), length=8) == 3 * 2 * 2 * 8 * 4


def test_cache_by_hand() -> None:
    # keys and values of 4 numbers, in two attentions of the decoder, for each of 8 tokens
    assert cache_bytes(small(), length=8) == 2 * 2 * 4 * 8 * 4
    assert cache_bytes(small(depth=6), length=8, bytes_per_number=2) == 6 * 2 * 2 * 4 * 8 * 2


def from_zeros(spec: Any) -> Any:
    """The same where all that is recurrent begins with zeros."""
    try:
        return plain.change(spec, "*.start=Zeros()")
    except QkvError:  # there is nothing of this kind
        return spec


@pytest.mark.parametrize("name", CATALOGUE)
def test_twice_the_parameters_that_multiply_are_about_the_operations_of_a_short_text(name: str) -> None:
    spec = named(name, Joint(37000))
    sides = 2 if isinstance(spec, EncoderDecoder) else 1
    looked_up = sides * spec.width * (spec.embedding.segments + vectors(spec.embedding.position))
    looked_up += sides * spec.width * 37000 if isinstance(spec.tie, Untied) else 0
    looked_up += spec.width * 37000 if isinstance(spec.output, Pointing) else 0
    entries = 37000 if getattr(spec.output, "offset", False) else 0
    unrolled = replace(spec, **{name: Stack(*depth.tiled(), depth=len(depth.tiled())) for name, depth in sides_of(spec).items()})
    counted = parameters(spec if not any(isinstance(depth, Recurrence) for depth in sides_of(spec).values()) else unrolled)
    once = parameters(spec) - parameters(from_zeros(spec))  # the maps that make the first states of a text
    assert flops(spec, length=1) == pytest.approx(2 * (counted - looked_up - entries - once), rel=0.01)


def test_a_recurrence_is_one_block_that_works_at_every_step() -> None:
    recurrent = universal(Joint(10), width=4, hidden=6, heads=2, steps=5)
    assert parameters(recurrent) == 348 + 40
    assert flops(recurrent, length=8) == 5 * (1040 - 2 * 4 * 10) + 2 * 4 * 10
    assert cache_bytes(recurrent, length=8) == (5 * 2 * 4 + 2 * 4) * 8 * 4, "the memory is projected once"
    halting = universal(Joint(10), width=4, hidden=6, heads=2, steps=5, halt=Halt(), norm=PreNorm())
    assert parameters(halting) == 348 + 40 + 2 * 8 + 2 * 5
    trained = universal(Joint(10), width=4, hidden=6, heads=2, steps=5, signal=Coordinates(Learned(7), LearnedStep()))
    assert parameters(trained) == 348 + 40 + 2 * (7 + 5) * 4


def test_separable_convolutions_by_hand() -> None:
    plain_one = universal(Joint(10), width=4, hidden=6, heads=2)
    convolved = plain.change(plain_one, "encoder.block.sublayers.1=SeparableFeedForward(6)")
    assert parameters(convolved) == 348 + 40 + 3 * 4 + 5 * 6
    assert flops(convolved, length=8) - flops(plain_one, length=8) == 6 * 2 * (3 * 4 + 5 * 6)


@pytest.mark.parametrize(
    ("name", "millions"), [("sparse-cifar10", 58.85), ("sparse-enwik8", 94.63), ("sparse-imagenet64", 151.26)]
)
def test_sparse_transformers_are_as_large_as_in_the_paper(name: str, millions: float) -> None:
    """Child et al. 2019, section 7: 59M, 95M and 152M; by the weights alone, without offsets, norms and places."""
    spec = named(name, Joint(256))
    width, block = spec.width, spec.decoder.blocks[0]
    attention, forward = block.sublayers
    heads = attention.heads
    offsets = heads * (2 * key_width(attention, width) + head_width(attention, width)) + width + forward.hidden + width
    beside = spec.decoder.depth * (offsets + 4 * width) + 2 * width + width * vectors(spec.embedding.position)
    assert (parameters(spec) - beside) / 1e6 == pytest.approx(millions, abs=0.01)
    assert parameters(spec) / 1e6 == pytest.approx(millions, abs=0.5)


def test_a_sparse_model_computes_and_remembers_less() -> None:
    dense = DecoderOnly(Joint(10), 8, Embedding(), Stack(Block(Attention(2, Causal())), depth=1))

    def seeing(pattern: Pattern) -> DecoderOnly:
        return replace(dense, decoder=Stack(Block(Attention(2, pattern)), depth=1))

    assert flops(dense, 64) - flops(seeing(Causal() & Local(16)), 64) == 2 * 2 * 8 * (64 - 16)
    assert flops(dense, 64) - flops(seeing(Causal() & (SameBlock(8) | Summary(8, 2))), 64) == 2 * 2 * 8 * (64 - 8 - 16)
    assert cache_bytes(dense, 64) == 64 * 2 * 8 * 4
    assert cache_bytes(seeing(Causal() & Local(16)), 64) == 15 * 2 * 8 * 4, "the next query adds its own key"
    assert cache_bytes(seeing(Causal() & (SameBlock(8) | Summary(8, 2))), 60) == (7 * 2 + 4) * 2 * 8 * 4
    assert cache_bytes(seeing(Causal() & PerHead(Local(16), Stride(16))), 64) == (15 + 64) * 2 * 4 * 4
