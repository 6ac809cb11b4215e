"""Prepared text: encoded once, found again, nothing believed that was not finished, and an honest account."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkv.data import cache, corpus, encode
from qkv.data.corpus import Prepared, default_cache, held_out, prepare
from qkv.data.sides import CorpusWriter, Side, open_corpus, width
from qkv.data.text import Pair
from qkv.data.tokenizer import Tokenizer, Tokenizers
from qkv.error import QkvError
from qkv.spec import data as spec
from qkv.spec.data import AtMost, Files, HeldOut, Pairs

HOW = spec.Tokenizer("bpe", AtMost(200))
TOY = [(f"the dog number {i} runs", f"der Hund Nummer {i} läuft weit") for i in range(40)]
VALID = [("the dog runs", "der Hund läuft"), ("a dog", "Hund")]


def store(folder: Path, pairs: list[Pair], name: str = "t") -> Files:
    folder.mkdir(exist_ok=True, parents=True)
    for side, ending in enumerate(("en", "de")):
        (folder / f"{name}.{ending}").write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
    return Files((str(folder / f"{name}.en"),), (str(folder / f"{name}.de"),))


class Ground:
    """A place to prepare toy text in, with what the tests seldom change filled in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"

    def prepare(
        self,
        train: list[Pair] = TOY,
        valid: list[Pair] | HeldOut = VALID,
        how: spec.Tokenizer | Tokenizers = HOW,
        seed: int = 1,
        longest: int = 100,
    ) -> Prepared:
        where = valid if isinstance(valid, HeldOut) else store(self.folder, valid, "v")
        return prepare(store(self.folder, train), where, how, seed=seed, longest=longest, cache=self.cache)

    def kept(self) -> list[str]:
        """All that lies in the cache."""
        return sorted(os.listdir(self.cache)) if self.cache.exists() else []


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def decoded(prepared: Prepared, which: str) -> list[Pair]:
    pairs = [getattr(prepared, which)[i] for i in range(len(getattr(prepared, which)))]
    return [(prepared.tokenizers.source.decode(s), prepared.tokenizers.target.decode(t)) for s, t in pairs]


# What is prepared


@pytest.mark.parametrize("joint", [True, False])
def test_text_is_encoded(ground: Ground, joint: bool) -> None:
    found = ground.prepare(how=spec.Tokenizer("bpe", AtMost(200), joint))
    assert (found.tokenizers.source is found.tokenizers.target) == joint == found.report.joint
    for which, pairs in (("train", TOY), ("valid", VALID)):
        encoded = getattr(found, which)
        for side, cut in enumerate(found.tokenizers):
            wanted = cut.encode([pair[side] for pair in pairs])
            assert [encoded[i][side].tolist() for i in range(len(encoded))] == wanted
            assert (encoded.source, encoded.target)[side].lengths.tolist() == [len(ids) for ids in wanted]
    assert found.valid_pairs() == VALID
    assert found.report.vocabularies == (found.tokenizers.source.size, found.tokenizers.target.size)
    assert found.report.train.tokens == (found.train.source.lengths.sum(), found.train.target.lengths.sum())


def test_tokens_are_mapped_and_narrow(ground: Ground) -> None:
    side = ground.prepare().train.source
    assert side.ids.dtype == np.uint16 and side.offsets.dtype == np.int64
    for array in (side.ids, side.offsets):
        assert not array.flags.owndata and not array.flags.writeable
        assert isinstance(array.base, np.memmap)


def test_chunks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [*TOY[:20], ("", "leer"), *TOY[20:], ("x " * 99, "lang")]
    whole = Ground(tmp_path / "a").prepare(pairs)
    monkeypatch.setattr(encode, "CHUNK", 3)
    split = Ground(tmp_path / "b").prepare(pairs)
    assert decoded(whole, "train") == decoded(split, "train")
    assert whole.report.train == split.report.train


def test_tables_are_prepared_too(tmp_path: Path) -> None:
    rows = [*TOY, ("two\nlines", "zwei\u2028Zeilen")]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"a": s, "b": t}) + "\n" for s, t in rows))
    where = Pairs((str(tmp_path / "t.jsonl"),), ("a", "b"))
    found = prepare(where, where, HOW, seed=1, longest=100, cache=tmp_path / "cache")
    assert found.valid_pairs() == rows


def test_indices_of_a_side() -> None:
    side = Side(np.array([5, 6, 7], dtype=np.uint16), np.array([0, 2, 3]))
    assert [side[i].tolist() for i in range(2)] == [[5, 6], [7]] == [side[-2].tolist(), side[-1].tolist()]
    for outside in (2, -3):
        with pytest.raises(IndexError):
            side[outside]


def test_large_vocabularies_are_wide(tmp_path: Path) -> None:
    assert (width(1 << 16), width((1 << 16) + 1)) == (np.uint16, np.uint32)
    sizes = (1 << 16, 1 << 17)
    with CorpusWriter(tmp_path, "t", sizes) as writer:
        writer.append([[65535], [4, 5]], [[131071, 65536], [7]])
        writer.append([], [])
        writer.append([[6]], [[8]])
    found = open_corpus(tmp_path, "t", sizes)
    assert [found[i][0].tolist() for i in range(3)] == [[65535], [4, 5], [6]]
    assert [found[i][1].tolist() for i in range(3)] == [[131071, 65536], [7], [8]]


# Tokenizers


def test_ready_tokenizers_are_taken(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = Tokenizers(*(Tokenizer.train(HOW, [pair[side] for pair in TOY]) for side in (0, 1)))
    monkeypatch.setattr(Tokenizer, "train", _never)
    found = ground.prepare(how=ready)
    assert [cut.fingerprint for cut in found.tokenizers] == [cut.fingerprint for cut in ready]
    assert ground.prepare(how=ready).report.reused
    joint = ground.prepare(how=Tokenizers(ready.source, ready.source))
    assert not joint.report.reused and joint.report.joint and joint.tokenizers.source is joint.tokenizers.target


def test_held_out_text_teaches_no_tokenizer(ground: Ground) -> None:
    # Every pair has a character of its own.
    pairs = [(f"dog {chr(0x4E00 + i)}", f"Hund {chr(0x4E00 + i)}") for i in range(20)]
    found = ground.prepare(pairs, HeldOut(0.1))
    assert found.report.held_out == 2 and found.report.valid.unknown == (2, 2) and found.report.train.unknown == (0, 0)


# Held out


@given(st.integers(0, 9), st.integers(2, 3000), st.floats(0.0001, 0.9999))
def test_so_many_are_held_out(seed: int, number: int, share: float) -> None:
    mask = held_out(seed, number, share)
    assert mask.shape == (number,) and mask.sum() == min(max(1, round(share * number)), number - 1)
    assert (mask == held_out(seed, number, share)).all()


def test_held_out_pairs_are_not_trained_on(ground: Ground) -> None:
    found = ground.prepare(valid=HeldOut(0.2), seed=3)
    assert len(found.valid) == found.report.held_out == 8 and len(found.train) == 32
    assert sorted(decoded(found, "train") + decoded(found, "valid")) == sorted(TOY)
    assert found.valid_pairs() == decoded(found, "valid") == [TOY[i] for i in np.flatnonzero(held_out(3, 40, 0.2))]
    other = ground.prepare(valid=HeldOut(0.2), seed=4)
    assert not other.report.reused and other.valid_pairs() != found.valid_pairs()


def test_one_pair_cannot_be_parted(ground: Ground) -> None:
    with pytest.raises(QkvError, match="one pair only"):
        ground.prepare(TOY[:1], HeldOut())
    assert len(ground.prepare(TOY[:2], HeldOut()).train) == 1


# What is left out


def test_pairs_that_are_left_out_are_counted(ground: Ground) -> None:
    long = ("x " * 120, "kurz")
    train = [("", "leer"), *TOY, ("empty", " \t\u3000"), long, ("kurz", "y " * 120)]
    found = ground.prepare(train, [*VALID, ("", ""), long])
    report = found.report
    assert (report.train.read, report.train.kept, len(found.train)) == (44, 40, 40)
    assert (report.train.empty.count, report.train.empty.first) == (2, (1, 42))
    assert (report.train.long.count, report.train.long.first) == (2, (43, 44))
    assert (report.valid.empty.first, report.valid.long.first) == ((3,), (4,))
    assert found.valid_pairs() == VALID and len(found.valid) == 2
    said = "\n".join(report.lines())
    assert "training text: left out, because a side is empty: 2 pairs (number 1, 42)" in said
    assert "validation text: left out, because a side is longer than 100 tokens: 1 pair (number 4)" in said


def test_only_the_first_few_are_named(ground: Ground) -> None:
    left = ground.prepare([*TOY, *[("", "")] * 9]).report.train.empty
    assert left.count == 9 and left.first == (41, 42, 43, 44, 45)
    assert str(left) == "9 pairs (number 41, 42, 43, 44, 45, ...)"


def test_the_longest_that_may_be(ground: Ground) -> None:
    whole = ground.prepare()
    longest = int(max(whole.train.source.lengths.max(), whole.train.target.lengths.max()))
    assert ground.prepare(how=whole.tokenizers, longest=longest).report.train.long.count == 0
    assert ground.prepare(how=whole.tokenizers, longest=longest - 1).report.train.long.count > 0


def test_a_very_long_line_is_never_tokenised(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original, original_train = Tokenizer.encode, Tokenizer.train

    def watched(texts: list[str]) -> list[str]:
        seen.extend(map(len, texts))
        return texts

    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: original(self, watched(texts)))
    monkeypatch.setattr(Tokenizer, "train", lambda how, texts: original_train(how, watched(list(texts))))
    found = ground.prepare([*TOY, ("x" * 1_000_000, "lang"), ("y" * 4000, "x")])
    assert found.report.train.long.count >= 1 and max(seen) == 4000


@pytest.mark.parametrize(
    ("train", "valid", "words"),
    [
        ([("", "a"), ("b", "")], VALID, "training text: of 2 pair.* 2 have an empty"),
        (TOY, [("", "a")], "validation text: of 1 pair.* 1 have an empty"),
        ([("x " * 5000, "a")], VALID, "training text: .* 1 a side longer than 100"),
        ([("x " * 120, "a")] * 3, VALID, "training text: .* 3 a side longer than 100"),
        (TOY, [("x " * 120, "a")], "validation text: .* 1 a side longer than 100"),
    ],
)
def test_nothing_is_left(ground: Ground, train: list[Pair], valid: list[Pair], words: str) -> None:
    with pytest.raises(QkvError, match=words):
        ground.prepare(train, valid)
    assert ground.kept() == []


def test_what_is_in_both_texts_is_counted(ground: Ground) -> None:
    valid = [TOY[3], (TOY[4][0], "etwas anderes"), ("neu", "neu")]
    report = ground.prepare([*TOY, TOY[3]], valid).report
    assert (report.shared_pairs, report.shared_sources) == (2, 3)
    assert any("warning: also in the validation text: 2 pairs" in line and "3 pairs" in line for line in report.lines())
    assert not any("warning" in line for line in ground.prepare().report.lines())


def test_unknown_tokens_are_counted(ground: Ground) -> None:
    report = ground.prepare(valid=[("the dog 日本", "der Hund")]).report
    assert report.valid.unknown == (2, 0)
    assert any("unknown" in line and "0.00% of the target" in line for line in report.lines())


# What was done before


def _never(*given: object, **named: object) -> None:
    raise AssertionError("this should have been found in the cache")


def test_the_same_text_is_found_again(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ground.prepare([*TOY, ("", "x")])
    for work in ("train", "encode"):
        monkeypatch.setattr(Tokenizer, work, _never)
    monkeypatch.setattr(corpus, "read_pairs", _never)
    again = ground.prepare([*TOY, ("", "x")])
    moved = Ground(tmp_path / "elsewhere")
    moved.cache = ground.cache
    for other in (again, moved.prepare([*TOY, ("", "x")]), ground.prepare([*TOY, ("", "x")], seed=99)):
        assert other.report.reused and not first.report.reused
        assert other.report.train == first.report.train and other.report.folder == first.report.folder
        assert decoded(other, "train") == decoded(first, "train")
        assert other.valid_pairs() == first.valid_pairs()
    assert "reused" in again.report.lines()[-1] and "reused" not in first.report.lines()[-1]


def test_anything_else_is_not(ground: Ground) -> None:
    ground.prepare()
    others = [
        ground.prepare(TOY[1:]),
        ground.prepare(valid=VALID[1:]),
        ground.prepare(longest=99),
        ground.prepare(how=spec.Tokenizer("bpe", AtMost(199))),
        ground.prepare(how=spec.Tokenizer("unigram", AtMost(200))),
        ground.prepare(valid=HeldOut(0.1)),
        ground.prepare(valid=HeldOut(0.2)),
    ]
    assert not any(other.report.reused for other in others)
    assert len(ground.kept()) == 8


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_a_build_that_stops_leaves_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]) -> None:
    def stop(*given: object) -> None:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(cache, "_finish", stop)
        with pytest.raises(fault):
            ground.prepare()
    assert ground.kept() == []
    assert not ground.prepare().report.reused


@pytest.mark.parametrize("damage", ["no contents", "cut short", "missing", "not JSON", "strange JSON", "empty"])
def test_a_damaged_folder_is_built_anew(ground: Ground, damage: str) -> None:
    first = ground.prepare()
    folder = Path(first.report.folder)
    match damage:
        case "no contents":
            (folder / "contents.json").unlink()
        case "cut short":
            (folder / "train.target.ids").write_bytes(b"ab")
        case "missing":
            (folder / "valid.jsonl").unlink()
        case "not JSON":
            (folder / "contents.json").write_text("{")
        case "strange JSON":
            (folder / "contents.json").write_text("[]")
        case _:
            for path in folder.iterdir():
                path.unlink()
    again = ground.prepare()
    assert not again.report.reused and decoded(again, "train") == TOY
    assert ground.prepare().report.reused and ground.kept() == [folder.name]


def test_two_runs_at_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    original = cache._finish
    finished: list[Prepared] = []

    def overtaken(*given: object) -> None:
        monkeypatch.setattr(cache, "_finish", original)
        finished.append(ground.prepare())
        original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "_finish", overtaken)
    late = ground.prepare()
    assert late.report.folder == finished[0].report.folder
    assert decoded(late, "train") == decoded(finished[0], "train") == TOY
    assert len(ground.kept()) == 1


# What goes wrong


def test_broken_text_is_said_before_any_work(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "train", _never)
    train, valid = store(ground.folder, TOY), store(ground.folder, VALID, "v")
    Path(valid.target[0]).write_bytes(b"gut\nschl\xe4cht\n")
    with pytest.raises(QkvError, match=r"line 2 of .*v\.de is not UTF-8"):
        prepare(train, valid, HOW, seed=1, longest=100, cache=ground.cache)
    with pytest.raises(QkvError, match="no file"):
        prepare(Files(("nowhere.en",), ("nowhere.de",)), valid, HOW, seed=1, longest=100, cache=ground.cache)
    for numbers in ({"seed": -1, "longest": 9}, {"seed": 1, "longest": 0}):
        with pytest.raises(QkvError, match="seed"):
            prepare(train, HeldOut(), HOW, cache=ground.cache, **numbers)
    assert ground.kept() == []


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [10, 500, 2000])
def test_a_full_disk(ground: Ground, size: int) -> None:
    train, valid = store(ground.folder, TOY), store(ground.folder, VALID, "v")
    ready = Tokenizer.train(HOW, [text for pair in TOY for text in pair])
    with small_disk(size), pytest.raises(QkvError) as caught:
        prepare(train, valid, Tokenizers(ready, ready), seed=1, longest=100, cache=ground.cache)
    assert str(ground.cache) in str(caught.value) and ground.kept() == []


def test_a_folder_that_cannot_be(ground: Ground, tmp_path: Path) -> None:
    ground.cache = tmp_path / "file" / "cache"
    (tmp_path / "file").write_text("")
    with pytest.raises(QkvError, match=r"file/cache: Not a directory; .*QKV_CACHE"):
        ground.prepare()


# Where it is kept


def test_default_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QKV_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert default_cache() == Path("/a")
    monkeypatch.delenv("QKV_CACHE")
    assert default_cache() == Path("/b/qkv")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/c")
    assert default_cache() == Path("/c/.cache/qkv")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(QkvError, match="QKV_CACHE"):
        default_cache()


# Real text


def test_real_text(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "multi30k" / "raw"
    where = Files((str(folder / "val.en"),), (str(folder / "val.de"),))
    found = prepare(where, HeldOut(), spec.Tokenizer(vocabulary=AtMost(2000)), seed=1, longest=256, cache=tmp_path)
    assert found.report.train.kept + found.report.valid.kept == 1014 and found.report.held_out == 10
    sources = [line.strip() for line in (folder / "val.en").read_text(encoding="utf-8").split("\n")[:-1]]
    rest = np.flatnonzero(~held_out(1, 1014, 0.01))
    assert [source for source, _ in decoded(found, "train")] == [" ".join(sources[i].split()) for i in rest]
