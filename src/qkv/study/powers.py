"""A floor and some powers, fitted to losses: log L = logsumexp(c_1 - s_1 log x_1, ..., log E), the x being parameters, tokens or
operations. With two powers it is the parametric law of Hoffmann et al. 2022, section 3.3; with one, L(N), L(D) or L(C). And the
power of two powers, log L = q logsumexp(c_1 - s log x_1, c_2 - log x_2), which is equation 1.5 of Kaplan et al. 2020.

Fitting goes on in logarithms that are centred: an intercept at x = 1, far from all data, would trade off with its exponent, and
L-BFGS would creep along the valley between them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from qkv.error import QkvError

EXPONENTS = (0.0, 3.0)  # between which an exponent is looked for
LEAST, STEEPEST = 1e-3, 10.0  # between which q and s of a coupling are
LOWEST = -9.0  # of the log of a floor, which is then none
STEEP, HIGH, INTERCEPTS = (0.0, 0.5, 1.0, 1.5, 2.0), (-1.0, -0.5, 0.0, 0.5, 1.0), (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)  # the grid
PROJECTED = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.9, 1.3)  # the grid of exponents for variable projection
COUPLED = ((0.3, 0.6, 1.0, 2.0), (0.05, 0.1, 0.2, 0.4, 0.8), (-3.0, -1.5, 0.0, 1.5, 3.0))  # its grid: s, q, and c_1 - c_2
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


@dataclass(frozen=True)
class Coupling:
    """What was found: the logarithms of the coefficients, (2), at x = 1; the exponent s of the first variable; the outer q."""

    intercepts: np.ndarray
    exponent: float
    outer: float


def optimise() -> Any:
    """scipy.optimize. Raises QkvError where there is none."""
    try:
        from scipy import optimize
    except ImportError:
        raise _lacking("SciPy") from None
    return optimize


def one_thread() -> AbstractContextManager[object]:
    """Within it, linear algebra keeps to one thread: the matrices are small, and where other work runs, too, threads wait for
    each other many times as long as they compute. Raises QkvError where it cannot be had."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise _lacking("threadpoolctl") from None
    return threadpool_limits(1, "blas")


def _lacking(library: str) -> QkvError:
    return QkvError(f"fits need {library}, which is not installed: pip install 'qkv[scale]'")


def huber(points: Points, weights: np.ndarray, delta: float, start: Powers | None) -> Powers:
    """The least sum of Huber terms, each with its weight, from a start, or from the best of the grid of starts.

    It is a sum, in units of delta, and not a mean: L-BFGS stops where the objective falls by less than a tolerance, and of a mean
    of such small terms it stops too early (what befell Hoffmann et al., by Besiroglu et al. 2024).
    """
    middle, count = points.middle, points.x.shape[1]
    centred = Points(points.x - middle, points.y)
    starts = [_packed(start, middle)] if start is not None else _grid(centred, middle, weights, delta)
    bounds = [(None, None)] * count + [EXPONENTS] * count + [(LOWEST, None)]
    return _unpacked(_descended(objective, starts, (centred, weights, delta), bounds), middle)


def coupled(points: Points, weights: np.ndarray, delta: float, start: Coupling | None) -> Coupling:
    """The same sum for the power of two powers: of two variables, from a start, or from the best of a grid of starts."""
    middle = points.middle
    centred = Points(points.x - middle, points.y)
    if start is not None:
        moved = start.intercepts - [start.exponent, 1.0] * middle
        starts = [np.array([*moved, start.exponent, start.outer])]
    else:
        level = float(weights @ points.y / weights.sum())
        every = (np.array([level / q + apart / 2, level / q - apart / 2, s, q]) for s, q, apart in product(*COUPLED))
        starts = sorted(every, key=lambda each: coupled_objective(each, centred, weights, delta)[0])[:POLISHED]
    bounds = [(None, None)] * 2 + [(LEAST, STEEPEST), (LEAST, EXPONENTS[1])]
    *intercepts, exponent, outer = _descended(coupled_objective, starts, (centred, weights, delta), bounds)
    return Coupling(intercepts + np.array([exponent, 1.0]) * middle, float(exponent), float(outer))


Objective = Callable[[np.ndarray, Points, np.ndarray, float], tuple[float, np.ndarray]]


def _descended(objective: Objective, starts: list[np.ndarray], given: tuple[Any, ...], bounds: list[Any]) -> np.ndarray:
    """The lowest point that is reached from any of the starts."""
    tight = {"ftol": 1e-15, "gtol": 1e-8, "maxiter": 500, "maxfun": 1000, "maxcor": 20}
    minimize = optimise().minimize
    found = [minimize(objective, each, given, "L-BFGS-B", jac=True, bounds=bounds, options=tight) for each in starts]
    return min(found, key=lambda each: each.fun).x


def objective(packed: np.ndarray, points: Points, weights: np.ndarray, delta: float) -> tuple[float, np.ndarray]:
    """The sum of Huber terms over delta squared, and its gradient; `packed` are the intercepts, the exponents, the log floor."""
    count = points.x.shape[1]
    terms = np.empty((len(points.y), count + 1))
    terms[:, :count] = packed[:count] - packed[count:-1] * points.x
    terms[:, count] = packed[-1]
    whole, shares = _summed(terms)
    value, slope = _huber_terms((whole - points.y) / delta, weights)
    slopes = (slope / delta)[:, None] * shares
    sums = slopes.sum(0)
    return value, np.concatenate([sums[:count], -(slopes[:, :count] * points.x).sum(0), sums[count:]])


def coupled_objective(packed: np.ndarray, points: Points, weights: np.ndarray, delta: float) -> tuple[float, np.ndarray]:
    """The same of a coupling; `packed` are its two intercepts, s and q."""
    intercepts, exponent, outer = packed[:2], packed[2], packed[3]
    whole, shares = _summed(intercepts - points.x * [exponent, 1.0])
    value, slope = _huber_terms((outer * whole - points.y) / delta, weights)
    slope /= delta
    sums = outer * slope @ shares
    return value, np.array([*sums, -outer * float(slope @ (shares[:, 0] * points.x[:, 0])), float(slope @ whole)])


def _summed(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logarithm of the sum of exponentials of terms (n, K), (n), and the share of each term in it, (n, K)."""
    most = terms.max(1, keepdims=True)
    shares = np.exp(terms - most)
    total = shares.sum(1, keepdims=True)
    return (most + np.log(total))[:, 0], shares / total


def _huber_terms(errors: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Their sum, where an error of 1 is where they become straight, and its derivative by each error."""
    size = np.abs(errors)
    return float(weights @ np.where(size <= 1, errors * errors / 2, size - 0.5)), weights * np.clip(errors, -1, 1)


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
