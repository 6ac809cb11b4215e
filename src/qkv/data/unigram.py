"""Learning a unigram vocabulary: the pieces, and their probabilities, that make text cut at random into them most probable.

Kudo 2018, "Subword Regularization", section 3.2: start from many frequent substrings, fit their probabilities by expectation
maximisation, drop those that the likelihood misses least, and repeat until the vocabulary has its size. Single characters stay.

The trainer of Hugging Face `tokenizers` is not used, because it goes through its words in an order that changes from run to run,
and so learns two vocabularies from the same text. Here every sum has one order. Differences from the paper: only the most
frequent words are looked at, `MOST_CHARACTERS` in all, and the seeds are counted directly, with no suffix array.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

LONGEST_PIECE = 16  # characters
MOST_CHARACTERS = 500_000  # of different words: some tens of thousands of words, which are nearly all of a text
SEEDS = 4  # candidates at the start for each entry wanted
SHRINK = 0.75  # the share of the pieces that stays when some are dropped
ROUNDS = 2  # of expectation maximisation before pieces are dropped
FLOOR = 0.01  # occurrences: a piece that is never met is improbable, not impossible


@dataclass(frozen=True)
class Piece:
    """A piece of text, the logarithm of its probability, and how often it is expected in the text learned from."""

    text: str
    score: float
    occurrences: float


def fit(counts: Mapping[str, int], size: int) -> list[Piece]:
    """The pieces for text made of these words, each met so often: the most probable first, ties in the order of the alphabet.

    They are `size` pieces; fewer where the words have fewer substrings that occur twice, more where they have more characters.
    """
    if not counts:
        return []
    words, weights = _frequent(counts)
    characters = sorted(set().union(*counts))
    seeds = _seeds(words, weights, SEEDS * size)
    texts = characters + list(seeds)
    occurrences = np.array([1.0] * len(characters) + list(seeds.values()))
    texts, occurrences = _narrowed(texts, occurrences, len(characters), size, (words, weights))
    order = sorted(range(len(texts)), key=lambda place: (-occurrences[place], texts[place]))
    scores = _scores(occurrences).tolist()
    return [Piece(texts[place], scores[place], float(occurrences[place])) for place in order]


Weighted = tuple[list[str], np.ndarray]
"""Words, and how often each is met."""


def _narrowed(texts: list[str], occurrences: np.ndarray, fixed: int, size: int, words: Weighted) -> tuple[list[str], np.ndarray]:
    """Fit and drop in turns until `size` pieces are left; the first `fixed` of them stay in any case."""
    places = {text: place for place, text in enumerate(texts)}
    lattice = _Lattice.of(words[0], places)
    replaced = _Lattice.of(texts, places, whole=False)  # what would stand in for each piece
    names = np.arange(len(texts))
    while True:
        for _ in range(ROUNDS):
            occurrences = lattice.expected(_scores(occurrences), words[1])
        if len(names) <= max(size, fixed):
            return [texts[name] for name in names], occurrences
        scores = _scores(occurrences)
        loss = occurrences * (scores - replaced.best(scores)[names])
        loss[:fixed] = np.inf
        stay = max(size, fixed, int(SHRINK * len(names)))
        kept = np.zeros(len(names), dtype=bool)
        kept[np.argsort(-loss, kind="stable")[:stay]] = True
        lattice, replaced = lattice.without(~kept), replaced.without(~kept)
        names, occurrences = names[kept], occurrences[kept]


def _scores(occurrences: np.ndarray) -> np.ndarray:
    """The logarithms of the probabilities that are in proportion to how often each piece occurs (the M step)."""
    raised = np.maximum(occurrences, FLOOR)
    return np.log(raised) - np.log(raised.sum())


def _frequent(counts: Mapping[str, int]) -> Weighted:
    """The most frequent words, up to so many characters in all."""
    words, characters = [], 0
    for word in sorted(counts, key=lambda word: (-counts[word], word)):
        characters += len(word)
        if characters > MOST_CHARACTERS and words:
            break
        words.append(word)
    return words, np.array([counts[word] for word in words], dtype=np.float64)


def _seeds(words: list[str], weights: np.ndarray, number: int) -> dict[str, float]:
    """The substrings of at least two characters that cover most of the text, each with the number of characters it covers."""
    found: Counter[str] = Counter()
    for word, weight in zip(words, weights.astype(int).tolist(), strict=True):
        for text in _substrings(word):
            found[text] += weight
    # A substring that is only ever met inside one longer substring would be a candidate for nothing.
    inner = {part for text, count in found.items() for part in (text[1:], text[:-1]) if found.get(part) == count}
    covering = ((-len(text) * count, text) for text, count in found.items() if count > 1 and text not in inner)
    return {text: -float(covered) for covered, text in heapq.nsmallest(number, covering)}


def _substrings(word: str) -> Iterator[str]:
    for start in range(len(word) - 1):
        for end in range(start + 2, min(len(word), start + LONGEST_PIECE) + 1):
            yield word[start:end]


@dataclass(frozen=True, eq=False)
class _Lattice:
    """All ways of cutting some words into pieces, as a graph.

    Its nodes are the places between the characters of all words, one word after the other. An edge is a piece: it leads from the
    node `start` to the node `end`. Edges are sorted by how far into its word their end lies, then by their end; `spans` are the
    stretches of edges that lie equally far, of which none leads to the start of another.
    """

    start: np.ndarray
    end: np.ndarray
    piece: np.ndarray
    depth: np.ndarray  # characters from the start of the word to the end of the edge
    last: np.ndarray  # the last node of each word

    @classmethod
    def of(cls, words: list[str], places: Mapping[str, int], whole: bool = True) -> _Lattice:
        """The lattice of some words over pieces with their places. Where a word may not be `whole`, it is no piece of itself."""
        edges, node = array("i"), 0
        for word in words:
            for end in range(1, len(word) + 1):
                for start in range(max(0, end - LONGEST_PIECE), end):
                    place = places.get(word[start:end])
                    if place is not None and (whole or end - start < len(word)):
                        edges.extend((node + start, node + end, place, end))
            node += len(word) + 1
        table = np.array(edges, dtype=np.int32).reshape(-1, 4)
        table = table[np.lexsort((table[:, 1], table[:, 3]))]
        last = np.cumsum([len(word) + 1 for word in words]) - 1
        return cls(*np.ascontiguousarray(table.T), last=last)

    def without(self, dropped: np.ndarray) -> _Lattice:
        """The lattice without the pieces marked as dropped; the others move up into their places."""
        left, moved = ~dropped[self.piece], np.cumsum(~dropped) - 1
        return _Lattice(self.start[left], self.end[left], moved[self.piece[left]], self.depth[left], self.last)

    def best(self, scores: np.ndarray) -> np.ndarray:
        """The score of the best way of cutting each word; minus infinity where there is none."""
        return self._arrived(scores, np.maximum)[self.last]

    def expected(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """How often each piece occurs in words of these weights, on average over the ways of cutting them (the E step)."""
        arrived = self._arrived(scores, np.logaddexp)
        share = np.exp(
            arrived[self.start] + scores[self.piece] - arrived[self.end]
        )  # of what reaches the end, comes by this edge
        through = np.zeros(len(arrived))
        through[self.last] = weights
        for span in reversed(self._spans()):
            share[span] *= through[self.end[span]]
            np.add.at(through, self.start[span], share[span])
        return np.bincount(self.piece, share, minlength=len(scores))

    def _arrived(self, scores: np.ndarray, either: np.ufunc) -> np.ndarray:
        """For every node the scores of all ways to it from the start of its word, brought together by `either`."""
        arrived = np.full(self.last[-1] + 1, -np.inf)
        arrived[np.concatenate([[0], self.last[:-1] + 1])] = 0.0
        for span in self._spans():
            end = self.end[span]
            runs = np.flatnonzero(np.diff(end, prepend=-1))
            arrived[end[runs]] = either.reduceat(arrived[self.start[span]] + scores[self.piece[span]], runs)
        return arrived

    def _spans(self) -> list[slice]:
        bounds = np.flatnonzero(np.diff(self.depth, prepend=0, append=-1)).tolist()
        return [slice(start, stop) for start, stop in pairwise(bounds)]
