"""The table of a ladder: what is read, and what is refused, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.study.laddered import write

from qkv.error import QkvError
from qkv.spec.law import WithEmbeddings, WithoutEmbeddings
from qkv.study.table import NAME, Member, read_tables

HEADER = "parameters,tokens,loss"
ROWS = [(1e6, 2e7, 4.5), (2e6, 4e7, 4.0)]


def test_a_table_may_be_a_file_or_a_folder(tmp_path: Path) -> None:
    file = write(tmp_path / NAME, HEADER, [("1_000_000", " 2e7 ", "4.5"), ("", "", ""), (2e6, 4e7, 4)])
    wanted = (Member("line 2", 1e6, None, 2e7, 4.5), Member("line 4", 2e6, None, 4e7, 4.0))
    for path in (tmp_path, file):
        found = read_tables([path], WithEmbeddings())
        assert found.members == wanted and found.failed == ()


def test_tabs_and_marks_at_the_beginning_are_read(tmp_path: Path) -> None:
    (tmp_path / "made.tsv").write_text("\ufeffparameters\ttokens\tloss\n1e6\t2e7\t4.5\n", encoding="utf-8")
    assert read_tables([tmp_path / "made.tsv"], WithEmbeddings()).members == (Member("line 2", 1e6, None, 2e7, 4.5),)


def test_further_columns_are_known(tmp_path: Path) -> None:
    header = "name,parameters_without_embeddings,parameters,tokens,loss,flops,architecture,seconds,failure"
    rows = [("one", 5e5, 1e6, 2e7, 4.5, 2e14, "gpt", 3, ""), ("two", 1e6, 2e6, 4e7, "", "", "gpt", 1, "it diverged")]
    found = read_tables([write(tmp_path / "made.csv", header, rows)], WithoutEmbeddings())
    assert found.members == (Member("one", 1e6, 5e5, 2e7, 4.5, 2e14, "gpt"),) and found.failed == ("two",)
    assert found.members[0].size(WithoutEmbeddings()) == 5e5 and found.members[0].size(WithEmbeddings()) == 1e6


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        ("parameters,loss", [(1, 2)], "has no column 'tokens', how many tokens each model learned from: it has parameters, loss"),
        ("parameters,token,loss", [(1, 2, 3)], "has no column 'tokens'.*: is it 'token'. then rename that"),
        ("n,tokens,loss", [(1, 2, 3)], "has no column 'parameters', the trained numbers of each model"),
        ("parameters,tokens,loss,loss", [(1, 2, 3, 4)], "has two columns 'loss'"),
        ("", [], "has no column 'parameters'.*it has none at all"),
        (HEADER, [], "holds a header and no rows"),
        (HEADER, [(1e6, 2e7, 4), (1e6, 2e7)], "line 3: 2 cells, where the header has 3"),
        (HEADER, [(1e6, 2e7, "much")], "line 2: loss is a number of more than 0, not 'much'"),
        (HEADER, [(1e6, 2e7, 4), (1e6, -5, 4)], "line 3: tokens is a number of more than 0, not '-5'"),
        (HEADER, [(0, 2e7, 4)], "line 2: parameters is a number of more than 0, not '0'"),
        (HEADER, [(1e6, 2e7, "nan")], "line 2: loss is a number of more than 0, not 'nan'"),
        (HEADER, [("inf", 2e7, 3)], "line 2: parameters is a number of more than 0, not 'inf'"),
        (HEADER, [(1e6, 2e7, "")], "line 2: loss is empty; a model without it cannot be fitted"),
        (f"name,{HEADER}", [("a", *ROWS[0]), ("a", *ROWS[1])], "the name 'a' is given twice"),
        (f"{HEADER},failure", [(1e6, 2e7, "", "lost")], "holds no trained model"),
        (
            f"name,{HEADER},data",
            [("a", *ROWS[0], "x.txt"), ("b", *ROWS[1], "x.txt"), ("c", *ROWS[1], "y.txt")],
            r"most members have the data 'x.txt', but not c \(y.txt\): a loss of other text is another measure, and no law holds",
        ),
        (
            f"{HEADER},tokenizer",
            [(*ROWS[0], "bpe"), *[(*ROWS[1], f"bytes {number}") for number in range(4)]],
            r"most members have the tokenizer 'bpe', but not line 3 \(bytes 0\), .* and 1 more: a loss of other tokens",
        ),
        (f"{HEADER},data", [(*ROWS[0], "x.txt"), (*ROWS[1], "x.txt"), (*ROWS[1], "")], r"but not line 4 \(nothing\)"),
        (
            f"{HEADER},data",
            [(*ROWS[0], ""), (*ROWS[1], ""), (*ROWS[1], "x.txt")],
            r"the data 'nothing', but not line 4 \(x.txt\)",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_said(header: str, rows: Sequence[Sequence[Any]], words: str, tmp_path: Path) -> None:
    with pytest.raises(QkvError, match=words):
        read_tables([write(tmp_path / "made.csv", header, rows)], WithEmbeddings())


def test_the_other_convention_wants_another_column(tmp_path: Path) -> None:
    file = write(tmp_path / "made.csv", HEADER, ROWS)
    with pytest.raises(QkvError, match="has no column 'parameters_without_embeddings', the same without the vocabulary"):
        read_tables([file], WithoutEmbeddings())


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QkvError, match=r"there is no ladder\.csv in"):
        read_tables([tmp_path], WithEmbeddings())
    with pytest.raises(QkvError, match="there is no table"):
        read_tables([tmp_path / "made.csv"], WithEmbeddings())
    (tmp_path / "made.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(QkvError, match="is no table of text"):
        read_tables([tmp_path / "made.csv"], WithEmbeddings())


def test_several_tables_are_one(tmp_path: Path) -> None:
    """Each that names no architecture is one by itself; all must be of one text."""
    (tmp_path / "one").mkdir()
    write(
        tmp_path / "one" / NAME, f"name,{HEADER},data,failure", [("a", *ROWS[0], "x.txt", ""), ("b", *ROWS[0], "x.txt", "lost")]
    )
    two = write(tmp_path / "two.csv", f"name,{HEADER},data,architecture", [("a", *ROWS[1], "x.txt", "gpt")])
    found = read_tables([tmp_path / "one", two], WithEmbeddings())
    assert [(each.name, each.architecture) for each in found.members] == [("one: a", "one"), ("two: a", "gpt")]
    assert found.failed == ("one: b",)
    with pytest.raises(QkvError, match="the name 'two: a' is given twice"):
        read_tables([two, two], WithEmbeddings())
    other = write(tmp_path / "three.csv", f"{HEADER},data", [(*ROWS[1], "y.txt")])
    with pytest.raises(QkvError, match=r"most members have the data 'x.txt', but not three: line 2 \(y.txt\)"):
        read_tables([tmp_path / "one", two, other], WithEmbeddings())
