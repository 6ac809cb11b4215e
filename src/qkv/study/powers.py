"""A floor and some powers, fitted to losses: log L = logsumexp(c_1 - s_1 log x_1, ..., log E), the x being parameters, tokens or
operations. With two powers it is the parametric law of Hoffmann et al. 2022, section 3.3; with one, L(N), L(D) or L(C).

Fitting goes on in logarithms that are centred: an intercept at x = 1, far from all data, would trade off with its exponent, and
L-BFGS would creep along the valley between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from qkv.error import QkvError

EXPONENTS = (0.0, 3.0)  # between which an exponent is looked for
LOWEST = -9.0  # of the log of a floor, which is then none
STEEP, HIGH, INTERCEPTS = (0.0, 0.5, 1.0, 1.5, 2.0), (-1.0, -0.5, 0.0, 0.5, 1.0), (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)  # the grid
PROJECTED = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.9, 1.3)  # the grid of exponents for variable projection
POLISHED = 24  # starts from which the descent goes all the way: the best of the grid


@dataclass(frozen=True)
class Points:
    """What a law is fitted to: of n losses the logarithms, and of their K variables, (n, K)."""

    x: np.ndarray
    y: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """The mean of each variable, (K)."""
        return self.x.mean(0)


@dataclass(frozen=True)
class Powers:
    """What was found: the logarithms of the coefficients, (K), at x = 1; the exponents, (K); the floor."""

    intercepts: np.ndarray
    exponents: np.ndarray
    floor: float

    def log_loss(self, x: np.ndarray) -> np.ndarray:
        """Predicted, (n)."""
        powers = np.exp(self.intercepts - self.exponents * x).sum(1)
        return np.log(self.floor + powers)


def optimise() -> Any:
    """scipy.optimize. Raises QkvError where there is none."""
    try:
        from scipy import optimize
    except ImportError:
        raise QkvError("fits need SciPy, which is not installed: pip install 'qkv[scale]'") from None
    return optimize


def huber(points: Points, weights: np.ndarray, delta: float, start: Powers | None) -> Powers:
    """The least sum of Huber terms, each with its weight, from a start, or from the best of the grid of starts.

    It is a sum, in units of delta, and not a mean: L-BFGS stops where the objective falls by less than a tolerance, and of a mean
    of such small terms it stops too early (what befell Hoffmann et al., by Besiroglu et al. 2024).
    """
    minimize = optimise().minimize
    middle, count = points.middle, points.x.shape[1]
    centred = Points(points.x - middle, points.y)
    starts = [_packed(start, middle)] if start is not None else _grid(centred, middle, weights, delta)
    bounds = [(None, None)] * count + [EXPONENTS] * count + [(LOWEST, None)]
    tight = {"ftol": 1e-15, "gtol": 1e-8, "maxiter": 500, "maxfun": 1000, "maxcor": 20}
    found = [
        minimize(objective, each, (centred, weights, delta), "L-BFGS-B", jac=True, bounds=bounds, options=tight)
        for each in starts
    ]
    return _unpacked(min(found, key=lambda each: each.fun).x, middle)


def objective(packed: np.ndarray, points: Points, weights: np.ndarray, delta: float) -> tuple[float, np.ndarray]:
    """The sum of Huber terms over delta squared, and its gradient; `packed` are the intercepts, the exponents, the log floor."""
    count = points.x.shape[1]
    terms = np.empty((len(points.y), count + 1))
    terms[:, :count] = packed[:count] - packed[count:-1] * points.x
    terms[:, count] = packed[-1]
    most = terms.max(1, keepdims=True)
    shares = np.exp(terms - most)
    total = shares.sum(1, keepdims=True)
    shares /= total
    errors = ((most + np.log(total))[:, 0] - points.y) / delta
    size = np.abs(errors)
    value = weights @ np.where(size <= 1, errors * errors / 2, size - 0.5)
    slopes = (weights * np.clip(errors, -1, 1) / delta)[:, None] * shares
    sums = slopes.sum(0)
    return float(value), np.concatenate([sums[:count], -(slopes[:, :count] * points.x).sum(0), sums[count:]])


def projected(points: Points, weights: np.ndarray, start: Powers | None) -> Powers:
    """The least squares of relative errors by variable projection: exponents are searched for, from a start or the best of a
    grid, and at each the coefficients and the floor are the solution of a linear problem, none of them negative.

    Raises QkvError where some variable has no share in the loss.
    """
    library, middle, count = optimise(), points.middle, points.x.shape[1]
    roots, losses = np.sqrt(weights), np.exp(points.y)

    def solved(exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        columns = np.exp(-exponents * (points.x - middle))
        design = np.column_stack([columns, np.ones(len(losses))]) * (roots / losses)[:, None]
        linear, _ = library.nnls(design, roots)
        return linear, design @ linear - roots

    if start is not None:
        first = start.exponents
    else:
        grid = np.array(list(product(PROJECTED, repeat=count)))
        first = min(grid, key=lambda each: float((solved(each)[1] ** 2).sum()))
    tight = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
    low, high = 1e-3, EXPONENTS[1]
    first = np.clip(first, low + 1e-9, high - 1e-9)
    exponents = library.least_squares(lambda each: solved(each)[1], first, bounds=(low, high), **tight).x
    linear, _ = solved(exponents)
    if not (linear[:count] > 0).all():
        raise QkvError(
            "variable projection finds no share of some variable in the loss: it does not fall with it, or the members cannot "
            "tell parameters from tokens, since both grew together"
        )
    return Powers(np.log(linear[:count]) + exponents * middle, exponents, float(linear[count]))


def regressed(points: Points, weights: np.ndarray, floor: float) -> Powers:
    """A straight line through log(L - floor) against the log of one variable (Kaplan et al. 2020, section 3)."""
    above = np.log(np.exp(points.y) - floor)
    middle = points.middle
    slope, level = np.polyfit(points.x[:, 0] - middle[0], above, 1, w=np.sqrt(weights))
    return Powers(np.array([level - slope * middle[0]]), np.array([-slope]), floor)


def _grid(centred: Points, middle: np.ndarray, weights: np.ndarray, delta: float) -> list[np.ndarray]:
    """The best starts of the paper's grid: of two powers there are 4500."""
    count = len(middle)
    every = product(product(INTERCEPTS, repeat=count), product(STEEP, repeat=count), HIGH)
    starts = [_packed(Powers(np.array(a), np.array(s), float(np.exp(e))), middle) for a, s, e in every]
    return sorted(starts, key=lambda each: objective(each, centred, weights, delta)[0])[:POLISHED]


def _packed(powers: Powers, middle: np.ndarray) -> np.ndarray:
    """As one row of numbers, the intercepts where the variables have their middle."""
    level = max(LOWEST, float(np.log(powers.floor))) if powers.floor > 0 else LOWEST
    return np.concatenate([powers.intercepts - powers.exponents * middle, powers.exponents, [level]])


def _unpacked(packed: np.ndarray, middle: np.ndarray) -> Powers:
    count = len(middle)
    exponents = packed[count:-1]
    floor = float(np.exp(packed[-1])) if packed[-1] > LOWEST else 0.0
    return Powers(packed[:count] + exponents * middle, exponents, floor)
