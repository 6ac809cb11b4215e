"""The table of a ladder: a row for each trained model, with its size, the tokens that it learned from, and its loss."""

from __future__ import annotations

import csv
import difflib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qkv.error import QkvError
from qkv.spec.law import Convention

NAME = "ladder.csv"  # of the table in the folder of a ladder
NEEDED = {
    "parameters": "the trained numbers of each model",
    "parameters_without_embeddings": "the same without the vocabulary and the places",
    "tokens": "how many tokens each model learned from",
    "loss": "nats per token, on text that no model learned from",
}
NUMBERS = ("parameters", "parameters_without_embeddings", "tokens", "loss", "flops")
SAME = {"data": "text", "tokenizer": "tokens"}  # columns in which all members must agree, and what a loss is then a loss of


@dataclass(frozen=True)
class Member:
    """One trained model. What its table does not say is None, or empty; `architecture` is then one and the same for all."""

    name: str
    parameters: float | None
    parameters_without_embeddings: float | None
    tokens: float
    loss: float
    flops: float | None = None
    architecture: str = ""
    data: str = ""
    tokenizer: str = ""

    def size(self, convention: Convention) -> float:
        """Its parameters as they are counted here."""
        found = getattr(self, convention.column)
        assert found is not None, "asked for when the table was read"
        return found


@dataclass(frozen=True)
class Table:
    """The members of a ladder, or of several, and the names of those that failed and have no loss."""

    members: tuple[Member, ...]
    failed: tuple[str, ...] = ()


def read_tables(paths: Sequence[Path], convention: Convention) -> Table:
    """The tables in CSV files (with tabs in a .tsv), or in the folders of ladders, as one. A row whose column `failure` says
    something is a member that failed. Of several tables each that names no architecture has its own name for one.

    Raises QkvError where a column is missing or holds nonsense, and where members do not belong into one table.
    """
    tables = [_read(path, convention) for path in paths]
    if len(tables) > 1:
        tables = [_named(table, path.stem) for table, path in zip(tables, paths, strict=True)]
    members = tuple(member for table in tables for member in table.members)
    twice = [name for name, count in Counter(member.name for member in members).items() if count > 1]
    if twice:
        raise QkvError(f"the name {twice[0]!r} is given twice, and members are told apart by their names")
    _refuse_strangers(members)
    return Table(members, tuple(name for table in tables for name in table.failed))


def _named(table: Table, name: str) -> Table:
    """The members of one of several tables, told apart from those of the others."""
    members = [replace(each, name=f"{name}: {each.name}", architecture=each.architecture or name) for each in table.members]
    return Table(tuple(members), tuple(f"{name}: {failed}" for failed in table.failed))


def _read(path: Path, convention: Convention) -> Table:
    file = path / NAME if path.is_dir() else path
    if not file.is_file():
        raise QkvError(f"there is no {NAME} in {path}" if path.is_dir() else f"there is no table {path}")
    members, failed = list[Member](), list[str]()
    for line, row in _rows(file, convention):
        name = row.get("name", "") or f"line {line}"
        if row.get("failure", ""):
            failed.append(name)
        else:
            members.append(_member(file, line, name, row, convention))
    if not members:
        raise QkvError(f"{file} holds no trained model: all of its {len(failed)} failed")
    return Table(tuple(members), tuple(failed))


def _rows(file: Path, convention: Convention) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a file that hold something, as columns by name."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, delimiter="\t" if file.suffix == ".tsv" else ",")
            header = [cell.strip() for cell in next(reader, [])]
            _check_header(file, header, convention)
            found = False
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise QkvError(f"{file}, line {reader.line_num}: {len(cells)} cells, where the header has {len(header)}")
                found = True
                yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise QkvError(f"{file} is no table of text: {error}") from None
    if not found:
        raise QkvError(f"{file} holds a header and no rows")


def _check_header(file: Path, header: list[str], convention: Convention) -> None:
    for column in (convention.column, "tokens", "loss"):
        if column in header:
            continue
        near = difflib.get_close_matches(column, [name for name in header if name not in NEEDED], n=1, cutoff=0.5)
        hint = f"is it {near[0]!r}? then rename that" if near else f"it has {', '.join(filter(None, header)) or 'none at all'}"
        raise QkvError(f"{file} has no column {column!r}, {NEEDED[column]}: {hint}")
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise QkvError(f"{file} has two columns {twice[0]!r}")


def _member(file: Path, line: int, name: str, row: dict[str, str], convention: Convention) -> Member:
    numbers = dict.fromkeys(NUMBERS, None) | {
        column: _number(file, line, column, row[column]) for column in NUMBERS if column in row
    }
    for column in (convention.column, "tokens", "loss"):
        if numbers[column] is None:
            raise QkvError(f"{file}, line {line}: {column} is empty; a model without it cannot be fitted, so take out its row")
    tokens, loss = numbers.pop("tokens"), numbers.pop("loss")
    assert tokens is not None and loss is not None
    architecture, data, tokenizer = (row.get(column, "") for column in ("architecture", *SAME))
    return Member(name, tokens=tokens, loss=loss, architecture=architecture, data=data, tokenizer=tokenizer, **numbers)


def _number(file: Path, line: int, column: str, text: str) -> float | None:
    """A cell as a number; None where it is empty."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise QkvError(f"{file}, line {line}: {column} is a number of more than 0, not {text!r}")
    return value


def _refuse_strangers(members: Sequence[Member]) -> None:
    """Refuse members that learned from other text, or in other tokens, than most did."""
    for column, unit in SAME.items():
        (usual, count), *_ = Counter(getattr(member, column) for member in members).most_common()
        if count == len(members):
            continue
        strangers = [f"{each.name} ({getattr(each, column) or 'nothing'})" for each in members if getattr(each, column) != usual]
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        raise QkvError(
            f"most members have the {column} {usual or 'nothing'!r}, but not {', '.join(strangers[:3])}{more}: a loss of "
            f"other {unit} is another measure, and no law holds for both; take their rows out, or into a table of their own"
        )
