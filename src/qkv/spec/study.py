"""Studies over many runs: what is compared, at which budget, and the ladder of sizes that a power law is fitted to."""

from __future__ import annotations

from dataclasses import dataclass

from qkv.error import QkvError
from qkv.spec.run import From, Minutes, Run, Source, Steps, above
from qkv.spec.search import AnyNumber


@dataclass(frozen=True)
class Predictions:
    """Train until so many tokens are predicted, each as often as it is met."""

    number: float

    def __post_init__(self) -> None:
        above(self, 0, "number")


@dataclass(frozen=True)
class Operations:
    """Train until so many floating operations are spent, counted in full; the way back costs twice the way there (Hoffmann et
    al. 2022, appendix F)."""

    number: float

    def __post_init__(self) -> None:
        above(self, 0, "number")


Share = Steps | Predictions | Operations | Minutes
"""What every member of a study may spend."""


@dataclass(frozen=True)
class About:
    """As near to `parameters` as a width brings a model."""

    parameters: int

    def __post_init__(self) -> None:
        above(self, 0, "parameters")


@dataclass(frozen=True)
class Unjudged:
    """The validation loss alone counts."""


@dataclass(frozen=True)
class OnValidation:
    """Scores are those of the validation text."""


@dataclass(frozen=True)
class Contender:
    """A model by a name, and how it is trained; its budget and its seed are those of the study."""

    name: str
    run: Run

    def __post_init__(self) -> None:
        if isinstance(self.run.start, From):
            raise QkvError(f"the members of a study begin with random values, and {self.name} begins with {self.run.start.run}")


@dataclass(frozen=True)
class Comparison:
    """A contest: every contender is trained once with every seed, at the same share of the budget, and judged on one text.

    The first is the one that all others are tested against.
    """

    contenders: tuple[Contender, ...]
    share: Share
    size: About | AnyNumber = AnyNumber()
    seeds: tuple[int, ...] = (1,)
    test: Source | OnValidation = OnValidation()

    def __post_init__(self) -> None:
        names = [each.name for each in self.contenders]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise QkvError(f"each contender has a name of its own, and {', '.join(twice)} stands there twice")
        if not self.contenders:
            raise QkvError("a comparison needs at least one model")
        refuse_seeds(self.seeds)


@dataclass(frozen=True)
class Counts:
    """Every size is trained on each of these numbers of tokens."""

    numbers: tuple[float, ...]

    def __post_init__(self) -> None:
        _above_nothing(self)


@dataclass(frozen=True)
class Ratios:
    """Every size is trained on each of these multiples of its parameters."""

    numbers: tuple[float, ...] = (5.0, 10.0, 20.0)

    def __post_init__(self) -> None:
        _above_nothing(self)


def _above_nothing(tokens: Counts | Ratios) -> None:
    if not tokens.numbers or not all(each > 0 for each in tokens.numbers):
        raise QkvError(f"{type(tokens).__name__}.numbers are numbers above 0, at least one, not {tokens.numbers!r}")


@dataclass(frozen=True)
class Evenly:
    """The largest size is as far from the next as all others are from theirs."""


@dataclass(frozen=True)
class Apart:
    """The largest size has `times` the parameters of the next, to be held out: a law is tested by what lies well beyond it."""

    times: float

    def __post_init__(self) -> None:
        above(self, 1, "times")


@dataclass(frozen=True)
class Ladder:
    """Models in several sizes, the largest with `span` times the parameters of the smallest, each trained on several numbers of
    tokens: all together for what the budget comes to."""

    contenders: tuple[Contender, ...]
    budget: Operations | Minutes
    sizes: int = 6
    span: float = 100.0
    tokens: Ratios | Counts = Ratios()
    seed: int = 1
    largest: Evenly | Apart = Evenly()

    def __post_init__(self) -> None:
        if not self.contenders:
            raise QkvError("a ladder needs at least one model")
        if not isinstance(self.sizes, int) or self.sizes < 2 or not self.span > 1:
            raise QkvError(f"a ladder has at least 2 sizes, and a span of more than 1: not {self.sizes!r} and {self.span!r}")
        if isinstance(self.largest, Apart) and (self.sizes < 3 or not self.largest.times < self.span):
            raise QkvError(
                f"a largest size of {self.largest.times:g} times the next needs at least 3 sizes and a larger span: not "
                f"{self.sizes} and {self.span:g}"
            )
        refuse_seeds((self.seed,))

    @property
    def heights(self) -> list[float]:
        """The parameters of every size, over those of the smallest."""
        if isinstance(self.largest, Evenly):
            return [self.span ** (number / (self.sizes - 1)) for number in range(self.sizes)]
        others = self.span / self.largest.times
        return [*(others ** (number / (self.sizes - 2)) for number in range(self.sizes - 1)), self.span]


def refuse_seeds(seeds: tuple[int, ...]) -> None:
    """Raises QkvError for what are no seeds."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise QkvError(f"seeds are whole numbers of at least 0, all different, not {', '.join(map(str, seeds)) or 'none'}")
