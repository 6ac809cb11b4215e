"""Where a token stands, said at the place where it acts: added to the embedding, turning queries and keys, or added to scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qkv.error import QkvError


@dataclass(frozen=True)
class Sinusoid:
    """Sines in the even channels and cosines in the odd ones, added to the embedding (Vaswani et al. 2017, section 3.5)."""

    base: float = 10000.0


@dataclass(frozen=True)
class Learned:
    """A trained vector for each of `longest` places, added to the embedding (Vaswani et al. 2017, table 3, row E; GPT, BERT)."""

    longest: int

    def __post_init__(self) -> None:
        if not isinstance(self.longest, int) or isinstance(self.longest, bool) or self.longest < 1:
            raise QkvError(f"Learned.longest must be a whole number of at least 1, not {self.longest!r}")


@dataclass(frozen=True)
class Factorised:
    """Trained vectors for each digit of a place, added up: a place is a number with as many digits as there are sizes, the last
    one counting fastest (Child et al. 2019, section 5.3).

    `Factorised((32, 32, 3))` knows row, column and channel of a picture's bytes, `Factorised((96, 128))` where a byte of a text
    stands in a table 128 wide.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = self.sizes
        if not isinstance(sizes, tuple) or not sizes or not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise QkvError(f"Factorised.sizes must be whole numbers of at least 1, such as (32, 32, 3), not {sizes!r}")

    @property
    def longest(self) -> int:
        """The number of places."""
        return math.prod(self.sizes)


@dataclass(frozen=True)
class NoPosition:
    """The embedding says nothing of where a token stands."""


Trained = Learned | Factorised
Position = Sinusoid | Trained | NoPosition


def vectors(position: Position) -> int:
    """How many trained vectors a position has."""
    match position:
        case Learned(longest=longest):
            return longest
        case Factorised(sizes=sizes):
            return sum(sizes)
        case _:
            return 0


@dataclass(frozen=True)
class Rotary:
    """Queries and keys are turned by an angle that grows with their place, so that a score depends on the distance alone (Su et
    al. 2021, RoFormer, equation 34).

    Channel c is paired with channel c + head_width/2, where the paper pairs neighbours: the same but for an order of channels.
    """

    base: float = 10000.0

    def __post_init__(self) -> None:
        if not self.base > 0:
            raise QkvError(f"Rotary.base must be more than 0, such as 10000, not {self.base!r}")


@dataclass(frozen=True)
class NoRotation:
    """Queries and keys as they are."""


Rotation = NoRotation | Rotary


@dataclass(frozen=True)
class Geometric:
    """The slopes of ALiBi as published: 2^(-8/heads) and its powers where the heads are a power of 2; else those of the next
    smaller power, followed by every other one of the next larger (Press et al. 2021, section 3)."""


@dataclass(frozen=True)
class ALiBi:
    """A score loses slope x distance, with a slope for each head (Press et al. 2021, section 3). Others than the published may be
    said, from the first head to the last: with a slope of 0 a head sees far and near alike.

    For a two-sided pattern the distance is |i - j|.
    """

    slopes: Geometric | tuple[float, ...] = Geometric()

    def __post_init__(self) -> None:
        if isinstance(self.slopes, Geometric):
            return
        if not self.slopes or not all(isinstance(each, int | float) and 0 <= each < math.inf for each in self.slopes):
            raise QkvError(f"ALiBi.slopes are numbers of at least 0, one for each head, such as (0.0, 0.5), not {self.slopes!r}")

    def of(self, heads: int) -> tuple[float, ...]:
        """The slope of each head. Raises QkvError where they are said, but not for as many."""
        if isinstance(self.slopes, Geometric):
            power = 2 ** math.floor(math.log2(heads))
            first = [2 ** (-8 * (head + 1) / power) for head in range(power)]
            return (*first, *(2 ** (-4 * (2 * head + 1) / power) for head in range(heads - power)))
        if len(self.slopes) != heads:
            raise QkvError(f"{self} has {len(self.slopes)} slopes, but there are {heads} heads: say one for each")
        return self.slopes


@dataclass(frozen=True)
class Relative:
    """A trained number for each head and each bucket of distances, shared by all blocks of a stack (Raffel et al. 2019, T5,
    section 2.1).

    Half of the buckets are single distances, the others grow in a geometric series up to `farthest`. Two-sided, half of all
    buckets are for keys that lie after the query; else such keys count as if they stood where the query does.
    """

    buckets: int = 32
    farthest: int = 128
    two_sided: bool = True

    def __post_init__(self) -> None:
        exact = self.buckets // (4 if self.two_sided else 2)
        if exact < 1 or self.farthest <= exact:
            raise QkvError(f"Relative needs some buckets and a distance beyond the {exact} exact ones: not {self}")


@dataclass(frozen=True)
class NoBias:
    """Scores as they are."""


@dataclass(frozen=True)
class LearnedStep:
    """A trained vector for each step."""


@dataclass(frozen=True)
class Coordinates:
    """What tells a recurrence where and when it is: a vector for the place of a token and one for the step, both added to the
    state at every step (Dehghani et al. 2018, section 2.1, equations 6 and 7). Places and steps are counted from 1.

    The paper's are sines and cosines of both; the released code has trained vectors for the steps.
    """

    place: Position = Sinusoid()
    step: Sinusoid | LearnedStep = Sinusoid()


@dataclass(frozen=True)
class NoSignal:
    """Nothing tells a recurrence where or when it is but its input."""


Signal = Coordinates | NoSignal
