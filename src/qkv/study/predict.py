"""What a fit says of models that nobody trained: their loss, the best size for a budget, the budget for a loss, and which of
several architectures wins; each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qkv.error import QkvError
from qkv.spec.law import Convention, Line, OfFlops, OfParameters, OfTokens, Valley
from qkv.study import frontier
from qkv.study.law import Fit
from qkv.study.points import operations

FAR = 10.0  # times beyond the members on either side, from where on a prediction is said to be far away


@dataclass(frozen=True)
class Estimate:
    """A number, and the interval in which it lies."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """What is predicted of a model: where None stands, the law does not say. `cautions` are what speaks against it."""

    architecture: str
    parameters: Estimate | None
    tokens: Estimate | None
    flops: Estimate | None
    loss: Estimate
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contest:
    """Which architecture has the least loss for a budget: in which share of the draws each does, and by how much it is ahead of
    the best of the others, which is negative where it is not."""

    winner: str
    shares: dict[str, float]
    ahead: Estimate


def size_in(fit: Fit, size: float, convention: Convention) -> float:
    """A number of parameters as the fit counts them. Only of a member are both numbers known; raises QkvError for others."""
    if convention == fit.convention:
        return size
    for member in (*fit.fitted, *fit.held_out):
        other = getattr(member, convention.column)
        if other is not None and other == size:
            return member.size(fit.convention)
    raise QkvError(
        f"{size:g} parameters {convention.words}, but the fit counts them {fit.convention.words}, and how many that is nobody "
        f"knows but of its members: give {fit.convention.option}, or fit the table by the other convention"
    )


def of_model(fit: Fit, parameters: float | None, tokens: float | None) -> Prediction:
    """The loss of a size and a number of tokens. Raises QkvError where the law needs others than are given."""
    law = fit.law
    wanted = {OfParameters: (True, False), OfTokens: (False, True)}.get(type(fit.form), (True, True))
    if isinstance(law, Valley) or isinstance(fit.form, OfFlops):
        raise QkvError("this law knows the best loss of a budget alone: give --flops or --loss, or fit --law 'Parametric()'")
    if (parameters is not None, tokens is not None) != wanted:
        names = [fit.convention.option] * wanted[0] + ["--tokens"] * wanted[1]
        raise QkvError(
            f"this law gives the loss of {' and '.join(names)}: give {'both' if all(wanted) else 'that, and no other'}"
        )
    if isinstance(law, Line):
        x: Any = parameters if parameters is not None else tokens
        at, spent = (x,), None
    else:
        assert parameters is not None and tokens is not None
        at = (parameters, tokens)
        spent = _sure(float(frontier.flops(fit.cost, parameters, tokens)))
    loss = _estimate(fit, law.loss(*at), fit.each.loss(*at))
    given = [None if each is None else _sure(each) for each in (parameters, tokens)]
    return Prediction(fit.architecture, given[0], given[1], spent, loss, _cautions(fit, parameters, tokens, None))


def of_budget(fit: Fit, flops: float) -> Prediction:
    """The best size, tokens and loss for a budget. Raises QkvError where the law says nothing of budgets."""
    _refuse_other(fit)
    loss = _estimate(fit, frontier.least(fit.law, fit.cost, flops), frontier.least(fit.each, fit.cost, flops))
    size, tokens = _best(fit, flops, flops)
    return Prediction(fit.architecture, size, tokens, _sure(flops), loss, _cautions(fit, None, None, flops))


def of_loss(fit: Fit, loss: float) -> Prediction:
    """The least budget for a loss, and the size and tokens that it is to be spent on. Raises QkvError where no budget is
    enough."""
    floor = fit.law.E
    if loss <= floor:
        raise QkvError(
            f"no budget reaches a loss of {loss:g}{_by(fit)}: the law falls to its floor of {floor:.4g} and no further, "
            f"however many parameters and tokens there are"
        )
    if isinstance(fit.law, Line) and isinstance(fit.form, OfParameters | OfTokens):
        value, each = fit.law.reaching(loss), _reached(fit, loss)
        found = _estimate(fit, value, each)
        size, tokens = (found, None) if isinstance(fit.form, OfParameters) else (None, found)
        cautions = _cautions(fit, value if size else None, value if tokens else None, None)
        return Prediction(fit.architecture, size, tokens, None, _sure(loss), cautions)
    value, each = float(frontier.reaching(fit.law, fit.cost, loss)), _reached(fit, loss)
    size, tokens = _best(fit, value, each)
    spent = _estimate(fit, value, each)
    return Prediction(fit.architecture, size, tokens, spent, _sure(loss), _cautions(fit, None, None, value))


def contest(fits: Sequence[Fit], flops: float) -> Contest:
    """Which of several architectures has the least loss for a budget. Draws are paired: the same rungs were sampled of each."""
    if len({len(fit.draws) for fit in fits}) > 1:
        raise QkvError("the architectures were fitted to different numbers of samples: fit them in one table")
    if len({type(fit.cost) for fit in fits}) > 1:
        raise QkvError(
            "the FLOPs of one architecture were counted and those of another are 6ND: a budget would be two; count all"
        )
    values = [float(frontier.least(fit.law, fit.cost, flops)) for fit in fits]
    each = np.stack([np.ravel(frontier.least(fit.each, fit.cost, flops)) for fit in fits])
    first = int(np.argmin(values))
    others = [place for place in range(len(fits)) if place != first]
    rival = min(values[place] for place in others)
    counts = np.bincount(each.argmin(0), minlength=len(fits)) / each.shape[1]
    shares = {fit.architecture: float(share) for fit, share in zip(fits, counts, strict=True)}
    ahead = _estimate(fits[first], rival - values[first], each[others].min(0) - each[first])
    return Contest(fits[first].architecture, shares, ahead)


def _reached(fit: Fit, loss: float) -> np.ndarray:
    """The budget of a loss in each draw; without end where the floor of a draw lies above it."""
    law = fit.each
    reachable = np.ravel(law.E) < loss
    found = np.full(len(reachable), np.inf)
    if reachable.any():
        kept = type(law)(*(np.array(fit.draws)[reachable].T[..., None]))
        if isinstance(fit.form, OfParameters | OfTokens):
            found[reachable] = np.ravel(kept.reaching(loss))
        else:
            found[reachable] = np.ravel(frontier.reaching(kept, fit.cost, loss))
    return found


def _best(fit: Fit, flops: float, each: Any) -> tuple[Estimate | None, Estimate | None]:
    """The best size and tokens of a budget, or of another one in each draw."""
    law = fit.law
    if isinstance(law, Line):
        return None, None
    size, tokens = frontier.best(law, fit.cost, flops)
    sizes, numbers = frontier.best(fit.each, fit.cost, np.reshape(each, (-1, 1)))
    return _estimate(fit, size, sizes), _estimate(fit, tokens, numbers)


def _refuse_other(fit: Fit) -> None:
    if isinstance(fit.form, OfParameters | OfTokens):
        raise QkvError(f"{fit.form} knows nothing of operations: fit --law 'Parametric()', 'IsoFlops()' or 'OfFlops()'")


def _cautions(fit: Fit, parameters: float | None, tokens: float | None, flops: float | None) -> tuple[str, ...]:
    """How far a prediction lies beyond the members."""
    every = (*fit.fitted, *fit.held_out)
    known = {
        "parameters": (parameters, [each.size(fit.convention) for each in every]),
        "tokens": (tokens, [each.tokens for each in every]),
        "FLOPs": (flops, [operations(each, fit.convention, fit.cost) for each in every]),
    }
    found = list[str]()
    for what, (value, members) in known.items():
        if value is None:
            continue
        beyond, side = max((value / max(members), "above the most"), (min(members) / value, "below the least"))
        if beyond > FAR:
            found.append(f"{beyond:,.0f} times {side} {what} of any member: the interval holds only if the law still does")
    return tuple(found)


def _sure(value: float) -> Estimate:
    return Estimate(value, value, value)


def _estimate(fit: Fit, value: Any, each: Any) -> Estimate:
    low, high = fit.interval(each)
    return Estimate(float(value), low, high)


def _by(fit: Fit) -> str:
    return f" by {fit.architecture}" if fit.architecture else ""
