"""How far a law may be off: it is fitted again to samples of what it was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
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
    thrown away because they settle no law. Raises QkvError where hardly any sample does.

    A draw depends on the seed, its number and how many points there are alone: two ladders of the same rungs are sampled alike,
    so that what befell both at a rung counts for both.
    """
    found, samples, thrown = list[tuple[float, ...]](), 0, 0
    for number in range(how.draws):
        draw = np.random.default_rng([seed, number])
        for _ in range(TRIES):
            weights, tries = _sample(problem, how, draw)
            samples, thrown = samples + tries, thrown + tries - len(problem.groups)
            try:
                found.append(astuple(problem.found(weights, optimum)))
                break
            except QkvError:
                thrown += len(problem.groups)
        else:
            raise _too_few(problem)
    return np.array(found), thrown / samples


def _sample(problem: Problem, how: Resampling, draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """How often each point is in a sample that has enough different points of each group, and how many were
    drawn of all groups."""
    weights, tries = np.zeros(problem.size), 0
    for group in problem.groups:
        for _ in range(TRIES):
            tries += 1
            if isinstance(how, Resamples):
                chosen = draw.choice(group, len(group))
            else:
                chosen = draw.choice(group, max(1, round(how.share * len(group))), replace=False)
            if len(set(chosen.tolist())) >= problem.least:
                np.add.at(weights, chosen, 1.0)
                break
        else:
            raise _too_few(problem)
    return weights, tries


def _too_few(problem: Problem) -> QkvError:
    return QkvError(
        f"{TRIES} samples in a row of the {problem.size} points settle no law: they are too few for an interval; train more"
    )
