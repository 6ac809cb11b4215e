"""How likely a language model finds given text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from qkv.attention.sight import Plain
from qkv.data.symbols import Symbols
from qkv.error import QkvError
from qkv.model.transformer import AnyModel, DecoderOnly
from qkv.spec.model import known_places


@dataclass(frozen=True)
class Window:
    """Rows of `context` tokens, of which each shares all but its last `stride` with the one before: what is predicted has at
    least context - stride tokens to go by, but for the beginning of a document."""

    context: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.context:
            raise QkvError(f"a stride of {self.stride} does not fit into a context of {self.context} tokens")


class _Row(NamedTuple):
    """The tokens that a row is given, and how many of its predictions an earlier row has made already."""

    first: int
    last: int
    made: int


def places(model: AnyModel) -> int | float:
    """How many tokens a text can have at most."""
    return known_places(model.spec)


@torch.inference_mode()
def surprises(
    model: DecoderOnly, ids: Sequence[int], symbols: Symbols, window: Window, batch_tokens: int = 4096
) -> Float64[Tensor, " N"]:
    """-log P of each token of a document and of its end, given those before it, in nats.

    Raises QkvError for a window that is wider than the model has places.
    """
    if window.context > places(model):
        raise QkvError(f"a context of {window.context} tokens is more than the {places(model)} places that the model knows")
    whole = torch.tensor([symbols.start, *ids, symbols.end], device=model.output.weight.device)
    found: list[Tensor] = []
    size = max(1, batch_tokens // window.context)
    for _, group in groupby(_rows(len(whole) - 1, window), key=lambda row: row.last - row.first):
        alike = list(group)
        for start in range(0, len(alike), size):
            some = alike[start : start + size]
            given = torch.stack([whole[row.first : row.last] for row in some])
            truth = torch.stack([whole[row.first + 1 : row.last + 1] for row in some])
            surprise = _surprise(model(given, Plain()), truth)
            found += [surprise[place, row.made :] for place, row in enumerate(some)]
    return torch.cat(found)


class Predicted(NamedTuple):
    """Of each token of some texts, and of their ends where they have some: its surprise in nats, and whether nothing is
    likelier."""

    surprise: Float64[Tensor, "B N"]
    likeliest: Bool[Tensor, "B N"]


@torch.inference_mode()
def predicted(model: DecoderOnly, texts: Sequence[Sequence[int]], symbols: Symbols) -> Predicted:
    """How a model predicts texts of one length, each from its beginning on, which it must have places for."""
    return _predicted(model, [[symbols.start, *ids, symbols.end] for ids in texts])


@torch.inference_mode()
def predicted_whole(model: DecoderOnly, documents: Sequence[Sequence[int]], symbols: Symbols) -> Predicted:
    """The same of documents whose length is known, so that there is no end to predict: pictures."""
    return _predicted(model, [[symbols.start, *ids] for ids in documents])


def _predicted(model: DecoderOnly, framed: Sequence[Sequence[int]]) -> Predicted:
    whole = torch.tensor(framed, device=model.output.weight.device)
    logits, truth = model(whole[:, :-1], Plain()), whole[:, 1:]
    return Predicted(_surprise(logits, truth).cpu(), (logits.argmax(2) == truth).cpu())


def equally_long(places: Sequence[int], lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Texts of one length together, at most so many tokens each, and always one text."""
    groups = []
    for length, alike in groupby(sorted(places, key=lambda place: lengths[place]), key=lambda place: lengths[place]):
        some, size = list(alike), max(1, tokens // length)
        groups += [some[start : start + size] for start in range(0, len(some), size)]
    return groups


def _rows(predictions: int, window: Window) -> list[_Row]:
    rows = [_Row(0, min(window.context, predictions), 0)]
    while rows[-1].last < predictions:
        before = rows[-1].last
        last = min(before + window.stride, predictions)
        first = max(0, last - window.context)
        rows.append(_Row(first, last, before - first))
    return rows


def _surprise(logits: Float[Tensor, "B T V"], truth: Int[Tensor, "B T"]) -> Float64[Tensor, "B T"]:
    logits = logits.float()
    return (logits.logsumexp(2) - logits.gather(2, truth[:, :, None])[:, :, 0]).double()
