"""Documents: what is one, whatever its line ends; and that every token of every document is kept, and all else is said."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkv.data import documents
from qkv.data.documents import PIECE, PreparedTexts, encode_pieces, prepare_texts, read_pieces
from qkv.data.sides import Side
from qkv.data.tokenizer import Tokenizer
from qkv.error import QkvError
from qkv.spec.data import AtMost, Documents, HeldOut, Lines, Paragraphs, Texts, Whole
from qkv.spec.data import Tokenizer as How

BYTES, CHARACTERS = How("bytes", AtMost(300)), How("characters", AtMost(200))


def store(path: Path, content: str | bytes) -> str:
    """Write a file, compressed if its name says so, and return its name."""
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


def texts(folder: Path, kind: Documents, *contents: str | bytes) -> Texts:
    """Files of these contents."""
    files = [store(folder / f"{number}.txt", content) for number, content in enumerate(contents)]
    return Texts(tuple(files), kind)


def read(where: Texts) -> list[str]:
    """The documents, their pieces joined."""
    found, held = [], ""
    for piece in read_pieces(where):
        held += piece.text
        if piece.ends:
            found.append(held)
            held = ""
    assert not held, "a document does not end"
    return found


def said(side: Side, tokenizer: Tokenizer) -> list[str]:
    """Encoded documents as text."""
    return [tokenizer.decode(side[index]) for index in range(len(side))]


def prepared(
    folder: Path, train: Texts, valid: Texts | HeldOut = HeldOut(), how: How | Tokenizer = BYTES, seed: int = 1
) -> PreparedTexts:
    return prepare_texts(train, valid, how, seed=seed, cache=folder / "cache")


def complaint(where: Texts) -> str:
    with pytest.raises(QkvError) as caught:
        list(read_pieces(where))
    return str(caught.value)


# What is a document


@pytest.mark.parametrize(
    ("content", "whole", "lines", "paragraphs"),
    [
        ("a\nb\n", "a\nb", ["a", "b"], ["a\nb"]),
        ("a\nb", "a\nb", ["a", "b"], ["a\nb"]),
        ("a\r\n\r\nb\r\n", "a\n\nb", ["a", "b"], ["a", "b"]),
        ("\n\na\n \n\t\n\nb\nc\n\n", "\n\na\n \n\t\n\nb\nc\n", ["a", "b", "c"], ["a", "b\nc"]),
        ("  a \n  b", "  a \n  b", ["a", "b"], ["  a \n  b"]),
        ("\ufeffa\n\ufeffb\n", "a\n\ufeffb", ["a", "\ufeffb"], ["a\n\ufeffb"]),
        ("a\rb\u2028c\n\x0cd\n", "a\rb\u2028c\n\x0cd", ["a\rb\u2028c", "d"], ["a\rb\u2028c\n\x0cd"]),
    ],
)
@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz"])
def test_what_is_a_document(tmp_path: Path, name: str, content: str, whole: str, lines: list[str], paragraphs: list[str]) -> None:
    file = (store(tmp_path / name, content),)
    assert read(Texts(file, Whole())) == [whole]
    assert read(Texts(file, Lines())) == lines
    assert read(Texts(file, Paragraphs())) == paragraphs


LINE = st.text(st.characters(exclude_characters="\n\0\ufeff", exclude_categories=["Cs"]), max_size=5).map(
    lambda line: line.rstrip("\r")
)


@given(lines=st.lists(st.one_of(LINE, st.just(""), st.just("  ")), min_size=1, max_size=12))
def test_any_lines_are_the_documents_that_they_look_like(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    folder, content = tmp_path_factory.mktemp("any"), "".join(line + "\n" for line in lines)
    assert read(texts(folder, Whole(), content)) == [content.removesuffix("\n")]
    kept = [line.strip() for line in lines if line.strip()]
    if not kept:
        for kind in (Lines(), Paragraphs()):
            assert "is empty: expected text" in complaint(texts(folder, kind, content))
        return
    assert read(texts(folder, Lines(), content)) == kept
    groups: list[list[str]] = [[]]
    for line in lines:
        groups[-1:] = [[*groups[-1], line]] if line.strip() else [groups[-1], []]
    assert read(texts(folder, Paragraphs(), content)) == ["\n".join(group) for group in groups if group]


def test_every_file_is_a_document_of_its_own(tmp_path: Path) -> None:
    assert read(texts(tmp_path, Whole(), "a\nb", "c\n", "\nd")) == ["a\nb", "c", "\nd"]
    assert read(texts(tmp_path, Paragraphs(), "a\nb", "c")) == ["a\nb", "c"], "the end of a file ends a paragraph"


def test_a_document_larger_than_a_piece_comes_in_pieces_and_whole(tmp_path: Path) -> None:
    lines = [f"line {number} of a long text, é {'x' * (number % 97)}" for number in range(6000)]
    pieces = list(read_pieces(texts(tmp_path, Whole(), "\n".join(lines))))
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True] and len(pieces) > 4
    assert max(len(piece.text) for piece in pieces) < PIECE + 200
    assert "".join(piece.text for piece in pieces) == "\n".join(lines)


@pytest.mark.parametrize("extra", [-2, -1, 0, 1, 2])
def test_a_document_just_as_large_as_a_piece(tmp_path: Path, extra: int) -> None:
    for content in ("a" * (PIECE + extra), "a" * (PIECE + extra) + "\nb", "b\n" * 9 + "a" * (PIECE + extra)):
        assert read(texts(tmp_path, Whole(), content)) == [content]


def test_what_is_not_text_is_named_by_its_line(tmp_path: Path) -> None:
    for kind in (Whole(), Lines(), Paragraphs()):
        for content, words in [(b"a\nb\xffc\n", ["not UTF-8", "0xff"]), (b"a\nb\0c\n", ["NUL"])]:
            said = complaint(texts(tmp_path, kind, b"fine\n", content))
            assert all(word in said for word in [*words, "line 2", "1.txt"]), said
        assert "is empty: expected text" in complaint(texts(tmp_path, kind, ""))
    assert "no file" in complaint(Texts((str(tmp_path / "nowhere"),)))
    assert "folder" in complaint(Texts((str(tmp_path),)))
    assert "gzip" in complaint(texts(tmp_path, Whole(), gzip.compress(b"a\n")))


# From text to tokens


def test_all_text_comes_back_from_its_tokens(tmp_path: Path) -> None:
    long = "\n".join(f"{number} añ\t\u2028 {'y' * (number % 50)}  " for number in range(9000))
    train, valid = texts(tmp_path, Whole(), long, "short\n\n", "third"), Texts((store(tmp_path / "v", "other\ntext"),))
    found = prepared(tmp_path, train, valid)
    assert len(long) > 3 * PIECE
    assert said(found.train, found.tokenizer) == [long, "short\n", "third"]
    assert said(found.valid, found.tokenizer) == ["other\ntext"]


def test_the_account_is_of_documents_tokens_unknown_ones_and_bytes(tmp_path: Path) -> None:
    train, valid = texts(tmp_path, Lines(), "ab\n\nba\na\n"), Texts((store(tmp_path / "v", "aéb\nb"),), Lines())
    found = prepared(tmp_path, train, valid, CHARACTERS)
    assert found.report.train == documents.Read(documents=3, tokens=5, unknown=0, bytes=5 + 3)
    assert found.report.valid == documents.Read(documents=2, tokens=4, unknown=1, bytes=5 + 2)
    assert found.report.vocabulary == found.tokenizer.size == 6
    lines = found.report.lines()
    assert "training text: 3 documents, 5 tokens, 1.60 bytes a token" in lines
    assert "validation text: 2 documents, 4 tokens, 1.75 bytes a token, 25.00% of them unknown" in lines
    assert not any("held out" in line or "warning" in line for line in lines)


def test_pieces_are_encoded_in_their_order_however_many_there_are(tmp_path: Path) -> None:
    lines = [f"{number}" for number in range(3 * documents.AT_ONCE + 5)]
    found = prepared(tmp_path, texts(tmp_path, Lines(), "\n".join(lines)), texts(tmp_path, Lines(), "\n".join(lines)))
    encoded = list(encode_pieces(found.tokenizer, read_pieces(texts(tmp_path, Lines(), "\n".join(lines)))))
    assert [found.tokenizer.decode(ids) for ids, _, _ in encoded] == lines == said(found.train, found.tokenizer)
    assert [size for _, _, size in encoded] == [len(line) + 1 for line in lines]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_tokenizer_that_loses_line_ends_is_refused_where_there_are_some(tmp_path: Path, kind: str) -> None:
    for where in (Whole(), Paragraphs()):
        with pytest.raises(QkvError, match=f"{kind} cannot: use --tokenizer bytes or characters, or .* --documents lines"):
            prepared(tmp_path, texts(tmp_path, where, "a b\nc d\n" * 9), how=How(kind))
    assert len(prepared(tmp_path, texts(tmp_path, Lines(), "a b\nc d\n" * 9), how=How("bpe")).train) == 17


def test_a_tokenizer_that_is_given_is_taken_as_it_is(tmp_path: Path) -> None:
    given = prepared(tmp_path, texts(tmp_path, Lines(), "abc\nabd\n" * 5)).tokenizer
    found = prepared(tmp_path, texts(tmp_path, Lines(), "xyz\nzyx\n" * 5), how=given)
    assert found.tokenizer.fingerprint == given.fingerprint
    assert set(said(found.train, given)) == {"xyz", "zyx"}


@pytest.mark.parametrize("empty", ["training", "validation"])
def test_text_of_nothing_but_line_ends_is_refused(tmp_path: Path, empty: str) -> None:
    tokenizer = prepared(tmp_path, texts(tmp_path, Lines(), "abc\nabd\n" * 5)).tokenizer
    nothing, something = Texts((store(tmp_path / "n", "\n"),)), Texts((store(tmp_path / "s", "abc\nd\n"),))
    train, valid = (nothing, something) if empty == "training" else (something, nothing)
    with pytest.raises(QkvError, match=f"there is no text in the {empty} text: expected at least one line that is not empty"):
        prepared(tmp_path, train, valid, tokenizer)


# What is held out


def test_documents_held_out_and_trained_on_are_together_all(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(300)]
    train = texts(tmp_path, Lines(), "\n".join(lines[:200]), "\n".join(lines[200:]))
    found = {seed: prepared(tmp_path, train, HeldOut(0.05), seed=seed) for seed in (1, 2)}
    for one in found.values():
        kept, held = said(one.train, one.tokenizer), said(one.valid, one.tokenizer)
        assert sorted(kept + held) == sorted(lines) and len(held) == 15
        assert kept == [line for line in lines if line not in held], "in their order"
        assert one.report.lines()[0] == "no validation text was given: 15 of 300 documents held out for it"
    assert said(found[1].valid, found[1].tokenizer) != said(found[2].valid, found[2].tokenizer)


def test_of_two_documents_one_is_held_out(tmp_path: Path) -> None:
    long = "".join(f"{number} {'z' * 60}\n" for number in range(3000))
    found = prepared(tmp_path, texts(tmp_path, Whole(), long, "short"), HeldOut(0.01))
    together = said(found.train, found.tokenizer) + said(found.valid, found.tokenizer)
    assert sorted(together) == sorted([long.removesuffix("\n"), "short"]) and len(found.valid) == 1


@pytest.mark.parametrize(("number", "share", "held"), [(2, 0.01, 1), (10, 0.01, 1), (1000, 0.01, 10), (7, 0.9, 6), (9, 0.99, 8)])
def test_of_a_single_document_the_last_lines_are_held_out(tmp_path: Path, number: int, share: float, held: int) -> None:
    lines = [f"line {place}" for place in range(number)]
    found = prepared(tmp_path, texts(tmp_path, Whole(), "\n".join(lines)), HeldOut(share))
    assert said(found.train, found.tokenizer) == ["\n".join(lines[:-held])]
    assert said(found.valid, found.tokenizer) == ["\n".join(lines[-held:])]
    assert found.report.lines()[0] == f"no validation text was given: the last {held:,} of {number:,} lines held out for it"


def test_too_little_to_hold_any_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QkvError, match=r"0\.txt has one line only, and none can be held out: give more text"):
        prepared(tmp_path, texts(tmp_path, Whole(), "one line"))
    for kind in (Lines(), Paragraphs()):
        with pytest.raises(QkvError, match="the training text is one document, and none can be held out"):
            prepared(tmp_path, texts(tmp_path, kind, "one line"))


def test_text_that_stands_on_both_sides_is_counted(tmp_path: Path) -> None:
    valid = Texts((store(tmp_path / "v", "b\nd\nx\n"),), Lines())
    found = prepared(tmp_path, texts(tmp_path, Lines(), "a\nb\nc\nd\nb\n"), valid, CHARACTERS)
    (warning,) = [line for line in found.report.lines() if "warning" in line]
    assert warning == (
        "warning: also in the validation text: 3 documents of the training text; validation may look better than it is"
    )
    same = "".join(f"{number} {'z' * 60}\n" for number in range(3000))  # of several pieces
    again = prepared(tmp_path, texts(tmp_path, Whole(), same, "other"), Texts((store(tmp_path / "w", same),)))
    assert again.report.shared == 1
    assert (
        prepared(tmp_path, texts(tmp_path, Whole(), same + "z", "other"), Texts((store(tmp_path / "w", same),))).report.shared
        == 0
    )


# What was prepared before


def test_what_was_prepared_is_found_again_and_what_changed_is_not(tmp_path: Path) -> None:
    content = "\n".join(f"line {number}" for number in range(50))
    first = prepared(tmp_path, texts(tmp_path, Lines(), content))
    again = prepared(tmp_path, Texts((store(tmp_path / "copy.gz", content),), Lines()))
    assert again.report.reused and not first.report.reused and again.report.folder == first.report.folder
    assert again.fingerprints == first.fingerprints and again.report.train == first.report.train
    assert np.array_equal(first.train.ids, again.train.ids)
    others = [
        prepared(tmp_path, texts(tmp_path, Lines(), content + "!")),
        prepared(tmp_path, texts(tmp_path, Paragraphs(), content, "b")),
        prepared(tmp_path, texts(tmp_path, Lines(), content), seed=2),
        prepared(tmp_path, texts(tmp_path, Lines(), content), HeldOut(0.2)),
        prepared(tmp_path, texts(tmp_path, Lines(), content), how=CHARACTERS),
        prepared(tmp_path, texts(tmp_path, Lines(), content), how=first.tokenizer),
    ]
    assert not any(other.report.reused for other in others)
    assert len({other.report.folder for other in [first, *others]}) == 7
