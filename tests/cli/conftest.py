"""What the tests of the command line share: a way to call it in this process, text, and a run that was trained by it."""

from __future__ import annotations

import io
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import qkv
from qkv.cli.main import main
from qkv.look import comparison, curves

WORDS = "ka lo mi nu pe ra su ti vo ze".split()
TINY = """
--model transformer-tiny --tokenizer characters --batch-tokens 300 --device cpu --precision fp32 --steps 6
--set width=16 --set encoder.depth=1 --set decoder.depth=1
--set evaluation=Evaluation(3,0) --set checkpoints=Checkpoints(3,2,Exactly(2))
""".split()


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str


Ask = Callable[..., Answer]


def asked(*arguments: object, stdin: bytes = b"") -> Answer:
    """Call the command line in this process, as from a shell that is no terminal."""
    streams = [io.TextIOWrapper(io.BytesIO(given), encoding="utf-8") for given in (stdin, b"", b"")]
    with pytest.MonkeyPatch.context() as patch:
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        patch.setattr(sys, "argv", ["qkv", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    said = []
    for stream in streams[1:]:
        stream.flush()
        said.append(stream.buffer.getvalue().decode("utf-8"))  # type: ignore[attr-defined]
    return Answer(code, *said)


def sentences(number: int, seed: int) -> list[str]:
    """Lines of two to six words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 6))) for _ in range(number)]


def write(path: Path, lines: list[str]) -> Path:
    """A file of lines, and its path."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread and a cache of our own; what a command switches is switched back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QKV_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def ask() -> Ask:
    """The command line."""
    return asked


@dataclass(frozen=True)
class Text:
    """Parallel text as files: 60 pairs to train on, 8 to validate on; the target is the source in capital letters."""

    source: Path
    target: Path
    valid_source: Path
    valid_target: Path

    @property
    def options(self) -> list[str]:
        """As options of `qkv train translate`."""
        return [*self.training, "--valid-source", str(self.valid_source), "--valid-target", str(self.valid_target)]

    @property
    def training(self) -> list[str]:
        """The same without the validation text."""
        return ["--source", str(self.source), "--target", str(self.target)]


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    """Text that nobody alters."""
    folder = tmp_path_factory.mktemp("text")
    paths = []
    for name, number, seed in (("train", 60, 1), ("valid", 8, 2)):
        lines = sentences(number, seed)
        paths += [write(folder / f"{name}.a", lines), write(folder / f"{name}.b", [line.upper() for line in lines])]
    return Text(*paths)


@dataclass(frozen=True)
class Trained:
    """A run folder, and what was said while it was trained."""

    folder: Path
    said: Answer


@pytest.fixture(scope="session")
def trained(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run that the command line trained; nobody alters it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    said = asked("train", "translate", *text.options, "--out", folder, *TINY)
    assert said.code == 0, said.err
    return Trained(folder, said)


SMALL = """
--batch-tokens 300 --device cpu --precision fp32 --longest 40 --set width=16 --set evaluation=Evaluation(60,0)
--set checkpoints=Checkpoints(60,1,Exactly(1)) --set schedule=Cosine(peak=0.02,warmup=5)
""".split()


@dataclass(frozen=True)
class Runs:
    """A run of every shape but a translator's, and the text that they were trained and validated on."""

    text: Path
    valid: Path
    table: Path
    language: Path
    draft: Path
    masked: Path
    classifier: Path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs that the command line trained; nobody alters them. They know 40 places, and the encoders two more for what frames."""
    folder = tmp_path_factory.mktemp("runs")
    lines = sentences(80, 3)
    text, valid = write(folder / "train.txt", lines[:70]), write(folder / "valid.txt", lines[70:])
    labels = ["with" if "ka" in line else "without" for line in lines]
    rows = [f"{line}\t{label}" for line, label in zip(lines, labels, strict=True)]
    table = write(folder / "table.tsv", ["text\tlabel", *rows])
    given = ["--text", text, "--valid-text", valid]
    calls = {
        "language": ["generate", *given, "--documents", "lines", "--tokenizer", "characters", "--set", "decoder.depth=1"],
        "draft": ["generate", *given, "--documents", "lines", "--tokenizer", "characters", "--set", "decoder.depth=1"],
        "masked": ["fill", *given, "--vocabulary", 40, "--set", "encoder.depth=1"],
    }
    steps = {"language": 60, "draft": 10, "masked": 30}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw", lambda journal, path, title: None)  # it takes longer than the runs
        for name, call in calls.items():
            said = asked("train", *call, "--out", folder / name, *SMALL, "--steps", steps[name])
            assert said.code == 0, said.err
        call = ["classify", "--table", table, "--from", folder / "masked", "--out", folder / "classifier", "--steps", 30]
        said = asked("train", *call, "--batch-tokens", 300, "--device", "cpu", "--precision", "fp32")
        assert said.code == 0, said.err
    return Runs(text, valid, table, *(folder / name for name in ("language", "draft", "masked", "classifier")))


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of studies are trained in this process."""
    from qkv.study import contest
    from qkv.study.member import bring_up, outcome_of

    monkeypatch.setattr(curves, "draw", lambda journal, path, title: None)
    monkeypatch.setattr(comparison, "draw", lambda curves, title, path: None)
    monkeypatch.setattr(contest, "brought_up", lambda member, watch: bring_up(member, watch) or outcome_of(member.folder))


def refused(answer: Answer, *words: str, code: int = 2) -> None:
    """One line that says what is wrong, on standard error, and no traceback."""
    assert answer.code == code, answer
    last = answer.err.splitlines()[-1]
    assert last.startswith("qkv: ") and all(word in last for word in words), answer.err


@pytest.fixture
def python() -> tuple[list[str], dict[str, str]]:
    """How to start another Python that knows qkv, and its environment."""
    assert qkv.__file__ is not None
    return [sys.executable, "-c"], os.environ | {"PYTHONPATH": str(Path(qkv.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


CALL = "from qkv.cli.main import main; main()"
