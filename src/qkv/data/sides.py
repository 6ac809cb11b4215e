"""Encoded text on disk: for each side all tokens in one row, and where each sentence starts. Mapped, never loaded."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np

from qkv.error import QkvError

NAMES = ("source", "target")
NARROW, WIDE = np.dtype("<u2"), np.dtype("<u4")
OFFSET = np.dtype("<i8")


def width(vocabulary: int) -> np.dtype:
    """The narrowest kind of number that can name every entry of a vocabulary of this size."""
    return NARROW if vocabulary <= 1 << 16 else WIDE


@dataclass(frozen=True, eq=False)
class Side:
    """One side: the tokens of all sentences in a row, and the N + 1 places where sentence i starts and sentence i - 1 ends."""

    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """The tokens of a sentence, without start or end."""
        place = range(len(self))[index]
        return self.ids[self.offsets[place] : self.offsets[place + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each sentence, (N,), in memory."""
        return np.diff(self.offsets)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Pairs of encoded sentences, without start or end."""

    source: Side
    target: Side

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of the source and of the target of a pair."""
        return self.source[index], self.target[index]


def open_side(folder: Path, name: str, vocabulary: int) -> Side:
    """What a `SideWriter` wrote into a folder."""
    return Side(_mapped(folder / f"{name}.ids", width(vocabulary)), _mapped(folder / f"{name}.offsets", OFFSET))


def open_corpus(folder: Path, name: str, vocabularies: tuple[int, int]) -> Corpus:
    """The corpus that a `CorpusWriter` wrote into a folder."""
    return Corpus(*(open_side(folder, f"{name}.{side}", size) for side, size in zip(NAMES, vocabularies, strict=True)))


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    # As a plain array: slices of a `memmap` are an order of magnitude slower, and no more mapped.
    return np.memmap(path, dtype, mode="r").view(np.ndarray)


class SideWriter:
    """Appends encoded sentences, or documents piece by piece, to the files of a side; a context manager."""

    def __init__(self, folder: Path, name: str, vocabulary: int) -> None:
        self._width = width(vocabulary)
        self._end = 0
        with ExitStack() as opened:
            self._ids = opened.enter_context(open(folder / f"{name}.ids", "wb"))
            self._offsets = opened.enter_context(open(folder / f"{name}.offsets", "wb"))
            self._offsets.write(np.zeros(1, OFFSET).tobytes())
            self._opened = opened.pop_all()

    def __enter__(self) -> SideWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._opened.close()

    def append(self, sentences: Iterable[list[int]]) -> None:
        """Add sentences at the end."""
        for ids in sentences:
            self.extend(ids, ends=True)

    def extend(self, ids: list[int] | np.ndarray, ends: bool) -> None:
        """Add tokens at the end, and end the sentence there if it ends."""
        row = np.array(ids, dtype=np.int64)
        if row.size and row.max() > np.iinfo(self._width).max:
            raise QkvError(f"the tokenizer gave the number {row.max()}, which is not in its vocabulary")
        self._ids.write(row.astype(self._width).tobytes())
        self._end += len(ids)
        if ends:
            self._offsets.write(np.array(self._end, OFFSET).tobytes())


class CorpusWriter:
    """Appends encoded pairs to the files of a corpus; a context manager."""

    def __init__(self, folder: Path, name: str, vocabularies: tuple[int, int]) -> None:
        with ExitStack() as opened:
            self._sides = [
                opened.enter_context(SideWriter(folder, f"{name}.{side}", size))
                for side, size in zip(NAMES, vocabularies, strict=True)
            ]
            self._opened = opened.pop_all()

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._opened.close()

    def append(self, sources: list[list[int]], targets: list[list[int]]) -> None:
        """Add pairs at the end."""
        assert len(sources) == len(targets)
        for side, sentences in zip(self._sides, (sources, targets), strict=True):
            side.append(sentences)
