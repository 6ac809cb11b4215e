"""Objectives: what is hidden, exactly as much as said and as likely as said; and that the text can always be had back."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import combinations, pairwise, permutations, product
from math import comb, exp, factorial, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkv.data.objective import Denoised, Masked, Special, corrupted, raw_length, window
from qkv.error import QkvError
from qkv.spec.objective import Delete, Infill, MaskedWords, Rotate, Spans

HOUSE = Path(__file__).parents[2] / "src"
MASK = 3
SENTINELS = tuple(range(999, 899, -1))
WORDS = range(100, 200)
SYMBOLS = Special(MASK, SENTINELS, WORDS)
FIRST = 1000  # ids of texts start here: every token is another one, and none of them a word that could replace it

LENGTHS = st.integers(1, 90)
SHARES = st.floats(0.01, 0.99)
MEANS = st.floats(1.0, 9.0)
SEEDS = st.integers(0, 2**64 - 1)


def text(n: int) -> np.ndarray:
    """A text that nobody may write to, all of its tokens different."""
    ids = np.arange(FIRST, FIRST + n, dtype=np.uint16)
    ids.flags.writeable = False
    return ids


def draws(seed: int = 1) -> np.random.Generator:
    return window(seed, 0, 0)


def no_ends(n: int) -> np.ndarray:
    return np.zeros(n, dtype=np.bool_)


def surprise(counted: Iterable[float], expected: Iterable[float]) -> float:
    """By how many standard deviations a chi-square statistic is above what chance makes of it (Wilson and Hilferty 1931)."""
    pairs = list(zip(counted, expected, strict=True))
    assert min(mean for _, mean in pairs) >= 5, "too few draws to tell"
    assert sum(seen for seen, _ in pairs) == pytest.approx(sum(mean for _, mean in pairs))
    statistic, free = sum((seen - mean) ** 2 / mean for seen, mean in pairs), len(pairs) - 1
    return ((statistic / free) ** (1 / 3) - (1 - 2 / (9 * free))) / sqrt(2 / (9 * free))


def assert_as_likely(seen: Counter, probable: dict, number: int) -> None:
    """Outcomes are as likely as said. What is rare is counted together; what is impossible does not occur."""
    assert sum(seen.values()) == number and not set(seen) - set(probable)
    often = sorted((outcome for outcome, chance in probable.items() if chance * number >= 5), key=probable.__getitem__)
    counted, expected = [seen[outcome] for outcome in often], [probable[outcome] * number for outcome in often]
    rare, rare_expected = number - sum(counted), number - sum(expected)
    if rare_expected >= 5:
        counted, expected = [*counted, rare], [*expected, rare_expected]
    else:
        counted[0], expected[0] = counted[0] + rare, expected[0] + rare_expected
    assert surprise(counted, expected) < 4


def assert_even(seen: Counter, outcomes: Iterable, number: int) -> None:
    found = list(outcomes)
    assert_as_likely(seen, dict.fromkeys(found, 1 / len(found)), number)


def within(counted: int, number: int, chance: float) -> bool:
    """Whether a count is one that a binomial distribution makes, up to four standard deviations."""
    return abs(counted - number * chance) < 4 * sqrt(number * chance * (1 - chance))


def test_a_measure_of_surprise() -> None:
    fair = np.bincount(draws().integers(10, size=10_000))
    assert surprise(fair, [1000] * 10) < 4
    assert surprise([850, 1150, *[1000] * 8], [1000] * 10) > 4
    # 27.88 is what a chi-square of 9 degrees exceeds once in a thousand times, as a normal does 3.09 standard deviations.
    off = sqrt(27.877 * 1000 / 2)
    assert surprise([1000 - off, 1000 + off, *[1000] * 8], [1000] * 10) == pytest.approx(3.09, abs=0.03)


# Masked words


@given(LENGTHS, SHARES, st.floats(0, 0.5), st.floats(0, 0.5), SEEDS)
def test_some_words_are_to_be_restored(n: int, share: float, masked: float, random: float, seed: int) -> None:
    ids = text(n)
    found = corrupted(MaskedWords(share, masked, random), ids, SYMBOLS, draws(seed))
    assert len(found.places) == len(found.truth) == max(1, round(share * n))
    assert (np.diff(found.places) > 0).all() and found.places[0] >= 0 and found.places[-1] < n
    assert (found.truth == ids[found.places]).all()
    untouched = np.delete(np.arange(n), found.places)
    assert (found.ids[untouched] == ids[untouched]).all() and len(found.ids) == n
    for shown, truth in zip(found.ids[found.places], found.truth, strict=True):
        assert shown in (MASK, truth) or shown in WORDS


@pytest.mark.parametrize(("n", "count"), [(1, 1), (2, 1), (3, 1), (10, 2), (30, 4), (128, 19), (510, 76), (512, 77)])
def test_how_many_words(n: int, count: int) -> None:
    # 1.5 is 2 and 4.5 is 4, 19.2 is 19, 76.5 is 76 and 76.8 is 77; nothing is never asked for.
    assert len(corrupted(MaskedWords(), text(n), SYMBOLS, draws()).places) == count


def test_eight_of_ten_are_masked_one_is_another_and_one_stays() -> None:
    found = corrupted(MaskedWords(), text(60_000), SYMBOLS, draws())
    shown = found.ids[found.places]
    masked, stayed = shown == MASK, shown == found.truth
    another = np.isin(shown, WORDS)
    assert len(shown) == 9000 and (masked.astype(int) + stayed + another == 1).all()
    assert within(int(masked.sum()), 9000, 0.8) and within(int(another.sum()), 9000, 0.1)
    # Those that stay are asked for like all others.
    assert within(int(stayed.sum()), 9000, 0.1) and (found.truth[stayed] == found.ids[found.places[stayed]]).all()
    assert_even(Counter((shown[another]).tolist()), WORDS, int(another.sum()))


def test_each_word_by_itself() -> None:
    # The number of masks among fifteen words varies as that of fifteen throws does: 2.4 is the variance.
    random, words = draws(), MaskedWords()
    counted = [int((corrupted(words, text(100), SYMBOLS, random).ids == MASK).sum()) for _ in range(4000)]
    assert_as_likely(Counter(counted), {k: comb(15, k) * 0.8**k * 0.2 ** (15 - k) for k in range(16)}, 4000)


def test_all_choices_of_words_are_equally_likely() -> None:
    random, words = draws(), MaskedWords(share=0.5)
    found = Counter(tuple(corrupted(words, text(6), SYMBOLS, random).places.tolist()) for _ in range(2000))
    assert_even(found, combinations(range(6), 3), 2000)


def test_words_with_gaps_among_them() -> None:
    words = np.array([7, 300, 65_535], dtype=np.uint16)
    found = corrupted(MaskedWords(0.9, masked=0.0, random=1.0), text(3000), Special(MASK, (), words), draws())
    assert_even(Counter(found.ids[found.places].tolist()), words.tolist(), 2700)


# Spans


def restored(found: Denoised) -> list[int]:
    """The text by its two sides: each sentinel in the source gives way to what stands behind it in the target."""
    spans: dict[int, list[int]] = {}
    for token in found.target.tolist():
        if token in SENTINELS:
            assert token not in spans
            last = spans[token] = []
        else:
            last.append(token)
    assert not last, "the final sentinel has a span"
    # Sentinels are used from the first, in order, without leaving any out: all of them in the target, all but the last before.
    assert tuple(spans) == SENTINELS[: len(spans)]
    assert [token for token in found.source.tolist() if token in SENTINELS] == list(spans)[:-1]
    return [each for token in found.source.tolist() for each in spans.get(token, [token])]


@given(LENGTHS, SHARES, MEANS, SEEDS)
def test_source_and_target_together_are_the_text(n: int, share: float, mean: float, seed: int) -> None:
    ids = text(n)
    found = corrupted(Spans(share, mean), ids, SYMBOLS, draws(seed))
    assert restored(found) == ids.tolist()
    noise = min(max(round(n * share), 1), n - 1)
    count = len(set(found.source.tolist()) & set(SENTINELS))
    assert len(found.source) == n - noise + count and len(found.target) == noise + count + 1
    if n > 1:
        assert count == min(max(round(noise / mean), 1), n - noise)
        # A gap comes first and a span comes last, and no two sentinels touch: there is a gap before each.
        here = np.isin(found.source, SENTINELS)
        assert not here[0] and here[-1] and not (here[1:] & here[:-1]).any()


def test_spans_of_tiny_texts() -> None:
    one, two, three = (corrupted(Spans(), text(n), SYMBOLS, draws()) for n in (1, 2, 3))
    assert (one.source.tolist(), one.target.tolist()) == ([1000], [999])
    assert (two.source.tolist(), two.target.tolist()) == ([1000, 999], [999, 1001, 998])
    assert (three.source.tolist(), three.target.tolist()) == ([1000, 1001, 999], [999, 1002, 998])
    many = corrupted(Spans(0.7, 1.0), text(3), SYMBOLS, draws())
    assert (many.source.tolist(), many.target.tolist()) == ([1000, 999], [999, 1001, 1002, 998])


def noises(n: int, noise: int, spans: int) -> list[tuple[int, ...]]:
    """Every set of `noise` places of n that makes so many spans, each behind a gap, the last at the end: by trying all sets."""
    found = []
    for hidden in combinations(range(n), noise):
        starts = sum(place - 1 not in hidden for place in hidden)
        if starts == spans and 0 not in hidden and n - 1 in hidden:
            found.append(hidden)
    return found


@pytest.mark.parametrize(
    ("n", "share", "mean", "noise", "spans"),
    [
        (8, 0.5, 2.0, 4, 2),
        (10, 0.5, 1.7, 5, 3),
        (9, 0.3, 1.0, 3, 3),
        (7, 0.6, 3.0, 4, 1),
        (7, 0.7, 1.0, 5, 2),
        (2, 0.15, 3.0, 1, 1),
    ],
)
def test_all_partitions_are_equally_likely(n: int, share: float, mean: float, noise: int, spans: int) -> None:
    random, corruption = draws(), Spans(share, mean)
    outcomes = noises(n, noise, spans)
    assert len(outcomes) == comb(noise - 1, spans - 1) * comb(n - noise - 1, spans - 1)
    number = 30 * len(outcomes)
    found: Counter[tuple[int, ...]] = Counter()
    for _ in range(number):
        left = set(corrupted(corruption, text(n), SYMBOLS, random).source.tolist())
        found[tuple(place for place in range(n) if FIRST + place not in left)] += 1
    if len(outcomes) == 1:
        assert found == {outcomes[0]: number}
    else:
        assert_even(found, outcomes, number)


@pytest.mark.parametrize(
    ("longest", "share", "mean", "raw", "target"),
    [
        (512, 0.15, 3.0, 568, 114),  # the paper's: 85 tokens in 28 spans, 483 + 28 + 1 and 85 + 28 + 1
        (1024, 0.15, 3.0, 1137, 229),  # 171 in 57: 966 + 57 + 1
        (256, 0.15, 3.0, 284, 58),  # 43 in 14: 241 + 14 + 1
        (128, 0.15, 3.0, 141, 29),  # 21 in 7: 120 + 7 + 1
        (100, 0.5, 10.0, 180, 100),  # 90 in 9: 90 + 9 + 1
        (2, 0.15, 3.0, 1, 1),
        (3, 0.15, 3.0, 2, 3),
    ],
)
def test_how_much_text_fits(longest: int, share: float, mean: float, raw: int, target: int) -> None:
    assert raw_length(longest, share, mean) == (raw, target)


@given(st.integers(2, 90), st.floats(0.01, 0.8), MEANS)
def test_what_is_said_to_fit_fits(longest: int, share: float, mean: float) -> None:
    symbols = Special(0, tuple(range(1, 1000)), range(1000, 1001))
    raw, length = raw_length(longest, share, mean)
    sides = [corrupted(Spans(share, mean), text(raw + more), symbols, draws()) for more in range(20)]
    assert len(sides[0].source) + 1 <= longest and len(sides[0].target) == length
    assert all(len(side.source) + 1 > longest for side in sides[1:])


# Infilling


@given(LENGTHS, SHARES, MEANS, SEEDS)
def test_what_is_not_masked_stays_in_order(n: int, share: float, mean: float, seed: int) -> None:
    ids = text(n)
    found = corrupted(Infill(share, mean, permute=False), ids, SYMBOLS, draws(seed), np.arange(n) % 3 == 2)
    left = found.source[found.source != MASK]
    assert n - len(left) == round(share * n) and (np.diff(left) > 0).all() and set(left.tolist()) <= set(ids.tolist())
    assert found.target.tolist() == ids.tolist()
    # Every hole has its mask, and there is none where nothing is to be masked.
    source = [FIRST - 1, *found.source.tolist(), FIRST + n]
    for here, after in pairwise(source):
        assert MASK in (here, after) or after == here + 1
    assert MASK in source or round(share * n) == 0


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.booleans(), SHARES, SEEDS)
def test_sentences_stay_whole(lengths: list[int], closed: bool, share: float, seed: int) -> None:
    ends = no_ends(sum(lengths))
    ends[np.cumsum(lengths) - 1] = True
    ends[-1] = closed  # a text that is cut off in a sentence has that sentence all the same
    found = corrupted(Infill(share), text(len(ends)), SYMBOLS, draws(seed), ends)
    left = found.source[found.source != MASK] - FIRST
    assert len(ends) - len(left) == round(share * len(ends)) and found.target.tolist() == text(len(ends)).tolist()
    sentence = np.repeat(np.arange(len(lengths)), lengths)[left]
    changes = np.diff(sentence) != 0
    assert changes.sum() + 1 == len(set(sentence.tolist())) or len(left) == 0
    assert (np.diff(left)[~changes] > 0).all()


def test_all_orders_of_sentences_are_equally_likely() -> None:
    random, ends = draws(), np.array([0, 1, 1, 0, 0, 1, 0, 1]) == 1
    sentences, number = ([0, 1], [2], [3, 4, 5], [6, 7]), 1200
    infill = Infill(share=0.01)  # of eight tokens this is none
    found = Counter(tuple(corrupted(infill, text(8), SYMBOLS, random, ends).source.tolist()) for _ in range(number))
    assert_even(found, (tuple(FIRST + place for each in order for place in each) for order in permutations(sentences)), number)


def test_spans_are_as_long_as_poisson_says() -> None:
    # Between two tokens that stay, a lone mask tells how long its span was. Whether a mask is alone says nothing of its length,
    # and of all the draws a single one was cut.
    random, n = draws(), 60_000
    source = corrupted(Infill(permute=False), text(n), SYMBOLS, random, no_ends(n)).source
    before, here, after = source[:-2], source[1:-1], source[2:]
    alone = (here == MASK) & (before != MASK) & (after != MASK)
    lengths = (after - before - 1)[alone].tolist()
    assert len(lengths) > 4000 and n - (source != MASK).sum() == 18_000
    assert_as_likely(Counter(lengths), {k: exp(-3) * 3**k / factorial(k) for k in range(60)}, len(lengths))


def drawn(budget: int, mean: float, most: int) -> dict[tuple[int, ...], float]:
    """The chances of all sequences of at most `most` lengths: drawn one by one until they reach the budget, the last one cut."""
    chances = [exp(-mean) * mean**k / factorial(k) for k in range(budget)]
    found: dict[tuple[int, ...], float] = {}
    for number in range(1, most + 1):
        for head in product(range(budget), repeat=number - 1):
            left = budget - sum(head)
            if left > 0:
                found[(*head, left)] = float(np.prod([chances[k] for k in head])) * (1 - sum(chances[:left]))
    return found


def holes(n: int, budget: int, mean: float, most: int) -> dict[tuple[int, ...], float]:
    """The chance of each source: every sequence of lengths, in every order, at every choice of slots, walked through by hand."""
    found: dict[tuple[int, ...], float] = {}
    for lengths, chance in drawn(budget, mean, most).items():
        size = n - budget + len(lengths)
        ways = [(order, slots) for order in permutations(lengths) for slots in combinations(range(size), len(lengths))]
        for order, slots in ways:
            spans, place, source = list(order), 0, []
            for slot in range(size):
                source.append(MASK if slot in slots else FIRST + place)
                place += spans.pop(0) if slot in slots else 1
            assert place == n
            found[tuple(source)] = found.get(tuple(source), 0.0) + chance / len(ways)
    return found


@pytest.mark.parametrize(("n", "share", "mean", "budget"), [(4, 0.5, 1.0, 2), (5, 0.6, 1.5, 3), (2, 0.9, 2.0, 2)])
def test_masks_are_where_they_should_be(n: int, share: float, mean: float, budget: int) -> None:
    random, number, most = draws(), 2500, 5
    infill = Infill(share, mean, permute=False)
    found = Counter(tuple(corrupted(infill, text(n), SYMBOLS, random, no_ends(n)).source.tolist()) for _ in range(number))
    probable = holes(n, budget, mean, most)
    assert sum(probable.values()) > 0.9
    # Sources of more spans than were walked through are not told apart.
    known = Counter({source: count for source, count in found.items() if source.count(MASK) <= most})
    known[()] = number - sum(known.values())
    assert_as_likely(known, {**probable, (): 1 - sum(probable.values())}, number)


def test_infilling_of_tiny_texts() -> None:
    for n, masked in [(1, 0), (2, 1), (3, 1), (5, 2)]:  # 0.3 is 0, 0.6 and 0.9 are 1, and 1.5 is 2
        source = corrupted(Infill(), text(n), SYMBOLS, draws(), no_ends(n)).source
        assert n - (source != MASK).sum() == masked


# Deleting and rotating


@given(LENGTHS, SHARES, SEEDS)
def test_tokens_are_gone(n: int, share: float, seed: int) -> None:
    found = corrupted(Delete(share), text(n), SYMBOLS, draws(seed))
    assert len(found.source) == max(1, n - round(share * n)) and (np.diff(found.source) > 0).all()
    assert found.target.tolist() == text(n).tolist() and set(found.source.tolist()) <= set(found.target.tolist())


def test_all_tokens_are_equally_likely_to_be_gone() -> None:
    random, delete = draws(), Delete(0.5)
    found = Counter(tuple(corrupted(delete, text(6), SYMBOLS, random).source.tolist()) for _ in range(2000))
    assert_even(found, combinations(text(6).tolist(), 3), 2000)


def test_a_text_begins_anywhere() -> None:
    random, ids = draws(), text(9).tolist()
    found = [corrupted(Rotate(), text(9), SYMBOLS, random) for _ in range(1800)]
    assert all(each.target.tolist() == ids for each in found)
    outcomes = [tuple(ids[start:] + ids[:start]) for start in range(9)]
    assert_even(Counter(tuple(each.source.tolist()) for each in found), outcomes, 1800)
    assert corrupted(Rotate(), text(1), SYMBOLS, random).source.tolist() == ids[:1]


# What holds for all of them

Corrupt = Callable[[np.ndarray, np.random.Generator], Masked | Denoised]
ALL: dict[str, Corrupt] = {
    "masked words": lambda ids, random: corrupted(MaskedWords(), ids, SYMBOLS, random),
    "spans": lambda ids, random: corrupted(Spans(), ids, SYMBOLS, random),
    "infill": lambda ids, random: corrupted(Infill(), ids, SYMBOLS, random, np.arange(len(ids)) % 5 == 4),
    "infill in order": lambda ids, random: corrupted(Infill(permute=False), ids, SYMBOLS, random, no_ends(len(ids))),
    "delete": lambda ids, random: corrupted(Delete(0.2), ids, SYMBOLS, random),
    "rotate": lambda ids, random: corrupted(Rotate(), ids, SYMBOLS, random),
}
every = pytest.mark.parametrize("corrupt", ALL.values(), ids=ALL.keys())


def rows(found: Masked | Denoised) -> list[np.ndarray]:
    match found:
        case Masked(ids, places, truth):
            return [ids, places, truth]
        case Denoised(source, target):
            return [source, target]


@every
def test_an_objective_is_a_pure_function(corrupt: Corrupt) -> None:
    ids = text(80)  # which raises where it is written to
    one, same = (rows(corrupt(ids, draws())) for _ in range(2))
    assert all((left == right).all() for left, right in zip(one, same, strict=True))
    assert len({tuple(rows(corrupt(ids, draws(seed)))[0].tolist()) for seed in range(9)}) > 5
    assert ids.tolist() == text(80).tolist()


@every
@pytest.mark.parametrize("n", [1, 2, 3, 80])
@pytest.mark.parametrize("kind", [np.uint16, np.int64])
def test_rows_that_come_out_are_wide_and_their_own(corrupt: Corrupt, n: int, kind: type[np.integer]) -> None:
    ids = np.arange(FIRST, FIRST + n, dtype=kind)
    found = rows(corrupt(ids, draws()))
    assert all(row.dtype == np.int64 and not np.shares_memory(row, ids) for row in found)
    assert not np.shares_memory(found[0], found[1])


@every
@pytest.mark.parametrize("wrong", [text(0), text(4).reshape(2, 2), np.ones(3), np.ones(3, dtype=np.bool_)])
def test_a_row_that_is_none(corrupt: Corrupt, wrong: np.ndarray) -> None:
    with pytest.raises(QkvError, match="row of whole numbers, at least one"):
        # The ends of sentences are made for a row; it is the row that is to be refused.
        corrupt(wrong, draws())


def test_symbols_beyond_what_ids_have_room_for() -> None:
    high = Special(70_000, (70_002, 70_001), range(100, 200))
    assert corrupted(MaskedWords(0.9, masked=1.0, random=0.0), text(3), high, draws()).ids.max() == 70_000
    assert corrupted(Spans(), text(3), high, draws()).target.tolist() == [70_002, 1002, 70_001]


def test_values_are_values() -> None:
    assert MaskedWords() == MaskedWords(0.15, 0.8, 0.1) and Spans() == Spans(0.15, 3.0)
    assert hash(Infill()) == hash(Infill(0.3, 3.0, True)) and Infill() != Infill(permute=False)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: MaskedWords(share=0.0), r"MaskedWords.share must lie between 0 and 1, such as 0.15, not 0.0"),
        (lambda: MaskedWords(share=float("nan")), "MaskedWords.share"),
        (lambda: MaskedWords(masked=0.8, random=0.3), r"add up to 1 or less, not \(0.8, 0.3\)"),
        (lambda: MaskedWords(masked=-0.1), "MaskedWords.masked and random must be probabilities"),
        (lambda: MaskedWords(random=float("nan")), "probabilities"),
        (lambda: Spans(share=1.0), "Spans.share"),
        (lambda: Spans(mean=0.5), "Spans.mean must be a number of tokens, at least 1, such as 3.0, not 0.5"),
        (lambda: Spans(mean=float("inf")), "Spans.mean"),
        (lambda: Infill(share=15.0), "Infill.share"),
        (lambda: Infill(mean=0.0), "Infill.mean"),
        (lambda: Delete(share=-0.1), "Delete.share"),
        (lambda: raw_length(1, 0.15, 3.0), "2 positions or more: not 1"),
        (lambda: raw_length(512, 1.5, 3.0), "share"),
        (lambda: Special(3, (9, 8, 9), WORDS), r"different entries of a vocabulary, from 0 up: not \(3, 9, 8, 9\)"),
        (lambda: Special(9, (9, 8), WORDS), "different entries"),
        (lambda: Special(-1, (), WORDS), "from 0 up"),
        (lambda: Special(3, (150,), WORDS), r"\[150\] among them are the mask or sentinels: leave them out"),
        (lambda: Special(3, (), np.arange(5)), r"\[3\] among them"),
        (lambda: Special(3, (), range(0)), "no ordinary entries: expected at least one word"),
        (lambda: Special(3, (), np.ones(5)), "ordinary entries as a row of whole numbers"),
        (
            lambda: corrupted(Infill(), text(4), SYMBOLS, draws(), no_ends(3)),
            r"4 truth values, one for each token: not bool of shape \(3,\)",
        ),
        (lambda: corrupted(Infill(), text(4), SYMBOLS, draws(), np.zeros(4)), "not float64"),
        (lambda: window(-1, 0, 0), "seed, epoch and index must be whole numbers from 0 up, of 64 bits: not -1, 0 and 0"),
        (lambda: window(0, 0, 2**64), "of 64 bits"),
    ],
)
def test_wrong_values_are_refused_in_words(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(QkvError, match=words):
        wrong()


@pytest.mark.parametrize("enough", [2, 29])
def test_too_few_sentinels(enough: int) -> None:
    n = {2: 20, 29: 568}[enough]

    def symbols(number: int) -> Special:
        return Special(MASK, SENTINELS[:number], WORDS)

    assert corrupted(Spans(), text(n), symbols(enough), draws()).target[-1] == SENTINELS[enough - 1]
    for number in (0, enough - 1):
        with pytest.raises(QkvError, match=f"need {enough} sentinels, .* but the vocabulary has {number}: "):
            corrupted(Spans(), text(n), symbols(number), draws())


# The generator of an example


def test_an_example_has_its_own_draws() -> None:
    triples = [*product([0, 1, 7, 2**32, 2**64 - 1], repeat=3)]
    firsts = {tuple(window(*triple).integers(2**63, size=2).tolist()) for triple in triples}
    assert len(firsts) == len(triples)
    assert (window(1, 2, 3).random(100) == window(1, 2, 3).random(100)).all()


def test_neighbours_have_nothing_in_common() -> None:
    # Neither does one example's stream run into the next one's, nor are their first numbers alike.
    long = [set(window(1, 0, index).integers(2**63, size=5000).tolist()) for index in range(4)]
    assert len(set.union(*long)) == 20_000
    firsts = np.array([window(1, epoch, index).random() for epoch in range(20) for index in range(100)])
    assert_even(Counter((firsts * 20).astype(int).tolist()), range(20), 2000)
    assert abs(np.corrcoef(firsts[:-1], firsts[1:])[0, 1]) < 4 / sqrt(2000)


def test_objectives_need_no_torch() -> None:
    code = f"import sys; sys.path.insert(0, {str(HOUSE)!r}); import qkv.data.objective; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
