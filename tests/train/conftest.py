"""What the tests of training share: a made-up language, a tiny run, one that is never interrupted, and ways to interrupt one."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import qkv
from qkv.look import curves
from qkv.spec.data import AtMost, Exactly, Files, Tokenizer
from qkv.spec.run import Batching, Checkpoints, Cosine, Evaluation, Run, Steps
from qkv.train import loop as loops
from qkv.train.run import train

WORDS = "ka lo mi nu pe ra su ti vo ze".split()
CHANGES = (
    "width=16",
    "embedding.dropout=0.1",
    "encoder=Stack(Block(Attention(2), FeedForward(32), dropout=0.1), depth=1)",
    "decoder=Stack(Block(Attention(2, Causal()), MemoryAttention(2), FeedForward(32), dropout=0.1), depth=1)",
)
TIMES = {"seconds", "tokens_per_second"}  # what differs from run to run


def sentences(number: int, seed: int) -> list[str]:
    """Lines of two to six words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 6))) for _ in range(number)]


def write(path: Path, lines: list[str]) -> str:
    """A file of lines, and its name."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


@dataclass
class Listener:
    """A Watch that remembers what it was told, and may be made to do something when it hears some words."""

    lines: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    on_line: Callable[[str], None] = lambda line: None
    on_step: Callable[[int], None] = lambda step: None

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.on_line(line)

    def step(self, step: int, steps: int, loss: float, tokens_per_second: float, seconds_left: float) -> None:
        self.steps.append(step)
        self.on_step(step)

    def heard(self, words: str) -> bool:
        """Whether some line holds these words."""
        return any(words in line for line in self.lines)


def journal(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """The lines of a journal, without their times; all, or those of some kinds."""
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines if not kinds or line["kind"] in kinds]


def weights(folder: Path) -> bytes:
    """The bytes of the final model."""
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread, no denormals, one cache, a journal line every third step, no pictures, which take longer than a run."""
    with settled(monkeypatch, tmp_path_factory):
        yield


class settled:
    """The same for fixtures that live longer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, factory: pytest.TempPathFactory) -> None:
        self.monkeypatch, self.cache = monkeypatch, factory.getbasetemp() / "train-cache"

    def __enter__(self) -> None:
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        self.monkeypatch.setenv("QKV_CACHE", str(self.cache))
        self.monkeypatch.setattr(loops, "LOG_EVERY", 3)
        self.monkeypatch.setattr(curves, "draw", lambda journal, path, title: path.write_bytes(b"a picture"))

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Files]:
    """60 pairs to train on and 12 to validate on: the target is the source in capital letters."""
    folder = tmp_path_factory.mktemp("text")

    def files(name: str, number: int, seed: int) -> Files:
        lines = sentences(number, seed)
        return Files(
            (write(folder / f"{name}.a", lines),),
            (write(folder / f"{name}.b", [line.upper() for line in lines]),),
        )

    return files("train", 60, 1), files("valid", 12, 2)


@pytest.fixture(scope="session")
def tiny(text: tuple[Files, Files]) -> Run:
    """Twelve steps of about five batches an epoch; a checkpoint every four, an evaluation every three."""
    return Run(
        model="transformer-tiny",
        train=text[0],
        valid=text[1],
        changes=CHANGES,
        tokenizer=Tokenizer("characters", AtMost(60)),
        longest=40,
        batching=Batching(tokens=256),
        schedule=Cosine(peak=0.01, warmup=3),
        budget=Steps(12),
        evaluation=Evaluation(every=3, sentences=0),
        checkpoints=Checkpoints(every=4, keep=2, average=Exactly(2)),
        precision="fp32",
        device="cpu",
    )


@dataclass(frozen=True)
class Whole:
    """A run that was never interrupted, and its folder."""

    run: Run
    folder: Path


@pytest.fixture(scope="session")
def wholes(tiny: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Whole]:
    """The runs that all interrupted ones must come to equal, by the number of batches a step adds up."""
    found: dict[int, Whole] = {}
    with pytest.MonkeyPatch.context() as patch, settled(patch, tmp_path_factory):
        for accumulate in (1, 2):
            run = replace(tiny, batching=replace(tiny.batching, accumulate=accumulate))
            folder = tmp_path_factory.mktemp("whole") / "run"
            train(run, folder, Listener())
            found[accumulate] = Whole(run, folder)
    return found


@pytest.fixture
def whole(wholes: dict[int, Whole]) -> Whole:
    """The one without accumulation."""
    return wholes[1]


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
    """Do something once, just as a step begins; what it gives back, if anything, is the step's learning rate."""
    true = loops.learning_rate

    def arrange(when: int, action: Callable[[], Any]) -> None:
        done = []

        def rate(schedule: Any, step: int, steps: int, width: int) -> float:
            own = true(schedule, step, steps, width)
            if step != when or done:
                return own
            done.append(step)
            given = action()
            return own if given is None else given

        monkeypatch.setattr(loops, "learning_rate", rate)

    return arrange


@pytest.fixture
def python() -> tuple[list[str], dict[str, str]]:
    """How to start another Python that knows qkv, and its environment."""
    assert qkv.__file__ is not None
    return [sys.executable, "-c"], os.environ | {"PYTHONPATH": str(Path(qkv.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
