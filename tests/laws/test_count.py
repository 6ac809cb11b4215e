"""Counted parameters are the real ones, and those that were published."""

from __future__ import annotations

import pytest
import torch

from qkv.model.transformer import EncoderDecoder
from qkv.papers.catalogue import CATALOGUE, named
from qkv.spec.count import parameters
from qkv.spec.model import EncoderDecoder as Spec
from qkv.spec.model import Joint, Separate


def real(spec: Spec) -> int:
    """How many numbers the module holds; on the meta device it takes no memory."""
    with torch.device("meta"):
        model = EncoderDecoder(spec)
    return sum(parameter.numel() for parameter in model.parameters())


def test_counted_equals_real(spec: Spec) -> None:
    assert parameters(spec) == real(spec)


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("vocabulary", [Joint(37000), Separate(20000, 30011)], ids=["joint", "separate"])
def test_counted_equals_real_in_full_size(name: str, vocabulary: Joint | Separate) -> None:
    assert parameters(named(name, vocabulary)) == real(named(name, vocabulary))


@pytest.mark.parametrize(
    ("name", "entries", "millions"),
    [
        ("transformer-base", 37000, "63.05"),
        ("transformer-base", 33288, "61.15"),
        ("transformer-big", 37000, "214.2"),
        ("transformer-big", 33288, "210.4"),
    ],
)
def test_counts_are_the_known_ones_to_the_last_digit(name: str, entries: int, millions: str) -> None:
    digits = len(millions.partition(".")[2])
    assert f"{parameters(named(name, Joint(entries))) / 1e6:.{digits}f}" == millions
