"""What the picture of a fit shows: its members, curves, frontier and contours, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qkv.look import law as look
from qkv.look.law import Axis, Band, Contours, Curve, Dots, Mark, Scaling
from qkv.spec.law import Counted, IsoFlops, Line, OfParameters, OfTokens, Parametric, Surface
from qkv.study import frontier
from qkv.study.law import Fit
from qkv.study.points import best_members, operations
from qkv.study.predict import Prediction
from qkv.study.profile import Profiles

AROUND = 2.0  # times beyond the members, and the predictions, that a picture shows
STEPS = 160  # of a line


def draw(fits: Sequence[Fit], predictions: Sequence[Prediction], title: str, path: Path) -> None:
    """Save the picture of some fits, and of what was predicted: a prediction for each fit, or none."""
    marks = [mark for place, each in enumerate(predictions) if (mark := _mark(fits[place], place, each)) is not None]
    every = [_x(fit) for fit in fits]
    at = np.concatenate([*every, [mark.x for mark in marks]])
    budgets = np.geomspace(at.min() / AROUND, at.max() * AROUND, STEPS)
    found = [_scaling(fit, budgets, marks) for fit in fits]
    if len(fits) > 1:
        found = [
            found[0],
            *(replace(each, ahead=_ahead(fits[0], fit, budgets)) for fit, each in zip(fits[1:], found[1:], strict=True)),
        ]
    look.draw(found, _axis(fits[0]), marks, title, path)


def _axis(fit: Fit) -> Axis:
    sizes = f"parameters, {fit.convention.words}"
    match fit.form:
        case OfParameters():
            x = sizes
        case OfTokens():
            x = "tokens"
        case _:
            x = f"FLOPs of training, {'as counted' if isinstance(fit.cost, Counted) else '6ND'}"
    return Axis(x, sizes, fit.share)


def _variable(fit: Fit, member: Any) -> float:
    match fit.form:
        case OfParameters():
            return member.size(fit.convention)
        case OfTokens():
            return member.tokens
        case _:
            return operations(member, fit.convention, fit.cost)


def _x(fit: Fit) -> np.ndarray:
    return np.array([_variable(fit, member) for member in (*fit.fitted, *fit.held_out)])


def _mark(fit: Fit, place: int, prediction: Prediction) -> Mark | None:
    x = {OfParameters: prediction.parameters, OfTokens: prediction.tokens}.get(type(fit.form), prediction.flops)
    if x is None or not np.isfinite(x.value):
        return None
    return Mark(place, x.value, prediction.loss.value, prediction.parameters.value if prediction.parameters else None)


def _scaling(fit: Fit, budgets: np.ndarray, marks: Sequence[Mark]) -> Scaling:
    every = (*fit.fitted, *fit.held_out)
    held = np.array([False] * len(fit.fitted) + [True] * len(fit.held_out))
    sizes = np.array([member.size(fit.convention) for member in every])
    dots = Dots(_x(fit), np.array([member.loss for member in every]), sizes, held, _passed(fit))
    loss = _band(fit, budgets, frontier.least(fit.law, fit.cost, budgets), frontier.least(fit.each, fit.cost, budgets))
    plain = Scaling(fit.architecture, dots, loss)
    if isinstance(fit.law, Line):
        return plain
    best = _band(fit, budgets, frontier.best(fit.law, fit.cost, budgets)[0], frontier.best(fit.each, fit.cost, budgets)[0])
    if isinstance(fit.law, Surface):
        curves = tuple(
            Curve(size, budgets, fit.law.loss(size, budgets / frontier.flops(fit.cost, size, 1.0))) for size in _some(sizes)
        )
        return replace(plain, best=best, curves=curves, contours=_contours(fit, budgets, np.concatenate([sizes, best.value])))
    return replace(plain, best=best, **_profiles(fit))


def _passed(fit: Fit) -> np.ndarray:
    """Which members the law passes over."""
    if isinstance(fit.form, Parametric | IsoFlops):
        return np.zeros(len(fit.fitted) + len(fit.held_out), dtype=bool)
    found = list[bool]()
    for members in (fit.fitted, fit.held_out):
        best = {each.name for each in best_members(fit.form, members, fit.convention, fit.cost)}
        found += [member.name not in best for member in members]
    return np.array(found)


def _some(sizes: np.ndarray) -> list[float]:
    """The sizes that get a curve: all, or a dozen evenly among them."""
    every = np.unique(sizes)
    return [float(each) for each in every[np.unique(np.linspace(0, len(every) - 1, min(12, len(every))).round().astype(int))]]


def _contours(fit: Fit, budgets: np.ndarray, sizes: np.ndarray) -> Contours:
    rows = np.geomspace(sizes.min() / AROUND, sizes.max() * AROUND, STEPS)
    tokens = budgets / frontier.flops(fit.cost, rows, 1.0)[:, None]
    assert isinstance(fit.law, Surface)
    return Contours(budgets, rows, fit.law.loss(rows[:, None], tokens))


def _profiles(fit: Fit) -> dict[str, Any]:
    """The parabolas of an IsoFLOP fit, and their lowest points."""
    assert isinstance(fit.form, IsoFlops)
    problem = Profiles(fit.form, fit.fitted, fit.convention, fit.cost)
    bottoms = problem.bottoms(np.ones(problem.size))
    curves = []
    for budget, bottom in zip(problem.groups, bottoms, strict=True):
        sizes = problem.log_sizes[budget]
        at = np.linspace(sizes.min() - 0.2, sizes.max() + 0.2, STEPS)
        curves.append(Curve(bottom.flops, np.exp(at), bottom.loss + bottom.curvature * (at - bottom.log_size) ** 2))
    lowest = tuple((bottom.flops, float(np.exp(bottom.log_size)), bottom.loss) for bottom in bottoms)
    return {"parabolas": tuple(curves), "bottoms": lowest}


def _ahead(first: Fit, other: Fit, budgets: np.ndarray) -> Band:
    """How much less loss one has than the first, draw by draw."""
    value = frontier.least(first.law, first.cost, budgets) - frontier.least(other.law, other.cost, budgets)
    each = frontier.least(first.each, first.cost, budgets) - frontier.least(other.each, other.cost, budgets)
    return _band(first, budgets, value, each)


def _band(fit: Fit, x: np.ndarray, value: np.ndarray, each: np.ndarray) -> Band:
    low, high = np.quantile(each, [(1 - fit.share) / 2, (1 + fit.share) / 2], axis=0)
    return Band(x, value, low, high)
