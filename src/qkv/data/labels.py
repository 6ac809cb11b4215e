"""Labelled texts: read from tables, encoded once, and kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from qkv.data.cache import found_or_built
from qkv.data.corpus import held_out
from qkv.data.encode import hashed
from qkv.data.sides import Corpus, SideWriter, open_side
from qkv.data.stories import latest, read_stories, sentences
from qkv.data.text import Pair, digest, fingerprint, read_pairs
from qkv.data.tokenizer import Tokenizer
from qkv.error import QkvError, unknown
from qkv.spec import data as spec
from qkv.spec.data import HeldOut, Labelled, Pairs, Stories
from qkv.spec.model import AllSentences

FORMAT = 5  # of the files and of all that decides what is in them; a new one makes old folders unknown
AT_ONCE = 10_000  # texts encoded in parallel
MOST = 10_000  # labels: more are no labels but texts


@dataclass(frozen=True)
class Rows:
    """What became of a table: its rows, those of them that were cut to the length a model takes, which end of them was lost, and
    how many have each label."""

    rows: int
    cut: int
    counts: dict[str, int]
    lost: str = "end"

    def line(self, name: str) -> str:
        """The account in words."""
        most = sorted(self.counts.items(), key=lambda pair: -pair[1])
        named = ", ".join(f"{label} {count:,}" for label, count in most[:8]) + (", ..." if len(most) > 8 else "")
        cut = f"; {self.cut:,} were longer than the model takes, and lost their {self.lost}" if self.cut else ""
        return f"{name}: {self.rows:,} texts ({named}){cut}"


@dataclass(frozen=True)
class LabelReport:
    """What was done with the tables of a run; `shared` texts of the training table also stand in the validation table."""

    train: Rows
    valid: Rows
    held_out: int
    shared: int
    labels: tuple[str, ...]
    vocabulary: int
    folder: str
    reused: bool

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> LabelReport:
        """The report that `dataclasses.asdict` took apart, after JSON has made lists of its tuples."""
        rows = {name: Rows(**plain[name]) for name in ("train", "valid")}
        return cls(**{**plain, **rows, "labels": tuple(plain["labels"])})

    @property
    def vocabularies(self) -> tuple[int, int]:
        """The number of entries, for both of the sides that a pair would have."""
        return self.vocabulary, self.vocabulary

    def lines(self) -> list[str]:
        """The report, line by line."""
        said = [f"no validation table was given: {self.held_out:,} rows held out for it"] if self.held_out else []
        said += [self.train.line("training table"), self.valid.line("validation table")]
        if self.shared:
            said.append(
                f"warning: also in the validation table: {self.shared:,} texts of the training table; validation may look better "
                f"than it is"
            )
        said.append(f"{len(self.labels)} labels; vocabulary: {self.vocabulary:,} entries")
        said.append(f"{'reused what was prepared before' if self.reused else 'prepared'} in {self.folder}")
        return said


@dataclass(frozen=True, eq=False)
class PreparedLabels:
    """Labelled texts to train on and to validate on: the target of a text is one number, that of its label."""

    train: Corpus
    valid: Corpus
    tokenizer: Tokenizer
    report: LabelReport
    fingerprints: dict[str, str]


def prepare_labels(
    train: Labelled | Stories,
    valid: Labelled | Stories | HeldOut,
    tokenizer: spec.Tokenizer | Tokenizer,
    *,
    longest: int,
    seed: int,
    cache: Path,
    recent: int | AllSentences = AllSentences(),
) -> PreparedLabels:
    """Encode labelled texts, or find them encoded. A text keeps at most its first `longest` tokens; a story, which ends with its
    question, its `recent` last sentences, and of these at most the last `longest` tokens.

    Raises QkvError for tables that cannot be read, for fewer than two labels, and for a label to validate on that no training
    text has.
    """
    task = _Task(train, valid, tokenizer, longest, seed, recent)
    folder, plain, reused = found_or_built(cache, task.key, lambda unfinished: asdict(_fill(task, unfinished)))
    report = replace(LabelReport.from_plain(plain), folder=str(folder), reused=reused)
    encoded, encoded_valid = (
        Corpus(open_side(folder, f"{name}.text", report.vocabulary), open_side(folder, f"{name}.label", len(report.labels)))
        for name in ("train", "valid")
    )
    return PreparedLabels(encoded, encoded_valid, Tokenizer.load(folder / "tokenizer.json"), report, task.fingerprints)


def read_rows(where: Labelled | Stories) -> Iterator[Pair]:
    """The texts of some tables and their labels, or stories and their answers; rows without a text or a label are an error that
    names them."""
    if isinstance(where, Stories):
        for story in (story for path in where.files for story in read_stories(path)):
            yield sentences("\n".join((*story.facts, story.question))), story.answer
        return
    for number, (text, label) in enumerate(read_pairs(Pairs(where.files, where.fields)), 1):
        if not text.strip() or not label.strip():
            empty = where.fields[0] if not text.strip() else where.fields[1]
            raise QkvError(f"row {number} of {', '.join(where.files)} has an empty {empty!r}: fill it in, or remove the row")
        yield text, label.strip()


@dataclass(frozen=True)
class _Task:
    """What is to be prepared."""

    train: Labelled | Stories
    valid: Labelled | Stories | HeldOut
    tokenizer: spec.Tokenizer | Tokenizer
    longest: int
    seed: int
    recent: int | AllSentences

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of the tables by name."""
        tables = {"training": self.train} | ({} if isinstance(self.valid, HeldOut) else {"validation": self.valid})
        return {name: _fingerprint(table) for name, table in tables.items()}

    def key(self) -> str:
        """A hash of all that decides the result."""
        valid = [self.valid.share, self.seed] if isinstance(self.valid, HeldOut) else self.fingerprints["validation"]
        cut = self.tokenizer.fingerprint if isinstance(self.tokenizer, Tokenizer) else repr(self.tokenizer)
        parts = ["labels", FORMAT, self.fingerprints["training"], valid, cut, self.longest, repr(self.recent)]
        return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _fingerprint(table: Labelled | Stories) -> str:
    """A hash of what the files hold and how they are read."""
    if isinstance(table, Labelled):
        return fingerprint(Pairs(table.files, table.fields))
    whole = blake2b(b"stories", digest_size=16)
    for path in table.files:
        whole.update(digest(path))
    return whole.hexdigest()


def _fill(task: _Task, folder: Path) -> LabelReport:
    """Write both corpora and the tokenizer into a folder; what was done."""
    counts = Counter(label for _, label in read_rows(task.train))
    labels = _labels(task.train, counts)
    train, valid, held = _streams(task, sum(counts.values()))
    _refuse_unseen(task.valid, valid, labels)
    cut = task.tokenizer
    if isinstance(cut, spec.Tokenizer):
        answers = map(sentences, labels) if isinstance(task.train, Stories) else ()  # words that no story may hold
        cut = Tokenizer.train(cut, chain((text for text, _ in train()), answers))
    cut.save(folder / "tokenizer.json")
    made = {name: _write(folder, name, cut, labels, rows(), task) for name, rows in (("train", train), ("valid", valid))}
    known = {hashed(text) for text, _ in valid()}
    shared = sum(hashed(text) in known for text, _ in train())
    return LabelReport(made["train"], made["valid"], held, shared, labels, cut.size, folder="", reused=False)


def _labels(where: Labelled | Stories, counts: Counter[str]) -> tuple[str, ...]:
    """All labels, in the order of the alphabet."""
    if len(counts) < 2:
        raise QkvError(f"all texts of {', '.join(where.files)} have the label {next(iter(counts), '')!r}: expected at least two")
    if len(counts) > MOST:
        label = where.fields[1] if isinstance(where, Labelled) else "answer"
        raise QkvError(f"{label!r} has {len(counts):,} different values: that is no label; are the fields turned round?")
    return tuple(sorted(counts))


def _streams(task: _Task, number: int) -> tuple[Callable[[], Iterator[Pair]], Callable[[], Iterator[Pair]], int]:
    if not isinstance(task.valid, HeldOut):
        where = task.valid
        return lambda: read_rows(task.train), lambda: read_rows(where), 0
    if number < 2:
        raise QkvError("the training table has one row only, and none can be held out: give more rows, or a table to validate on")
    mask = _held_out(task.train, number, task.seed, task.valid.share)

    def chosen(wanted: np.ndarray) -> Iterator[Pair]:
        return (row for row, there in zip(read_rows(task.train), wanted.tolist(), strict=True) if there)

    return lambda: chosen(~mask), lambda: chosen(mask), int(mask.sum())


def _held_out(where: Labelled | Stories, number: int, seed: int, share: float) -> np.ndarray:
    """Which rows are held out; of stories all questions about the same one, since who has read a story knows half of it."""
    if isinstance(where, Labelled):
        return held_out(seed, number, share)
    told = [(path, story.number) for path in where.files for story in read_stories(path)]
    stories = {each: place for place, each in enumerate(dict.fromkeys(told))}
    if len(stories) < 2:
        raise QkvError("there is one story only, and none can be held out: give more, or stories to validate on")
    return held_out(seed, len(stories), share)[[stories[each] for each in told]]


def _refuse_unseen(where: Labelled | Stories | HeldOut, rows: Callable[[], Iterator[Pair]], labels: tuple[str, ...]) -> None:
    for number, (_, label) in enumerate(rows(), 1):
        if label not in labels:
            files = "" if isinstance(where, HeldOut) else f" of {', '.join(where.files)}"
            raise unknown(f"label in row {number}{files}, which no training text has:", label, labels)


def _write(folder: Path, name: str, tokenizer: Tokenizer, labels: tuple[str, ...], rows: Iterator[Pair], task: _Task) -> Rows:
    stories = isinstance(task.train, Stories)
    kept = slice(-task.longest, None) if stories else slice(task.longest)
    number_of = {label: number for number, label in enumerate(labels)}
    counts: Counter[str] = Counter()
    cut = 0
    with SideWriter(folder, f"{name}.text", tokenizer.size) as texts, SideWriter(folder, f"{name}.label", len(labels)) as truth:
        while chunk := list(islice(rows, AT_ONCE)):
            read = [latest(text, task.recent) for text, _ in chunk]
            for ids, part, (text, label) in zip(tokenizer.encode(read), read, chunk, strict=True):
                texts.extend(ids[kept], ends=True)
                truth.extend([number_of[label]], ends=True)
                cut += len(ids) > task.longest or len(part) < len(text)
                counts[label] += 1
    return Rows(sum(counts.values()), cut, dict(counts), "beginning" if stories else "end")
