"""Text in one language, or bytes, as documents: read as a stream, encoded once, and kept.

A document may be longer than memory: it is read and encoded a piece at a time, where a piece is some lines of it, or some bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qkv.data.bytes import Chunk, encode_chunks, files_of, parted, read_chunks
from qkv.data.cache import found_or_built
from qkv.data.corpus import held_out
from qkv.data.sides import Side, SideWriter, open_side
from qkv.data.text import digest, read_lines
from qkv.data.tokenizer import Tokenizer
from qkv.error import QkvError
from qkv.spec import data as spec
from qkv.spec.data import AtMost, Bytes, HeldOut, Lines, Paragraphs, Pictures, Texts, Whole

FORMAT = 2  # of the files and of all that decides what is in them; a new one makes old folders unknown
PIECE = 1 << 16  # characters of a document that are encoded at once
AT_ONCE = 256  # pieces encoded in parallel
KEEP_LINES = ("bytes", "characters")  # the kinds of tokenizer that can say the end of a line


class Piece(NamedTuple):
    """Some text of a document, and whether the document ends with it."""

    text: str
    ends: bool

    @property
    def raw(self) -> bytes:
        """The text in UTF-8."""
        return self.text.encode()


Given = Texts | Bytes
Encoded = tuple[list[int] | np.ndarray, bool, int]


@dataclass(frozen=True)
class Read:
    """What became of a text: its documents, its tokens, how many of these no entry stands for, and its bytes in UTF-8, the end of
    each document counted as one."""

    documents: int
    tokens: int
    unknown: int
    bytes: int

    def line(self, name: str) -> str:
        """The account in words."""
        said = (
            f"{name}: {_documents(self.documents)}, {self.tokens:,} tokens, {self.bytes / max(1, self.tokens):.2f} bytes a token"
        )
        return f"{said}, {100 * self.unknown / max(1, self.tokens):.2f}% of them unknown" if self.unknown else said


@dataclass(frozen=True)
class TextReport:
    """What was done with the text of a run; `held_out` says how much of the training text became validation text, in words, and
    `shared` documents of it also stand in the validation text."""

    train: Read
    valid: Read
    held_out: str
    shared: int
    vocabulary: int
    folder: str
    reused: bool

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> TextReport:
        """The report that `dataclasses.asdict` took apart."""
        return cls(**{**plain, "train": Read(**plain["train"]), "valid": Read(**plain["valid"])})

    @property
    def vocabularies(self) -> tuple[int, int]:
        """The number of entries, for both of the sides that a pair would have."""
        return self.vocabulary, self.vocabulary

    def lines(self) -> list[str]:
        """The report, line by line."""
        said = [f"no validation text was given: {self.held_out} held out for it"] if self.held_out else []
        said += [self.train.line("training text"), self.valid.line("validation text")]
        if self.shared:
            said.append(
                f"warning: also in the validation text: {_documents(self.shared)} of the training text; validation may look "
                f"better than it is"
            )
        said.append(f"vocabulary: {self.vocabulary:,} entries")
        said.append(f"{'reused what was prepared before' if self.reused else 'prepared'} in {self.folder}")
        return said


@dataclass(frozen=True, eq=False)
class PreparedTexts:
    """Documents to train on and to validate on, encoded, with their tokenizer and an account of what was done."""

    train: Side
    valid: Side
    tokenizer: Tokenizer
    report: TextReport
    fingerprints: dict[str, str]


def prepare_texts(
    train: Given, valid: Given | HeldOut, tokenizer: spec.Tokenizer | Tokenizer, *, seed: int, cache: Path
) -> PreparedTexts:
    """Encode documents, or find them encoded; a tokenizer is learned from the training text, or taken as it is. Bytes have one
    that nobody needs to learn.

    The seed decides which documents are held out. Raises QkvError for text that cannot be read, or is empty, and where the cache
    cannot be written.
    """
    _refuse_lost_lines(train, valid, tokenizer)
    if isinstance(train, Bytes):
        _refuse_pieces(tokenizer)
    task = _Task(train, valid, tokenizer, seed)
    folder, plain, reused = found_or_built(cache, task.key, lambda unfinished: asdict(_fill(task, unfinished)))
    report = replace(TextReport.from_plain(plain), folder=str(folder), reused=reused)
    encoded, encoded_valid = (open_side(folder, name, report.vocabulary) for name in ("train", "valid"))
    return PreparedTexts(encoded, encoded_valid, Tokenizer.load(folder / "tokenizer.json"), report, task.fingerprints)


def read_pieces(where: Texts) -> Iterator[Piece]:
    """The documents of some files, a piece at a time. Raises QkvError for a file that holds none."""
    for path in where.files:
        found = False
        for piece in _CUTTERS[type(where.documents)](read_lines(path)):
            found = True
            yield piece
        if not found:
            raise QkvError(f"{path} is empty: expected text")


def encode_pieces(tokenizer: Tokenizer, pieces: Iterable[Piece]) -> Iterator[tuple[list[int], bool, int]]:
    """The tokens of each piece, whether a document ends with it, and its bytes."""
    stream = iter(pieces)
    while chunk := list(islice(stream, AT_ONCE)):
        for piece, ids in zip(chunk, tokenizer.encode([piece.text for piece in chunk]), strict=True):
            yield ids, piece.ends, len(piece.raw) + piece.ends


def encoded(tokenizer: Tokenizer, where: Given) -> Iterator[Encoded]:
    """The tokens of each piece of some documents, whether one ends with it, and its bytes."""
    return _encode(tokenizer, where, _read(where))


def _read(where: Given) -> Iterator[Piece] | Iterator[Chunk]:
    return read_chunks(where) if isinstance(where, Bytes) else read_pieces(where)


def _encode(tokenizer: Tokenizer, where: Given, pieces: Iterator[Any]) -> Iterator[Encoded]:
    """The same for some of the pieces."""
    return encode_chunks(tokenizer, where.form, pieces) if isinstance(where, Bytes) else encode_pieces(tokenizer, pieces)


def _whole(lines: Iterator[str]) -> Iterator[Piece]:
    """One document of all lines; the line end of the last is its end."""
    held: list[str] = []
    size = 0
    for line in lines:
        if size > PIECE:
            yield Piece("".join(f"{each}\n" for each in held), ends=False)
            held, size = [], 0
        held.append(line)
        size += len(line) + 1
    if held:
        yield Piece("\n".join(held), ends=True)


def _each_line(lines: Iterator[str]) -> Iterator[Piece]:
    return (Piece(line.strip(), ends=True) for line in lines if line.strip())


def _paragraphs(lines: Iterator[str]) -> Iterator[Piece]:
    held: list[str] = []
    for line in lines:
        if line.strip():
            held.append(line)
        elif held:
            yield Piece("\n".join(held), ends=True)
            held = []
    if held:
        yield Piece("\n".join(held), ends=True)


_CUTTERS: dict[type, Callable[[Iterator[str]], Iterator[Piece]]] = {Whole: _whole, Lines: _each_line, Paragraphs: _paragraphs}


@dataclass(frozen=True)
class _Task:
    """What is to be prepared."""

    train: Given
    valid: Given | HeldOut
    tokenizer: spec.Tokenizer | Tokenizer
    seed: int

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of the texts by name."""
        texts: dict[str, Given] = {"training": self.train}
        if not isinstance(self.valid, HeldOut):
            texts["validation"] = self.valid
        return {name: _fingerprint(text) for name, text in texts.items()}

    def key(self) -> str:
        """A hash of all that decides the result."""
        valid = [self.valid.share, self.seed] if isinstance(self.valid, HeldOut) else self.fingerprints["validation"]
        cut = self.tokenizer.fingerprint if isinstance(self.tokenizer, Tokenizer) else repr(self.tokenizer)
        parts = ["documents", FORMAT, self.fingerprints["training"], valid, cut]
        return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _fingerprint(where: Given) -> str:
    what, files = (where.form, files_of(where)) if isinstance(where, Bytes) else (where.documents, where.files)
    whole = blake2b(repr(what).encode(), digest_size=16)
    for path in files:
        whole.update(digest(path))
    return whole.hexdigest()


def _refuse_pieces(tokenizer: spec.Tokenizer | Tokenizer) -> None:
    """Raises QkvError where bytes are to be cut into anything but bytes."""
    if isinstance(tokenizer, Tokenizer):
        _ = tokenizer.byte_entries
        return
    size = Tokenizer.of_bytes(tokenizer.extra).size
    wanted = tokenizer.vocabulary
    if tokenizer.kind != "bytes" or wanted.size < size or (wanted.size > size and not isinstance(wanted, AtMost)):
        raise QkvError(f"bytes are not cut into pieces, and their {size} entries are always the same ones, not {tokenizer}")


def _refuse_lost_lines(train: Given, valid: Given | HeldOut, tokenizer: spec.Tokenizer | Tokenizer) -> None:
    long = [where for where in (train, valid) if isinstance(where, Texts) and not isinstance(where.documents, Lines)]
    if long and isinstance(tokenizer, spec.Tokenizer) and tokenizer.kind not in KEEP_LINES:
        raise QkvError(
            f"documents of several lines need a tokenizer that can say where a line ends, and {tokenizer.kind} cannot: use "
            f"--tokenizer bytes or characters, or take every line for a document by --documents lines"
        )


def _fill(task: _Task, folder: Path) -> TextReport:
    """Write both corpora and the tokenizer into a folder; what was done."""
    train, valid, held = _streams(task)
    cut = task.tokenizer
    if isinstance(cut, spec.Tokenizer):
        bare = isinstance(task.train, Bytes)
        cut = Tokenizer.of_bytes(cut.extra) if bare else Tokenizer.train(cut, (piece.text for piece in train()))
    cut.save(folder / "tokenizer.json")
    known: set[bytes] = set()
    shared = 0

    def note(mark: bytes) -> None:
        nonlocal shared
        shared += mark in known

    validated = _write(folder, "valid", cut, _encode(cut, task.train, _marked(valid(), known.add)))
    trained = _write(folder, "train", cut, _encode(cut, task.train, _marked(train(), note)))
    for name, read in (("training", trained), ("validation", validated)):
        if not read.tokens:
            raise QkvError(f"there is no text in the {name} text: expected at least one line that is not empty")
    return TextReport(
        trained,
        validated,
        held_out=held,
        shared=shared,
        vocabulary=cut.size,
        folder="",  # named when it is opened: it is not yet where it will be
        reused=False,
    )


def _write(folder: Path, name: str, tokenizer: Tokenizer, pieces: Iterator[Encoded]) -> Read:
    documents = tokens = unknown = size = 0
    with SideWriter(folder, name, tokenizer.size) as writer:
        for ids, ends, length in pieces:
            writer.extend(ids, ends)
            documents, tokens, size = documents + ends, tokens + len(ids), size + length
            unknown += ids.count(tokenizer.symbols.unknown) if isinstance(ids, list) else 0  # no byte is unknown
    return Read(documents, tokens, unknown, size)


def _marked(pieces: Iterator[Any], told: Callable[[bytes], None]) -> Iterator[Any]:
    """The same pieces; by the way, somebody is told what each document is known by."""
    whole = blake2b(digest_size=8)
    for piece in pieces:
        whole.update(piece.raw)
        if piece.ends:
            told(whole.digest())
            whole = blake2b(digest_size=8)
        yield piece


Stream = Callable[[], Iterator[Any]]  # of pieces, or of chunks


def _streams(task: _Task) -> tuple[Stream, Stream, str]:
    """The training and the validation text, to be read as often as needed, and what was held out, in words."""
    if not isinstance(task.valid, HeldOut):
        where = task.valid
        for _ in _read(where):  # so that what is wrong with it is said before any work is done
            pass
        return lambda: _read(task.train), lambda: _read(where), ""
    number = sum(piece.ends for piece in _read(task.train))
    if number > 1:
        mask = held_out(task.seed, number, task.valid.share)
        words = f"{int(mask.sum()):,} of {_documents(number)}"
        return lambda: _chosen(task.train, ~mask), lambda: _chosen(task.train, mask), words
    if isinstance(task.train, Bytes) and not isinstance(task.train.form, Pictures):
        return parted(task.train, task.valid.share)
    if isinstance(task.train, Bytes) or not isinstance(task.train.documents, Whole):
        raise QkvError("the training text is one document, and none can be held out: give more text, or text to validate on")
    return _parted(task.train, task.valid.share)


def _chosen(where: Given, mask: np.ndarray) -> Iterator[Any]:
    document = 0
    for piece in _read(where):
        if mask[min(document, len(mask) - 1)]:
            yield piece
        document += piece.ends


def _parted(where: Texts, share: float) -> tuple[Stream, Stream, str]:
    """A single document, whose last lines become another."""
    (path,) = where.files
    number = sum(1 for _ in read_lines(path))
    last = min(max(1, round(share * number)), number - 1)
    if last < 1:
        raise QkvError(f"{path} has one line only, and none can be held out: give more text, or text to validate on")
    words = f"the last {last:,} of {number:,} lines"
    first = number - last
    return lambda: _whole(islice(read_lines(path), first)), lambda: _whole(islice(read_lines(path), first, None)), words


def _documents(count: int) -> str:
    return "1 document" if count == 1 else f"{count:,} documents"
