"""A law of scale, found in the members of a ladder: with its intervals, how well it holds, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from qkv.error import QkvError, unknown
from qkv.spec.law import (
    Convention,
    Cost,
    Coupled,
    Double,
    FittedFloor,
    Form,
    IsoFlops,
    Law,
    OfBoth,
    OfFlops,
    OfParameters,
    OfTokens,
    Parametric,
    Resamples,
    Resampling,
    Surface,
    Valley,
    WithEmbeddings,
)
from qkv.study.bootstrap import Problem, bootstrap
from qkv.study.doubt import doubts_of
from qkv.study.points import Both, One, best_members, cost_of
from qkv.study.powers import one_thread
from qkv.study.profile import Profiles
from qkv.study.table import Member, Table

FOLLOWED = 0.95  # R^2 of log loss, below which a law is none
OFF = 0.05  # the relative error of a member, above which it or the law is wrong
BENT, SMALL = 3.0, 0.01  # the largest error of what is held out, beside that of what is fitted, and what nobody minds
LARGEST = "largest"  # the members of the largest size, to be held out


@dataclass(frozen=True)
class Goodness:
    """How well a law predicts some members: R^2 of log loss, which needs members of different losses, the largest relative error,
    and whose that is."""

    members: int
    r_squared: float | None
    error: float
    worst: str


@dataclass(frozen=True)
class Fit:
    """A law of one architecture. `draws` are its numbers in each sample of the bootstrap, `share` that of them which lies within
    an interval."""

    architecture: str
    form: Form
    convention: Convention
    cost: Cost
    law: Law
    draws: tuple[tuple[float, ...], ...]
    resampling: Resampling
    share: float
    fitted: tuple[Member, ...]
    held_out: tuple[Member, ...]
    goodness: Goodness
    held_out_goodness: Goodness | None
    doubts: tuple[str, ...]

    @property
    def each(self) -> Any:
        """The law of every draw at once: its numbers are (draws, 1)."""
        columns = np.array(self.draws).T[..., None]
        return replace(self.law, **{field.name: column for field, column in zip(fields(self.law), columns, strict=True)})

    def interval(self, values: Any) -> tuple[float, float]:
        """Between which the middle share of some values lies, one for each draw; a budget may be without end in some."""
        low, high = np.quantile(np.ravel(values), [(1 - self.share) / 2, (1 + self.share) / 2], method="nearest")
        return float(low), float(high)


@dataclass(frozen=True)
class Asked:
    """What is to be found in a table: the form of the law, what a parameter is, how often it is fitted to a sample, and which
    share of these an interval holds. `held_out` names the members that are not fitted."""

    form: Form = Parametric()
    convention: Convention = WithEmbeddings()
    resampling: Resampling = Resamples()
    share: float = 0.8
    held_out: tuple[str, ...] = ()
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise QkvError(f"an interval holds a share of the draws between 0 and 1, such as 0.8, not {self.share!r}")
        if self.seed < 0:
            raise QkvError(f"a seed is not negative: {self.seed}")


def fit(table: Table, asked: Asked) -> tuple[Fit, ...]:
    """A law for each architecture of a table. Raises QkvError where its members cannot settle one."""
    known = dict.fromkeys(member.architecture for member in table.members)
    out = _held_out(table, asked)
    with one_thread():
        return tuple(_fit([each for each in table.members if each.architecture == name], name, out, asked) for name in known)


def _held_out(table: Table, asked: Asked) -> set[str]:
    """The names of the members that are held out."""
    names = {member.name for member in table.members}
    found = set[str]()
    for wanted in asked.held_out:
        if wanted != LARGEST:
            if wanted not in names:
                raise unknown("member", wanted, {LARGEST} | names)
            found.add(wanted)
            continue
        for name in {member.architecture for member in table.members}:
            own = [member for member in table.members if member.architecture == name]
            most = max(member.size(asked.convention) for member in own)
            found |= {member.name for member in own if member.size(asked.convention) == most}
    return found


def _fit(members: Sequence[Member], architecture: str, out: set[str], asked: Asked) -> Fit:
    # a bootstrap of two ladders is paired where their rungs stand in one order
    members = sorted(members, key=lambda each: (each.size(asked.convention), each.tokens))
    fitted = tuple(member for member in members if member.name not in out)
    held_out = tuple(member for member in members if member.name in out)
    if not fitted:
        raise QkvError(f"every member of {architecture or 'the table'} is held out: none is left to be fitted")
    cost = cost_of(members, asked.convention)
    try:
        problem = problem_of(asked.form, fitted, asked.convention, cost)
        law = problem.found(np.ones(problem.size), None)
        _refuse_below(law, members)
        draws, thrown = bootstrap(problem, law, asked.resampling, asked.seed)
    except QkvError as error:
        raise QkvError(f"{architecture}: {error}" if architecture else str(error)) from None
    found = Fit(
        architecture=architecture,
        form=asked.form,
        convention=asked.convention,
        cost=cost,
        law=law,
        draws=tuple(map(tuple, draws.tolist())),
        resampling=asked.resampling,
        share=asked.share,
        fitted=fitted,
        held_out=held_out,
        goodness=goodness(law, asked, fitted, cost),
        held_out_goodness=goodness(law, asked, held_out, cost) if held_out else None,
        doubts=(),
    )
    intervals = {field.name: found.interval(column) for field, column in zip(fields(law), draws.T, strict=True)}
    doubts = (*doubts_of(problem, law, intervals, asked.share, thrown), *_misses(found))
    return replace(found, doubts=doubts)


def problem_of(form: Form, members: tuple[Member, ...], convention: Convention, cost: Cost) -> Problem:
    """What is to be solved. Raises QkvError where there are fewer points than a law has numbers, or no more: a law that fits
    anything has no error by which to judge it."""
    match form:
        case Parametric() | OfBoth():
            problem: Problem = Both(form, members, convention)
        case IsoFlops():
            problem = Profiles(form, members, convention, cost)
        case _:
            problem = One(form, members, convention, cost)
    points = len(problem.groups) if isinstance(form, IsoFlops) else problem.size
    match form:
        case Parametric():
            numbers = 5
        case OfBoth():
            numbers = 4
        case _:
            numbers = 3 if isinstance(form.floor, FittedFloor) else 2
    if points <= numbers:
        kinds = {OfParameters: "sizes", OfTokens: "numbers of tokens", OfFlops: "budgets", IsoFlops: "budgets"}
        fewer = "" if numbers == 2 else ", or ask for a law of fewer numbers, such as --law 'OfFlops()'"
        raise QkvError(
            f"{points} {kinds.get(type(form), 'members')} are too few for a law of {numbers} numbers and its error, which take "
            f"{numbers + 1} or more: train others{fewer}"
        )
    return problem


def goodness(law: Law, asked: Asked, members: Sequence[Member], cost: Cost) -> Goodness:
    """How well a law predicts members. A law of one variable, and a profile, say nothing of members that were not the best for
    what they had."""
    if isinstance(law, Surface | Coupled):
        found = [(each.name, each.loss, law.loss(each.size(asked.convention), each.tokens)) for each in members]
    else:
        line = law.line if isinstance(law, Valley) else law
        assert not isinstance(asked.form, Double)
        best = best_members(asked.form, members, asked.convention, cost)
        found = [(each.name, each.loss, line.loss(each.x)) for each in best]
    error, worst = max((abs(predicted / loss - 1), name) for name, loss, predicted in found)
    logs = np.log([(loss, predicted) for _, loss, predicted in found])
    spread = float(((logs[:, 0] - logs[:, 0].mean()) ** 2).sum())
    left = float(((logs[:, 0] - logs[:, 1]) ** 2).sum())
    return Goodness(len(found), 1 - left / spread if spread > 0 else None, float(error), worst)


def _misses(found: Fit) -> Iterator[str]:
    """The doubts that the members themselves raise."""
    fitted, held_out = found.goodness, found.held_out_goodness
    uncounted = sum(member.flops is None for member in (*found.fitted, *found.held_out))
    if uncounted and uncounted < len(found.fitted) + len(found.held_out) and isinstance(found.convention, WithEmbeddings):
        yield f"the FLOPs of {uncounted} members were not counted, so that all are reckoned by 6ND"
    other = "; see whether they follow --law 'OfBoth()'" if isinstance(found.form, Parametric) else ""
    if fitted.r_squared is not None and fitted.r_squared < FOLLOWED:
        yield f"R^2 of log loss is {fitted.r_squared:.2f} of what was fitted: the members do not follow this law{other}"
    elif fitted.error > OFF:
        yield f"{fitted.worst} is off by {fitted.error:.0%}: it went wrong, or the members do not follow this law{other}"
    if held_out is not None and held_out.error > max(BENT * fitted.error, SMALL):
        yield f"what was held out is predicted {held_out.error / fitted.error:.0f} times worse than what was: the law bends"


def _refuse_below(law: Law, members: Sequence[Member]) -> None:
    """Refuse a law below whose floor a member lies."""
    for member in members:
        if not isinstance(law, Valley) and member.loss <= law.E:
            raise QkvError(
                f"{member.name} has a loss of {member.loss:.4g}, below the floor of {law.E:.4g} that the other members show: it "
                f"learned from other text, or went otherwise wrong; take it out, or train members that come nearer to the floor"
            )
