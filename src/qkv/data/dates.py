"""Dates: a small corpus of real text, made on the spot from Unicode's CLDR through `babel` (https://cldr.unicode.org).

A date is said in English in one of the many forms that CLDR knows, and in German in the long one: `Sat, 14 Mar 1987` is
`Samstag, 14. März 1987`. The German names the weekday exactly where the English does, for nobody can tell it without a calendar.
So that no English line can mean two days, forms without a year, with a year of two digits, or all in numbers with the day or the
month first (3/4/1987) are left out. One thing is ours and not CLDR's: where the month is written in full we also say the day as
an ordinal (`March 14th, 1987`), with the ending by CLDR's plural rules.

The text depends on the seed and on the version of CLDR inside `babel`. Needs the extra `demo`.
"""

from __future__ import annotations

import datetime
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from babel import Locale
from babel.dates import DateTimePattern, parse_pattern

from qkv.error import QkvError

Pair = tuple[str, str]
"""One line of English and the same line in German."""

FIRST = datetime.date(1600, 1, 1)
LAST = datetime.date(2400, 12, 31)
VALID = 200
TEST = 500

# Between them they hold nearly every way of writing a date that the hundred English locales of CLDR know.
LOCALES = ("en_US", "en_GB", "en_AU", "en_BW", "en_BZ", "en_CA", "en_IE", "en_IN", "en_SE", "en_ZA", "en_ZW")
ENDINGS = {"one": "st", "two": "nd", "few": "rd", "other": "th"}


@dataclass(frozen=True)
class Form:
    """One way of writing a date: the pattern for each kind of ordinal (mostly the same one), and whether it names the weekday."""

    locale: Locale
    patterns: dict[str, DateTimePattern]
    weekday: bool

    def write(self, date: datetime.date) -> str:
        """The date in this form."""
        return self.patterns[self.locale.ordinal_form(date.day)].apply(date, self.locale)


@dataclass(frozen=True)
class Dates:
    """The corpus: pairs to train on, and two sets of pairs of days that are not among them in any form."""

    train: tuple[Pair, ...]
    valid: tuple[Pair, ...]
    test: tuple[Pair, ...]


def corpus(seed: int = 0, pairs: int = 20000) -> Dates:
    """The corpus of a seed, with so many pairs to train on. No day is said twice; the held-out pairs do not depend on `pairs`."""
    days = range(FIRST.toordinal(), LAST.toordinal() + 1)
    held = VALID + TEST
    if not 1 <= pairs <= len(days) - held:
        raise QkvError(f"cannot make {pairs} pairs of dates: give a number from 1 to {len(days) - held}")
    rng = random.Random(f"qkv dates {seed}")  # of a string, since Random(-1) is Random(1)
    unseen = rng.sample(days, held)
    held_out = tuple(_pairs(unseen, rng))
    kept = set(unseen)
    seen = [day for day in rng.sample(days, pairs + held) if day not in kept][:pairs]
    return Dates(train=tuple(_pairs(seen, rng)), valid=held_out[:VALID], test=held_out[VALID:])


def write(dates: Dates, folder: Path) -> None:
    """Writes the corpus as `train.en`, `train.de`, `valid.en` and so on, one line for each pair."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in fields(dates):
        pairs: tuple[Pair, ...] = getattr(dates, part.name)
        for side, language in enumerate(("en", "de")):
            text = "".join(f"{pair[side]}\n" for pair in pairs)
            (folder / f"{part.name}.{language}").write_text(text, encoding="utf-8", newline="\n")


@cache
def english() -> tuple[Form, ...]:
    """Every English form that says which day is meant, each once, in a fixed order."""
    found: dict[tuple[str, ...], Form] = {}
    probes = [datetime.date(2001, month, 2 * month - 1) for month in range(1, 13)]
    for name in LOCALES:
        locale = Locale.parse(name)
        for text in _patterns(locale):
            for form in _forms(text, locale):
                # Two forms are one where they write the same, whatever they are called and wherever they are at home.
                found.setdefault(tuple(form.write(day) for day in probes), form)
    return tuple(found.values())


@cache
def german(weekday: bool) -> Form:
    """The one German form, with the weekday or without."""
    locale = Locale.parse("de")
    text = locale.date_formats["full" if weekday else "long"].pattern
    return next(_forms(text, locale))


def _pairs(days: Iterable[int], rng: random.Random) -> Iterator[Pair]:
    """Each day in a form drawn from all of them, and in German."""
    for day in days:
        date = datetime.date.fromordinal(day)
        form = rng.choice(english())
        yield form.write(date), german(form.weekday).write(date)


def _patterns(locale: Locale) -> list[str]:
    """The patterns of a locale that say which day is meant, such as `EEEE, d MMMM y`, in a fixed order."""
    # The named formats (full to short), then the flexible ones, which CLDR names by their skeletons (yMMMEd).
    every = {**locale.date_formats, **locale.datetime_skeletons}
    return [text for text in dict.fromkeys(every[name].pattern for name in sorted(every)) if _says_which_day(text)]


def _forms(text: str, locale: Locale) -> Iterator[Form]:
    """The pattern as it stands and, where the month is in full and the day is not padded, the one with an ordinal."""
    weekday = "E" in text
    yield Form(locale, dict.fromkeys(ENDINGS, parse_pattern(text)), weekday)
    if "MMMM" in text and re.search(r"(?<!d)d(?!d)", text) and locale.language == "en":
        yield Form(locale, {kind: parse_pattern(text.replace("d", f"d'{ending}'")) for kind, ending in ENDINGS.items()}, weekday)


def _says_which_day(text: str) -> bool:
    """Whether a pattern has day, month and a full year, nothing else but a weekday, and could not be read as another day."""
    found = re.findall(r"[A-Za-z]+", text)
    letters = {field[0] for field in found}
    if "'" in text or "yy" in found or not {"y", "M", "d"} <= letters <= {"y", "M", "d", "E"}:
        return False
    if any(field.startswith("MMM") for field in found):
        return True
    return [field[0] for field in found if field[0] != "E"] == ["y", "M", "d"]  # the order of ISO 8601 has one reading
