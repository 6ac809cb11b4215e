"""The proof that a model says here what it says in `transformers`: the same numbers for the same text, the same logits for the
same numbers, the same text where both write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qkv.attention.sight import Plain
from qkv.data.tokenizer import Tokenizer
from qkv.decode.generate import Greedy, Writer
from qkv.decode.rule import Beam
from qkv.decode.translate import Translator
from qkv.interop.huggingface.architecture import Architecture
from qkv.interop.huggingface.library import model_of, quiet, tokenizer_of
from qkv.interop.huggingface.tokenizer import TARGET
from qkv.model.transformer import AnyModel, DecoderOnly, EncoderDecoder
from qkv.spec.position import Learned
from qkv.store import Stored

CLOSE = 1e-4  # of a logit, or of the largest one's size where that is more than 1
LONGEST = 128  # tokens of a text that are compared
WRITTEN = 20  # tokens that both write
PROMPT = 30  # letters of a text that they go on from, or translate
FRAME = 3  # tokens that may stand around a text

Rows = list[tuple[list[int], list[int]]]
"""What an encoder is given and what a decoder is, or the same twice where there is one side."""


@dataclass(frozen=True)
class Parity:
    """What was measured: rows, the largest difference of a logit, and the size of the largest; texts with the same numbers on
    both sides, of how many; and texts that were written alike, of how many."""

    rows: int
    worst: float
    largest: float
    same: int
    texts: int
    alike: int
    written: int

    @property
    def close(self) -> bool:
        """Whether no logit differs but by rounding."""
        return self.worst <= CLOSE * max(1.0, self.largest)


def framed(stored: Stored, pairs: Sequence[tuple[list[int], list[int]]]) -> Rows:
    """What a model is given of pairs of id lists."""
    source, target, most = stored.source.symbols, stored.target.symbols, _most(stored.model)
    if isinstance(stored.model, DecoderOnly):
        rows = [[*target.opening, *ids][:most] or [target.start] for ids, _ in pairs]
        return [(row, row) for row in rows]
    sides = [(source.read(read[: most - len(source.before) - 1]), [*target.opening, *written][:most]) for read, written in pairs]
    return sides if isinstance(stored.model, EncoderDecoder) else [(read, read) for read, _ in sides]


def random_pairs(stored: Stored, count: int) -> list[tuple[list[int], list[int]]]:
    """Pairs of rows of entries that are not special, always the same."""
    generator = torch.Generator().manual_seed(0)

    def ids(tokenizer: Tokenizer) -> list[int]:
        ordinary = [entry for entry in range(tokenizer.size) if entry not in tokenizer.symbols.special]
        length = int(torch.randint(1, 30, (1,), generator=generator))
        return [ordinary[i] for i in torch.randint(len(ordinary), (length,), generator=generator).tolist()]

    return [(ids(stored.source), ids(stored.target)) for _ in range(count)]


def compare(
    stored: Stored, architecture: Architecture, folder: Path, texts: Sequence[tuple[str, str]], *, tokenized: bool, writes: bool
) -> Parity:
    """Measure a model against the one that `transformers` makes of a folder.

    The texts are a source and a target each, or the same twice; where the folder has no tokenizer they only say how many rows of
    random entries are compared. `writes` says whether both write, too, as the folder asks. Raises QkvError where there is no
    `transformers`.
    """
    theirs = model_of(folder, architecture.auto)
    if tokenized:
        pairs = list(zip(stored.source.encode([s for s, _ in texts]), stored.target.encode([t for _, t in texts]), strict=True))
    else:
        pairs = random_pairs(stored, len(texts))
    worst = largest = 0.0
    rows = framed(stored, pairs)
    for read, written in rows:
        there = _theirs(theirs, stored.model, read, written)
        here = _ours(stored.model, read, written)
        worst, largest = max(worst, (here - there).abs().max().item()), max(largest, there.abs().max().item())
    same, counted = _same_numbers(stored, folder, texts) if tokenized else (0, 0)
    alike, asked = _written_alike(stored, theirs, folder, texts) if tokenized and writes else (0, 0)
    return Parity(len(rows), worst, largest, same, counted, alike, asked)


def _most(model: AnyModel) -> int:
    position = model.spec.embedding.position
    return min(LONGEST, position.longest) if isinstance(position, Learned) else LONGEST


@torch.inference_mode()
def _theirs(theirs: Any, ours: AnyModel, read: list[int], written: list[int]) -> Tensor:
    given = {"decoder_input_ids": torch.tensor([written])} if isinstance(ours, EncoderDecoder) else {}
    return theirs(input_ids=torch.tensor([read]), attention_mask=torch.ones(1, len(read), dtype=torch.int64), **given).logits[0]


@torch.inference_mode()
def _ours(model: AnyModel, read: list[int], written: list[int]) -> Tensor:
    if isinstance(model, EncoderDecoder):
        return model(torch.tensor([read]), Plain(), torch.tensor([written]))[0]
    return model(torch.tensor([read]), Plain())[0]


def _same_numbers(stored: Stored, folder: Path, texts: Sequence[tuple[str, str]]) -> tuple[int, int]:
    """In how many texts both cut the same pieces, and of how many."""
    their_source = tokenizer_of(folder)
    symbols, read = stored.source.symbols, [s for s, _ in texts]
    if isinstance(stored.model, DecoderOnly):
        ours = [[*symbols.opening, *ids] for ids in stored.source.encode(read)]
        return _equal(ours, _their_numbers(their_source, read)), len(read)
    ours = [symbols.read(ids) for ids in stored.source.encode(read)]
    same, counted = _equal(ours, _their_numbers(their_source, read)), len(read)
    if isinstance(stored.model, EncoderDecoder) and stored.source is not stored.target:
        other = folder / TARGET
        written = [t for _, t in texts]
        ours = [[*ids, stored.target.symbols.end] for ids in stored.target.encode(written)]
        theirs = (
            _their_numbers(tokenizer_of(other), written)
            if other.is_dir()
            else list(their_source(text_target=written)["input_ids"])
        )
        same, counted = same + _equal(ours, theirs), counted + len(written)
    return same, counted


def _their_numbers(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    with quiet():  # which would say of long texts that they are
        return [list(ids) for ids in tokenizer(texts)["input_ids"]]


def _equal(ours: list[list[int]], theirs: list[list[int]]) -> int:
    return sum(mine == other for mine, other in zip(ours, theirs, strict=True))


@torch.inference_mode()
def _written_alike(stored: Stored, theirs: Any, folder: Path, texts: Sequence[tuple[str, str]]) -> tuple[int, int]:
    """How many texts both go on with, or translate, alike, and of how many."""
    if not isinstance(stored.model, EncoderDecoder | DecoderOnly):
        return 0, 0
    reads = tokenizer_of(folder)
    says = tokenizer_of(folder / TARGET) if (folder / TARGET).is_dir() else reads
    begun = [text[:PROMPT].strip() for text, _ in texts]
    room = _most(stored.model) - WRITTEN
    given = [text for text, ids in zip(begun, stored.source.encode(begun), strict=True) if 0 < len(ids) < room - FRAME][:3]
    if isinstance(stored.model, DecoderOnly):
        continued = Writer(stored).generate(given, Greedy(), length=WRITTEN)
        ours = [text + found[0].text for text, found in zip(given, continued, strict=True)]
    else:
        ours = [found[0].text for found in Translator(stored).translate(given, Beam(1, most=WRITTEN))]
    found: list[str] = []
    for text in given:
        numbers = torch.tensor([reads(text)["input_ids"]])
        more = WRITTEN + len(stored.target.symbols.opening) - 1 if isinstance(stored.model, EncoderDecoder) else WRITTEN
        with quiet():
            ids = theirs.generate(numbers, attention_mask=torch.ones_like(numbers), max_new_tokens=more)
        found.append(says.decode(ids[0], skip_special_tokens=True))
    return sum(mine.strip() == other.strip() for mine, other in zip(ours, found, strict=True)), len(given)
