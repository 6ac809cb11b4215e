"""The same model in another size."""

from __future__ import annotations

import math

import pytest

from qkv.error import QkvError
from qkv.papers.catalogue import CATALOGUE, named
from qkv.papers.gpt import gpt
from qkv.spec.count import parameters, without_embeddings
from qkv.spec.model import DecoderOnly, Joint, sides
from qkv.spec.part import Attention, FeedForward, Rotary
from qkv.spec.plain import change
from qkv.spec.size import Sizes, grown, nearest_width, widened

SMALL = [name for name in CATALOGUE if name.endswith("-tiny")]


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_model_in_its_own_size_is_itself(name: str) -> None:
    model = named(name, Joint(1000))
    assert widened(model, model.width) == grown(model, model.width) == model


@pytest.mark.parametrize("name", SMALL)
def test_a_number_of_parameters_is_met(name: str) -> None:
    model = named(name, Joint(1000))
    assert nearest_width(model, parameters(model)) == model
    sizes = Sizes(model)
    for wanted in (200_000, 700_000, 3_000_000):
        assert abs(math.log(parameters(nearest_width(model, wanted)) / wanted)) < math.log(1.2)
        assert abs(math.log(parameters(sizes.nearest(wanted)) / wanted)) < math.log(1.3)


def test_everything_is_in_proportion() -> None:
    model = grown(gpt(Joint(100), width=128, heads=4, depth=4), 256)
    (block,) = model.decoder.blocks
    attention, forward = block.sublayers
    assert (attention.heads, forward.hidden, len(model.decoder.tiled())) == (8, 1024, 8)
    small = grown(gpt(Joint(100), width=128, heads=4, depth=4), 24)
    assert (small.decoder.blocks[0].sublayers[0].heads, len(small.decoder.tiled())) == (1, 2)
    wide = widened(gpt(Joint(100), width=128, heads=4, depth=4), 192)
    assert (wide.decoder.blocks[0].sublayers[0].heads, len(wide.decoder.tiled())) == (4, 4)
    with pytest.raises(QkvError, match="cannot be shared by 4 heads"):
        widened(gpt(Joint(100), width=128, heads=4, depth=4), 130)


@pytest.mark.parametrize("name", SMALL)
def test_two_blocks_are_left_of_any_depth(name: str) -> None:
    """Fewer lie off the trend of all others (Kaplan et al. 2020, figure 6); what was given with one stays so."""
    model = named(name, Joint(100))
    for side, depth in sides(Sizes(model).smallest).items():
        assert len(depth.tiled()) >= min(2, len(sides(model)[side].tiled()))
    alone = gpt(Joint(100), width=128, heads=4, depth=1)
    assert len(grown(alone, 64).decoder.tiled()) == 1 and len(grown(alone, 384).decoder.tiled()) == 3


def test_heads_that_are_turned_or_shared_stay_so() -> None:
    model = change(change(named("gpt-tiny", Joint(100)), "*.rotate=Rotary()"), "*.kv_heads=2")
    for width in range(8, 200, 8):
        (block,) = grown(model, width).decoder.blocks
        attention = block.sublayers[0]
        assert isinstance(attention, Attention) and isinstance(attention.rotate, Rotary)
        assert (width // attention.heads) % 2 == 0 and isinstance(attention.kv_heads, int)
        assert attention.heads % attention.kv_heads == 0


def test_steps_of_a_recurrence_are_its_depth() -> None:
    model = named("universal-gpt-tiny", Joint(100))
    half = grown(model, 128)
    assert isinstance(half, DecoderOnly) and len(half.decoder.tiled()) == 3


def test_parameters_without_embeddings_are_those_of_the_blocks() -> None:
    """12 x depth x width^2, and the offsets and norms that Kaplan et al. leave out."""
    model = gpt(Joint(1000), width=64, heads=4, depth=3)
    block = 12 * 64**2 + (4 * 64 + 256 + 64) + 4 * 64
    assert without_embeddings(model) == 3 * block + 2 * 64
    for name in CATALOGUE:
        one, other = (without_embeddings(named(name, Joint(size))) for size in (100, 5000))
        slack = 5000 if name.startswith(("bert", "bart", "universal-bert")) else 0  # an offset for each entry is no vector
        assert abs(one - other) <= slack
    assert any(isinstance(s, FeedForward) for d in sides(model).values() for b in d.blocks for s in b.sublayers)
