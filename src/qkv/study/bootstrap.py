"""How far a law may be off: it is fitted again to samples of what it was fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Protocol

import numpy as np

from qkv.error import QkvError
from qkv.spec.law import Law, Resamples, Resampling

TRIES = 50  # samples until one is found that a law can be fitted to


class Problem(Protocol):
    """What a law is fitted to: so many points, in groups of which each is sampled by itself, with the fewest different points of
    a group that settle it."""

    @property
    def size(self) -> int: ...

    @property
    def groups(self) -> Sequence[np.ndarray]: ...

    @property
    def least(self) -> int: ...

    def found(self, weights: np.ndarray, start: Law | None) -> Law:
        """The law of points that count so often, from a start. Raises QkvError where these points have none."""
        ...


def bootstrap(problem: Problem, optimum: Law, how: Resampling, seed: int) -> tuple[np.ndarray, float]:
    """The numbers of the law in each draw, (draws, numbers), each restarted from the optimum; and the share of samples that were
    thrown away because no law could be fitted to them.

    A draw depends on the seed, its number and how many points there are alone: two ladders of the same rungs are sampled alike,
    so that what befell both at a rung counts for both.
    """
    found, thrown = list[tuple[float, ...]](), 0
    for number in range(how.draws):
        for weights in _samples(problem, how, seed, number):
            if all((weights[group] > 0).sum() >= problem.least for group in problem.groups):
                try:
                    law = problem.found(weights, optimum)
                except QkvError:
                    thrown += 1
                    continue
                found.append(astuple(law))
                break
            thrown += 1
        else:
            raise QkvError(
                f"{TRIES} samples in a row of the {problem.size} points had no law: there are too few of them for an interval"
            )
    return np.array(found), thrown / (thrown + how.draws)


def _samples(problem: Problem, how: Resampling, seed: int, number: int) -> Iterator[np.ndarray]:
    """How often each point is in the sample, as often as one is asked for."""
    draw = np.random.default_rng([seed, number])
    for _ in range(TRIES):
        weights = np.zeros(problem.size)
        for group in problem.groups:
            if isinstance(how, Resamples):
                chosen = draw.choice(group, len(group))
            else:
                chosen = draw.choice(group, max(1, round(how.share * len(group))), replace=False)
            np.add.at(weights, chosen, 1.0)
        yield weights
