"""Passages whose last word is to be predicted: LAMBADA (Paperno et al. 2016, section 3), a JSON object with a `text` a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qkv.data.text import read_lines
from qkv.error import QkvError


@dataclass(frozen=True)
class Passage:
    """A text without its last word, and that word with whatever is written together with it, such as a quotation mark.

    The white space between the two belongs to neither.
    """

    context: str
    word: str


def read_passages(path: str | Path) -> Iterator[Passage]:
    """The passages of a file, plain or .gz.

    Raises QkvError, with the file and the line, for a line that is no JSON object with a text of at least two words, and for an
    empty file.
    """
    number = 0
    for number, line in enumerate(read_lines(path), 1):
        yield _passage(line, f"line {number} of {path}")
    if not number:
        raise QkvError(f'{path} is empty: expected one passage a line, such as {{"text": "..."}}')


def _passage(line: str, where: str) -> Passage:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QkvError(f'{where} is not JSON ({error}): expected one object a line, such as {{"text": "..."}}') from None
    if not isinstance(row, dict):
        raise QkvError(f'{where} is not a JSON object: expected one such as {{"text": "..."}}')
    if "text" not in row:
        raise QkvError(f"{where} has no field 'text', only {', '.join(map(repr, row)) or 'none'}: expected the passage in it")
    text = row["text"]
    if not isinstance(text, str):
        raise QkvError(f"field 'text' in {where} is {json.dumps(text)[:40]}: expected text in quotation marks")
    # Only a JSON escape can bring these in past the UTF-8 of the file.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise QkvError(
            f"{where} holds an escape that is no character (\\u0000, or half a surrogate pair): mend or remove the line"
        )
    parts = text.rsplit(maxsplit=1)
    if len(parts) < 2:
        raise QkvError(f"the text in {where} is {text[:40]!r}: expected at least two words, the last one to be predicted")
    return Passage(parts[0], parts[1])
