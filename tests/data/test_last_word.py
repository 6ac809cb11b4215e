"""Passages and their last word: where it is cut off, and that a line that holds no passage is named."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkv.data.last_word import Passage, read_passages
from qkv.error import QkvError

WORDS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1)


def store(path: Path, content: str) -> Path:
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def read(folder: Path, content: str, name: str = "t.jsonl") -> list[Passage]:
    return list(read_passages(store(folder / name, content)))


def told(*texts: str) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


# What is read


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_the_last_word_is_cut_off(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, told("I don't care about signs", "on my own, Shane"), name) == [
        Passage("I don't care about", "signs"),
        Passage("on my own,", "Shane"),
    ]


@pytest.mark.parametrize(
    ("text", "passage"),
    [
        ('He said:\n\n"Nadia', Passage("He said:", '"Nadia')),
        ("one  two \n three \n", Passage("one  two", "three")),
        ("a well-known isn't", Passage("a well-known", "isn't")),
        ("where is Mary ?", Passage("where is Mary", "?")),
        ("first\nlast", Passage("first", "last")),
        ("né à\u00a0Zürich", Passage("né à", "Zürich")),
    ],
)
def test_words_are_parted_by_white_space_alone(tmp_path: Path, text: str, passage: Passage) -> None:
    assert read(tmp_path, told(text)) == [passage]


def test_other_fields_are_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, '{"id": 1, "text": "two words", "label": null}\n') == [Passage("two", "words")]


@given(texts=st.lists(st.lists(WORDS, min_size=2), min_size=1))
def test_any_passage_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]]) -> None:
    found = read(tmp_path_factory.mktemp("passages"), told(*map(" ".join, texts)))
    assert [f"{passage.context} {passage.word}" for passage in found] == [" ".join(text) for text in texts]
    assert [passage.word for passage in found] == [text[-1] for text in texts]


# What is refused


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "is not JSON"),
        ("in plain words", "is not JSON"),
        ('{"text": "two words"', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('["two words"]', "is not a JSON object"),
        ('"two words"', "is not a JSON object"),
        ("{}", "has no field 'text', only none"),
        ('{"Text": "two words", "id": 1}', "has no field 'text', only 'Text', 'id'"),
        ('{"text": null}', "is null: expected text"),
        ('{"text": ["two", "words"]}', 'is ["two", "words"]: expected text'),
        ('{"text": ""}', "is '': expected at least two words"),
        ('{"text": " one\\n"}', "is ' one\\n': expected at least two words"),
        ('{"text": "two \\ud800words"}', "an escape that is no character"),
        ('{"text": "two \\u0000words"}', "an escape that is no character"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(QkvError, match=re.escape(said)) as caught:
        read(tmp_path, told("all is well") + line + "\n" + told("and so on"))
    assert f"line 2 of {tmp_path / 't.jsonl'} " in str(caught.value)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QkvError, match=r"t\.jsonl is empty"):
        read(tmp_path, "")


# As released


def test_the_released_passages(data_dir: Path) -> None:
    passages = list(read_passages(data_dir / "lambada" / "lambada_test.jsonl.gz"))
    assert len(passages) == 5153
    assert passages[0].word == "signs" and passages[0].context.endswith("I don't care about")
    assert all(passage.context and passage.context == passage.context.rstrip() for passage in passages)
    assert all(passage.word[-1].isalnum() and not re.search(r"\s", passage.word) for passage in passages)
    assert sum(passage.word.isalpha() for passage in passages) > 5100
