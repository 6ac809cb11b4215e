"""Encoding a text chunk by chunk, and keeping account of what is kept of it and what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

from qkv.data.report import NAMED, Kept, Left
from qkv.data.text import Pair
from qkv.data.tokenizer import Tokenizers
from qkv.error import QkvError

CHUNK = 10_000  # pairs encoded at once
WORDY = 40  # characters to a token: a longer line is taken to have too many tokens, and is not even tokenised

Numbered = Iterator[tuple[int, Pair]]
"""Pairs with their numbers in the text, counted from 1."""


class Encoded(NamedTuple):
    """Some pairs that are kept, as text and as tokens."""

    pairs: list[Pair]
    sources: list[list[int]]
    targets: list[list[int]]


class Tally:
    """The running account of one text."""

    def __init__(self) -> None:
        self.read = 0
        self.kept = 0
        self._left = {"empty": 0, "long": 0}
        self._first: dict[str, list[int]] = {"empty": [], "long": []}
        self._tokens = [0, 0]
        self._unknown = [0, 0]

    def leave_out(self, number: int, fault: str) -> None:
        """A pair is not kept, for the reason that `fault` gave."""
        self._left[fault] += 1
        if len(self._first[fault]) < NAMED:
            self._first[fault].append(number)

    def keep(self, encoded: Encoded, tokenizers: Tokenizers) -> None:
        """Some pairs are kept."""
        self.kept += len(encoded.pairs)
        for side, sentences in enumerate((encoded.sources, encoded.targets)):
            unknown = tokenizers[side].symbols.unknown
            self._tokens[side] += sum(map(len, sentences))
            self._unknown[side] += sum(ids.count(unknown) for ids in sentences)

    def refuse_nothing(self, name: str, longest: int) -> None:
        """Raises QkvError where no pair is left."""
        if self.kept == 0:
            raise QkvError(
                f"nothing is left of the {name} text: of {self.read} pair(s) {self._left['empty']} have an empty side and "
                f"{self._left['long']} a side longer than {longest} tokens; give other text, or allow longer sentences"
            )

    def account(self) -> Kept:
        """The account, once the text is at its end."""
        empty, long = (Left(self._left[name], tuple(self._first[name])) for name in ("empty", "long"))
        tokens, unknown = ((both[0], both[1]) for both in (self._tokens, self._unknown))
        return Kept(self.read, self.kept, empty, long, tokens, unknown)


def fault(pair: Pair, longest: int) -> str | None:
    """Why a pair is left out before it is tokenised, if it is: "empty" or "long"."""
    if any(not text or text.isspace() for text in pair):
        return "empty"
    if any(len(text) > WORDY * longest for text in pair):
        return "long"
    return None


def encode(pairs: Numbered, tokenizers: Tokenizers, longest: int, tally: Tally) -> Iterator[Encoded]:
    """The pairs that are kept, chunk by chunk; the tally is kept up to date."""
    while chunk := list(islice(pairs, CHUNK)):
        faults = {number: fault(pair, longest) for number, pair in chunk}
        sound = [(number, pair) for number, pair in chunk if faults[number] is None]
        sources = tokenizers.source.encode([source for _, (source, _) in sound])
        targets = tokenizers.target.encode([target for _, (_, target) in sound])
        for (number, _), source, target in zip(sound, sources, targets, strict=True):
            faults[number] = _late_fault(source, target, longest)
        tally.read += len(chunk)
        for number, found in faults.items():
            if found is not None:
                tally.leave_out(number, found)
        kept = [place for place, (number, _) in enumerate(sound) if faults[number] is None]
        encoded = Encoded(
            [sound[place][1] for place in kept], [sources[place] for place in kept], [targets[place] for place in kept]
        )
        tally.keep(encoded, tokenizers)
        yield encoded


def _late_fault(source: list[int], target: list[int], longest: int) -> str | None:
    if not source or not target:
        return "empty"
    return "long" if max(len(source), len(target)) > longest else None


class Overlap:
    """How much of the training text also stands in the validation text, which is known by the hashes of its sides."""

    def __init__(self) -> None:
        self.pairs = 0
        self.sources = 0
        self._pairs: set[bytes] = set()
        self._sources: set[bytes] = set()

    def learn(self, pairs: list[Pair]) -> None:
        """These pairs are validation text."""
        for source, target in pairs:
            self._sources.add(hashed(source))
            self._pairs.add(hashed(source) + hashed(target))

    def meet(self, pairs: list[Pair]) -> None:
        """These pairs are training text."""
        for source, target in pairs:
            of_source = hashed(source)
            if of_source in self._sources:
                self.sources += 1
                self.pairs += of_source + hashed(target) in self._pairs


def hashed(text: str) -> bytes:
    """What a line is known by, however much white space stands around it."""
    return blake2b(text.strip().encode(), digest_size=8).digest()
