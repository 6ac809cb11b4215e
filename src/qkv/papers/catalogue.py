"""Every named model: its name, its paper, how it is made for a vocabulary, and how it is trained unless one says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qkv.error import unknown
from qkv.papers import transformer
from qkv.spec.data import AtMost
from qkv.spec.model import EncoderDecoder, Vocabulary
from qkv.spec.run import Batching, Checkpoints, Cosine, Noam, Schedule


@dataclass(frozen=True)
class Practice:
    """How a model is trained where nothing else is said: by default as in Vaswani et al. 2017, section 5.3."""

    schedule: Schedule = Noam()
    batching: Batching = Batching()
    checkpoints: Checkpoints = Checkpoints()


@dataclass(frozen=True)
class Entry:
    """A named model."""

    make: Callable[[Vocabulary], EncoderDecoder]
    paper: str
    practice: Practice = Practice()


# an hour on a laptop is some thousand steps: the paper's 4000 of warm-up would be most of them
AN_HOUR = Practice(Cosine(peak=0.003, warmup=500), Batching(2048), Checkpoints(every=250, keep=6, average=AtMost(6)))

CATALOGUE: dict[str, Entry] = {
    "transformer-tiny": Entry(transformer.transformer_tiny, "after Wu et al. 2021", AN_HOUR),
    "transformer-small": Entry(transformer.transformer_small, "after Vaswani et al. 2017"),
    "transformer-base": Entry(transformer.transformer_base, "Vaswani et al. 2017"),
    "transformer-big": Entry(transformer.transformer_big, "Vaswani et al. 2017"),
}


def entry(name: str) -> Entry:
    """What is known of the model of that name. Raises QkvError with the nearest name if there is none."""
    if name not in CATALOGUE:
        raise unknown("model", name, CATALOGUE)
    return CATALOGUE[name]


def named(name: str, vocabulary: Vocabulary) -> EncoderDecoder:
    """The model of that name for a vocabulary. Raises QkvError with the nearest name if there is none."""
    return entry(name).make(vocabulary)
