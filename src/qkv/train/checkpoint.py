"""Checkpoints that cannot lie.

Each is a folder, written to one side, synced, and renamed into place together with a manifest of the hashes of its files. A
new one is read back and verified before an old one goes. No pickle: tensors are safetensors, everything else is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from qkv.error import QkvError, QkvFailure
from qkv.store import load_weights, save_weights

MANIFEST = "manifest.json"
CHECKPOINT_FILES = frozenset(("model.safetensors", "moments.safetensors", "progress.json"))


@dataclass
class Progress:
    """How far a run has come: all that its next step depends on, besides weights and moments."""

    step: int = 0
    steps: int = 0  # of the whole run; 0 while `Minutes` has not fixed it
    epoch: int = 0
    batch: int = 0  # of the epoch's plan, the next to be trained on
    seconds: float = 0.0
    tokens: int = 0
    journal: int = 0  # bytes
    best: float = float("inf")
    since_best: int = 0
    unlogged_loss: float = 0.0  # plain, summed over the tokens since the journal's last step
    unlogged_tokens: int = 0
    owed: bool = False  # a signal came before the evaluation and the checkpoint that this step was due
    build: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """What is saved."""

    progress: Progress
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]


def folder_of(run: Path) -> Path:
    """Where the checkpoints of a run lie."""
    return run / "checkpoints"


def all_of(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; what a crash left half written is not among them."""
    return sorted(path for path in folder_of(run).glob("step-*") if path.is_dir())


def save(run: Path, checkpoint: Checkpoint, keep: int, every: int = 1) -> Path:
    """Write, sync, rename, verify; then let those go that are no longer wanted. Raises QkvFailure if the disk refuses."""
    root = folder_of(run)
    final = root / f"step-{checkpoint.progress.step:08d}"
    aside = root / f".writing-{final.name}"
    if final.is_dir() and not damage(final):
        _let_go(run, checkpoint.progress, keep, every)
        return final
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_weights(aside / "model.safetensors", checkpoint.weights)
        save_weights(aside / "moments.safetensors", checkpoint.moments)
        (aside / "progress.json").write_text(json.dumps(asdict(checkpoint.progress), indent=1), encoding="utf-8")
        write_manifest(aside, sorted(path.name for path in aside.iterdir()))
        for path in (*aside.iterdir(), aside):
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
        aside.rename(final)
        _sync(root)
    except Exception as error:  # safetensors reports a full disk as an error of its own
        shutil.rmtree(aside, ignore_errors=True)
        raise QkvFailure(
            f"the checkpoint of step {checkpoint.progress.step} could not be written to {root}: {error}; those before it are kept"
        ) from error
    problem = damage(final)
    if problem:
        raise QkvFailure(f"{problem}; it was only just written, so the disk is not to be trusted; older checkpoints are kept")
    _let_go(run, checkpoint.progress, keep, every)
    return final


def _let_go(run: Path, progress: Progress, keep: int, every: int) -> None:
    """Delete what the last `keep` leave behind, and what lies after this step: it was damaged, and its steps are being made
    again.

    A checkpoint that was only written for a signal takes no place among them, and goes with the next one, so that an
    interrupted run has the same checkpoints in the end as any other.
    """
    step_of = {path: int(path.name.removeprefix("step-")) for path in all_of(run)}
    regular = [path for path, step in step_of.items() if step < progress.step and step % every == 0]
    places = keep if progress.owed else keep - 1
    kept = regular[len(regular) - min(places, len(regular)) :]
    for path, step in step_of.items():
        if step != progress.step and path not in kept:
            shutil.rmtree(path)


def write_manifest(folder: Path, names: list[str]) -> None:
    """Write down the hashes of these files, in `manifest.json` beside them."""
    hashes = {name: _hash(folder / name) for name in names}
    (folder / MANIFEST).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")


def damage(path: Path, expects: frozenset[str] = CHECKPOINT_FILES) -> str:
    """What is wrong with a folder that has a manifest, in words; empty where every byte is as it was written."""
    try:
        hashes = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in hashes.items():
            file = path / name
            if not file.is_file():
                return f"{path}: {name} is missing"
            if _hash(file) != expected:
                return f"{path}: {name} is not what was written ({file.stat().st_size} bytes, its hash differs from the manifest)"
        missing = expects - hashes.keys()
        return f"{path}: the manifest does not name {sorted(missing)}" if missing else ""
    except (OSError, ValueError, AttributeError) as error:
        return f"{path}: {MANIFEST} cannot be read ({error})"


def newest(run: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and what is wrong with those after it. Raises QkvError if there are some and none
    verifies."""
    damaged: list[str] = []
    for path in reversed(all_of(run)):
        problem = damage(path)
        if not problem:
            return path, damaged
        damaged.append(problem)
    if damaged:
        raise QkvError("no checkpoint can be trusted: " + "; ".join(damaged) + ". Delete the folder `checkpoints` to start over")
    return None, []


def load(path: Path) -> Checkpoint:
    """Read a checkpoint."""
    progress = Progress(**json.loads((path / "progress.json").read_text(encoding="utf-8")))
    return Checkpoint(progress, load_weights(path / "model.safetensors"), load_weights(path / "moments.safetensors"))


def averages(paths: list[Path]) -> Iterator[dict[str, Tensor]]:
    """The weights of the last checkpoint, the mean of those of the last two, and so on to all of them (Vaswani et al. 2017,
    section 6.1); the paths are oldest first, sums in fp64."""
    total: dict[str, Tensor] = {}
    for count, path in enumerate(reversed(paths), 1):
        for name, tensor in load_weights(path / "model.safetensors").items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
        yield {name: (tensor / count).float() for name, tensor in total.items()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
