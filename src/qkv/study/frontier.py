"""The frontier: the parameters and tokens that make the most of a budget, and the budget that a loss takes. Laws of arrays give
arrays, a row for each law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qkv.spec.law import Cost, Counted, Coupled, Line, SixND, Surface, Valley

REACH = 4.0  # how far in log N the best size may lie from where it would lie for 6ND
GRID, ZOOMS = 25, 8  # each zoom leaves a sixth of what was searched


def flops(cost: Cost, parameters: Any, tokens: Any) -> Any:
    """What training takes."""
    return 6 * ratio(cost, parameters) * parameters * tokens


def ratio(cost: Cost, parameters: Any) -> Any:
    """What training takes, in units of 6 N D."""
    match cost:
        case SixND():
            return 1.0
        case Counted(sizes=sizes, ratios=ratios):
            return np.interp(np.log(parameters), np.log(sizes), ratios)


def best(law: Surface | Coupled | Valley, cost: Cost, budget: Any) -> tuple[Any, Any]:
    """The parameters and tokens of the least loss that a budget buys: in closed form where C = 6 N D, by search where it was
    counted."""
    if isinstance(law, Valley) or isinstance(cost, SixND):
        return law.best(budget)

    def loss(size: Any) -> Any:
        return law.loss(size, budget / flops(cost, size, 1.0))

    size = _lowest(loss, law.best(budget)[0])
    return size, budget / flops(cost, size, 1.0)


def least(law: Surface | Coupled | Line | Valley, cost: Cost, budget: Any) -> Any:
    """The least loss that a budget buys."""
    match law:
        case Line():
            return law.loss(budget)
        case Valley():
            return law.line.loss(budget)
        case Surface() | Coupled():
            return law.loss(*best(law, cost, budget))


def reaching(law: Surface | Coupled | Line | Valley, cost: Cost, loss: Any) -> Any:
    """The least budget that buys a loss, which lies above the floor of the law."""
    match law:
        case Line():
            return law.reaching(loss)
        case Valley():
            return law.line.reaching(loss)
        case Coupled():
            return reaching(law.surface, cost, loss ** (1 / law.alpha_D))
        case Surface():
            first = law.reaching(loss)
            if isinstance(cost, SixND):
                return first

    def needed(size: Any) -> Any:
        missing = loss - law.E - law.A / size**law.alpha
        with np.errstate(divide="ignore", invalid="ignore"):
            tokens = np.where(missing > 0, (law.B / missing) ** (1 / law.beta), np.inf)
        return flops(cost, size, tokens)

    return needed(_lowest(needed, law.best(first)[0]))


def _lowest(value: Callable[[Any], Any], around: Any) -> Any:
    """The size at which a value is lowest, near some size: a grid in log N, and then finer ones where it was lowest."""
    middle, reach = np.log(np.asarray(around, dtype=float))[..., None], REACH
    for _ in range(ZOOMS):
        steps = middle + np.linspace(-reach, reach, GRID)
        values = _along(value, steps)
        middle = np.take_along_axis(steps, values.argmin(-1)[..., None], -1)
        reach *= 4 / (GRID - 1)
    return np.exp(middle[..., 0])


def _along(value: Callable[[Any], Any], steps: np.ndarray) -> np.ndarray:
    """The value at every step of the grid, whose axis is last."""
    return np.stack([value(np.exp(steps[..., at])) for at in range(steps.shape[-1])], -1)
