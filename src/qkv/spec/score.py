"""How strongly a query matches a key, before the softmax, as frozen values.

Most of them *fold*: they are dot products of other vectors, which are made of each query and each key by itself, and so run on
any kernel. What does not fold runs on the reference alone. Queries and keys are those of a head, which a model has made by linear
maps; where a score has more to learn than these, it says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from qkv.error import QkvError


def _positive(owner: object, name: str) -> None:
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise QkvError(f"{type(owner).__name__}.{name} must be positive, not {value!r}")


@dataclass(frozen=True)
class Dot:
    """q . k (Luong et al. 2015; T5, where the initial values make up for the missing scale)."""

    def scale(self, head_width: int) -> float:
        """What the dot product is multiplied by."""
        return 1.0


@dataclass(frozen=True)
class ScaledDot:
    """q . k / sqrt(head width) (Vaswani et al. 2017, equation 1)."""

    def scale(self, head_width: int) -> float:
        """What the dot product is multiplied by."""
        return head_width**-0.5


@dataclass(frozen=True)
class General:
    """q W . k, with a matrix for each head to learn (Luong et al. 2015, section 3.1). Folds."""


@dataclass(frozen=True)
class ContentBased:
    """The cosine of the angle between q and k, times a sharpness, which a head may learn (Graves et al. 2014, equations 5 and 6:
    content-based, and its key strength). Folds."""

    sharpness: float = 1.0
    learned: bool = False

    def __post_init__(self) -> None:
        _positive(self, "sharpness")


@dataclass(frozen=True)
class Additive:
    """v . tanh(q + k), with a vector for each head to learn (Bahdanau et al. 2014, appendix A.1.2; also called concat: there the
    maps of q and k are one)."""


@dataclass(frozen=True)
class Location:
    """What the query says of each place, whatever stands there: entry j of q W, with a matrix for each head to learn, which knows
    so many places (Luong et al. 2015, equation 8)."""

    longest: int

    def __post_init__(self) -> None:
        _positive(self, "longest")


@dataclass(frozen=True)
class Gaussian:
    """-|q - k|^2 / (2 width^2): attention pooling with a Gaussian kernel, whose width a head may learn (Nadaraya 1964, Watson
    1964). Folds."""

    width: float = 1.0
    learned: bool = False

    def __post_init__(self) -> None:
        _positive(self, "width")


@dataclass(frozen=True)
class Boxcar:
    """All keys closer to the query than the width alike, and no others. Nothing is learned from it by gradients: its steps are
    flat."""

    width: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "width")


@dataclass(frozen=True)
class Triangular:
    """log(1 - |q - k| / width) for keys closer to the query than the width, and no others; a head may learn the width."""

    width: float = 1.0
    learned: bool = False

    def __post_init__(self) -> None:
        _positive(self, "width")


@dataclass(frozen=True)
class Constant:
    """All keys alike: the mean of the values. Folds."""


Score = Dot | ScaledDot | General | ContentBased | Additive | Location | Gaussian | Boxcar | Triangular | Constant
Product = Dot | ScaledDot
"""Those that are dot products as they are."""


def learns(score: Score, heads: int, width: int) -> dict[str, tuple[int, ...]]:
    """The shapes of what a score has to learn besides the maps that make queries and keys, of so many heads of some width."""
    match score:
        case General():
            return {"map": (heads, width, width)}
        case Additive():
            return {"vector": (heads, width)}
        case Location(longest=longest):
            return {"map": (heads, width, longest)}
        case ContentBased(learned=True):
            return {"log_sharpness": (heads,)}
        case Gaussian(learned=True) | Triangular(learned=True):
            return {"log_width": (heads,)}
        case _:
            return {}


def folds(score: Score) -> bool:
    """Whether it is a dot product of vectors that are made of each query and each key by itself."""
    return isinstance(score, Dot | ScaledDot | General | ContentBased | Gaussian | Constant)


def folded_width(score: Score, width: int) -> int:
    """How wide these vectors are."""
    return width + 1 if isinstance(score, Gaussian) else width
