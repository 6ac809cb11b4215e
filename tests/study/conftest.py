"""What the tests of studies share: a text, tiny members, and a way to train them without a process of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.conftest import sentences, write
from tests.study.laddered import written  # noqa: F401

from qkv.error import QkvError
from qkv.look import comparison, curves
from qkv.papers.catalogue import entry
from qkv.spec.data import Files, HeldOut, Texts, Tokenizer
from qkv.spec.objective import Generate, Translate
from qkv.spec.run import Cosine, Run
from qkv.spec.study import Contender
from qkv.study import contest
from qkv.study.member import Ending, Failed, Member, bring_up, outcome_of

DRAW = comparison.draw  # for who wants the picture all the same
SMALL = ("width=16", "*.depth=1", "*.hidden=32")


class Told:
    """A Watch that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, step: int, steps: int, loss: float, tokens_per_second: float, seconds_left: float) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread and a cache of our own; no pictures, which take longer than the runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QKV_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(curves, "draw", lambda journal, path, title: None)
        patch.setattr(comparison, "draw", lambda curves, title, path: None)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 400 lines."""
    return write(tmp_path_factory.mktemp("text") / "book.txt", sentences(400, 1))


def language(book: Path, model: str = "gpt-tiny", changes: tuple[str, ...] = SMALL, **fields: Any) -> Run:
    """How a small language model is trained on a text."""
    how = vars(entry(model).practice) | {"longest": 32}
    run = Run(model, Texts((str(book),)), HeldOut(0.1, 1), Generate(), changes=changes, tokenizer=Tokenizer("characters"), **how)
    return replace(run, **{"device": "cpu", "precision": "fp32", "batching": replace(run.batching, tokens=256), **fields})


def translator(folder: Path, model: str = "transformer-tiny", **fields: Any) -> Run:
    """How a small translator is trained to copy capitals."""
    lines = sentences(80, 2)
    source, target = write(folder / "a", lines), write(folder / "b", [line.upper() for line in lines])
    text = Files((str(source),), (str(target),))
    run = Run(
        model, text, HeldOut(0.2, 1), Translate(), changes=SMALL, tokenizer=Tokenizer("characters"), **vars(entry(model).practice)
    )
    return replace(run, **{"device": "cpu", "precision": "fp32", "batching": replace(run.batching, tokens=300), **fields})


def diverging(run: Run) -> Run:
    """The same with a learning rate that nothing survives."""
    return replace(run, schedule=Cosine(peak=1e30, warmup=1))


def contenders(**runs: Run) -> tuple[Contender, ...]:
    """Runs with their names."""
    return tuple(Contender(name, run) for name, run in runs.items())


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Members are trained in this process; their titles are noted."""
    titles: list[str] = []

    def here(member: Member, watch: Any) -> Ending:
        titles.append(member.title)
        try:
            bring_up(member, watch)
        except QkvError as error:
            return Failed(str(error))
        found = outcome_of(member.folder)
        assert found is not None
        return found

    monkeypatch.setattr(contest, "brought_up", here)
    return titles
