"""Bytes as documents: every one is kept as it is, none goes through text, and each form has its own."""

from __future__ import annotations

import gzip
import wave
from pathlib import Path

import numpy as np
import pytest

from qkv.data import bytes as raw
from qkv.data.bytes import read_chunks
from qkv.data.documents import PreparedTexts, encoded, prepare_texts
from qkv.data.sides import Side
from qkv.data.sounds import mu_law
from qkv.data.symbols import MASK, OURS, SPECIALS
from qkv.data.tokenizer import Tokenizer
from qkv.error import QkvError
from qkv.spec.data import AtMost, Bytes, Exactly, Form, HeldOut, Pictures, Sounds
from qkv.spec.data import Tokenizer as How

EVERY = How("bytes", Exactly(260))
ANY = bytes(np.random.default_rng(1).integers(0, 256, 1000, dtype=np.uint8))  # no UTF-8, with NULs and half line ends


def store(path: Path, content: bytes) -> str:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def sound(path: Path, samples: np.ndarray, rate: int = 8000) -> str:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes((samples * 32000).astype("<i2").tobytes())
    return str(path)


def pictures(folder: Path, number: int, seed: int = 1) -> tuple[Bytes, np.ndarray]:
    """An array of NumPy as a value, and its pictures."""
    found = np.random.default_rng(seed).integers(0, 256, (number, 3, 4), dtype=np.uint8)
    path = folder / f"{seed}.npy"
    np.save(path, found)
    return Bytes((str(path),), Pictures(3, 4)), found


def prepared(folder: Path, train: Bytes, valid: Bytes | HeldOut = HeldOut(), how: How | Tokenizer = EVERY) -> PreparedTexts:
    return prepare_texts(train, valid, how, seed=1, cache=folder / "cache")


def said(side: Side) -> list[bytes]:
    """Encoded documents as bytes, by the order of the entries alone."""
    return [bytes((side[index] - len(SPECIALS)).astype(np.uint8)) for index in range(len(side))]


def complaint(where: Bytes) -> str:
    with pytest.raises(QkvError) as caught:
        list(read_chunks(where))
    return str(caught.value)


# The tokenizer


def test_the_tokenizer_of_bytes_has_an_entry_for_each_and_is_an_ordinary_one(tmp_path: Path) -> None:
    made = Tokenizer.of_bytes()
    assert made.size == 260 and made.symbols == OURS and made.byte_entries.tolist() == list(range(4, 260))
    made.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.fingerprint == made.fingerprint
    text = "\0 é\r\n\u2028 </s> \U0001f600"
    assert again.encode([text])[0] == again.byte_entries[list(text.encode())].tolist()
    assert again.decode(again.byte_entries[list(text.encode())]) == text
    assert Tokenizer.of_bytes((MASK,)).symbols.masks == (260,)


def test_bytes_have_entries_of_their_own_in_a_tokenizer_of_text_as_well() -> None:
    learned = Tokenizer.train(How("bytes", AtMost(300)), ["the theme of the thesis"] * 9)
    assert learned.size > 260 and len(set(learned.byte_entries.tolist())) == 256
    assert learned.decode(learned.byte_entries[list(b"theme")]) == "theme" and len(learned.encode(["theme"])[0]) < 5
    with pytest.raises(QkvError, match="the tokenizer has no entry for every byte: start from a run that learned from bytes"):
        _ = Tokenizer.train(How("characters"), ["abc"]).byte_entries


# What is a document


@pytest.mark.parametrize("name", ["a.bin", "a.txt.gz"])
def test_a_file_is_a_document_byte_by_byte(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 99, 100, 101, 300, 1000):
        monkeypatch.setattr(raw, "CHUNK", 100)
        where = Bytes((store(tmp_path / name, ANY[:size]), store(tmp_path / "b", b"\n")))
        chunks = list(read_chunks(where))
        assert b"".join(chunk.raw for chunk in chunks) == ANY[:size] + b"\n"
        assert [chunk.ends for chunk in chunks] == [False] * (len(chunks) - 2) + [True, True]
        assert max(len(chunk.raw) for chunk in chunks) <= 100


def test_a_picture_is_read_row_by_row_pixel_by_pixel_channel_by_channel(tmp_path: Path) -> None:
    colour = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    np.save(tmp_path / "a.npy", colour)
    chunks = list(read_chunks(Bytes((str(tmp_path / "a.npy"),), Pictures(2, 3, 3))))
    assert [list(chunk.raw) for chunk in chunks] == [list(range(18)), list(range(18, 36))]
    assert all(chunk.ends for chunk in chunks)
    assert "but the pictures of this run are 3 pixels high" in complaint(Bytes((str(tmp_path / "a.npy"),), Pictures(3, 2, 3)))


def test_a_sound_is_its_levels_in_mu_law(tmp_path: Path) -> None:
    samples = np.sin(np.arange(50) / 3)
    where = Bytes((sound(tmp_path / "a.wav", samples), sound(tmp_path / "b.wav", samples[:7])), Sounds(8000))
    first, second = read_chunks(where)
    assert first.raw == mu_law((samples * 32000).astype(np.int16) / 32768).tobytes() and first.ends
    assert second.raw == first.raw[:7]
    assert "train with --rate 8000" in complaint(Bytes((str(tmp_path),), Sounds(12000)))


def test_files_that_hold_nothing_and_folders_are_refused(tmp_path: Path) -> None:
    assert "is empty: expected at least one byte" in complaint(Bytes((store(tmp_path / "e", b""),)))
    assert "is a folder: name a file in it" in complaint(Bytes((str(tmp_path),)))
    assert "there is no file" in complaint(Bytes((str(tmp_path / "nowhere"),)))
    assert "is not a whole gzip file" in complaint(Bytes((str((tmp_path / "x.gz").write_bytes(ANY) and tmp_path / "x.gz"),)))


# Prepared


def test_all_bytes_come_back_from_their_entries(tmp_path: Path) -> None:
    train = Bytes((store(tmp_path / "a", ANY), store(tmp_path / "b", ANY[::-1])))
    found = prepared(tmp_path, train, Bytes((store(tmp_path / "v", ANY[:9]),)))
    assert said(found.train) == [ANY, ANY[::-1]] and said(found.valid) == [ANY[:9]]
    assert found.tokenizer.fingerprint == Tokenizer.of_bytes().fingerprint
    assert (found.report.train.documents, found.report.train.tokens, found.report.train.bytes) == (2, 2000, 2002)
    assert not found.report.reused and prepared(tmp_path, train, Bytes((store(tmp_path / "v", ANY[:9]),))).report.reused


@pytest.mark.parametrize("form", [Pictures(3, 4), Sounds(8000)])
def test_ends_are_no_dimensions(tmp_path: Path, form: Form) -> None:
    if isinstance(form, Pictures):
        where, _ = pictures(tmp_path, 5)
    else:
        where = Bytes(tuple(sound(tmp_path / f"{n}.wav", np.zeros(12)) for n in range(5)), form)
    assert sum(size for _, _, size in encoded(Tokenizer.of_bytes(), where)) == 5 * 12


def test_a_folder_that_has_changed_is_prepared_anew(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    where = Bytes((str(tmp_path / "sounds"),), Sounds(8000))
    for number in range(3):
        sound(tmp_path / "sounds" / f"{number}.wav", np.sin(np.arange(20) + number))
    before = prepared(tmp_path, where)
    assert prepared(tmp_path, where).report.reused
    sound(tmp_path / "sounds" / "3.wav", np.zeros(5))
    after = prepared(tmp_path, where)
    assert not after.report.reused and after.fingerprints != before.fingerprints
    assert len(after.train) + len(after.valid) == 4


def test_pictures_are_held_out_whole_and_one_cannot_be(tmp_path: Path) -> None:
    where, found = pictures(tmp_path, 20)
    made = prepared(tmp_path, where, HeldOut(0.25))
    assert (len(made.train), len(made.valid)) == (15, 5) and made.report.held_out == "5 of 20 documents"
    assert sorted(said(made.train) + said(made.valid)) == sorted(picture.tobytes() for picture in found)
    with pytest.raises(QkvError, match="is one document, and none can be held out"):
        prepared(tmp_path, pictures(tmp_path, 1, seed=2)[0])


@pytest.mark.parametrize("chunk", [7, 100, 1 << 20])
def test_the_last_bytes_of_a_single_document_are_held_out(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "CHUNK", chunk)
    made = prepared(tmp_path, Bytes((store(tmp_path / "a", ANY),)), HeldOut(0.05))
    assert made.report.held_out == "the last 50 of 1,000 bytes"
    assert said(made.train) == [ANY[:950]] and said(made.valid) == [ANY[950:]]
    with pytest.raises(QkvError, match="is a single byte, and none can be held out"):
        prepared(tmp_path, Bytes((store(tmp_path / "b", b"x"),)))


def test_a_single_sound_is_parted_like_a_file(tmp_path: Path) -> None:
    made = prepared(tmp_path, Bytes((sound(tmp_path / "a.wav", np.sin(np.arange(200))),), Sounds(8000)), HeldOut(0.1))
    assert (made.report.train.bytes, made.report.valid.bytes) == (180, 20)


@pytest.mark.parametrize(
    "how", [How("bpe"), How("bytes", Exactly(300)), How("bytes", AtMost(259)), How("characters", AtMost(260))]
)
def test_another_tokenizer_is_refused(tmp_path: Path, how: How) -> None:
    with pytest.raises(QkvError, match="bytes are not cut into pieces, and their 260 entries are always the same ones"):
        prepared(tmp_path, pictures(tmp_path, 5)[0], how=how)
    assert prepared(tmp_path, pictures(tmp_path, 5)[0], how=How("bytes", AtMost(10000))).tokenizer.size == 260


def test_a_tokenizer_of_text_that_is_given_keeps_bytes_apart(tmp_path: Path) -> None:
    given = Tokenizer.train(How("bytes", AtMost(300)), ["the theme of the thesis"] * 9)
    made = prepared(tmp_path, Bytes((store(tmp_path / "a", b"the theme" * 9), store(tmp_path / "b", b"the"))), how=given)
    assert made.report.train.tokens + made.report.valid.tokens == 84
    with pytest.raises(QkvError, match="no entry for every byte"):
        prepared(tmp_path, pictures(tmp_path, 5)[0], how=Tokenizer.train(How("characters"), ["abc"]))


# Real data


def test_enwik8_is_read_byte_by_byte(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "enwik8_prefix" / "enwik8.first4150000.gz"
    if not path.is_file():
        pytest.skip("needs enwik8_prefix in QKV_DATA")
    made = prepared(tmp_path, Bytes((str(path),)), HeldOut(0.05))
    assert (made.report.train.tokens, made.report.valid.tokens) == (3_942_500, 207_500)
    with gzip.open(path) as file:
        assert said(made.train)[0] + said(made.valid)[0] == file.read()


def test_every_digit_is_a_document_of_784(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "mnist_t10k" / "t10k-images-idx3-ubyte.gz"
    if not path.is_file():
        pytest.skip("needs mnist_t10k in QKV_DATA")
    made = prepared(tmp_path, Bytes((str(path),), Pictures(28, 28)), HeldOut(0.05))
    assert (len(made.train), len(made.valid)) == (9500, 500)
    assert set(made.train.lengths.tolist()) == set(made.valid.lengths.tolist()) == {784}
