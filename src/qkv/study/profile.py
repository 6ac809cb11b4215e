"""IsoFLOP profiles (Hoffmann et al. 2022, section 3.2): of the members that took the same operations, which size was best, and
how that size grows with the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qkv.error import QkvError
from qkv.spec.law import Convention, Cost, IsoFlops, Law, Valley
from qkv.study.frontier import flops
from qkv.study.points import budgets, line, operations
from qkv.study.powers import Points
from qkv.study.table import Member

SIZES, BUDGETS = 3, 3  # that are needed: for a parabola, and for a line that could be found wrong


@dataclass(frozen=True)
class Bottom:
    """The lowest point of a parabola: the budget, the log of the size, and the loss; `curvature` is that of the loss in log N."""

    flops: float
    log_size: float
    loss: float
    curvature: float


@dataclass(frozen=True)
class Profiles:
    """The problem of IsoFLOP profiles."""

    form: IsoFlops
    members: tuple[Member, ...]
    convention: Convention
    cost: Cost

    least = SIZES

    @property
    def size(self) -> int:
        return len(self.members)

    @cached_property
    def operations(self) -> np.ndarray:
        """What each member took."""
        return np.array([operations(member, self.convention, self.cost) for member in self.members])

    @cached_property
    def log_sizes(self) -> np.ndarray:
        return np.log([member.size(self.convention) for member in self.members])

    @cached_property
    def losses(self) -> np.ndarray:
        return np.array([member.loss for member in self.members])

    @cached_property
    def budgets(self) -> list[np.ndarray]:
        """The members of each budget with enough sizes for a parabola, by their places; budgets from the smallest."""
        return [each for each in budgets(self.operations) if len(set(self.log_sizes[each])) >= SIZES]

    @property
    def groups(self) -> list[np.ndarray]:
        """The budgets that a profile is made of."""
        return self._groups

    @cached_property
    def _groups(self) -> list[np.ndarray]:
        """The budgets whose lowest point lies among the sizes tried. Raises QkvError where they are too few."""
        even = np.ones(len(self.members))
        found = [each for each in self.budgets if self._inside(each, even)]
        if len(found) < BUDGETS:
            raise QkvError(
                f"{len(found)} budgets have a best size among those tried, with a smaller and a larger one that are worse, and "
                f"IsoFLOP profiles need {BUDGETS} ({len(self.budgets)} have {SIZES} sizes or more for the same FLOPs); a "
                f"ladder that was not made for it is better fitted by --law 'Parametric()'"
            )
        return found

    def _inside(self, budget: np.ndarray, weights: np.ndarray) -> bool:
        bottom = self.bottom(budget, weights)
        sizes = self.log_sizes[budget]
        return bottom.curvature > 0 and bool(sizes.min() <= bottom.log_size <= sizes.max())

    def bottom(self, budget: np.ndarray, weights: np.ndarray) -> Bottom:
        """The lowest point of the parabola through the losses of a budget, in log N."""
        sizes, counts = self.log_sizes[budget], weights[budget]
        middle = float(np.average(sizes, weights=counts))
        curve, slope, level = np.polyfit(sizes - middle, self.losses[budget], 2, w=np.sqrt(counts))
        lowest = -slope / (2 * curve) if curve else np.inf
        spent = float(np.exp(np.average(np.log(self.operations[budget]), weights=counts)))
        return Bottom(spent, middle + lowest, level + slope * lowest / 2, float(curve))

    def bottoms(self, weights: np.ndarray) -> list[Bottom]:
        """The lowest points of the budgets that have one."""
        return [self.bottom(each, weights) for each in self.groups]

    def found(self, weights: np.ndarray, start: Law | None) -> Valley:
        """The law; see `bootstrap.Problem`. Nothing is searched for but perhaps a floor, so that a start is of little use."""
        bottoms = self.bottoms(weights)
        if any(not self._inside(each, weights) for each in self.groups):
            raise QkvError("a budget of this sample has no best size")
        spent = np.log([each.flops for each in bottoms])
        sizes = np.array([each.log_size for each in bottoms])
        tokens = spent - np.log(flops(self.cost, np.exp(sizes), 1.0))
        (a, n), (b, d) = _straight(spent, sizes), _straight(spent, tokens)
        even = np.ones(len(bottoms))
        begin = start.line if isinstance(start, Valley) else None
        losses = line(Points(spent[:, None], np.log([each.loss for each in bottoms])), even, self.form.floor, begin)
        return Valley(n, a, d, b, losses.E, losses.scale, losses.exponent)


def _straight(x: np.ndarray, y: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The slope of a line through logarithms, and the factor that it begins with."""
    slope, level = np.polyfit(x - x.mean(), y, 1)
    return float(slope), float(np.exp(level - slope * x.mean()))
