"""One pass of a model over a text, or over a pair of sentences, and what it lets out on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from qkv.attention.sight import Plain
from qkv.decode.generate import Writer
from qkv.decode.read import Reader
from qkv.decode.translate import Translator
from qkv.error import QkvError
from qkv.model.state import Path
from qkv.model.trace import Trace
from qkv.spec.model import sides


@dataclass(frozen=True, eq=False)
class Seen:
    """What a pass let out, and the pieces that each side of the model was given."""

    trace: Trace
    pieces: dict[str, list[str]]


@torch.inference_mode()
def seen_of(
    model: Translator | Writer | Reader, text: str, target: str | None = None, wants: Callable[[Path], bool] = lambda path: True
) -> Seen:
    """A pass of a model over a text; a translator's is over the text and its target. Attention is let out of the places wanted.

    Raises QkvError where there is nothing to look at.
    """
    if isinstance(model, Translator):
        if target is None:
            raise QkvError("a translator is looked at with two sentences: give a target, too")
        return _of_pair(model, text, target, Trace(wants))
    if not text:
        raise QkvError("there is nothing to look at in an empty text")
    ids, trace = model.given(text), Trace(wants)
    if isinstance(model, Writer):
        model.model.decode(torch.tensor([ids]), Plain(), trace=trace)
        return Seen(trace, {"decoder": model.tokenizer.pieces(ids)})
    collated, _ = model.collated([ids])
    model.model.encode(collated, Plain(), trace=trace)
    return Seen(trace, {"encoder": model.parts(ids)})


def _of_pair(translator: Translator, source: str, target: str, trace: Trace) -> Seen:
    read = translator.source.symbols.read(translator.source.encode([source])[0])
    written = [*translator.target.symbols.opening, *translator.target.encode([target])[0]]
    if len(read) == 1:
        raise QkvError("there is nothing to look at in an empty sentence")
    memory = translator.model.encode(torch.tensor([read]), Plain(), trace=trace)
    translator.model.decode(torch.tensor([written]), memory, trace=trace)
    return Seen(trace, {"encoder": translator.source.pieces(read), "decoder": translator.target.pieces(written)})


@dataclass(frozen=True)
class Pondered:
    """How many steps each piece took on one side of a model before it halted, of how many at most."""

    side: str
    pieces: list[str]
    steps: list[int]
    most: int


def ponder(model: Translator | Writer | Reader, text: str, target: str | None = None) -> list[Pondered]:
    """How long each position of a text took, on every side of the model whose positions halt by themselves (Dehghani et al.
    2018, section 2.2).

    Raises QkvError for a model that has no such side.
    """
    seen = seen_of(model, text, target)
    found = []
    for path, times in seen.trace.pondered.items():
        side, most = path[0], len(sides(model.model.spec)[path[0]].tiled())
        found.append(Pondered(side, seen.pieces[side], [int(step) for step in times.steps[0].tolist()], most))
    if not found:
        raise QkvError("no position of this model halts by itself: train one such as universal-tiny with --set '*.halt=Halt()'")
    return found
