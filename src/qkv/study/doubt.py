"""What speaks against a fit, in words: data that cannot support it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

import numpy as np

from qkv.spec.law import Coupled, Law, Line, OfTokens, Surface, Valley
from qkv.study.bootstrap import Problem
from qkv.study.points import Both, One
from qkv.study.powers import EXPONENTS
from qkv.study.profile import Profiles

SPAN = 10.0  # of sizes and tokens, below which an exponent rests on too little
FREE = 2.0  # points for each number of the law, below which it follows the noise
WIDE = 0.5  # of an exponent: what its interval may be wide
FLAT = 200.0  # how much more some change of the law may be seen in the losses than some other
THROWN = 0.1  # of the samples
EXPONENT = ("alpha", "beta", "alpha_N", "alpha_D", "a", "b", "exponent")


def doubts_of(
    problem: Problem, law: Law, intervals: Mapping[str, tuple[float, float]], share: float, thrown: float
) -> Iterator[str]:
    """Every doubt as a sentence."""
    yield from _spans(problem)
    numbers = len(fields(law))
    if isinstance(problem, Both | One) and problem.size < FREE * numbers:
        yield f"{problem.size} points for {numbers} numbers: the law follows the noise of each, and its intervals are too narrow"
    for name in (field.name for field in fields(law) if field.name in EXPONENT):
        value, (low, high) = getattr(law, name), intervals[name]
        if not EXPONENTS[0] + 0.01 < value < EXPONENTS[1] - 0.01:
            yield f"{name} is {value:.3g}, at the end of where it is looked for: it was not found"
        elif high - low > WIDE * value:
            yield f"{name} lies between {low:.3g} and {high:.3g} in {share:.0%} of the samples: that is too wide to reckon with"
    yield from _flat(problem, law)
    if isinstance(law, Surface) and law.E == 0:
        yield "no floor was found: the losses fall as if they fell to nothing, so that no member comes near the floor"
    if isinstance(problem, Profiles) and len(problem.budgets) > len(problem.groups):
        gone = len(problem.budgets) - len(problem.groups)
        yield f"{gone} of {len(problem.budgets)} budgets are left out, since their best size lies beyond those tried"
    if thrown > THROWN:
        yield f"{thrown:.0%} of the samples settle no law and were drawn anew: the intervals are too narrow"


def _spans(problem: Problem) -> Iterator[str]:
    match problem:
        case Both():
            columns = {"sizes": problem.points.x[:, 0], "numbers of tokens": problem.points.x[:, 1]}
        case One():
            columns = {"numbers of tokens" if isinstance(problem.form, OfTokens) else "points": problem.points.x[:, 0]}
        case Profiles():
            columns = {"budgets": np.log([each.flops for each in problem.bottoms(np.ones(problem.size))])}
        case _:
            columns = {}
    for what, column in columns.items():
        span = float(np.exp(np.ptp(column)))
        if round(span, 1) < SPAN:
            yield f"the {what} span {span:.2g}-fold alone: an exponent rests on {SPAN:.0f}-fold at least"


def _flat(problem: Problem, law: Law) -> Iterator[str]:
    """Whether some change of the law leaves all losses nearly as they are, and which of its numbers then trade off.

    The columns are the derivatives of log loss by the numbers of the law, each scaled to length one, the coefficients taken in
    the middle of the data."""
    if isinstance(law, Valley) or not isinstance(problem, Both | One):
        return
    if not isinstance(law, Coupled) and law.E == 0:
        return
    x = problem.points.x - problem.points.middle
    names: list[str]
    if isinstance(law, Line):
        powers, names = (law.scale / np.exp(problem.points.x)) ** law.exponent, ["scale", "exponent", "E"]
    else:
        surface = law.surface if isinstance(law, Coupled) else law
        n, d = np.exp(problem.points.x).T
        powers = np.column_stack([surface.A / n**surface.alpha, surface.B / d**surface.beta])
        names = ["A", "B", "alpha", "beta", "E"]
    whole = (law.E + powers.sum(1))[:, None]
    columns = np.column_stack([powers / whole, -powers * x / whole, law.E / whole])
    if isinstance(law, Coupled):
        columns = np.column_stack([columns[:, :3], np.log(whole)])
        names = ["N_c", "D_c", "alpha_N", "alpha_D"]
    columns /= np.linalg.norm(columns, axis=0)
    _, sizes, directions = np.linalg.svd(columns, full_matrices=False)
    if sizes[0] > FLAT * sizes[-1]:
        share = np.abs(directions[-1])
        pair = [names[place] for place in sorted(np.argsort(share)[-2:])]
        yield (
            f"{pair[0]} and {pair[1]} trade off: one can grow with the other, and the losses stay nearly the same; what the law "
            f"predicts between the members may hold, but not its numbers"
        )
