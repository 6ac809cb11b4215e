"""Reading parallel text: where lines end, what is refused and how it is said, and what a fingerprint depends on."""

from __future__ import annotations

import gzip
import os
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkv.data.text import fingerprint, read_lines, read_pairs
from qkv.error import QkvError
from qkv.spec.data import Files, HeldOut, Pairs


def store(path: Path, content: str | bytes) -> str:
    """Write a file, compressed if its name says so, and return its name."""
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


def files(folder: Path, source: str | bytes, target: str | bytes) -> Files:
    return Files((store(folder / "a.en", source),), (store(folder / "a.de", target),))


def complaint(where: Files | Pairs | str) -> str:
    """What reading says is wrong."""
    with pytest.raises(QkvError) as caught:
        list(read_lines(where) if isinstance(where, str) else read_pairs(where))
    return str(caught.value)


# Lines


@pytest.mark.parametrize("name", ["t.en", "t.en.gz"])
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\nb", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\r\r\nb\r", ["a\r", "b\r"]),
        ("\n\n", ["", ""]),
        ("", []),
        ("\ufeffa\n\ufeffb\n", ["a", "\ufeffb"]),
        ("one\rline\x0bof\x0cmany\x1ckinds\x85of\u2028ends\u2029\n", ["one\rline\x0bof\x0cmany\x1ckinds\x85of\u2028ends\u2029"]),
    ],
)
def test_lines_end_at_line_feeds_only(tmp_path: Path, name: str, content: str, lines: list[str]) -> None:
    assert list(read_lines(store(tmp_path / name, content))) == lines


@given(lines=st.lists(st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"])), min_size=1))
def test_any_lines_come_back(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    written = [line.removeprefix("\ufeff").rstrip("\r") for line in lines]
    path = tmp_path_factory.mktemp("lines") / "t"
    store(path, "".join(line + "\n" for line in written))
    assert list(read_lines(path)) == [written[0].removeprefix("\ufeff"), *written[1:]]


def test_lines_are_streamed(tmp_path: Path) -> None:
    path = store(tmp_path / "t", b"good\n" * 3 + b"\xff\n")
    assert list(islice(read_lines(path), 3)) == ["good"] * 3


@pytest.mark.parametrize("name", ["t.en", "t.en.gz"])
def test_what_is_not_text_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    for content, words in [(b"a\nb\xffc\n", ["UTF-8", "0xff"]), (b"a\nb\0c\n", ["NUL"])]:
        said = complaint(store(tmp_path / name, content))
        assert all(word in said for word in [*words, "line 2", name]), said


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "no file" in complaint(str(tmp_path / "nowhere"))
    assert "folder" in complaint(str(tmp_path))
    assert "gzip" in complaint(store(tmp_path / "t", gzip.compress(b"a\n")))
    (tmp_path / "plain.gz").write_text("a\n")
    assert "gzip" in complaint(str(tmp_path / "plain.gz"))
    whole = gzip.compress(os.urandom(1000))
    (tmp_path / "cut.gz").write_bytes(whole[:500])
    assert "gzip" in complaint(str(tmp_path / "cut.gz"))
    (tmp_path / "broken.gz").write_bytes(whole[:300] + bytes(20) + whole[320:])
    assert "broken.gz" in complaint(str(tmp_path / "broken.gz"))


# Two sides


def test_pairs_of_files(tmp_path: Path) -> None:
    where = files(tmp_path, "one\ntwo\n", "eins\nzwei")
    assert list(read_pairs(where)) == [("one", "eins"), ("two", "zwei")]
    more = Files((*where.source, store(tmp_path / "b.en.gz", "three\n")), (*where.target, store(tmp_path / "b.de", "drei\n")))
    assert list(read_pairs(more))[2:] == [("three", "drei")]


@pytest.mark.parametrize(("source", "target"), [("1\n2\n3\n", "1\n"), ("1\n", "1\n2\n3\n")])
def test_sides_of_different_length(tmp_path: Path, source: str, target: str) -> None:
    said = complaint(files(tmp_path, source, target))
    assert f"a.en has {source.count(chr(10))}" in said and f"a.de has {target.count(chr(10))}" in said


def test_lengths_are_compared_file_by_file(tmp_path: Path) -> None:
    sources = tuple(store(tmp_path / name, text) for name, text in [("a.en", "1\n2\n"), ("b.en", "1\n")])
    targets = tuple(store(tmp_path / name, text) for name, text in [("a.de", "1\n"), ("b.de", "1\n2\n")])
    assert "a.en has 2" in complaint(Files(sources, targets))


def test_empty_sides(tmp_path: Path) -> None:
    for source, target, name in [("", "", "a.en"), ("a\n", "", "a.de"), ("", "a\n", "a.en")]:
        said = complaint(files(tmp_path, source, target))
        assert f"{name} is empty" in said


def test_the_same_file_twice(tmp_path: Path) -> None:
    one = store(tmp_path / "one", "a\n")
    (tmp_path / "soft").symlink_to(one)
    os.link(one, tmp_path / "hard")
    for other in (one, str(tmp_path / "soft"), str(tmp_path / "hard"), str(tmp_path / "." / "one")):
        assert "the same file" in complaint(Files((one,), (other,)))
    copy = store(tmp_path / "copy", "a\n")
    assert list(read_pairs(Files((one,), (copy,)))) == [("a", "a")]
    assert "the same file" in complaint(Files((copy, one), (one, copy)))


def test_a_missing_side(tmp_path: Path) -> None:
    assert "nowhere" in complaint(Files((store(tmp_path / "one", "a\n"),), (str(tmp_path / "nowhere"),)))


def test_a_pipe_cannot_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    where = Files((store(tmp_path / "one", "a\n"),), (str(tmp_path / "pipe"),))
    assert "ordinary file" in complaint(where)
    with pytest.raises(QkvError, match="ordinary file"):
        fingerprint(where)


# Tables


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_tables(tmp_path: Path, ending: str) -> None:
    headed = store(tmp_path / f"h.tsv{ending}", "de\tid\ten\r\neins\t1\tone\r\nzwei\t2\ttwo\r\n")
    bare = store(tmp_path / f"b.tsv{ending}", "drei\tthree\nvier\tfour\textra\n")
    lined = store(tmp_path / f"l.jsonl{ending}", '{"en": "one", "de": "eins \\u00e9\\n"}\n{"x": 1, "de": "", "en": "two"}\n')
    assert list(read_pairs(Pairs((headed,), ("en", "de")))) == [("one", "eins"), ("two", "zwei")]
    assert list(read_pairs(Pairs((bare,), ("2", "1")))) == [("three", "drei"), ("four", "vier")]
    assert list(read_pairs(Pairs((lined,), ("en", "de")))) == [("one", "eins é\n"), ("two", "")]
    assert len(list(read_pairs(Pairs((headed, lined), ("en", "de"))))) == 4


@pytest.mark.parametrize(
    ("name", "content", "fields", "words"),
    [
        ("t.tsv", "english\tgerman\na\tb\n", ("englisch", "german"), ["header", "did you mean 'english'"]),
        ("t.tsv", "en\tde\na\tb\nc\n", ("en", "de"), ["line 3", "'de'", "column 2"]),
        ("t.tsv", "en\tde\na\tb\tc\n", ("en", "de"), ["line 2", "3 columns"]),
        ("t.tsv", "en\ten\na\tb\n", ("en", "2"), ["more than once"]),
        ("t.tsv", "a\tb\n\n", ("1", "2"), ["line 2", "column 2"]),
        ("t.tsv", "a\tb\n", ("0", "1"), ["counted from 1"]),
        ("t.tsv", "", ("en", "de"), ["empty"]),
        ("t.tsv", "en\tde\n", ("en", "de"), ["empty"]),
        ("t.tsv", "", ("1", "2"), ["empty"]),
        ("t.jsonl", "", ("en", "de"), ["empty"]),
        ("t.jsonl", '{"en": "a", "de": "b"}\n{"en": "a"\n', ("en", "de"), ["line 2", "not JSON"]),
        ("t.jsonl", "[" * 100_000 + "\n", ("en", "de"), ["line 1", "not JSON"]),
        ("t.jsonl", '{"en": "a", "dee": "b"}\n', ("en", "de"), ["line 1", "did you mean 'dee'"]),
        ("t.jsonl", '["a", "b"]\n', ("en", "de"), ["line 1", "object"]),
        ("t.jsonl", '{"en": "a", "de": 3}\n', ("en", "de"), ["line 1", "'de'", "3"]),
        ("t.jsonl", '{"en": "a", "de": "\\ud800"}\n', ("en", "de"), ["line 1", "surrogate"]),
        ("t.jsonl", '{"en": "a\\u0000", "de": "b"}\n', ("en", "de"), ["line 1", "\\u0000"]),
        ("t.csv", "en,de\n", ("en", "de"), [".tsv", ".jsonl"]),
    ],
)
def test_broken_tables(tmp_path: Path, name: str, content: str, fields: tuple[str, str], words: list[str]) -> None:
    said = complaint(Pairs((store(tmp_path / name, content),), fields))
    assert all(word in said for word in [*words, name]), said


# Values


def test_where_text_lies_is_checked() -> None:
    for wrong in [
        lambda: Files(("a", "b"), ("c",)),
        lambda: Files((), ()),
        lambda: Pairs((), ("a", "b")),
        lambda: Pairs(("a.tsv",), ("a", "a")),
        lambda: HeldOut(0.0),
        lambda: HeldOut(1.0),
    ]:
        with pytest.raises(QkvError):
            wrong()


# Fingerprints


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    def of(folder: str, source: str, target: str, ending: str = "") -> str:
        (tmp_path / folder).mkdir()
        places = [store(tmp_path / folder / (name + ending), text) for name, text in [("x", source), ("y", target)]]
        return fingerprint(Files((places[0],), (places[1],)))

    first = of("a", "1\n", "2\n")
    assert first == of("b", "1\n", "2\n") == of("c", "1\n", "2\n", ".gz")
    assert len({first, of("d", "1\n", "3\n"), of("e", "2\n", "1\n"), of("f", "1\n2\n", "")}) == 4


def test_a_fingerprint_is_of_the_fields_too(tmp_path: Path) -> None:
    tables = [store(tmp_path / f"{name}.tsv", "a\tb\n") for name in "xy"]
    same, other = Pairs((tables[1],), ("a", "b")), Pairs((tables[0],), ("b", "a"))
    assert fingerprint(Pairs((tables[0],), ("a", "b"))) == fingerprint(same) != fingerprint(other)
    as_lines = store(tmp_path / "z.jsonl", "a\tb\n")
    assert fingerprint(Pairs((as_lines,), ("a", "b"))) != fingerprint(same)


def test_a_fingerprint_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(QkvError, match="nowhere"):
        fingerprint(Files((str(tmp_path / "nowhere"),), (store(tmp_path / "a", "a"),)))
