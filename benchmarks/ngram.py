"""An n-gram model as a baseline: interpolated, Kneser and Ney's counts, three discounts (Chen and Goodman 1998)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Ids = np.ndarray


@dataclass(frozen=True)
class _Level:
    """The n-grams of one order: their keys in order, and for every n-gram that stands before a word, what follows it."""

    keys: Ids  # context x V + word, sorted; the place of a key is the n-gram's number
    counts: Ids  # of each n-gram
    totals: np.ndarray  # of each context
    spared: np.ndarray  # of each context: the mass its discounts leave to the next lower order
    discounts: np.ndarray  # by count: none, one, two, three or more


class KneserNey:
    """Words are numbers below `vocabulary`; the text is one stream."""

    def __init__(self, text: Ids, vocabulary: int, order: int = 5) -> None:
        self.vocabulary, self.order = vocabulary, order
        text = text.astype(np.int64)
        numbers = [text]  # of the n-gram that ends at each place, where there is one
        keys, suffixes, raw = [np.arange(vocabulary)], [np.zeros(vocabulary, np.int64)], [np.bincount(text, minlength=vocabulary)]
        for _ in range(order - 1):
            below = numbers[-1]
            found, first, inverse, counts = np.unique(
                below[:-1] * vocabulary + text[-len(below) + 1 :], return_index=True, return_inverse=True, return_counts=True
            )
            keys.append(found)
            suffixes.append(below[first + 1])
            raw.append(counts)
            numbers.append(inverse)
        self._levels = []
        for n in range(order):
            last = n == order - 1
            counts = raw[n] if last else np.bincount(suffixes[n + 1], minlength=len(keys[n]))
            self._levels.append(_level(keys[n], counts, vocabulary, len(keys[n - 1]) if n else 1))

    def __call__(self, words: Ids, contexts: Ids) -> np.ndarray:
        """The probability of each word after its context.

        words (Q,); contexts (Q, order - 1), the latest word last. Returns (Q,).
        """
        probability = np.full(len(words), 1 / self.vocabulary)
        for n, level in enumerate(self._levels):
            context = self._number(contexts[:, contexts.shape[1] - n :])
            known = context >= 0
            safe = np.where(known, context, 0)
            total = np.where(known, level.totals[safe], 0.0)
            counts = _found(level, safe * self.vocabulary + words, level.counts)
            rest = np.maximum(counts - level.discounts[np.minimum(counts, 3)], 0)
            share = (rest + level.spared[safe] * probability) / np.maximum(total, 1)
            probability = np.where(total > 0, share, probability)
        return probability

    def _number(self, words: Ids) -> Ids:
        """The number of each n-gram; -1 for one that was never seen. (Q, n) to (Q,)."""
        number = np.zeros(len(words), np.int64)
        for n in range(words.shape[1]):
            key = number * self.vocabulary + words[:, n]
            there = _place(self._levels[n].keys, key)
            number = np.where(number >= 0, there, -1)
        return number


def _level(keys: Ids, counts: Ids, vocabulary: int, contexts: int) -> _Level:
    of = [int((counts == number).sum()) for number in range(1, 5)]
    shared = of[0] / (of[0] + 2 * of[1])
    discounts = np.array([0.0, *(number - (number + 1) * shared * of[number] / of[number - 1] for number in (1, 2, 3))])
    context = keys // vocabulary
    totals = np.bincount(context, counts, minlength=contexts)
    spared = np.bincount(context, discounts[np.minimum(counts, 3)], minlength=contexts)
    return _Level(keys, counts, totals, spared, discounts)


def _place(keys: Ids, wanted: Ids) -> Ids:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)


def _found(level: _Level, wanted: Ids, values: Ids) -> Ids:
    place = _place(level.keys, wanted)
    return np.where(place >= 0, values[place], 0)
