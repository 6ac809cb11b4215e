"""What the picture of a fit shows: its members, curves, frontier and contours, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qkv.look import law as look
from qkv.look.law import Axis, Band, Contours, Curve, Dots, Mark, Scaling
from qkv.spec.law import Counted, Coupled, Double, IsoFlops, OfParameters, OfTokens, Surface, Valley
from qkv.study import frontier
from qkv.study.law import Fit
from qkv.study.points import best_members, operations
from qkv.study.predict import Prediction
from qkv.study.profile import Profiles

AROUND = 2.0  # times beyond the members, and the predictions, that a picture shows
STEPS = 160  # of a line, and of contours
BUDGETS = 50  # of a band


@dataclass(frozen=True)
class Front:
    """The least loss, and the best size where the law knows one, of each budget; and the same in each draw."""

    budgets: np.ndarray
    loss: np.ndarray
    losses: np.ndarray
    size: np.ndarray | None = None
    sizes: np.ndarray | None = None


def draw(fits: Sequence[Fit], predictions: Sequence[Prediction], title: str, path: Path) -> None:
    """Save the picture of some fits, and of what was predicted: a prediction for each fit, or none."""
    marks = [mark for place, each in enumerate(predictions) if (mark := _mark(fits[place], place, each)) is not None]
    at = np.concatenate([*(_x(fit) for fit in fits), [mark.x for mark in marks]])
    budgets = np.geomspace(at.min() / AROUND, at.max() * AROUND, BUDGETS)
    fronts = [_front(fit, budgets) for fit in fits]
    found = [_scaling(fit, front) for fit, front in zip(fits, fronts, strict=True)]
    for place in range(1, len(fits)):
        found[place] = replace(found[place], ahead=_ahead(fits[0], fronts[0], fronts[place]))
    look.draw(found, _axis(fits[0]), marks, title, path)


def _front(fit: Fit, budgets: np.ndarray) -> Front:
    if isinstance(fit.law, Surface | Coupled):
        (size, tokens), (sizes, numbers) = (frontier.best(law, fit.cost, budgets) for law in (fit.law, fit.each))
        return Front(budgets, fit.law.loss(size, tokens), fit.each.loss(sizes, numbers), size, sizes)
    loss, losses = (frontier.least(law, fit.cost, budgets) for law in (fit.law, fit.each))
    if isinstance(fit.law, Valley):
        return Front(budgets, loss, losses, fit.law.best(budgets)[0], fit.each.best(budgets)[0])
    return Front(budgets, loss, losses)


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


def _scaling(fit: Fit, front: Front) -> Scaling:
    every = (*fit.fitted, *fit.held_out)
    held = np.array([False] * len(fit.fitted) + [True] * len(fit.held_out))
    sizes = np.array([member.size(fit.convention) for member in every])
    dots = Dots(_x(fit), np.array([member.loss for member in every]), sizes, held, _passed(fit))
    plain = Scaling(fit.architecture, dots, _band(fit, front.budgets, front.loss, front.losses))
    if front.size is None or front.sizes is None:
        return plain
    best = _band(fit, front.budgets, front.size, front.sizes)
    if not isinstance(fit.law, Surface | Coupled):
        return replace(plain, best=best, **_profiles(fit))
    at = np.geomspace(front.budgets[0], front.budgets[-1], STEPS)
    curves = tuple(Curve(size, at, fit.law.loss(size, at / frontier.flops(fit.cost, size, 1.0))) for size in _some(sizes))
    return replace(plain, best=best, curves=curves, contours=_contours(fit.law, fit, at, np.concatenate([sizes, best.value])))


def _passed(fit: Fit) -> np.ndarray:
    """Which members the law passes over."""
    if isinstance(fit.form, Double | IsoFlops):
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


def _contours(law: Surface | Coupled, fit: Fit, budgets: np.ndarray, sizes: np.ndarray) -> Contours:
    rows = np.geomspace(sizes.min() / AROUND, sizes.max() * AROUND, STEPS)
    tokens = budgets / frontier.flops(fit.cost, rows, 1.0)[:, None]
    return Contours(budgets, rows, law.loss(rows[:, None], tokens))


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


def _ahead(fit: Fit, first: Front, other: Front) -> Band:
    """How much less loss one has than the first, draw by draw."""
    return _band(fit, first.budgets, first.loss - other.loss, first.losses - other.losses)


def _band(fit: Fit, x: np.ndarray, value: np.ndarray, each: np.ndarray) -> Band:
    low, high = np.quantile(each, [(1 - fit.share) / 2, (1 + fit.share) / 2], axis=0)
    return Band(x, value, low, high)
