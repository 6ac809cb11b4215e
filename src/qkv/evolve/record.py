"""The records of a search, durable at once: one file of SQLite in its folder."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qkv.error import QkvError
from qkv.spec import plain
from qkv.spec.search import Search

NAME, BEST = "search.sqlite", "best.json"
VERSION = 1
TABLES = """
CREATE TABLE IF NOT EXISTS search (version INTEGER, description TEXT);
CREATE TABLE IF NOT EXISTS child (
    number INTEGER PRIMARY KEY, place INTEGER UNIQUE, parent INTEGER, rivals TEXT, model TEXT, parameters INTEGER, seed INTEGER,
    fitness REAL, steps INTEGER, stages TEXT, hurdles TEXT, seconds REAL, failure TEXT
);
"""


@dataclass(frozen=True)
class Child:
    """One child: who it comes from, what it is, and how it fared. `place` is its number in the order in which children were
    ready, `stages` its fitness after so many steps, `failure` what went wrong, and empty where nothing did."""

    number: int
    place: int
    parent: int | None
    rivals: tuple[int, ...]
    model: Any
    parameters: int
    seed: int
    fitness: float | None
    steps: int
    stages: tuple[tuple[int, float], ...]
    hurdles: tuple[float, ...]
    seconds: float
    failure: str = ""


def fittest(children: Iterable[Child]) -> Child | None:
    """The best of those that lived; of equals the older one."""
    lived = (child for child in children if child.fitness is not None)
    return max(lived, key=lambda child: (child.fitness, -child.number), default=None)


class Records:
    """All children of a search so far. Every one is on disk when `add` returns."""

    def __init__(self, folder: Path, search: Search, resume: bool) -> None:
        self.path = folder / NAME
        existed = self.path.exists()
        if existed and not resume:
            raise QkvError(f"{folder} holds a search already; go on with it by --resume, or give --out another folder")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._base = sqlite3.connect(self.path)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=FULL")
            self._base.executescript(TABLES)
            found = self._base.execute("SELECT version, description FROM search").fetchone()
        except sqlite3.DatabaseError as error:
            raise QkvError(f"{self.path} holds no records of a search: {error}") from None
        description = json.dumps(plain.to_plain(search))
        if found is None:
            self._base.execute("INSERT INTO search VALUES (?, ?)", (VERSION, description))
            self._base.commit()
        elif found[0] != VERSION:
            raise QkvError(f"{self.path} was written by another version of qkv")
        elif found[1] != description:
            raise QkvError(f"{folder} was begun with other options; a search that goes on keeps its options")

    def add(self, child: Child) -> None:
        """Write a child down."""
        self._base.execute(
            "INSERT INTO child VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(child.number, child.place, child.parent, json.dumps(child.rivals), json.dumps(plain.to_plain(child.model))),
                *(child.parameters, child.seed, child.fitness, child.steps, json.dumps(child.stages)),
                *(json.dumps(child.hurdles), child.seconds, child.failure),
            ),
        )
        self._base.commit()

    def crown(self, best: Child) -> None:
        """Write down what the best child is, as a file that `qkv train --model` takes."""
        text = json.dumps(plain.to_plain(best.model), indent=2) + "\n"
        self.path.with_name(BEST).write_text(text, encoding="utf-8")

    def __iter__(self) -> Iterator[Child]:
        """In the order in which they were ready."""
        for row in self._base.execute("SELECT * FROM child ORDER BY place"):
            number, place, parent, rivals, model, count, seed, fitness, steps, stages, hurdles, seconds, failure = row
            yield Child(
                number,
                place,
                parent,
                tuple(json.loads(rivals)),
                plain.from_plain(json.loads(model)),
                count,
                seed,
                fitness,
                steps,
                tuple((step, each) for step, each in json.loads(stages)),
                tuple(json.loads(hurdles)),
                seconds,
                failure,
            )

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()


def read_search(folder: Path) -> Search:
    """The description of a search that was begun. Raises QkvError where there is none."""
    path = folder / NAME
    if not path.is_file():
        raise QkvError(f"there is no search in {folder}")
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as base:
            _, description = base.execute("SELECT version, description FROM search").fetchone()
        found = plain.from_plain(json.loads(description))
    except (sqlite3.DatabaseError, TypeError, ValueError) as error:
        raise QkvError(f"{path} holds no records of a search: {error}") from None
    assert isinstance(found, Search)
    return found
