"""Counted parameters are the real ones, and those that were published."""

from __future__ import annotations

import pytest
import torch

from qkv.error import QkvError
from qkv.model import transformer as module
from qkv.papers.catalogue import CATALOGUE, named
from qkv.spec.count import parameters
from qkv.spec.model import Joint, Separate
from qkv.spec.model import Model as Spec


def real(spec: Spec) -> int:
    """How many numbers the module holds; on the meta device it takes no memory."""
    with torch.device("meta"):
        model = getattr(module, type(spec).__name__)(spec)
    return sum(parameter.numel() for parameter in model.parameters())


def test_counted_equals_real(spec: Spec) -> None:
    assert parameters(spec) == real(spec)


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("vocabulary", [Joint(37000), Separate(20000, 30011)], ids=["joint", "separate"])
def test_counted_equals_real_in_full_size(name: str, vocabulary: Joint | Separate) -> None:
    if name.startswith("pointer") and isinstance(vocabulary, Separate):
        with pytest.raises(QkvError, match="one vocabulary for both sides"):
            CATALOGUE[name].make(vocabulary)
        return
    assert parameters(named(name, vocabulary)) == real(named(name, vocabulary))


@pytest.mark.parametrize(
    ("name", "entries", "millions"),
    [
        ("transformer-base", 37000, "63.05"),
        ("transformer-base", 33288, "61.15"),
        ("transformer-big", 37000, "214.2"),
        ("transformer-big", 33288, "210.4"),
        ("gpt2-small", 50257, "124.439808"),
        ("gpt2-medium", 50257, "354.823168"),
        ("gpt2-large", 50257, "774.03008"),
        ("gpt2-xl", 50257, "1557.6112"),
        ("bert-base", 30522, "109.514298"),  # without a pooled vector, with the map before the output
        ("t5-small", 32128, "60.506624"),
        ("t5-base", 32128, "222.903552"),
    ],
)
def test_counts_are_the_known_ones_to_the_last_digit(name: str, entries: int, millions: str) -> None:
    digits = len(millions.partition(".")[2])
    assert f"{parameters(named(name, Joint(entries))) / 1e6:.{digits}f}" == millions
