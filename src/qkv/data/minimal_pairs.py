"""Grammar by minimal pairs: sentences that differ in just what makes one of them wrong (Marvin and Linzen 2018, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qkv.data.text import read_lines
from qkv.error import QkvError

COLUMNS = ("template", "case", "grammatical", "ungrammatical")


@dataclass(frozen=True)
class MinimalPair:
    """A sentence and what is wrong in its stead, from a case of a template: who knows the grammar prefers the good one."""

    template: str
    case: str
    good: str
    bad: str


def read_minimal_pairs(path: str | Path) -> Iterator[MinimalPair]:
    """The pairs of a table, plain or .gz: columns parted by tabs and named in the first line, in any order; others are ignored.

    Raises QkvError, with the file and the line, for columns that are missing, for rows with too few fields or too many, for
    sentences that are empty or equal, and for a table without a row.
    """
    lines = read_lines(path)
    header = [name.strip() for name in next(lines, "").split("\t")]
    places = _places(path, header)
    number = 1
    for number, line in enumerate(lines, 2):
        where = f"line {number} of {path}"
        cells = line.split("\t")
        # A tab inside a sentence would pass off half of it as another column.
        if not max(places) < len(cells) <= len(header):
            raise QkvError(f"{where} has {len(cells)} field(s), but the header has {len(header)}: mend the line")
        pair = MinimalPair(*(cells[place].strip() for place in places))
        if not (pair.template and pair.good and pair.bad):
            raise QkvError(f"{where} has an empty field: expected a template and two sentences; mend or remove the line")
        if pair.good == pair.bad:
            raise QkvError(f"both sentences of {where} are {pair.good[:60]!r}: expected two that differ; mend the line")
        yield pair
    if number == 1:
        raise QkvError(f"{path} has a header and no row: expected one pair a line")


def by_template(pairs: Iterable[MinimalPair], preferred: Sequence[bool]) -> dict[str, tuple[int, int]]:
    """For each template, in the order in which they first appear, in how many pairs the good sentence was preferred, and the
    number of its pairs.

    Raises QkvError where `preferred` does not say so for each of the pairs.
    """
    counts: dict[str, tuple[int, int]] = {}
    seen = 0
    for pair in pairs:
        if seen < len(preferred):
            right, whole = counts.get(pair.template, (0, 0))
            counts[pair.template] = (right + bool(preferred[seen]), whole + 1)
        seen += 1
    if seen != len(preferred):
        raise QkvError(f"{seen:,} pairs but {len(preferred):,} preferences: expected one for each pair, in the same order")
    return counts


def _places(path: str | Path, header: list[str]) -> list[int]:
    """Where the columns stand that a pair is made of."""
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        found = ", ".join(repr(name) for name in header) if any(header) else "nothing"
        raise QkvError(
            f"the header (line 1) of {path} lacks {', '.join(missing)}: expected the columns {', '.join(COLUMNS)}, "
            f"parted by tabs, but found {found[:200]}"
        )
    for name in COLUMNS:
        if header.count(name) > 1:
            raise QkvError(f"the header (line 1) of {path} names column {name!r} more than once: rename one of them")
    return [header.index(name) for name in COLUMNS]
