"""Parallel text as a stream of pairs of lines, from plain or compressed files; nothing is ever held whole.

A line ends at a line feed and nowhere else: a carriage return, a form feed or U+2028 inside a sentence would otherwise shift
every later line of one side against the other. One carriage return just before the line feed belongs to the line end (Windows),
and a byte order mark at the start of a file to no line.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path

from qkv.data.pair import Pair
from qkv.data.world import pairs as drawn_pairs
from qkv.error import QkvError, unknown
from qkv.spec.data import Files, Pairs
from qkv.spec.world import Drawn

WORLDS = 1  # of what worlds say; a new one makes what was drawn before unknown
CHUNK = 1 << 20  # bytes read at once where lines do not matter


def read_lines(path: str | Path) -> Iterator[str]:
    """The lines of a file in UTF-8, plain or .gz, without their line ends; a last line without a line end counts.

    Raises QkvError, with the file and the line, for what cannot be read, is not UTF-8 or holds a NUL.
    """
    try:
        with _opened(path) as stream:
            for number, raw in enumerate(stream, 1):
                yield decode_line(raw, path, number)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None


def decode_line(raw: bytes, path: str | Path, number: int) -> str:
    """A line as text, without its line end; `number` counts from 1. Raises QkvError where it is not UTF-8 or holds a NUL."""
    if raw.endswith(b"\n"):
        raw = raw[: -2 if raw.endswith(b"\r\n") else -1]
    if number == 1:
        if raw.startswith(b"\x1f\x8b"):
            raise QkvError(f"{path} is compressed by gzip but not named so: give it a name that ends in .gz")
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise QkvError(
            f"line {number} of {path} is not UTF-8 (byte {error.start + 1} of the line is 0x{raw[error.start]:02x}): "
            f"convert the file first, for example with iconv -f latin1 -t utf-8"
        ) from None
    if "\0" in text:
        raise QkvError(f"line {number} of {path} holds a NUL character: expected text in UTF-8; is the file binary, or UTF-16?")
    return text


def read_pairs(where: Files | Pairs | Drawn) -> Iterator[Pair]:
    """The pairs of lines, source and target, one after the other, or those of a world.

    Raises QkvError where both sides are the same file or differ in length, where a file is empty, and where a field is missing.
    """
    match where:
        case Files(source=sources, target=targets):
            _refuse_the_same(sources, targets)
            for source, target in zip(sources, targets, strict=True):
                yield from _side_by_side(source, target)
        case Pairs(files=files, fields=fields):
            for path in files:
                yield from _rows(path, fields)
        case Drawn():
            yield from drawn_pairs(where)


def fingerprint(where: Files | Pairs | Drawn) -> str:
    """A hash of what the files hold and how they are read; their names, and whether they are compressed, do not matter."""
    if isinstance(where, Drawn):
        return blake2b(f"{WORLDS} {where!r}".encode(), digest_size=16).hexdigest()
    whole = blake2b(digest_size=16)
    match where:
        case Files(source=sources, target=targets):
            parts = [("source", path) for path in sources] + [("target", path) for path in targets]
        case Pairs(files=files, fields=fields):
            whole.update(json.dumps(fields).encode())
            parts = [(_format(path), path) for path in files]
    for kind, path in parts:
        whole.update(kind.encode() + digest(path))
    return whole.hexdigest()


@contextmanager
def opened(path: str | Path) -> Iterator[io.BufferedReader]:
    """A file to be read as bytes, unpacked where its name ends in .gz. Raises QkvError where it cannot be, also later."""
    _refuse_a_pipe(str(path))
    try:
        with _opened(path) as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None


def _opened(path: str | Path) -> io.BufferedReader:
    compressed = Path(path).suffix.lower() == ".gz"
    raw = gzip.GzipFile(path, "rb") if compressed else io.FileIO(path)
    return io.BufferedReader(raw, CHUNK)  # type: ignore[arg-type]  # a GzipFile is raw enough


def digest(path: str) -> bytes:
    """A hash of what a file holds, the same whether it is compressed or not. Raises QkvError where it cannot be read."""
    digest = blake2b(digest_size=16)
    with opened(path) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.digest()


def _unreadable(path: str | Path, error: BaseException) -> QkvError:
    match error:
        case FileNotFoundError():
            return QkvError(f"there is no file {path}")
        case IsADirectoryError():
            return QkvError(f"{path} is a folder: name a file in it")
        case gzip.BadGzipFile() | EOFError() | zlib.error():
            return QkvError(
                f"{path} is not a whole gzip file ({error}): fetch or compress it again, or drop .gz from a plain file's name"
            )
        case OSError(strerror=reason):
            return QkvError(f"{path} cannot be read: {reason or error}")
        case _:
            return QkvError(f"{path} cannot be read: {error}")


def _refuse_a_pipe(path: str) -> None:
    # Text is read several times: once to know it, once to learn a tokenizer from it, once to encode it.
    try:
        if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
            raise QkvError(f"{path} is not an ordinary file and cannot be read more than once: store the text in a file first")
    except OSError as error:
        raise _unreadable(path, error) from None


def _refuse_the_same(sources: tuple[str, ...], targets: tuple[str, ...]) -> None:
    known = {_identity(path): path for path in sources}
    for target in targets:
        source = known.get(_identity(target))
        if source is not None:
            named = source if source == target else f"{source} and {target}"
            raise QkvError(f"source and target are the same file, {named}: name the file of the other language as one of them")


def _identity(path: str) -> tuple[int, int]:
    """Which file it is, however it is named: links of both kinds lead to the same one."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return found.st_dev, found.st_ino


def _side_by_side(source: str, target: str) -> Iterator[Pair]:
    _refuse_a_pipe(source)
    _refuse_a_pipe(target)
    counts = [0, 0]
    for one, other in zip_longest(read_lines(source), read_lines(target)):
        counts[0] += one is not None
        counts[1] += other is not None
        # Once a side has ended, the other is only counted, for the message.
        if one is not None and other is not None:
            yield one, other
    for path, count in zip((source, target), counts, strict=True):
        if count == 0:
            raise QkvError(f"{path} is empty: expected text, one sentence a line")
    if counts[0] != counts[1]:
        raise QkvError(
            f"{source} has {counts[0]} lines but {target} has {counts[1]}: line by line they must belong together, "
            f"so both need the same number"
        )


def _rows(path: str, fields: tuple[str, str]) -> Iterator[Pair]:
    _refuse_a_pipe(path)
    rows = _columns(path, fields) if _format(path) == "tsv" else _objects(path, fields)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise QkvError(f"{path} is empty: expected one pair a line")


def _format(path: str) -> str:
    name = path.lower().removesuffix(".gz")
    for known in ("tsv", "jsonl"):
        if name.endswith("." + known):
            return known
    raise QkvError(f"{path} is no table that can be read: expected a name that ends in .tsv, .tsv.gz, .jsonl or .jsonl.gz")


def _columns(path: str, fields: tuple[str, str]) -> Iterator[Pair]:
    lines = read_lines(path)
    if all(field.isascii() and field.isdigit() for field in fields):
        places, most, first = [int(field) - 1 for field in fields], None, 1
        if min(places) < 0:
            raise QkvError(f"the columns of {path} are counted from 1, so 0 is none of them")
    else:
        header = [name.strip() for name in next(lines, "").split("\t")]
        if header == [""]:
            return
        places, most, first = [_column(path, header, field) for field in fields], len(header), 2
    for number, line in enumerate(lines, first):
        cells = line.split("\t")
        if len(cells) <= max(places):
            missing, place = next((field, place) for field, place in zip(fields, places, strict=True) if place >= len(cells))
            raise QkvError(
                f"line {number} of {path} has {len(cells)} column(s), but field {missing!r} is column {place + 1}: mend the line"
            )
        # A tab inside a sentence would pass off half of it as another column.
        if most is not None and len(cells) > most:
            raise QkvError(f"line {number} of {path} has {len(cells)} columns, but the header has {most}: mend the line")
        yield cells[places[0]], cells[places[1]]


def _column(path: str, header: list[str], field: str) -> int:
    if field not in header:
        hint = "; the columns of a table without a header are numbers, as in --fields 1,2"
        raise QkvError(f"{unknown(f'column in the header (line 1) of {path}', field, header)}{hint}")
    if header.count(field) > 1:
        raise QkvError(f"the header of {path} names column {field!r} more than once: rename one of them")
    return header.index(field)


def _objects(path: str, fields: tuple[str, str]) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(path), 1):
        place = f"line {number} of {path}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise QkvError(f"{place} is not JSON ({error}): expected one object a line") from None
        if not isinstance(row, dict):
            raise QkvError(f"{place} is not a JSON object: expected one such as {json.dumps(dict.fromkeys(fields, '...'))}")
        source, target = (_member(row, field, place) for field in fields)
        if "\\u" in line:
            _refuse_half_characters(source + target, place)
        yield source, target


def _member(row: dict[str, object], field: str, place: str) -> str:
    if field not in row:
        raise unknown(f"field in {place}", field, row)
    text = row[field]
    if not isinstance(text, str):
        raise QkvError(f"field {field!r} in {place} is {json.dumps(text)[:40]}: expected text in quotation marks")
    return text


def _refuse_half_characters(text: str, place: str) -> None:
    # Only a JSON escape can bring these in past the UTF-8 of the file.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise QkvError(
            f"{place} holds an escape that is no character (\\u0000, or half a surrogate pair): mend or remove the line"
        )
