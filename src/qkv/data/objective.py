"""Objectives at work: what a model is asked to learn from a row of tokens.

All is a pure function of the objective, the row, the vocabulary's special symbols and a random generator.
The row, (n,), is text and nothing else. Symbols that frame it, such as <s> and </s>, are the caller's to add afterwards, so that
none of them is ever hidden. The row given is never written to. Rows that come out are of 64 bits, however narrow the one that
went in: a special symbol may have a number that the ids of a corpus leave no room for.

A share of a row becomes a whole number by Python's `round`, in which halves go to the even neighbour.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TypeGuard, overload

import numpy as np

from qkv.error import QkvError
from qkv.spec.objective import Delete, Infill, MaskedWords, Noise, Rotate, Spans

WORD = 1 << 64


@dataclass(frozen=True, eq=False)
class Special:
    """What an objective has to know of a vocabulary: which entries it may write into a text.

    `sentinels` stand for one span each, in the order in which they are used: T5 counts down from the top of the vocabulary.
    `ordinary` are the entries that are words, (W,): none of the special ones is among them.
    """

    mask: int
    sentinels: tuple[int, ...]
    ordinary: np.ndarray | range

    def __post_init__(self) -> None:
        special = (self.mask, *self.sentinels)
        if not all(_is_whole(entry) and entry >= 0 for entry in special) or len(set(special)) < len(special):
            raise QkvError(f"the mask and the sentinels must be different entries of a vocabulary, from 0 up: not {special}")
        if not isinstance(self.ordinary, range):
            _check_row("ordinary entries", self.ordinary)
        elif len(self.ordinary) == 0:
            raise QkvError("there are no ordinary entries: expected at least one word to replace another by")
        amiss = [entry for entry in special if entry in self.ordinary]
        if amiss:
            raise QkvError(f"ordinary entries are words, but {amiss} among them are the mask or sentinels: leave them out")


@dataclass(frozen=True, eq=False)
class Masked:
    """A row with words to restore, (n,); the places where they stand, (m,), rising; and the words themselves, (m,).

    The loss counts at these places and nowhere else, also at those where the row still shows the word.
    """

    ids: np.ndarray
    places: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True, eq=False)
class Denoised:
    """What an encoder reads and what a decoder shall write: two rows, without start or end."""

    source: np.ndarray
    target: np.ndarray


@overload
def corrupted(
    how: MaskedWords, ids: np.ndarray, symbols: Special, random: np.random.Generator, ends: np.ndarray | None = None
) -> Masked: ...
@overload
def corrupted(
    how: Noise, ids: np.ndarray, symbols: Special, random: np.random.Generator, ends: np.ndarray | None = None
) -> Denoised: ...
def corrupted(
    how: MaskedWords | Noise, ids: np.ndarray, symbols: Special, random: np.random.Generator, ends: np.ndarray | None = None
) -> Masked | Denoised:
    """What an objective makes of a row, (n,); `ends`, (n,), where sentences end, is asked for by `Infill` alone."""
    match how:
        case MaskedWords():
            return _mask_words(how, ids, symbols, random)
        case Spans():
            return _take_spans(how, ids, symbols, random)
        case Infill():
            return _infill(how, ids, symbols, random, np.zeros(len(ids), dtype=np.bool_) if ends is None else ends)
        case Delete():
            return _delete(how, ids, symbols, random)
        case Rotate():
            return _rotate(how, ids, symbols, random)


def _mask_words(how: MaskedWords, ids: np.ndarray, symbols: Special, random: np.random.Generator) -> Masked:
    """The row, (n,), with exactly max(1, round(share * n)) of its tokens to restore."""
    row = _row(ids)
    places = _places(len(row), max(1, round(how.share * len(row))), random)
    truth = row[places]
    fate = random.random(len(places))
    row[places[fate < how.masked]] = symbols.mask
    swapped = places[(fate >= how.masked) & (fate < how.masked + how.random)]
    row[swapped] = _words(symbols, len(swapped), random)
    return Masked(row, places, truth)


def _take_spans(how: Spans, ids: np.ndarray, symbols: Special, random: np.random.Generator) -> Denoised:
    """The row, (n,), in two: what is left of it, and what was taken out. Raises QkvError where sentinels are too few."""
    row = _row(ids)
    noise, spans = how.counts(len(row))
    sentinels = _sentinels(symbols, spans)
    if spans == 0:
        return Denoised(row, sentinels)
    gaps, lengths = _parts(len(row) - noise, spans, random), _parts(noise, spans, random)
    hidden = np.repeat(np.arange(2 * spans) % 2 == 1, np.stack([gaps, lengths], axis=1).ravel())
    source = _among(row[~hidden], np.cumsum(gaps), sentinels[:-1])
    return Denoised(source, _among(row[hidden], np.append(0, np.cumsum(lengths)), sentinels))


def _infill(how: Infill, ids: np.ndarray, symbols: Special, random: np.random.Generator, ends: np.ndarray) -> Denoised:
    """The row, (n,), with holes, and the row. `ends`, (n,), is True at the last token of each sentence.

    The row's last token ends a sentence whether or not `ends` says so: a text may be cut off in the middle of one. Where the
    sentences stay in order, `ends` makes no difference.
    """
    target = _row(ids)
    if ends.shape != target.shape or ends.dtype != np.bool_:
        raise QkvError(
            f"expected the ends of sentences as {len(target)} truth values, one for each token: "
            f"not {ends.dtype} of shape {ends.shape}"
        )
    text = target[_sentences_shuffled(ends, random)] if how.permute else target
    lengths = random.permutation(_poisson(how.mean, round(how.share * len(text)), random))
    return Denoised(_with_holes(text, lengths, symbols.mask, random), target)


def _delete(how: Delete, ids: np.ndarray, symbols: Special, random: np.random.Generator) -> Denoised:
    """The row, (n,), with tokens missing, and the row. The symbols are those of all objectives; none is written here."""
    row = _row(ids)
    gone = _places(len(row), min(round(how.share * len(row)), len(row) - 1), random)
    return Denoised(np.delete(row, gone), row)


def _rotate(how: Rotate, ids: np.ndarray, symbols: Special, random: np.random.Generator) -> Denoised:
    """The row, (n,), rotated, and the row. The symbols are those of all objectives; none is written here."""
    row = _row(ids)
    return Denoised(np.roll(row, -int(random.integers(len(row)))), row)


def raw_length(longest: int, share: float, mean: float) -> tuple[int, int]:
    """How many tokens `Spans(share, mean)` makes a source of at most `longest` positions of, and how long their target then is.

    The source's length counts the sentinels and the end symbol. The target's counts the sentinels, the final one among them, but
    no end symbol: it is the length of `Denoised.target`, 114 for the 568 tokens that make 512 positions. The released code comes
    to the same number by counting the end symbol, but no final sentinel.
    """
    if not _is_whole(longest) or longest < 2:
        raise QkvError(f"a source has room for a token and the end symbol, 2 positions or more: not {longest!r}")
    spans = Spans(share, mean)

    def positions(n: int) -> int:
        noise, sentinels = spans.counts(n)
        return n - noise + sentinels + 1

    # One more token never makes a source shorter, so that the longest row that fits can be searched for by halves.
    beyond = longest
    while positions(beyond) <= longest:
        beyond *= 2
    raw = bisect_right(range(1, beyond), longest, key=positions)
    return raw, sum(spans.counts(raw)) + 1


def window(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random generator of one example in one epoch: a pure function of the three, whoever asks and in whatever order.

    No two different triples share a stream, nor does any share one with the order of batches. (`default_rng` over all three would
    do neither: it takes (s, e, 0) for (s, e), and (2**32, 0, 0) for (0, 1, 0). It is also slower.)
    """
    if not all(_is_whole(number) and 0 <= number < WORD for number in (seed, epoch, index)):
        raise QkvError(
            f"seed, epoch and index must be whole numbers from 0 up, of 64 bits: not {seed!r}, {epoch!r} and {index!r}"
        )
    key, counter = np.array([seed, epoch], dtype=np.uint64), np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _places(n: int, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` different places of n, rising: all choices are equally likely."""
    return np.sort(random.choice(n, count, replace=False, shuffle=False))


def _words(symbols: Special, count: int, random: np.random.Generator) -> np.ndarray:
    """Any `count` words, (count,). Picked one by one, since a range of them as an array would be as long as the vocabulary."""
    picks = random.integers(len(symbols.ordinary), size=count).tolist()
    return np.array([symbols.ordinary[pick] for pick in picks], dtype=np.int64)


def _sentinels(symbols: Special, spans: int) -> np.ndarray:
    """The sentinels for so many spans and the one that ends the last, (spans + 1,)."""
    if spans >= len(symbols.sentinels):
        raise QkvError(
            f"{spans} spans need {spans + 1} sentinels, the final one included, but the vocabulary has {len(symbols.sentinels)}: "
            "give it more, or make rows shorter, the share smaller or the mean longer"
        )
    return np.array(symbols.sentinels[: spans + 1], dtype=np.int64)


def _parts(total: int, parts: int, random: np.random.Generator) -> np.ndarray:
    """A whole number as a sum of so many, (parts,), none of them 0: all sums are equally likely, the order of parts counting."""
    cuts = _places(total - 1, parts - 1, random) + 1
    return np.diff(cuts, prepend=0, append=total)


def _poisson(mean: float, budget: int, random: np.random.Generator) -> np.ndarray:
    """Lengths drawn from a Poisson distribution until they reach the budget, the last one cut to meet it: none for no budget."""
    drawn = np.empty(0, dtype=np.int64)
    while drawn.sum() < budget:
        drawn = np.append(drawn, random.poisson(mean, budget))
    reached = np.minimum(np.cumsum(drawn), budget)
    return np.diff(reached, prepend=0)[: np.searchsorted(reached, budget) + 1]


def _with_holes(text: np.ndarray, lengths: np.ndarray, mask: int, random: np.random.Generator) -> np.ndarray:
    """A row in which one mask stands for each span of these lengths, and the tokens that are left for themselves."""
    left = len(text) - int(lengths.sum())
    before = _places(left + len(lengths), len(lengths), random) - np.arange(len(lengths))
    # A hidden token's place is the number of tokens before it: those left before its span, and the other hidden ones.
    hidden = np.repeat(before, lengths) + np.arange(len(text) - left)
    return _among(np.delete(text, hidden), before, np.full(len(lengths), mask))


def _among(tokens: np.ndarray, before: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """A row of tokens and of symbols, each symbol behind as many tokens as `before` says, which never falls."""
    row = np.empty(len(tokens) + len(symbols), dtype=np.int64)
    slots, free = before + np.arange(len(symbols)), np.ones(len(row), dtype=np.bool_)
    free[slots] = False
    row[slots], row[free] = symbols, tokens
    return row


def _sentences_shuffled(ends: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The places of all tokens, (n,), in an order in which sentences are shuffled and stay whole."""
    sentence = np.cumsum(ends) - ends
    turn = random.permutation(int(sentence[-1]) + 1)
    return np.argsort(turn[sentence], kind="stable")


def _row(ids: np.ndarray) -> np.ndarray:
    """A copy of a row of tokens, (n,), that may be written to."""
    _check_row("tokens", ids)
    return ids.astype(np.int64)


def _check_row(what: str, ids: np.ndarray) -> None:
    if ids.ndim != 1 or len(ids) == 0 or ids.dtype.kind not in "iu":
        raise QkvError(f"expected {what} as a row of whole numbers, at least one: not {ids.dtype} of shape {ids.shape}")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
