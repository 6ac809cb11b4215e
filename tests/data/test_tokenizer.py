"""Tokenizers: what goes in comes out, nobody can write a special entry, sizes are kept to, and the same text teaches the same."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import models, trainers

from qkv.data import unigram
from qkv.data.symbols import END, PAD, SPECIALS, START, UNKNOWN
from qkv.data.text import Pair
from qkv.data.tokenizer import Tokenizer, train_tokenizers
from qkv.error import QkvError
from qkv.spec import data as spec
from qkv.spec.data import KINDS, AtMost, Exactly

TEXTS = [
    "Two dogs (a brown one, and a black one) don't run; it's 3.14 km to the @-@ river!",
    "Zwei Hunde – ein brauner & ein schwarzer – laufen „schnell“: 50% von 1.234,56 € …",
    "Un chien n'a qu'à courir où l'été s'achève, ça y est ?!",
    "don ' t ( a ) [ b ] { c } < d > = e + f * g / h \\ i | j ~ k ` l ^ m _ n # o $ p",
    "wq xz jy 0123456789 ÄÖÜäöüß éèêëàâçñ ½ ² 日本語 русский ελληνικά",
    "the dogs run and the dogs run and the river runs to the river",
] * 3
ALPHABET = sorted(set("".join(TEXTS)) - {" "})
ROUND = [
    "( a )",
    "(a)",
    "it's",
    "don ' t",
    "@-@",
    "3.14",
    "a",
    "(",
    "...",
    "a.b,c",
    "1 2 34",
    "1a 2b",
    "„schnell“: ½",
    "e\u0301te\u0301",
    "日本語 dogs",
    "</s>",
    "< / s >",
    "",
]
WORDED = ("bpe", "unigram", "characters")
WORDS = st.lists(st.text(st.sampled_from(ALPHABET), min_size=1, max_size=8), max_size=8)


@cache
def trained(kind: str) -> Tokenizer:
    return Tokenizer.train(spec.Tokenizer(kind, AtMost(400)), iter(TEXTS))


def plain_json(tokenizer: Tokenizer, folder: Path) -> dict:
    tokenizer.save(folder / "t.json")
    return json.loads((folder / "t.json").read_text(encoding="utf-8"))


def stored(folder: Path, plain: object) -> Path:
    (folder / "foreign.json").write_text(json.dumps(plain), encoding="utf-8")
    return folder / "foreign.json"


# Round trips


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [*ROUND, *TEXTS[:6]])
def test_known_text_comes_back(kind: str, text: str) -> None:
    tokenizer = trained(kind)
    if kind == "words" and text not in TEXTS:
        pytest.skip("words that were never met are unknown")
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode(ids) == (text if kind == "bytes" else unicodedata.normalize("NFC", text))
    assert UNKNOWN not in ids


@pytest.mark.parametrize("kind", WORDED)
@given(words=WORDS)
def test_any_known_text_comes_back(kind: str, words: list[str]) -> None:
    text = " ".join(words)
    assert trained(kind).decode(trained(kind).encode([text])[0]) == unicodedata.normalize("NFC", text)


@given(st.text())
@example("a  b\t\n c ")
@example("\ud7ff\ue000\U0010ffff\0▁Ġ")
def test_bytes_lose_nothing(text: str) -> None:
    (ids,) = trained("bytes").encode([text])
    assert trained("bytes").decode(ids) == text
    assert all(i >= len(SPECIALS) for i in ids)


@given(st.text(st.sampled_from([*ALPHABET, " "])))
def test_characters_keep_all_spaces(text: str) -> None:
    assert trained("characters").decode(trained("characters").encode([text])[0]) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("kind", WORDED)
def test_what_was_never_met_is_unknown(kind: str) -> None:
    (ids,) = trained(kind).encode(["a 𐍈 b"])
    assert UNKNOWN in ids
    assert "𐍈" not in trained(kind).decode(ids)


def test_many_texts_at_once() -> None:
    tokenizer = trained("bpe")
    assert tokenizer.encode(TEXTS) == [tokenizer.encode([text])[0] for text in TEXTS]
    assert tokenizer.encode([]) == []
    assert tokenizer.encode([""]) == [[]]


def test_ids_of_any_kind_are_decoded() -> None:
    ids = trained("bpe").encode(["dogs run"])[0]
    assert trained("bpe").decode(np.array(ids, dtype=np.uint16)) == "dogs run"
    assert trained("bpe").decode([1, *ids, 2, 0, 0]) == "dogs run"


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_character_is_refused(kind: str) -> None:
    with pytest.raises(QkvError, match="surrogate"):
        trained(kind).encode(["good", "bad \ud800"])
    with pytest.raises(QkvError, match="surrogate"):
        Tokenizer.train(spec.Tokenizer(kind), ["bad \ud800"])


# Pieces


def test_pieces_can_be_read() -> None:
    for kind in ("bpe", "unigram"):
        assert "".join(trained(kind).pieces(trained(kind).encode(["the dogs (run)"])[0])) == "▁the▁dogs▁(run)"
    assert trained("characters").pieces(trained("characters").encode(["a b"])[0]) == ["a", "▁", "b"]
    assert "".join(trained("bytes").pieces(trained("bytes").encode(["the Ü dogs"])[0])) in ("the▁Ü▁dogs", "the▁<C3><9C>▁dogs")
    assert "<F0>" in "".join(trained("bytes").pieces(trained("bytes").encode(["𐍈"])[0]))
    for kind in KINDS:
        assert trained(kind).pieces([0, 1, 2, 3]) == list(SPECIALS)


def test_punctuation_takes_its_space_along() -> None:
    assert trained("bpe").pieces(trained("bpe").encode(["( a ) a(a)"])[0]) == ["▁(", "▁a", "▁)", "▁a", "(", "a", ")"]


# Special entries


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_can_write_a_special_entry(kind: str, tmp_path: Path) -> None:
    texts = [f"a{name}b {name} {name}{name} c" for name in SPECIALS] * 50
    tokenizer = Tokenizer.train(spec.Tokenizer(kind, AtMost(500)), texts)
    tokenizer.save(tmp_path / "t.json")
    for each in (tokenizer, Tokenizer.load(tmp_path / "t.json")):
        for text, ids in zip(texts[:4], each.encode(texts[:4]), strict=True):
            assert min(ids) >= len(SPECIALS)
            assert each.decode(ids) == text
    # The file means the same to whoever reads it without us.
    others = tokenizers.Tokenizer.from_file(str(tmp_path / "t.json"))
    assert min(others.encode("a</s>b </s> <pad>").ids) >= len(SPECIALS)


@pytest.mark.parametrize("kind", KINDS)
def test_special_entries_come_first(kind: str) -> None:
    tokenizer = trained(kind)
    numbers = (PAD, START, END, UNKNOWN)
    assert numbers == (0, 1, 2, 3) and tokenizer.pieces(numbers) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert tokenizer.decode(numbers) == ""


# Sizes


@pytest.mark.parametrize(("kind", "size"), [("bpe", 270), ("unigram", 200), ("bytes", 300)])
def test_exactly(kind: str, size: int) -> None:
    assert Tokenizer.train(spec.Tokenizer(kind, Exactly(size)), TEXTS).size == size


@pytest.mark.parametrize("kind", KINDS)
def test_at_most_is_what_the_text_supports(kind: str) -> None:
    tokenizer = Tokenizer.train(spec.Tokenizer(kind, AtMost(100_000)), TEXTS)
    assert len(SPECIALS) < tokenizer.size < 2000


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_more_than_the_text_supports(kind: str) -> None:
    with pytest.raises(QkvError, match=r"exactly 99999 .* only \d+; ask for no more than that"):
        Tokenizer.train(spec.Tokenizer(kind, Exactly(99999)), TEXTS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "words"])
@pytest.mark.parametrize("size", [1, 4, 20])
def test_fewer_than_the_alphabet(kind: str, size: int) -> None:
    with pytest.raises(QkvError, match=f"{size} entries is too small") as caught:
        Tokenizer.train(spec.Tokenizer(kind, AtMost(size)), TEXTS)
    least = int(str(caught.value).split("at least ")[1])
    assert Tokenizer.train(spec.Tokenizer(kind, Exactly(least)), TEXTS).size == least
    with pytest.raises(QkvError, match="too small"):
        Tokenizer.train(spec.Tokenizer(kind, Exactly(least - 1)), TEXTS)


def test_words_are_parted_by_white_space_and_lines_end() -> None:
    texts = ["mary moved\nwhere is mary", "mary  went\t\n \n where is </s>"]
    tokenizer = Tokenizer.train(spec.Tokenizer("words"), texts)
    assert tokenizer.entries()[4:] == ["▁\n", "▁mary", "▁is", "▁where", "▁</s>", "▁moved", "▁went"]
    first, second = tokenizer.encode(texts)
    end = tokenizer.line_end
    assert tokenizer.pieces(first) == ["▁mary", "▁moved", "▁\n", "▁where", "▁is", "▁mary"]
    assert [place for place, token in enumerate(second) if token == end] == [2, 3]
    assert tokenizer.encode(["john moved"])[0][0] == UNKNOWN
    fewer = Tokenizer.train(spec.Tokenizer("words", AtMost(7)), texts)
    assert fewer.entries()[4:] == ["▁\n", "▁mary", "▁is"]
    with pytest.raises(QkvError, match=r"5 entries is too small: .* the end of a line and one word are 6"):
        Tokenizer.train(spec.Tokenizer("words", AtMost(5)), texts)
    with pytest.raises(QkvError, match="no entry for a line end"):
        _ = trained("bpe").line_end


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text(kind: str, texts: list[str]) -> None:
    with pytest.raises(QkvError, match="no text"):
        Tokenizer.train(spec.Tokenizer(kind), texts)


def test_an_unknown_kind() -> None:
    with pytest.raises(QkvError, match="did you mean 'unigram'"):
        spec.Tokenizer("unigrams")
    for wrong in [lambda: AtMost(0), lambda: Exactly(-1), lambda: spec.Tokenizer(vocabulary=300)]:  # type: ignore[arg-type]
        with pytest.raises(Exception, match=r"size|vocabulary"):
            wrong()


# Training


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_text_teaches_the_same(kind: str, tmp_path: Path) -> None:
    written = []
    for name in "abc":
        Tokenizer.train(spec.Tokenizer(kind, AtMost(280)), iter(TEXTS)).save(tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_quiet_and_errors_pass_through(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> Iterator[str]:
        yield from TEXTS
        raise QkvError("line 19 is broken")

    with pytest.raises(QkvError, match="line 19"):
        Tokenizer.train(spec.Tokenizer(kind), broken())
    Tokenizer.train(spec.Tokenizer(kind), TEXTS)
    assert capfd.readouterr() == ("", "")


def test_both_sides() -> None:
    readings = []

    def pairs() -> Iterator[Pair]:
        readings.append(1)
        return iter([("abc abc", "xyz xyz"), ("abd", "xyw")])

    joint = train_tokenizers(spec.Tokenizer(vocabulary=AtMost(99)), pairs)
    assert joint.source is joint.target and len(readings) == 1
    assert UNKNOWN not in joint.source.encode(["abcdwxyz"])[0]
    source, target = train_tokenizers(spec.Tokenizer(vocabulary=AtMost(99), joint=False), pairs)
    assert UNKNOWN not in source.encode(["abcd"])[0] + target.encode(["wxyz"])[0]
    assert set(source.encode(["xyz"])[0][1:]) == {UNKNOWN}


def test_pairs_are_streamed() -> None:
    def pairs() -> Iterator[Pair]:
        return (("a b c", f"word{number % 7} word") for number in range(3000))

    assert train_tokenizers(spec.Tokenizer(vocabulary=AtMost(99)), pairs).target.size > 10


# Files


@pytest.mark.parametrize("kind", KINDS)
def test_saved_is_loaded(kind: str, tmp_path: Path) -> None:
    trained(kind).save(tmp_path / "t.json")
    loaded = Tokenizer.load(tmp_path / "t.json")
    assert loaded.fingerprint == trained(kind).fingerprint
    assert loaded.size == trained(kind).size
    assert loaded.encode(TEXTS) == trained(kind).encode(TEXTS)
    assert len({trained(each).fingerprint for each in KINDS}) == len(KINDS)


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    stored(tmp_path, {"hello": 1})
    for name, words in [
        ("nowhere", "no tokenizer"),
        ("text", "JSON"),
        ("foreign.json", "JSON"),
        ("bytes", "read"),
        (".", "read"),
    ]:
        with pytest.raises(QkvError, match=words):
            Tokenizer.load(tmp_path / name)
    with pytest.raises(QkvError, match="written"):
        trained("bpe").save(tmp_path / "no" / "folder")


def test_foreign_tokenizers(tmp_path: Path) -> None:
    bert = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.train_from_iterator(TEXTS, trainers.WordPieceTrainer(special_tokens=["[PAD]", "[UNK]"], show_progress=False))
    bert.save(str(tmp_path / "bert.json"))
    with pytest.raises(QkvError, match=r"bert.json: a foreign tokenizer.*'<pad>' is missing"):
        Tokenizer.load(tmp_path / "bert.json")

    plain = plain_json(trained("bpe"), tmp_path)
    swapped = json.loads(json.dumps(plain))
    swapped["model"]["vocab"] |= {"<s>": 2, "</s>": 1}
    with pytest.raises(QkvError, match="'<s>' is 2"):
        Tokenizer.load(stored(tmp_path, swapped))

    more = tokenizers.Tokenizer.from_str(json.dumps(plain))
    more.add_special_tokens(["<mask>"])
    with pytest.raises(QkvError, match="'<mask>'"):
        Tokenizer.load(stored(tmp_path, json.loads(more.to_str())))

    gap = json.loads(json.dumps(plain))
    gap["model"]["vocab"]["zzz"] = 9999
    with pytest.raises(QkvError, match="gaps"):
        Tokenizer.load(stored(tmp_path, gap))


def test_habits_of_a_loaded_tokenizer_are_dropped(tmp_path: Path) -> None:
    plain = plain_json(trained("bpe"), tmp_path)
    habits = tokenizers.Tokenizer.from_str(json.dumps(plain))
    habits.add_special_tokens(list(SPECIALS))
    habits.enable_truncation(3)
    habits.enable_padding(length=50)
    loaded = Tokenizer.load(stored(tmp_path, json.loads(habits.to_str())))
    assert loaded.encode(["</s> the dogs run"]) == trained("bpe").encode(["</s> the dogs run"])


# The unigram vocabulary


def test_expected_occurrences_are_those_over_all_cuts() -> None:
    """The E step against its meaning: every way of cutting every word, weighed by its probability."""
    counts = {"abab": 3, "bba": 2, "a": 1}
    pieces = ["a", "b", "ab", "ba", "bab"]
    scores = np.log(np.array([0.3, 0.2, 0.25, 0.15, 0.1]))
    wanted: Counter[str] = Counter()
    best = []
    for word, count in counts.items():
        cuts = [cut for size in range(1, 5) for cut in product(pieces, repeat=size) if "".join(cut) == word]
        weights = [np.exp(sum(scores[pieces.index(piece)] for piece in cut)) for cut in cuts]
        best.append(np.log(max(weights)))
        for cut, weight in zip(cuts, weights, strict=True):
            for piece in cut:
                wanted[piece] += count * weight / sum(weights)
    lattice = unigram._Lattice.of(list(counts), {piece: place for place, piece in enumerate(pieces)})
    found = lattice.expected(scores, np.array(list(counts.values()), dtype=float))
    assert found == pytest.approx([wanted[piece] for piece in pieces])
    assert lattice.best(scores) == pytest.approx(best)


def test_learning_makes_text_more_probable() -> None:
    counts = Counter(word for text in TEXTS for word in text.split())
    words, weights = list(counts), np.array(list(counts.values()), dtype=float)
    pieces = [piece.text for piece in unigram.fit(counts, 300)]
    lattice = unigram._Lattice.of(words, {text: place for place, text in enumerate(pieces)})
    occurrences, told = np.ones(len(pieces)), []
    for _ in range(5):
        scores = unigram._scores(occurrences)
        told.append(float(weights @ lattice._arrived(scores, np.logaddexp)[lattice.last]))
        occurrences = lattice.expected(scores, weights)
    assert all(later > earlier - 1e-9 for earlier, later in pairwise(told))
    assert sum(np.exp(unigram._scores(occurrences))) == pytest.approx(1.0)


def test_unigram_prefers_what_is_frequent() -> None:
    words = {"▁walking": 50, "▁walked": 50, "▁talking": 50, "▁talked": 50}
    found = [piece.text for piece in unigram.fit(words, 20) if len(piece.text) > 1]
    assert "ing" in found or any(text.endswith("ing") for text in found)
    assert {"▁walk", "▁talk"} & set(found) or {"▁walking", "▁talking"} <= set(found)


def test_unigram_holds_all_characters() -> None:
    found = {piece.text for piece in unigram.fit({"abc": 5, "d": 1}, 2)}
    assert found == {"a", "b", "c", "d"}


@given(
    st.dictionaries(st.text(st.sampled_from("abcd"), min_size=1, max_size=20), st.integers(1, 50), min_size=1), st.integers(1, 40)
)
def test_unigram_always_cuts(counts: dict[str, int], size: int) -> None:
    pieces = unigram.fit(counts, size)
    assert pieces == unigram.fit(dict(reversed(counts.items())), size)
    assert len({piece.text for piece in pieces}) == len(pieces) <= max(size, 4)
    assert all(np.isfinite(piece.score) for piece in pieces)
