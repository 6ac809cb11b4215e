"""Every named model: its name, its paper, and how it is made for a vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qkv.error import unknown
from qkv.papers import transformer
from qkv.spec.model import EncoderDecoder, Vocabulary


@dataclass(frozen=True)
class Entry:
    """A named model."""

    make: Callable[[Vocabulary], EncoderDecoder]
    paper: str


CATALOGUE: dict[str, Entry] = {
    "transformer-tiny": Entry(transformer.transformer_tiny, "after Wu et al. 2021"),
    "transformer-small": Entry(transformer.transformer_small, "after Vaswani et al. 2017"),
    "transformer-base": Entry(transformer.transformer_base, "Vaswani et al. 2017"),
    "transformer-big": Entry(transformer.transformer_big, "Vaswani et al. 2017"),
}


def named(name: str, vocabulary: Vocabulary) -> EncoderDecoder:
    """The model of that name for a vocabulary. Raises QkvError with the nearest name if there is none."""
    if name not in CATALOGUE:
        raise unknown("model", name, CATALOGUE)
    return CATALOGUE[name].make(vocabulary)
