"""The built-in corpus of dates: learnable, unambiguous, and its held-out days truly unseen."""

from __future__ import annotations

import datetime
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("babel", reason="needs the extra: pip install 'qkv[demo]'")

from qkv.data import dates
from qkv.error import QkvError

PARTS = ("train", "valid", "test")
# Written by hand: the oracle must not ask CLDR.
MONTHS = "Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split()
ENGLISH_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
WEEKDAYS = "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag".split()
ENGLISH_WEEKDAYS = "mon tue wed thu fri sat sun".split()


def read(english: str) -> tuple[datetime.date, bool]:
    """The date that an English line names and whether it names the weekday, by the first three letters of its words."""
    words = [word[:3].lower() for word in re.findall(r"[A-Za-z]{3,}", english)]
    numbers = [int(number) for number in re.findall(r"\d+", english)]
    year = next(number for number in numbers if number > 31)
    months = [ENGLISH_MONTHS.index(word) + 1 for word in words if word in ENGLISH_MONTHS]
    rest = [number for number in numbers if number != year]
    month, day = (months[0], rest[0]) if months else (rest[0], rest[1])
    date = datetime.date(year, month, day)
    weekday = [word for word in words if word in ENGLISH_WEEKDAYS]
    assert weekday in ([], [ENGLISH_WEEKDAYS[date.weekday()]]), english
    return date, bool(weekday)


def say(date: datetime.date, weekday: bool) -> str:
    """The date in German."""
    plain = f"{date.day}. {MONTHS[date.month - 1]} {date.year}"
    return f"{WEEKDAYS[date.weekday()]}, {plain}" if weekday else plain


@pytest.fixture(scope="module")
def small() -> dates.Dates:
    """A corpus in which every form is met many times."""
    return dates.corpus(seed=1, pairs=3000)


def test_sizes(small: dates.Dates) -> None:
    assert [len(getattr(small, part)) for part in PARTS] == [3000, 200, 500]
    assert [part.name for part in fields(small)] == list(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_the_german_says_what_the_english_says(small: dates.Dates, part: str) -> None:
    for english, german in getattr(small, part):
        assert german == say(*read(english)), english


def test_held_out_days_are_unseen(small: dates.Dates) -> None:
    days = {part: {read(english)[0] for english, _ in getattr(small, part)} for part in PARTS}
    assert not days["train"] & days["valid"]
    assert not days["train"] & days["test"]
    assert not days["valid"] & days["test"]


def test_days_span_the_centuries(small: dates.Dates) -> None:
    years = {read(english)[0].year for english, _ in small.train}
    assert min(years) >= 1600 and max(years) <= 2400
    assert len(years) > 700


def test_no_english_line_means_two_things() -> None:
    meaning: dict[str, str] = {}
    for form in dates.english():
        for day in range(366):
            date = datetime.date(2000, 1, 1) + datetime.timedelta(day)
            german = dates.german(form.weekday).write(date)
            assert meaning.setdefault(form.write(date), german) == german


def test_forms_are_many_and_distinct() -> None:
    # Some forms differ only in whether they pad the day or in how they shorten June.
    days = [datetime.date(1987, 3, 14), datetime.date(1987, 6, 2), datetime.date(1987, 9, 21)]
    written = [tuple(form.write(day) for day in days) for form in dates.english()]
    assert len(set(written)) == len(written) >= 25
    march = {first for first, _, _ in written}
    assert {
        "Saturday, March 14, 1987",
        "March 14, 1987",
        "Mar 14, 1987",
        "Sat, Mar 14, 1987",
        "Saturday, 14 March 1987",
        "Saturday 14 March 1987",
        "14th March 1987",
        "Saturday, March 14th, 1987",
        "1987-03-14",
    } <= march
    assert not {"3/14/1987", "14/03/1987", "14-03-1987", "14.03.1987"} & march


def test_the_german_forms() -> None:
    date = datetime.date(1987, 3, 14)
    assert dates.german(True).write(date) == "Samstag, 14. März 1987"
    assert dates.german(False).write(date) == "14. März 1987"


@given(st.dates(dates.FIRST, dates.LAST))
def test_every_form_can_be_read_back(date: datetime.date) -> None:
    for form in dates.english():
        assert read(form.write(date)) == (date, form.weekday)


@pytest.mark.parametrize(
    ("day", "ordinal"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (13, "13th"), (22, "22nd")]
)
def test_ordinals(day: int, ordinal: str) -> None:
    assert f"May {ordinal}, 1999" in {form.write(datetime.date(1999, 5, day)) for form in dates.english()}


def test_the_seed_decides_everything(small: dates.Dates) -> None:
    assert dates.corpus(seed=1, pairs=3000) == small
    assert dates.corpus(seed=-1, pairs=3000).test != small.test
    fewer = dates.corpus(seed=1, pairs=10)
    assert (fewer.valid, fewer.test) == (small.valid, small.test)


@pytest.mark.parametrize("pairs", [0, -1, 10**6])
def test_an_impossible_number_of_pairs_is_refused(pairs: int) -> None:
    with pytest.raises(QkvError, match="give a number from 1 to"):
        dates.corpus(pairs=pairs)


def test_write(small: dates.Dates, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "dates"
    dates.write(small, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{part}.{side}" for part in PARTS for side in ("en", "de"))
    for part in PARTS:
        sides = [(folder / f"{part}.{side}").read_bytes().decode().removesuffix("\n").split("\n") for side in ("en", "de")]
        assert tuple(zip(*sides, strict=True)) == getattr(small, part)
