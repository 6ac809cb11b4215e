"""SentencePiece's model files (.spm, .model), read by us: pieces with their scores, and how text is prepared.

The file is one message of protocol buffers, of which a handful of fields is wanted (sentencepiece_model.proto): pieces (1) with
text (1), score (2) and type (3); the trainer's (2) type of model (3) and whether it split at spaces (22); the normaliser's (3)
map of characters (2) and what it does with spaces (3, 4). Unknown fields are passed over, as protocol buffers have it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

from qkv.data.tokenizer import SPACE
from qkv.error import QkvError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # types of pieces
UNIGRAM = 1
TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
VARINT, EIGHT, LENGTH, FOUR = 0, 1, 2, 5  # how a field is laid out


@dataclass(frozen=True)
class Piece:
    """An entry; its type says whether text is cut into it."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePiece:
    """A unigram model of SentencePiece."""

    pieces: tuple[Piece, ...]
    map: bytes
    prefix: bool  # a space is put before every text
    trim: bool  # of spaces in a row one is left, and at both ends none
    split: bool  # no piece goes over a space

    def scores(self) -> dict[str, float]:
        """The pieces that text is cut into."""
        return {piece.text: piece.score for piece in self.pieces if piece.kind in (NORMAL, USER)}

    @property
    def normalizer(self) -> Any:
        """What is done to text first."""
        steps: list[Any] = [normalizers.Precompiled(self.map)] if self.map else []
        if self.trim:
            steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
        return normalizers.Sequence(steps)

    @property
    def pre_tokenizer(self) -> Any:
        """What parts text, and makes its spaces visible."""
        return pre_tokenizers.Metaspace(SPACE, prepend_scheme="always" if self.prefix else "never", split=self.split)


def read_spm(path: Path) -> SentencePiece:
    """Read a model file. Raises QkvError for one that is cut short, and for another type of model than unigram."""
    pieces: list[Piece] = []
    kind, split, characters, prefix, trim = UNIGRAM, True, b"", True, True
    try:
        for field, value in _fields(path.read_bytes()):
            if field == 1:
                pieces.append(_piece(value))
            elif field == 2:
                trainer = dict(_fields(value))
                kind, split = trainer.get(3, UNIGRAM), bool(trainer.get(22, 1))
            elif field == 3:
                normalizer = dict(_fields(value))
                characters, prefix, trim = normalizer.get(2, b""), bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1))
    except (OSError, IndexError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise QkvError(f"{path} is no model of SentencePiece, or was cut short ({error}): download it again") from None
    if not pieces:
        raise QkvError(f"{path} holds no pieces, and is no model of SentencePiece: download it again")
    if kind != UNIGRAM:
        raise QkvError(
            f"{path} is a {TYPES.get(kind, 'strange')} model of SentencePiece, and qkv reads unigram ones only: import a model "
            f"with a tokenizer.json"
        )
    return SentencePiece(tuple(pieces), characters, prefix, trim, split)


def _piece(raw: bytes) -> Piece:
    fields = dict(_fields(raw))
    return Piece(fields[1].decode("utf-8"), fields.get(2, 0.0), fields.get(3, NORMAL))


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """The numbers of fields and what is in them. Raises IndexError, ValueError or struct.error for what is no message."""
    place = 0
    while place < len(raw):
        key, place = _varint(raw, place)
        number, layout = key >> 3, key & 7
        if layout == VARINT:
            value, place = _varint(raw, place)
        elif layout == LENGTH:
            length, place = _varint(raw, place)
            if place + length > len(raw):
                raise ValueError("it ends in the middle of a field")
            value, place = raw[place : place + length], place + length
        elif layout in (FOUR, EIGHT):
            (value,), place = (
                struct.unpack_from("<f" if layout == FOUR else "<d", raw, place),
                place + (4 if layout == FOUR else 8),
            )
        else:
            raise ValueError(f"no field is laid out as {layout}")
        yield number, value


def _varint(raw: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place
