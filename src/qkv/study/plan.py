"""The ladder that a budget comes to: which sizes, on how many tokens each, for how many operations, and about how long."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from qkv import device as machine
from qkv.error import QkvError
from qkv.spec.count import parameters
from qkv.spec.model import Model
from qkv.spec.run import Cosine, Run, Steps
from qkv.spec.size import Sizes
from qkv.spec.study import Counts, Ladder, Operations, Ratios
from qkv.study.budget import THERE_AND_BACK, Step
from qkv.train.journal import Journal
from qkv.train.loop import Ground, Loop, Silent, begun
from qkv.train.task import Task

WARM, TIMED = 2, 6  # steps that are made to see how long one takes
START = 5.0  # seconds until a process has begun, and after its last step
VALIDATIONS = 2  # of a member: after its last step, and of the model that is written down
HALVINGS = 30
REPEATED = 4  # epochs after which text that is read again teaches much less than new text (Muennighoff et al. 2023)


@dataclass(frozen=True)
class Rung:
    """One member of a ladder before it is trained; `operations` are those of its whole training."""

    name: str
    contender: str
    spec: Model
    tokens: float
    steps: int
    operations: float


@dataclass(frozen=True)
class Footing:
    """What a ladder stands on: its models in all their sizes, a step on their text, and how much is predicted to validate."""

    sizes: dict[str, Sizes]
    step: Step
    valid: int


@dataclass(frozen=True)
class Pace:
    """How long steps take on this machine: so many seconds whatever they cost, and so many for each operation."""

    fixed: float
    each: float

    def seconds(self, rung: Rung, footing: Footing) -> float:
        """About how long a member takes in all."""
        a_step = self.fixed + self.each * rung.operations / rung.steps
        validation = a_step / THERE_AND_BACK * footing.valid / footing.step.tokens
        return START + rung.steps * a_step + VALIDATIONS * validation


@dataclass(frozen=True)
class Plan:
    """A ladder from its cheapest member to its dearest, and the pace of each contender."""

    rungs: tuple[Rung, ...]
    paces: dict[str, Pace]
    footing: Footing

    @property
    def operations(self) -> float:
        """What all members cost together."""
        return sum(rung.operations for rung in self.rungs)

    def seconds(self, rung: Rung) -> float:
        """About how long a member takes."""
        return self.paces[rung.contender].seconds(rung, self.footing)

    @property
    def whole(self) -> float:
        """About how many seconds all members take, one after the other."""
        return sum(map(self.seconds, self.rungs))


Timed = Callable[[str, Model], float]
"""The seconds of a step of a contender in some size."""


def planned(ladder: Ladder, footing: Footing, timed: Timed) -> Plan:
    """The largest ladder for a budget. Raises QkvError where the smallest is too dear."""
    if isinstance(ladder.budget, Operations):
        number = ladder.budget.number
        found = _largest(ladder, footing, number, lambda rungs: sum(rung.operations for rung in rungs), "operations")
        return Plan(tuple(found), _paces(found, footing, timed), footing)
    number = 60 * ladder.budget.number
    # how large it is depends on the pace, and the pace on how large it is: asked twice, it is near enough
    found, paces = rungs(ladder, footing, _least(footing)), dict[str, Pace]()
    for _ in range(2):
        paces = _paces(found, footing, timed)
        found = _largest(ladder, footing, number, lambda some, paces=paces: Plan(tuple(some), paces, footing).whole, "seconds")
    return Plan(tuple(found), paces, footing)


def rungs(ladder: Ladder, footing: Footing, least: float) -> list[Rung]:
    """The ladder whose smallest models have about so many parameters, from the cheapest member to the dearest."""
    found: list[Rung] = []
    for name, sizes in footing.sizes.items():
        for height in ladder.heights:
            spec = sizes.nearest(least * height)
            count, cost = parameters(spec), footing.step.operations(spec)
            for wanted in _tokens(ladder.tokens, count):
                steps = max(1, round(wanted / footing.step.tokens))
                tokens = steps * footing.step.tokens
                found.append(Rung(f"{name}-{count}-{tokens:.0f}", name, spec, tokens, steps, steps * cost))
    return sorted(found, key=lambda rung: rung.operations)


def _tokens(how: Ratios | Counts, parameters: int) -> list[float]:
    return [each * (parameters if isinstance(how, Ratios) else 1) for each in how.numbers]


def _least(footing: Footing) -> int:
    """The parameters of the smallest ladder's smallest models."""
    return max(parameters(sizes.smallest) for sizes in footing.sizes.values())


def _largest(ladder: Ladder, footing: Footing, budget: float, cost: Callable[[list[Rung]], float], unit: str) -> list[Rung]:
    low = float(_least(footing))
    least = cost(rungs(ladder, footing, low))
    if least > budget:
        raise QkvError(
            f"the smallest ladder takes {least:.3g} {unit}, and the budget is {budget:.3g}: allow more, or ask for less by "
            f"--span, --tokens or --tokens-per-parameter"
        )
    high = low
    while cost(rungs(ladder, footing, high)) <= budget:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if cost(rungs(ladder, footing, middle)) <= budget else (low, middle)
    found = rungs(ladder, footing, low)
    if len({rung.name for rung in found}) < len(found):
        raise QkvError(
            f"{ladder.sizes} sizes within a span of {ladder.span:g}, or the numbers of their tokens, are too near each other to "
            f"differ: ask for fewer by --sizes, or for a larger --span"
        )
    return found


def _paces(found: Sequence[Rung], footing: Footing, timed: Timed) -> dict[str, Pace]:
    """The pace of each contender, from its smallest and its largest model."""
    paces = {}
    for name in footing.sizes:
        specs = sorted((rung.spec for rung in found if rung.contender == name), key=parameters)
        small, large = specs[0], specs[-1]
        (x, y), (x2, y2) = ((footing.step.operations(spec), timed(name, spec)) for spec in (small, large))
        each = max(0.0, (y2 - y) / (x2 - x)) if x2 > x else 0.0
        paces[name] = Pace(max(0.0, y - each * x), each)
    return paces


def a_step(run: Run, spec: Model, task: Task) -> float:
    """Seconds of a step of a model on this machine: the least of some, for whatever else runs here can only make them longer."""
    where = machine.pick(run.device, run.precision)
    run = replace(run, budget=Steps(1), schedule=Cosine(0.0))  # how far a step goes does not change how long it takes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = Journal(folder / "journal.jsonl")
        try:
            loop: Any = Loop(Ground(run, folder, begun(run, spec), task, where), journal, Silent())
            ends = []
            for _ in range(WARM + TIMED + 1):
                loop.step()
                if where.device.type == "cuda":
                    torch.cuda.synchronize()
                ends.append(time.perf_counter())
        finally:
            journal.close()
    return min(after - before for before, after in pairwise(ends[WARM:]))
