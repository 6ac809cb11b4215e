"""From text to an encoded corpus on disk, once: what was prepared before from the same text is found again and used.

Everything is kept under `cache/<key>/`, where the key is a hash of what was read and how. Text is only ever streamed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np

from qkv.data.cache import default_cache, found_or_built
from qkv.data.encode import Numbered, Overlap, Tally, encode, fault
from qkv.data.report import Report
from qkv.data.sides import Corpus, CorpusWriter, Side, open_corpus
from qkv.data.text import Pair, fingerprint, read_pairs
from qkv.data.tokenizer import Tokenizer, Tokenizers, train_tokenizers
from qkv.error import QkvError
from qkv.spec import data as spec
from qkv.spec.data import Files, HeldOut, Pairs
from qkv.spec.world import Drawn

__all__ = ["Corpus", "Prepared", "Side", "default_cache", "held_out", "prepare"]

Parallel = Files | Pairs | Drawn
FORMAT = 1  # of the files and of all that decides what is in them; a new one makes old folders unknown
VALID_TEXT = "valid.jsonl"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A corpus to train on and one to validate on, both encoded, with their tokenizers and an account of what was done.

    `fingerprints` are the hashes of the texts by name, "training" and, where one was given, "validation".
    """

    train: Corpus
    valid: Corpus
    tokenizers: Tokenizers
    report: Report
    fingerprints: dict[str, str]

    def valid_pairs(self) -> list[Pair]:
        """The validation text as it was given, pair i belonging to `valid[i]`: what translations are compared with."""
        with open(Path(self.report.folder) / VALID_TEXT, encoding="utf-8") as lines:
            return [(source, target) for source, target in map(json.loads, lines)]


def held_out(seed: int, number: int, share: float) -> np.ndarray:
    """Which pairs are held out, as a mask (number,): a pure function of the seed, the number of pairs and the share."""
    count = min(max(1, round(share * number)), number - 1)
    chosen = np.random.default_rng((seed, number)).choice(number, count, replace=False, shuffle=False)
    mask = np.zeros(number, dtype=bool)
    mask[chosen] = True
    return mask


def prepare(
    train: Parallel,
    valid: Parallel | HeldOut,
    tokenizer: spec.Tokenizer | Tokenizers,
    *,
    seed: int,
    longest: int,
    cache: Path,
) -> Prepared:
    """Encode parallel text, or find it encoded; a tokenizer is learned from the training text, or taken as it is.

    `longest` is the number of tokens that a side may have; the seed decides which pairs are held out and nothing else. Raises
    QkvError for text that cannot be read or of which nothing is left, and where the cache folder cannot be written.
    """
    if seed < 0 or longest < 1:
        raise QkvError(
            f"the seed must not be negative and a sentence has at least one token, not seed {seed} and longest {longest}"
        )
    task = _Task(train, valid, tokenizer, seed, longest)
    folder, plain, reused = found_or_built(cache, task.key, lambda unfinished: asdict(_fill(task, unfinished)))
    report = replace(Report.from_plain(plain), folder=str(folder), reused=reused)
    train_corpus, valid_corpus = (open_corpus(folder, name, report.vocabularies) for name in ("train", "valid"))
    return Prepared(train_corpus, valid_corpus, _load_tokenizers(folder), report, task.fingerprints)


@dataclass(frozen=True)
class _Task:
    """What is to be prepared."""

    train: Parallel
    valid: Parallel | HeldOut
    tokenizer: spec.Tokenizer | Tokenizers
    seed: int
    longest: int

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of the texts by name."""
        texts: dict[str, Parallel] = {"training": self.train}
        if not isinstance(self.valid, HeldOut):
            texts["validation"] = self.valid
        return {name: fingerprint(text) for name, text in texts.items()}

    def key(self) -> str:
        """A hash of all that decides the result; the seed does only where pairs are held out."""
        valid = [self.valid.share, self.seed] if isinstance(self.valid, HeldOut) else self.fingerprints["validation"]
        cut = [side.fingerprint for side in self.tokenizer] if isinstance(self.tokenizer, Tokenizers) else repr(self.tokenizer)
        parts = [FORMAT, self.fingerprints["training"], valid, cut, self.longest]
        return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class _Streams:
    """The two texts as streams of numbered pairs, to be read as often as needed; `held` are the pairs held out, if any were."""

    train: Callable[[], Numbered]
    valid: Callable[[], Numbered]
    held: int


def _streams(task: _Task) -> _Streams:
    """The two texts, both read through once, so that what is wrong with them is said before any work is done."""
    number = _count(task.train, "training", task.longest)
    if not isinstance(task.valid, HeldOut):
        where = task.valid
        _count(where, "validation", task.longest)
        return _Streams(lambda: enumerate(read_pairs(task.train), 1), lambda: enumerate(read_pairs(where), 1), 0)
    if number < 2:
        raise QkvError("the training text has one pair only, and none can be held out: give more text, or text to validate on")
    held = held_out(task.seed, number, task.valid.share)
    return _Streams(lambda: _chosen(task.train, ~held), lambda: _chosen(task.train, held), int(held.sum()))


def _chosen(where: Parallel, mask: np.ndarray) -> Numbered:
    for number, pair in enumerate(read_pairs(where), 1):
        if number > len(mask):
            raise QkvError("the training text has grown while it was read: let it be finished first")
        if mask[number - 1]:
            yield number, pair


def _count(where: Parallel, name: str, longest: int) -> int:
    """The number of pairs of a text. Raises QkvError where all of them would be left out."""
    tally = Tally()
    for number, pair in enumerate(read_pairs(where), 1):
        tally.read += 1
        found = fault(pair, longest)
        if found is None:
            tally.kept += 1
        else:
            tally.leave_out(number, found)
    tally.refuse_nothing(name, longest)
    return tally.read


def _fill(task: _Task, folder: Path) -> Report:
    """Write both corpora and the tokenizers into a folder; what was done."""
    streams = _streams(task)
    cut = _tokenizers(task, streams)
    sizes = (cut.source.size, cut.target.size)
    train, valid, overlap = Tally(), Tally(), Overlap()
    with CorpusWriter(folder, "valid", sizes) as writer, open(folder / VALID_TEXT, "w", encoding="utf-8", newline="\n") as text:
        for pairs, sources, targets in encode(streams.valid(), cut, task.longest, valid):
            writer.append(sources, targets)
            text.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
            overlap.learn(pairs)
    valid.refuse_nothing("validation", task.longest)
    with CorpusWriter(folder, "train", sizes) as writer:
        for pairs, sources, targets in encode(streams.train(), cut, task.longest, train):
            writer.append(sources, targets)
            overlap.meet(pairs)
    train.refuse_nothing("training", task.longest)
    _save_tokenizers(cut, folder)
    return Report(
        train=train.account(),
        valid=valid.account(),
        held_out=streams.held,
        shared_pairs=overlap.pairs,
        shared_sources=overlap.sources,
        vocabularies=sizes,
        joint=_is_joint(cut),
        longest=task.longest,
        folder="",  # named when it is opened: it is not yet where it will be
        reused=False,
    )


def _tokenizers(task: _Task, streams: _Streams) -> Tokenizers:
    if isinstance(task.tokenizer, Tokenizers):
        return task.tokenizer
    return train_tokenizers(task.tokenizer, lambda: (pair for _, pair in streams.train() if fault(pair, task.longest) is None))


def _is_joint(cut: Tokenizers) -> bool:
    return cut.source is cut.target or cut.source.fingerprint == cut.target.fingerprint


def _save_tokenizers(cut: Tokenizers, folder: Path) -> None:
    if _is_joint(cut):
        cut.source.save(folder / "tokenizer.json")
    else:
        cut.source.save(folder / "tokenizer.source.json")
        cut.target.save(folder / "tokenizer.target.json")


def _load_tokenizers(folder: Path) -> Tokenizers:
    if (folder / "tokenizer.json").exists():
        joint = Tokenizer.load(folder / "tokenizer.json")
        return Tokenizers(joint, joint)
    return Tokenizers(Tokenizer.load(folder / "tokenizer.source.json"), Tokenizer.load(folder / "tokenizer.target.json"))
