"""One model trained within a study: what it is, how it fared, and the folder in which both are found again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qkv import device as machine
from qkv.error import QkvError
from qkv.spec import plain
from qkv.spec.count import parameters, without_embeddings
from qkv.spec.run import Run, Source
from qkv.spec.study import OnValidation, Unjudged
from qkv.store import load_spec
from qkv.study.folder import put
from qkv.study.judge import judged
from qkv.train.journal import read
from qkv.train.loop import Watch
from qkv.train.run import finished, train
from qkv.train.run_folder import RECIPE

OUTCOME, JOURNAL = "member.json", "journal.jsonl"


@dataclass(frozen=True)
class Member:
    """A run within a study, in a folder of its own; `operations` is what it costs to learn from one token."""

    name: str
    run: Run
    folder: Path
    operations: float
    test: Source | OnValidation | Unjudged = OnValidation()
    threads: int = 0  # of PyTorch; 0 is its own choice

    @property
    def title(self) -> str:
        """What it is called where there are others of its name."""
        return f"{self.name}, seed {self.run.seed}"

    def written(self) -> dict[str, Any]:
        """As JSON takes it."""
        known = vars(self) | {"run": plain.to_plain(self.run), "test": plain.to_plain(self.test), "folder": str(self.folder)}
        return dict(known)

    @classmethod
    def read(cls, written: dict[str, Any]) -> Member:
        """What `written` took apart."""
        known = {"run": plain.from_plain(written["run"]), "test": plain.from_plain(written["test"])}
        return cls(**{**written, **known, "folder": Path(written["folder"])})


@dataclass(frozen=True)
class Outcome:
    """How a member fared: what it has come to, what it cost, and how quick it is.

    The loss is that of the validation text, in nats per token; seconds are those of its steps; memory is the most that its
    process had while it was trained, in bytes; `decoding` is translated sentences or written tokens in a second, None
    where nobody asked.
    """

    parameters: int
    parameters_without_embeddings: int
    steps: int
    tokens: int
    flops: float
    loss: float
    seconds: float
    tokens_per_second: float
    peak_memory: int
    decoding: float | None
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A member that came to nothing, and why."""

    reason: str


Ending = Outcome | Failed


def bring_up(member: Member, watch: Watch) -> None:
    """Train a member, or go on with it, and judge it. Raises what training raises."""
    begun = (member.folder / RECIPE).is_file()
    train(member.run, member.folder, watch, resume=begun)
    peak = machine.peak_memory(machine.pick(member.run.device, "fp32").device)
    spec, journal = load_spec(member.folder), read(member.folder / JOURNAL)
    steps = [line for line in journal if line["kind"] == "step"]
    final = next(line for line in reversed(journal) if line["kind"] == "final")
    scores, decoding = ({}, None) if isinstance(member.test, Unjudged) else judged(member.run, member.folder, member.test)
    found = Outcome(
        parameters=parameters(spec),
        parameters_without_embeddings=without_embeddings(spec),
        steps=final["step"],
        tokens=steps[-1]["tokens"],
        flops=steps[-1]["tokens"] * member.operations,
        loss=final["loss"],
        seconds=final["seconds"],
        tokens_per_second=_speed(steps),
        peak_memory=peak,
        decoding=decoding,
        scores=scores,
    )
    put(member.folder / OUTCOME, json.dumps(asdict(found), indent=1) + "\n")


def outcome_of(folder: Path) -> Outcome | None:
    """How the member of a folder fared; None while that is not known. Raises QkvError where the file is broken."""
    path = folder / OUTCOME
    if not path.is_file() or not finished(folder):
        return None
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise QkvError(f"{path} cannot be read ({error}): delete it, and the member is judged again") from None


def curve_of(member: Member) -> list[tuple[int, float, float, float]]:
    """How a member learned: the steps, the operations and the seconds that were spent at each validation loss; empty where none
    is known."""
    if not (member.folder / JOURNAL).is_file():
        return []
    lines = read(member.folder / JOURNAL)
    steps = [line for line in lines if line["kind"] == "step"]
    a_step = member.operations * steps[-1]["tokens"] / steps[-1]["step"] if steps else 0.0
    checks = [line for line in lines if line["kind"] == "evaluation"]
    return [(line["step"], line["step"] * a_step, line["seconds"], line["loss"]) for line in checks]


def _speed(steps: list[dict[str, Any]]) -> float:
    """Tokens a second while steps were made, and nothing else."""
    tokens = [line["tokens"] for line in steps]
    made = [now - before for now, before in zip(tokens, [0, *tokens], strict=False)]
    return tokens[-1] / sum(each / line["tokens_per_second"] for each, line in zip(made, steps, strict=True))
