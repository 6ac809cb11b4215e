"""A search for architectures: what it changes, how it chooses, how long children are trained, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass

from qkv.error import QkvError
from qkv.spec.run import Run


def _at_least(owner: object, name: str, least: int) -> None:
    value = getattr(owner, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise QkvError(f"{type(owner).__name__}.{name} must be a whole number of at least {least}, not {value!r}")


@dataclass(frozen=True)
class Hurdles:
    """Progressive dynamic hurdles (So et al. 2019, section 3.3): all children are trained for the first of `steps`; after every
    `children` of them a hurdle is set, the mean fitness of the members that were trained the longest, and who is above it is
    trained for the next of `steps`, too."""

    steps: tuple[int, ...] = (60, 60, 120)
    children: int = 30

    def __post_init__(self) -> None:
        _at_least(self, "children", 1)
        if not self.steps or any(not isinstance(each, int) or each < 1 for each in self.steps):
            raise QkvError(f"Hurdles.steps are numbers of steps, one for each stage, not {self.steps!r}")


@dataclass(frozen=True)
class NoHurdles:
    """Every child is trained for all steps."""

    steps: int = 240

    def __post_init__(self) -> None:
        _at_least(self, "steps", 1)


@dataclass(frozen=True)
class Tournament:
    """Of `size` members of a population the fittest is changed into a child, which takes the place of the least fit of them (So
    et al. 2019, section 3.2: without aging)."""

    population: int = 30
    size: int = 10

    def __post_init__(self) -> None:
        _at_least(self, "size", 1)
        _at_least(self, "population", self.size)


@dataclass(frozen=True)
class AtRandom:
    """Every child is drawn anew, all of its fields by chance: what a search must be better than."""


@dataclass(frozen=True)
class AnyNumber:
    """As many parameters as come."""


@dataclass(frozen=True)
class Between:
    """From `least` to `most` parameters."""

    least: int
    most: int

    def __post_init__(self) -> None:
        _at_least(self, "least", 1)
        _at_least(self, "most", self.least)


@dataclass(frozen=True)
class Search:
    """One search. It begins with the model of `run`, is trained as that is, and its fitness is that of a child on its validation
    text: the negative logarithm of the perplexity.

    It ends after `children`, or once `steps` are spent, where these are not 0. Every field of a child is drawn anew with
    probability `mutation`. A child that takes longer than `minutes` is given up; 0 is for ever.
    """

    run: Run
    training: Hurdles | NoHurdles = Hurdles()
    selection: Tournament | AtRandom = Tournament()
    mutation: float = 0.025
    parameters: Between | AnyNumber = AnyNumber()
    children: int = 150
    steps: int = 0
    minutes: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        _at_least(self, "children", 1)
        _at_least(self, "steps", 0)
        _at_least(self, "seed", 0)
        if not 0 < self.mutation <= 1:
            raise QkvError(f"Search.mutation is a probability above 0, not {self.mutation!r}")
        if not self.minutes >= 0:
            raise QkvError(f"Search.minutes is not negative: {self.minutes!r}")

    @property
    def longest(self) -> int:
        """The steps that a child is trained for at most."""
        return sum(self.training.steps) if isinstance(self.training, Hurdles) else self.training.steps
