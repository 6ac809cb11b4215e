"""Documents of bytes, as they are read: files as they are, pictures and sounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from qkv.data.pictures import picture_files, read_pictures
from qkv.data.sounds import mu_law, read_sound, sound_files
from qkv.data.text import CHUNK, opened
from qkv.data.tokenizer import Tokenizer
from qkv.error import QkvError
from qkv.spec.data import AsTheyAre, Bytes, Form, Pictures, Sounds


class Chunk(NamedTuple):
    """Some bytes of a document, and whether the document ends with them."""

    raw: bytes
    ends: bool


def read_chunks(where: Bytes) -> Iterator[Chunk]:
    """The documents, a chunk at a time. Raises QkvError for what is not of their form, and for a file that holds nothing."""
    match where.form:
        case AsTheyAre():
            for path in where.files:
                yield from _as_it_is(path)
        case Pictures() as form:
            for picture in read_pictures(where.files, form):
                yield Chunk(picture.tobytes(), ends=True)
        case Sounds(rate):
            for path in sound_files(where.files):
                yield Chunk(mu_law(read_sound(path, rate)).tobytes(), ends=True)


def files_of(where: Bytes) -> list[str]:
    """The files that are read, those in folders among them."""
    meant = {Pictures: picture_files, Sounds: sound_files}.get(type(where.form), iter)
    return list(meant(where.files))


def encode_chunks(tokenizer: Tokenizer, form: Form, chunks: Iterator[Chunk]) -> Iterator[tuple[np.ndarray, bool, int]]:
    """The tokens of each chunk, one a byte; whether a document ends with it; and its bytes.

    The end of a file counts as one, as that of a text does: it has to be told, too. That of a picture or a sound does not: bits
    are told by dimension there.
    """
    entries, counted = tokenizer.byte_entries, isinstance(form, AsTheyAre)
    for raw, ends in chunks:
        yield entries[np.frombuffer(raw, np.uint8)], ends, len(raw) + (ends and counted)


def parted(where: Bytes, share: float) -> tuple[Callable[[], Iterator[Chunk]], Callable[[], Iterator[Chunk]], str]:
    """A single document, whose last bytes become another; what was held out, in words."""
    number = sum(len(chunk.raw) for chunk in read_chunks(where))
    last = min(max(1, round(share * number)), number - 1)
    if last < 1:
        raise QkvError(f"{where.files[0]} is a single byte, and none can be held out: give more, or something to validate on")
    first = number - last
    words = f"the last {last:,} of {number:,} bytes"
    return lambda: _between(where, 0, first), lambda: _between(where, first, number), words


def _as_it_is(path: str) -> Iterator[Chunk]:
    with opened(path) as stream:
        held = stream.read(CHUNK)
        if not held:
            raise QkvError(f"{path} is empty: expected at least one byte")
        while following := stream.read(CHUNK):
            yield Chunk(held, ends=False)
            held = following
        yield Chunk(held, ends=True)


def _between(where: Bytes, first: int, last: int) -> Iterator[Chunk]:
    """The bytes `first` to `last` - 1 of a single document, as another."""
    at = 0
    for raw, _ in read_chunks(where):
        part = raw[max(0, first - at) : max(0, last - at)]
        at += len(raw)
        if part:
            yield Chunk(part, ends=at >= last)
        if at >= last:
            return
