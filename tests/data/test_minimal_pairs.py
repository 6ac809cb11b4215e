"""Grammar by minimal pairs: columns in any order, rows that are wrong and named, and the count for each template."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from qkv.data.minimal_pairs import MinimalPair, by_template, read_minimal_pairs
from qkv.error import QkvError

HEADER = "template\tcase\tgrammatical\tungrammatical"
LAUGHS = MinimalPair("simple", "sing", "the author laughs", "the author laugh")
SMILE = MinimalPair("coordination", "plur", "the guards swim and smile", "the guards swim and smiles")
ROW = "simple\tsing\tthe author laughs\tthe author laugh"


def store(path: Path, content: str) -> Path:
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def read(folder: Path, content: str, name: str = "t.tsv") -> list[MinimalPair]:
    return list(read_minimal_pairs(store(folder / name, content)))


# What is read


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
def test_pairs_come_in_the_order_of_the_rows(tmp_path: Path, name: str) -> None:
    rows = f"{ROW}\ncoordination\tplur\t{SMILE.good}\t{SMILE.bad}\n{ROW}\n"
    assert read(tmp_path, f"{HEADER}\n{rows}", name) == [LAUGHS, SMILE, LAUGHS]


def test_columns_stand_in_any_order_and_others_are_ignored(tmp_path: Path) -> None:
    header = "id\tungrammatical\ttemplate\tgrammatical\tcase\textra"
    assert read(tmp_path, f"{header}\n7\t{LAUGHS.bad}\tsimple\t{LAUGHS.good}\tsing\t\n") == [LAUGHS]
    assert read(tmp_path, f"{header}\n7\t{LAUGHS.bad}\tsimple\t{LAUGHS.good}\tsing\n") == [LAUGHS], "nor need they be there"


def test_windows_and_spaces_around_change_nothing(tmp_path: Path) -> None:
    row = f" simple\tsing \t {LAUGHS.good} \t{LAUGHS.bad} "
    assert read(tmp_path, f"\ufeff{HEADER}\r\n{row}\r\n".replace("template", "template ")) == [LAUGHS]


def test_a_case_may_be_empty(tmp_path: Path) -> None:
    (pair,) = read(tmp_path, f"{HEADER}\n{ROW.replace('sing', '')}\n")
    assert pair.case == "" and pair.good == LAUGHS.good


# What is refused


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "lacks template, case, grammatical, ungrammatical: expected the columns template, case, grammatical, "),
        (ROW, "lacks template, case, grammatical, ungrammatical"),
        (HEADER.replace("case", "Case"), "lacks case: expected"),
        (HEADER.replace("\t", ","), "but found 'template,case,grammatical,ungrammatical'"),
        (HEADER + "\tcase", "names column 'case' more than once"),
    ],
)
def test_a_header_that_is_wrong_is_named(tmp_path: Path, header: str, said: str) -> None:
    with pytest.raises(QkvError, match=re.escape(said)) as caught:
        read(tmp_path, f"{header}\n{ROW}\n")
    assert f"the header (line 1) of {tmp_path / 't.tsv'} " in str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("", "has 1 field(s), but the header has 4"),
        ("simple\tsing\tthe author laughs", "has 3 field(s), but the header has 4"),
        (ROW + "\tmore", "has 5 field(s), but the header has 4"),
        ("simple\tsing\tthe author laughs\t", "has an empty field"),
        ("simple\tsing\t \tthe author laugh", "has an empty field"),
        (ROW.removeprefix("simple"), "has an empty field"),
        ("simple\tsing\tthe author laughs\tthe author laughs ", "are 'the author laughs': expected two that differ"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(QkvError, match=re.escape(said)) as caught:
        read(tmp_path, f"{HEADER}\n{ROW}\n{row}\n{ROW}\n")
    assert f"line 3 of {tmp_path / 't.tsv'} " in str(caught.value)


def test_a_table_without_rows_is_named(tmp_path: Path) -> None:
    with pytest.raises(QkvError, match=r"t\.tsv has a header and no row"):
        read(tmp_path, f"{HEADER}\n")
    with pytest.raises(QkvError, match=r"t\.tsv lacks .* but found nothing"):
        read(tmp_path, "")


# Counts


def test_templates_are_counted_in_the_order_of_their_first_pair() -> None:
    found = by_template([SMILE, LAUGHS, SMILE, SMILE, LAUGHS], [True, False, False, True, False])
    assert list(found.items()) == [("coordination", (2, 3)), ("simple", (0, 2))]
    assert by_template(iter([LAUGHS]), (True,)) == {"simple": (1, 1)}
    assert by_template([], []) == {}


@pytest.mark.parametrize("preferred", [[], [True], [True] * 3])
def test_every_pair_needs_a_preference(preferred: list[bool]) -> None:
    with pytest.raises(QkvError, match=f"2 pairs but {len(preferred)} preferences"):
        by_template([LAUGHS, SMILE], preferred)


# As released


@pytest.mark.slow  # a hundred and sixty thousand pairs, each with its types checked
def test_the_released_pairs(data_dir: Path) -> None:
    pairs = list(read_minimal_pairs(data_dir / "marvin_linzen" / "marvin_linzen.tsv.gz"))
    counts = by_template(pairs, [True] * len(pairs))
    assert len(pairs) == 163_124 and len(counts) == 22
    assert counts["simple_agrmt"] == (140, 140) and counts["obj_rel_across_anim"] == (11_200, 11_200)
    differ = {
        (pair.template.startswith("npi_across"), sum(a != b for a, b in zip(pair.good.split(), pair.bad.split(), strict=True)))
        for pair in pairs[::20]
    }
    assert differ == {(False, 1), (True, 2)}, "one word, or two that have changed places"
