"""Encoded parallel text on disk: for each side all tokens in one row, and where each sentence starts. Mapped, never loaded."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
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


def files(name: str) -> list[str]:
    """The names of the files that hold the corpus of this name."""
    return [f"{name}.{side}.{part}" for side in NAMES for part in ("ids", "offsets")]


def open_corpus(folder: Path, name: str, vocabularies: tuple[int, int]) -> Corpus:
    """The corpus that a `CorpusWriter` wrote into a folder."""
    mapped = []
    for side, vocabulary in zip(NAMES, vocabularies, strict=True):
        ids = _mapped(folder / f"{name}.{side}.ids", width(vocabulary))
        mapped.append(Side(ids, _mapped(folder / f"{name}.{side}.offsets", OFFSET)))
    return Corpus(*mapped)


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    # As a plain array: slices of a `memmap` are an order of magnitude slower, and no more mapped.
    return np.memmap(path, dtype, mode="r").view(np.ndarray)


class CorpusWriter:
    """Appends encoded pairs to the files of a corpus; a context manager."""

    def __init__(self, folder: Path, name: str, vocabularies: tuple[int, int]) -> None:
        self._widths = [width(vocabulary) for vocabulary in vocabularies]
        self._ends = [0, 0]
        with ExitStack() as opened:
            streams = [opened.enter_context(open(folder / file, "wb")) for file in files(name)]
            for offsets in streams[1::2]:
                offsets.write(np.zeros(1, OFFSET).tobytes())
            self._ids, self._offsets = streams[0::2], streams[1::2]
            self._opened = opened.pop_all()

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._opened.close()

    def append(self, sources: list[list[int]], targets: list[list[int]]) -> None:
        """Add pairs at the end."""
        assert len(sources) == len(targets)
        for side, sentences in enumerate((sources, targets)):
            ends = self._ends[side] + np.cumsum([len(ids) for ids in sentences], dtype=np.int64)
            self._ids[side].write(_row(sentences, self._widths[side]).tobytes())
            self._offsets[side].write(ends.astype(OFFSET).tobytes())
            self._ends[side] = int(ends[-1]) if len(ends) else self._ends[side]


def _row(sentences: Iterable[list[int]], dtype: np.dtype) -> np.ndarray:
    row = np.fromiter(chain.from_iterable(sentences), dtype=np.int64)
    if row.size and row.max() > np.iinfo(dtype).max:
        raise QkvError(f"the tokenizer gave the number {row.max()}, which is not in its vocabulary")
    return row.astype(dtype)
