"""Labelled texts: read from tables of every kind, each with the number of its label, and refused by the row that is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from qkv.data import labels
from qkv.data.labels import PreparedLabels, prepare_labels, read_rows
from qkv.data.tokenizer import Tokenizer
from qkv.error import QkvError
from qkv.spec.data import AtMost, HeldOut, Labelled, Stories
from qkv.spec.data import Tokenizer as How

Row = tuple[str, str]
ROWS: list[Row] = [("a dog runs", "animal"), ("a car drives", "thing"), ("the cat sleeps", "animal"), ("so it is", "neither")]
CHARACTERS = How("characters", AtMost(100))


def table(path: Path, rows: list[Row], fields: Row = ("text", "label")) -> str:
    """A table in the format that its name says."""
    if ".jsonl" in path.name:
        content = "".join(json.dumps({"id": i, fields[1]: label, fields[0]: text}) + "\n" for i, (text, label) in enumerate(rows))
    else:
        content = "".join(f"{i}\t{label}\t{text}\n" for i, (text, label) in enumerate([fields, *rows]))
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return str(path)


def given(path: Path, rows: list[Row]) -> Labelled:
    return Labelled((table(path, rows),), ("text", "label"))


def prepared(
    folder: Path,
    train: Labelled | Stories,
    valid: Labelled | Stories | HeldOut = HeldOut(),
    how: How | Tokenizer = CHARACTERS,
    **more: int,
) -> PreparedLabels:
    return prepare_labels(train, valid, how, cache=folder / "cache", **{"longest": 20, "seed": 1} | more)


def said(found: PreparedLabels, name: str = "train") -> list[Row]:
    """Encoded rows as text and label."""
    corpus = getattr(found, name)
    decode, known = found.tokenizer.decode, found.report.labels
    return [(decode(text), known[int(label[0])]) for text, label in (corpus[index] for index in range(len(corpus)))]


def refused(words: str, *args, **more) -> None:
    with pytest.raises(QkvError, match=words):
        prepared(*args, **more)


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz", "t.jsonl", "t.jsonl.gz"])
def test_all_kinds_of_tables_hold_the_same_texts(tmp_path: Path, name: str) -> None:
    where = given(tmp_path / name, ROWS)
    assert list(read_rows(where)) == ROWS
    found = prepared(tmp_path, where, where)
    assert said(found) == said(found, "valid") == ROWS
    assert found.report.labels == ("animal", "neither", "thing"), "in the order of the alphabet"
    assert found.report.train == labels.Rows(rows=4, cut=0, counts={"animal": 2, "thing": 1, "neither": 1})


def test_columns_have_numbers_where_there_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("yes\tone\r\nno\ttwo\r\n yes \tthree\r\n")
    assert list(read_rows(Labelled((str(tmp_path / "t.tsv"),), ("2", "1")))) == [("one", "yes"), ("two", "no"), ("three", "yes")]


def test_several_tables_are_read_one_after_the_other(tmp_path: Path) -> None:
    where = Labelled((table(tmp_path / "a.tsv", ROWS[:1]), table(tmp_path / "b.jsonl", ROWS[1:])), ("text", "label"))
    assert list(read_rows(where)) == ROWS


def test_long_texts_lose_their_end_and_that_is_counted(tmp_path: Path) -> None:
    train = given(tmp_path / "t.tsv", ROWS)
    found = prepared(tmp_path, train, train, longest=10)
    assert [text for text, _ in said(found)] == ["a dog runs", "a car driv", "the cat sl", "so it is"]
    assert found.report.train.cut == 2
    line = "training table: 4 texts (animal 2, thing 1, neither 1); 2 were longer than the model takes, and lost their end"
    assert line in found.report.lines()


def test_stories_lose_their_beginning_and_never_their_question(tmp_path: Path) -> None:
    told = "".join(f"{number} Mary went to the {place}.\n" for number, place in enumerate(("hall", "garden", "attic"), 1))
    (tmp_path / "qa.txt").write_text(f"{told}4 Where is Mary?\tattic\t3\n1 John left.\n2 Where is Mary?\tnowhere\n")
    where, how = Stories((str(tmp_path / "qa.txt"),)), How("words")
    last, left = ("mary went to the attic \n where is mary", "attic"), ("john left \n where is mary", "nowhere")
    (text, _), _ = said(prepared(tmp_path, where, where, how=how))
    assert text == f"went to the hall \n mary went to the garden \n {last[0]}", "20 tokens, of which three end a line"
    found = prepared(tmp_path, where, where, how=how, longest=100, recent=2)
    assert said(found) == said(found, "valid") == [last, left] and found.report.train.cut == 1
    assert found.report.lines()[0].endswith("1 were longer than the model takes, and lost their beginning")
    assert prepared(tmp_path, where, where, how=how, longest=100).report.train.cut == 0


def test_chunks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = given(tmp_path / "t.tsv", ROWS * 5)
    monkeypatch.setattr(labels, "AT_ONCE", 3)
    assert said(prepared(tmp_path, where, where)) == ROWS * 5


def test_rows_held_out_and_trained_on_are_together_all(tmp_path: Path) -> None:
    rows = [(f"text {number}", "even" if number % 2 == 0 else "odd") for number in range(100)]
    found = prepared(tmp_path, given(tmp_path / "t.tsv", rows), HeldOut(0.1))
    kept, held = said(found), said(found, "valid")
    assert len(held) == 10 and sorted(kept + held) == sorted(rows) and kept == [row for row in rows if row not in held]
    assert found.report.lines()[0] == "no validation table was given: 10 rows held out for it"
    again = prepared(tmp_path, given(tmp_path / "t.tsv", rows), HeldOut(0.1), seed=2)
    assert said(again, "valid") != held


def test_a_label_that_was_never_trained_on_is_refused_by_its_row(tmp_path: Path) -> None:
    valid = given(tmp_path / "v.tsv", [ROWS[0], ("a bird flies", "animals")])
    words = r"label in row 2 of .*v\.tsv, which no training text has: 'animals'.*did you mean 'animal'"
    refused(words, tmp_path, given(tmp_path / "t.tsv", ROWS), valid)


def test_what_a_row_lacks_is_named(tmp_path: Path) -> None:
    for row, field in ((("  ", "thing"), "text"), (("a word", " "), "label")):
        for place in ("t", "v"):
            tables = {"t": ROWS, "v": ROWS} | {place: [*ROWS[:2], row]}
            both = (given(tmp_path / f"{name}.tsv", rows) for name, rows in tables.items())
            refused(rf"row 3 of .*{place}\.tsv has an empty '{field}': fill it in, or remove the row", tmp_path, *both)


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    for name in ("t.tsv", "t.jsonl"):
        where = Labelled((table(tmp_path / name, ROWS),), ("texte", "label"))
        refused(r"'texte'.*did you mean 'text'", tmp_path, where)
    refused(r"\.csv is no table that can be read", tmp_path, Labelled((table(tmp_path / "t.csv", ROWS),), ("text", "label")))


def test_one_label_is_none_and_very_many_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("have the label 'animal': expected at least two", tmp_path, given(tmp_path / "t.tsv", [ROWS[0], ROWS[2]]))
    monkeypatch.setattr(labels, "MOST", 3)
    rows = [(str(number % 2), f"label {number}") for number in range(4)]
    refused(
        "'label' has 4 different values: that is no label; are the fields turned round", tmp_path, given(tmp_path / "t.tsv", rows)
    )


def test_nothing_and_next_to_nothing_are_refused(tmp_path: Path) -> None:
    refused("is empty", tmp_path, given(tmp_path / "t.tsv", []))
    (tmp_path / "n.tsv").write_text("")
    refused("is empty", tmp_path, Labelled((str(tmp_path / "n.tsv"),), ("text", "label")))
    refused("expected at least two", tmp_path, given(tmp_path / "t.tsv", ROWS[:1]))
    refused("no file", tmp_path, Labelled((str(tmp_path / "nowhere.tsv"),), ("text", "label")))


def test_texts_that_stand_on_both_sides_are_counted(tmp_path: Path) -> None:
    valid = given(tmp_path / "v.tsv", [ROWS[0], (ROWS[1][0], "animal"), ("something else", "thing")])
    found = prepared(tmp_path, given(tmp_path / "t.tsv", [*ROWS, ROWS[0]]), valid)
    (warning,) = [line for line in found.report.lines() if "warning" in line]
    assert warning == (
        "warning: also in the validation table: 3 texts of the training table; validation may look better than it is"
    )


def test_what_was_prepared_is_found_again_and_what_changed_is_not(tmp_path: Path) -> None:
    first = prepared(tmp_path, given(tmp_path / "t.tsv", ROWS))
    again = prepared(tmp_path, given(tmp_path / "t.tsv.gz", ROWS))
    assert again.report.reused and not first.report.reused
    assert again.report.train == first.report.train and again.report.labels == first.report.labels
    assert np.array_equal(again.train.target.ids, first.train.target.ids)
    turned = [(text, {"animal": "thing", "thing": "animal"}.get(label, label)) for text, label in ROWS]
    others = [
        prepared(tmp_path, given(tmp_path / "u.tsv", turned)),
        prepared(tmp_path, given(tmp_path / "t.tsv", ROWS), longest=9),
        prepared(tmp_path, given(tmp_path / "t.tsv", ROWS), seed=2),
        prepared(tmp_path, given(tmp_path / "t.tsv", ROWS), how=How("bytes", AtMost(300))),
        prepared(tmp_path, given(tmp_path / "t.tsv", ROWS), given(tmp_path / "v.tsv", ROWS)),
    ]
    assert not any(other.report.reused for other in others)
    assert len({other.report.folder for other in [first, *others]}) == 6
