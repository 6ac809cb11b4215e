"""Special entries: which there are, what frames a text, and how a file keeps them."""

from __future__ import annotations

import json

import pytest

from qkv.data.symbols import END, MASK, OURS, PAD, SENTINELS, SPECIALS, START, UNKNOWN, Symbols
from qkv.data.tokenizer import Tokenizer
from qkv.error import QkvError
from qkv.spec.data import AtMost
from qkv.spec.data import Tokenizer as How

LINES = ["ka lo mi", "mi nu pe", "ka ra"] * 5


def learned(*extra: str, kind: str = "bpe") -> Tokenizer:
    return Tokenizer.train(How(kind, AtMost(400), extra=extra), LINES)


def test_ours_are_the_first_four() -> None:
    entries = {name: number for number, name in enumerate(SPECIALS)}
    assert Symbols.of(entries) == OURS == Symbols(pad=PAD, start=START, end=END, unknown=UNKNOWN, opening=(START,))
    assert OURS.special == {0, 1, 2, 3} and OURS.read([7, 8]) == [7, 8, END]


def test_what_can_be_masked_is_read_with_a_start_before_it() -> None:
    symbols = learned(MASK).symbols
    assert symbols.before == (START,) and symbols.read([7]) == [START, 7, END]
    assert symbols.mask == symbols.masks[0] and symbols.special == {0, 1, 2, 3, symbols.mask}


@pytest.mark.parametrize("kind", ["bpe", "unigram", "bytes", "characters"])
def test_extra_entries_come_last_and_no_text_is_cut_into_them(kind: str) -> None:
    plain, extended = learned(kind=kind), learned(MASK, *SENTINELS, kind=kind)
    assert extended.size == plain.size + 101
    assert extended.symbols.masks == (plain.size,)
    assert extended.symbols.sentinels == tuple(range(plain.size + 1, plain.size + 101))
    for text in (*LINES[:3], f"ka {MASK} lo", "<extra_0>", "<extra_99> mi"):
        assert extended.encode([text]) == plain.encode([text])
    (ids,) = extended.encode([LINES[0]])
    assert extended.decode([START, plain.size, *ids, plain.size + 5, END]) == LINES[0], "and none of them is said"


def test_extra_entries_count_among_the_vocabulary() -> None:
    assert Tokenizer.train(How("bytes", AtMost(361), extra=(MASK, *SENTINELS)), LINES).size == 361
    with pytest.raises(QkvError, match="a vocabulary of 101 entries has no room for the 101 that the training needs"):
        Tokenizer.train(How("bytes", AtMost(101), extra=(MASK, *SENTINELS)), LINES)
    with pytest.raises(QkvError, match="the text is cut into the entry 'k' already, which the training needs for itself"):
        Tokenizer.train(How("characters", extra=("k",)), LINES)


def test_without_a_mask_it_is_said_what_would_bring_one() -> None:
    with pytest.raises(QkvError, match="no mask token: this model was not trained to fill in what is hidden"):
        _ = OURS.mask


def test_a_file_keeps_all_of_them(tmp_path) -> None:
    symbols = Symbols(5, 6, 7, 8, (9,), (20, 19), (6, 10), (7, 6), (11, 12))
    assert Symbols.from_plain(json.loads(json.dumps(symbols.plain()))) == symbols
    assert symbols.special == {5, 6, 7, 8, 9, 20, 19, 10, 11, 12} and symbols.read([1]) == [6, 10, 1, 7]
    tokenizer = learned(MASK, *SENTINELS)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.symbols == tokenizer.symbols and again.fingerprint == tokenizer.fingerprint
    foreign = Tokenizer.foreign(tokenizer.wrapped, symbols)
    foreign.save(tmp_path / "other.json")
    assert Tokenizer.load(tmp_path / "other.json").symbols == symbols
    assert Tokenizer.load(tmp_path / "other.json").fingerprint == foreign.fingerprint != tokenizer.fingerprint
