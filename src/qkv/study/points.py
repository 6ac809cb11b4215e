"""What a law is fitted to: the members of a table as points, and the problem of finding the law in them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qkv.error import QkvError
from qkv.spec.law import (
    Convention,
    Cost,
    Counted,
    Coupled,
    Double,
    FittedFloor,
    Floor,
    FloorOf,
    Huber,
    IsoFlops,
    Law,
    Line,
    OfBoth,
    OfFlops,
    OfParameters,
    OfTokens,
    Parametric,
    Projection,
    Single,
    SixND,
    Surface,
    WithEmbeddings,
)
from qkv.study.frontier import flops
from qkv.study.powers import Coupling, Points, Powers, coupled, huber, projected, regressed
from qkv.study.table import Member

ALIKE = 1.1  # budgets that differ by less, from one to the next, are one
LEAST = 3  # different sizes, and numbers of tokens, without which a power and a floor cannot be told apart


def cost_of(members: Sequence[Member], convention: Convention) -> Cost:
    """What the training of a size takes: as the table counted it, where it did for all members, and 6ND otherwise. Kaplan's
    convention knows 6ND alone."""
    if not isinstance(convention, WithEmbeddings) or any(member.flops is None for member in members):
        return SixND()
    logs = defaultdict[float, list[float]](list)
    for member in members:
        size = member.size(convention)
        logs[size].append(math.log(member.flops / (6 * size * member.tokens)))  # type: ignore[operator]
    sizes = sorted(logs)
    return Counted(tuple(sizes), tuple(math.exp(sum(logs[size]) / len(logs[size])) for size in sizes))


def operations(member: Member, convention: Convention, cost: Cost) -> float:
    """What the training of a member took."""
    if isinstance(cost, Counted) and member.flops is not None:
        return member.flops
    return float(flops(cost, member.size(convention), member.tokens))


def mean_loss(members: Sequence[Member]) -> float:
    """The loss in the middle of some members, such as those of several seeds."""
    return math.exp(sum(math.log(member.loss) for member in members) / len(members))


@dataclass(frozen=True)
class Both:
    """The problem of L(N, D): every member is a point."""

    form: Double
    members: tuple[Member, ...]
    convention: Convention

    @property
    def least(self) -> int:
        return 5 if isinstance(self.form, Parametric) else 4

    def __post_init__(self) -> None:
        for what, values in (("sizes", self.sizes), ("numbers of tokens", [member.tokens for member in self.members])):
            if len(set(values)) < LEAST:
                raise QkvError(
                    f"the members have {len(set(values))} different {what}, and L(N, D) cannot be told from fewer than {LEAST}: "
                    f"train more of them, or fit a law of one variable, such as --law 'OfFlops()'"
                )

    @property
    def sizes(self) -> list[float]:
        return [member.size(self.convention) for member in self.members]

    @cached_property
    def points(self) -> Points:
        """The logarithms of N and D, and of the loss."""
        x = np.log([(size, member.tokens) for size, member in zip(self.sizes, self.members, strict=True)])
        return Points(x, np.log([member.loss for member in self.members]))

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def groups(self) -> list[np.ndarray]:
        return [np.arange(self.size)]

    def found(self, weights: np.ndarray, start: Law | None) -> Surface | Coupled:
        """The law; see `bootstrap.Problem`."""
        if any(len(set(column[weights > 0])) < LEAST for column in self.points.x.T):
            raise QkvError("too few different sizes, or numbers of tokens")
        if isinstance(self.form, OfBoth):
            return self._coupled(weights, self.form.by.delta, start if isinstance(start, Coupled) else None)
        begin = None
        if isinstance(start, Surface):
            begin = Powers(np.log([start.A, start.B]), np.array([start.alpha, start.beta]), start.E)
        match self.form.by:
            case Huber(delta=delta):
                powers = huber(self.points, weights, delta, begin)
            case Projection():
                powers = projected(self.points, weights, begin)
        (a, b), (alpha, beta) = np.exp(powers.intercepts), powers.exponents
        return Surface(powers.floor, float(a), float(b), float(alpha), float(beta))

    def _coupled(self, weights: np.ndarray, delta: float, start: Coupled | None) -> Coupled:
        begin = None
        if start is not None:
            exponent = start.alpha_N / start.alpha_D
            begin = Coupling(np.array([exponent * math.log(start.N_c), math.log(start.D_c)]), exponent, start.alpha_D)
        found = coupled(self.points, weights, delta, begin)
        n, d = found.intercepts
        return Coupled(math.exp(n / found.exponent), math.exp(d), found.exponent * found.outer, found.outer)


@dataclass(frozen=True)
class One:
    """The problem of L(x): the best members alone are points, since the others were held back by something else."""

    form: Single
    members: tuple[Member, ...]
    convention: Convention
    cost: Cost

    @property
    def least(self) -> int:
        return 3 if isinstance(self.form.floor, FittedFloor) else 2

    @cached_property
    def points(self) -> Points:
        """The log of x, and of the loss."""
        found = best_members(self.form, self.members, self.convention, self.cost)
        return Points(np.log([[each.x] for each in found]), np.log([each.loss for each in found]))

    @property
    def size(self) -> int:
        return len(self.points.y)

    @property
    def groups(self) -> list[np.ndarray]:
        return [np.arange(self.size)]

    def found(self, weights: np.ndarray, start: Law | None) -> Line:
        """The law; see `bootstrap.Problem`."""
        return line(self.points, weights, self.form.floor, start if isinstance(start, Line) else None)


def line(points: Points, weights: np.ndarray, floor: FloorOf, start: Line | None) -> Line:
    """A power law of one variable: a regression on logarithms where the floor is known, and a sum of Huber terms where it is not.

    Raises QkvError where a loss lies below the floor, or no loss falls.
    """
    if isinstance(floor, FittedFloor):
        begin = start and Powers(np.array([start.exponent * math.log(start.scale)]), np.array([start.exponent]), start.E)
        powers = huber(points, weights, Huber().delta, begin)
    else:
        nats = floor.nats if isinstance(floor, Floor) else 0.0
        if (lowest := float(np.exp(points.y.min()))) <= nats:
            raise QkvError(f"a loss of {lowest:.4g} is not above the floor of {nats:g} nats: give a lower one, or FittedFloor()")
        powers = regressed(points, weights, nats)
    exponent = float(powers.exponents[0])
    if exponent <= 0:
        raise QkvError("the loss does not fall with more of it: there is no power law to be fitted")
    return Line(powers.floor, math.exp(float(powers.intercepts[0]) / exponent), exponent)


@dataclass(frozen=True)
class Best:
    """The best member for what it had of one thing, and whose loss that is."""

    x: float
    loss: float
    name: str


def budgets(spent: np.ndarray) -> list[np.ndarray]:
    """The places of members that took the same operations, or nearly; from the smallest budget to the largest."""
    order = np.argsort(spent, kind="stable")
    jumps = np.flatnonzero(np.diff(np.log(spent[order])) > math.log(ALIKE)) + 1
    return [each for each in np.split(order, jumps) if len(each)]


def best_members(form: Single | IsoFlops, members: Sequence[Member], convention: Convention, cost: Cost) -> list[Best]:
    """The best of each size; for each number of tokens; for each budget, and of L(C) those alone to which none is superior that
    took less. Of members of equal size and tokens, such as several seeds, the mean counts, under the name of the first."""
    alike = defaultdict[tuple[float, float], list[Member]](list)
    for member in members:
        alike[member.size(convention), member.tokens].append(member)
    found = [Best(_variable(form, each[0], convention, cost), mean_loss(each), each[0].name) for each in alike.values()]
    x = np.array([each.x for each in found])
    same = [np.flatnonzero(x == each) for each in np.unique(x)] if isinstance(form, OfParameters | OfTokens) else budgets(x)
    lowest = [min((found[place] for place in places), key=lambda best: best.loss) for places in same]
    if not isinstance(form, OfFlops):
        return lowest
    return [best for place, best in enumerate(lowest) if all(best.loss < other.loss for other in lowest[:place])]


def _variable(form: Single | IsoFlops, member: Member, convention: Convention, cost: Cost) -> float:
    match form:
        case OfParameters():
            return member.size(convention)
        case OfTokens():
            return member.tokens
        case OfFlops() | IsoFlops():
            return operations(member, convention, cost)
