"""A child is trained, stage by stage, in a process that has read the text before it came and lives on after it."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qkv import device as machine
from qkv.data.cache import default_cache
from qkv.error import QkvError
from qkv.spec.model import Model
from qkv.spec.run import Run, Steps
from qkv.train.journal import Journal
from qkv.train.loop import Ground, Loop, Silent, begun
from qkv.train.task import Task
from qkv.train.tasks import task_of


@dataclass(frozen=True)
class Upbringing:
    """How a child fared: its fitness after so many steps, stage by stage; the seconds it took; what went wrong, if anything."""

    stages: tuple[tuple[int, float], ...]
    seconds: float
    failure: str = ""


_read: dict[Run, Task] = {}  # the texts that this process has read


def task_for(run: Run) -> Task:
    """The objective of a run on its text, read once in a process."""
    if run not in _read:
        _read[run] = task_of(run, None, default_cache())
    return _read[run]


def prepare(threads: int) -> None:
    """Make a process ready for children."""
    machine.prepare(threads)


def bring_up(run: Run, model: Model, stages: Sequence[tuple[int, float]], longest: int, minutes: float) -> Upbringing:
    """Train a child for the first stage, and for the next one as long as its fitness is above the hurdle after each; `longest` is
    what the schedule of the learning rate reckons with. Whatever happens to it is said in the result."""
    start, found, done = time.monotonic(), list[tuple[int, float]](), 0
    limit = start + 60 * minutes if minutes else math.inf
    try:
        task = task_for(run)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            where = machine.pick(run.device, run.precision)
            run = replace(run, budget=Steps(longest))
            journal = Journal(folder / "journal.jsonl", None)
            try:
                loop = Loop(Ground(run, folder, begun(run, model), task, where), journal, Silent())
                for steps, hurdle in stages:
                    for _ in range(steps):
                        loop.step()
                        if time.monotonic() > limit:
                            raise QkvError(f"it was given up after {minutes:g} minutes, at step {loop.progress.step}")
                    done += steps
                    loss = task.measure(loop.model)["loss"]
                    if not math.isfinite(loss):
                        raise QkvError(f"its validation loss after {done} steps is not a number")
                    found.append((done, -loss))
                    if not -loss > hurdle:
                        break
            finally:
                journal.close()
    except Exception as error:  # whatever a model drawn by chance may do: the search goes on
        return Upbringing(tuple(found), time.monotonic() - start, f"{type(error).__name__}: {error}")
    return Upbringing(tuple(found), time.monotonic() - start)
