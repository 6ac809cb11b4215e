"""Stories with questions: the bAbI tasks in the format they were released in (Weston et al. 2015, section 3).

A line is numbered and holds a statement, or a question with its answer and the numbers of the statements that support it, with
tabs between them; number 1 begins another story.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from qkv.data.text import read_lines
from qkv.error import QkvError
from qkv.spec.model import AllSentences

_NUMBERED = re.compile(r"([0-9]{1,9}) (.*)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Story:
    """A question, with the statements of its story up to it, in order and without the questions among them.

    The answer stands as in the file, where commas join several words (tasks 8 and 19). `supporting` are the places in `facts`
    of the statements that the answer follows from, in the order of the file, which need not be that of the story. Questions
    about the same story have the same `number`, counted from 0.
    """

    facts: tuple[str, ...]
    question: str
    answer: str
    supporting: tuple[int, ...]
    number: int = 0


def read_stories(path: str | Path) -> Iterator[Story]:
    """One story for each question of a file, plain or .gz.

    Raises QkvError, with the file and the line, for lines that are not numbered one after the other, for questions without an
    answer, for support that no statement gives, for empty lines before the last, and for a file without a question.
    """
    facts: list[str] = []
    place_of: dict[int, int] = {}
    before = empty = asked = stories = 0
    for count, line in enumerate(read_lines(path), 1):
        where = f"line {count} of {path}"
        if not line.strip():
            empty = empty or count
            continue
        if empty:
            raise QkvError(f"line {empty} of {path} is empty, but more lines follow: remove it")
        number, said = _numbered(line, before, where)
        if number == 1:
            facts, place_of = [], {}
            stories += 1
        before = number
        if "\t" in said:
            asked += 1
            yield replace(_story(said, tuple(facts), place_of, where), number=stories - 1)
        elif said.endswith("?"):
            raise QkvError(f"{where} is a question without an answer: expected a tab and the answer after {said[-40:]!r}")
        else:
            place_of[number] = len(facts)
            facts.append(said)
    if not asked:
        raise QkvError(
            f"{path} holds no question: expected lines such as '3 Where is Mary?', a tab, 'bathroom', a tab and '1'; "
            f"are its tabs lost?"
        )


def words(text: str) -> list[str]:
    """The words of a statement or a question in lower case, in any script, without the punctuation.

    A word is made of letters and digits; apostrophes and hyphens are part of it, but none is a word alone.
    """
    return _word().findall(text.lower())


def sentences(text: str) -> str:
    """A text of sentences, each a line, as models of stories read it: the words of each, with spaces between; lines without
    words are left out."""
    return "\n".join(line for line in (" ".join(words(line)) for line in text.split("\n")) if line)


def latest(text: str, recent: int | AllSentences) -> str:
    """The last `recent` sentences of such a text."""
    return text if isinstance(recent, AllSentences) else "\n".join(text.rsplit("\n", recent)[-recent:])


@cache
def _word() -> re.Pattern[str]:
    # `re` has no class for marks and takes none for part of a word: vowels of Devanagari or an accent by itself would end it.
    # They are looked up when first asked for, as this takes longer than all else here; beyond them lie only selectors.
    marks = "".join(mark for mark in map(chr, range(0x300, 0x20000)) if unicodedata.category(mark).startswith("M"))
    joiners = r"\u200c\u200d"  # which stand inside Persian and Indian words
    signs = r"'’\-\u2010\u2011"
    return re.compile(rf"[{signs}]*[^\W_](?:[^\W_]|[{signs}{joiners}{marks}])*")


def _numbered(line: str, before: int, where: str) -> tuple[int, str]:
    """The number of a line and what comes after it."""
    found = _NUMBERED.fullmatch(line)
    if found is None:
        raise QkvError(f"{where} begins with {line[:20]!r}: expected a number, a space and a statement or a question")
    number, said = int(found[1]), found[2].strip(" ")
    if number not in (1, before + 1):
        expected = f"{before + 1}, or 1 where another story begins" if before else "1"
        raise QkvError(f"{where} has the number {number}: expected {expected}; is a line missing?")
    if not said:
        raise QkvError(f"{where} has nothing after its number: expected a statement or a question")
    return number, said


def _story(said: str, facts: tuple[str, ...], place_of: dict[int, int], where: str) -> Story:
    """What a line with tabs asks about the statements before it."""
    question, answer, *more = (part.strip() for part in said.split("\t"))
    if len(more) > 1:
        raise QkvError(
            f"{where} has {len(more) + 1} tabs: expected at most two, between a question, its answer and the numbers of "
            f"the supporting statements"
        )
    if not question or not answer:
        missing = "a question without an answer" if question else "an answer without a question"
        raise QkvError(f"{where} is {missing}: expected both, parted by a tab")
    return Story(facts, question, answer, tuple(_place(given, place_of, where) for given in more[0].split()) if more else ())


def _place(given: str, place_of: dict[int, int], where: str) -> int:
    """The place among the facts of the statement with this number."""
    if _NUMBER.fullmatch(given) is None:
        raise QkvError(f"{where} names {given!r} as support: expected numbers of lines, parted by spaces")
    if int(given) not in place_of:
        raise QkvError(
            f"{where} names line {given} of its story as support, which is no statement before the question: "
            f"expected the number of one"
        )
    return place_of[int(given)]
