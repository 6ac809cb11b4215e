"""Laws of scale: how the loss falls with parameters, tokens and operations. What is to be fitted, how, and what was found.

The laws that were found are formulas that work on numbers and arrays alike: a law of arrays is many laws at once, such as those
of a bootstrap. Losses are in nats per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from qkv.error import QkvError


def _whole(owner: object, name: str, least: int) -> None:
    value = getattr(owner, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise QkvError(f"{type(owner).__name__}.{name} must be a whole number of at least {least}, not {value!r}")


# What a parameter is, and an operation


@dataclass(frozen=True)
class WithEmbeddings:
    """N is all trained numbers, and C all operations: embeddings, attention and logits count (Hoffmann et al. 2022, appendix
    F)."""

    column: ClassVar[str] = "parameters"
    option: ClassVar[str] = "--parameters"
    words: ClassVar[str] = "with embeddings"


@dataclass(frozen=True)
class WithoutEmbeddings:
    """N leaves out the vocabulary and the places, and C is 6ND of that N (Kaplan et al. 2020, section 2.1)."""

    column: ClassVar[str] = "parameters_without_embeddings"
    option: ClassVar[str] = "--parameters-without-embeddings"
    words: ClassVar[str] = "without embeddings"


Convention = WithEmbeddings | WithoutEmbeddings


@dataclass(frozen=True)
class SixND:
    """C = 6 N D: two operations for each parameter and token on the way there, and four on the way back."""


@dataclass(frozen=True)
class Counted:
    """C as it was counted: for models of these sizes, in rising order, so many times 6 N D. Between two sizes the ratio follows a
    straight line in log N; beyond the smallest and the largest it stays what it is there."""

    sizes: tuple[float, ...]
    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.ratios) or not self.sizes or sorted(set(self.sizes)) != list(self.sizes):
            raise QkvError(f"Counted has a ratio for each size, the sizes rising, not {self.sizes} and {self.ratios}")


Cost = SixND | Counted

# What is to be fitted, and how


@dataclass(frozen=True)
class NoFloor:
    """The loss falls to nothing in the end, as in Kaplan et al. 2020."""


@dataclass(frozen=True)
class Floor:
    """The loss falls to so many nats and no further: those that no model could know."""

    nats: float

    def __post_init__(self) -> None:
        if not self.nats > 0:
            raise QkvError(f"Floor.nats is a loss of more than 0, not {self.nats!r}; without a floor say NoFloor()")


@dataclass(frozen=True)
class FittedFloor:
    """The loss falls to a floor that is fitted with the rest."""


FloorOf = NoFloor | Floor | FittedFloor


@dataclass(frozen=True)
class Huber:
    """The sum of Huber terms on log loss, from a grid of starts (Hoffmann et al. 2022, section 3.3). Beyond `delta` an error
    counts linearly, so that small models that went wrong do not decide."""

    delta: float = 1e-3

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise QkvError(f"Huber.delta is a log loss of more than 0, not {self.delta!r}")


@dataclass(frozen=True)
class Projection:
    """Variable projection (Golub and Pereyra 1973): for given exponents the rest is linear and solved as such, so that exponents
    alone are searched for. It minimises the squares of relative errors."""


@dataclass(frozen=True)
class Parametric:
    """L(N, D) = E + A / N^alpha + B / D^beta."""

    by: Huber | Projection = Huber()


@dataclass(frozen=True)
class OfBoth:
    """L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D (Kaplan et al. 2020, equation 1.5), by Huber terms on log loss:
    a small model learns little from more tokens, and a large one little from few."""

    by: Huber = Huber()


@dataclass(frozen=True)
class OfParameters:
    """L(N) of the best member of each size."""

    floor: FloorOf = NoFloor()


@dataclass(frozen=True)
class OfTokens:
    """L(D) of the best member for each number of tokens."""

    floor: FloorOf = NoFloor()


@dataclass(frozen=True)
class OfFlops:
    """L(C) of the members to which none is superior that took no more operations."""

    floor: FloorOf = NoFloor()


@dataclass(frozen=True)
class IsoFlops:
    """For each budget a parabola of the loss in log N, and then power laws through what is lowest (Hoffmann et al. 2022, section
    3.2)."""

    floor: FloorOf = NoFloor()


Single = OfParameters | OfTokens | OfFlops
Double = Parametric | OfBoth
Form = Double | Single | IsoFlops


@dataclass(frozen=True)
class Resamples:
    """A bootstrap: as many members as there are, with replacement, so often, each time fitted anew from the optimum."""

    draws: int = 400

    def __post_init__(self) -> None:
        _whole(self, "draws", 20)


@dataclass(frozen=True)
class Subsamples:
    """A share of the members without replacement, so often, as in Hoffmann et al. 2022: narrower than what would be honest."""

    draws: int = 100
    share: float = 0.8

    def __post_init__(self) -> None:
        _whole(self, "draws", 20)
        if not 0 < self.share < 1:
            raise QkvError(f"Subsamples.share lies between 0 and 1, not {self.share!r}")


Resampling = Resamples | Subsamples

# What was found


@dataclass(frozen=True)
class Surface:
    """L(N, D) = E + A / N^alpha + B / D^beta."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: Any, tokens: Any) -> Any:
        """Of so many parameters, trained on so many tokens."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    @property
    def a(self) -> Any:
        """The best N grows as C^a."""
        return self.beta / (self.alpha + self.beta)

    @property
    def b(self) -> Any:
        """The best D grows as C^b."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def G(self) -> Any:
        """The best N is G (C/6)^a, and the best D (C/6)^b / G, where C = 6 N D."""
        return (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))

    def best(self, flops: Any) -> tuple[Any, Any]:
        """The parameters and tokens of the least loss for C = 6 N D."""
        return self.G * (flops / 6) ** self.a, (flops / 6) ** self.b / self.G

    def reaching(self, loss: Any) -> Any:
        """The C = 6 N D at which the best parameters and tokens have this loss, which lies above E."""
        excess = self.A / self.G**self.alpha + self.B * self.G**self.beta
        return 6 * (excess / (loss - self.E)) ** ((self.alpha + self.beta) / (self.alpha * self.beta))


@dataclass(frozen=True)
class Coupled:
    """L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D: a power of a surface that has no floor."""

    N_c: float
    D_c: float
    alpha_N: float
    alpha_D: float

    @property
    def E(self) -> Any:
        """Nothing: there is no floor."""
        return 0.0 * self.alpha_D

    @property
    def surface(self) -> Surface:
        """The surface whose power it is; what is lowest of one is lowest of the other."""
        alpha = self.alpha_N / self.alpha_D
        return Surface(self.E, self.N_c**alpha, self.D_c, alpha, 1.0)

    def loss(self, parameters: Any, tokens: Any) -> Any:
        """Of so many parameters, trained on so many tokens."""
        return self.surface.loss(parameters, tokens) ** self.alpha_D

    @property
    def a(self) -> Any:
        """The best N grows as C^a."""
        return self.surface.a

    @property
    def b(self) -> Any:
        """The best D grows as C^b."""
        return self.surface.b

    def best(self, flops: Any) -> tuple[Any, Any]:
        """The parameters and tokens of the least loss for C = 6 N D."""
        return self.surface.best(flops)


@dataclass(frozen=True)
class Line:
    """L(x) = E + (scale / x)^exponent: a straight line in logarithms where E is 0."""

    E: float
    scale: float
    exponent: float

    def loss(self, x: Any) -> Any:
        """Of so many parameters, tokens or operations."""
        return self.E + (self.scale / x) ** self.exponent

    def reaching(self, loss: Any) -> Any:
        """The x of this loss, which lies above E."""
        return self.scale * (loss - self.E) ** (-1 / self.exponent)


@dataclass(frozen=True)
class Valley:
    """N = n C^a and D = d C^b, where the loss of a budget C is lowest, and there it is E + (scale / C)^exponent."""

    n: float
    a: float
    d: float
    b: float
    E: float
    scale: float
    exponent: float

    def best(self, flops: Any) -> tuple[Any, Any]:
        """The parameters and tokens of the least loss."""
        return self.n * flops**self.a, self.d * flops**self.b

    @property
    def line(self) -> Line:
        """The least loss of a budget."""
        return Line(self.E, self.scale, self.exponent)


Law = Surface | Coupled | Line | Valley
