"""What becomes of the softmax's weights before values are summed, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from qkv.error import QkvError


@dataclass(frozen=True)
class Soft:
    """They stay as they are: every key counts (Bahdanau et al. 2014; "soft" in Xu et al. 2015)."""


@dataclass(frozen=True)
class Best:
    """The keys with the largest scores alone, so many of them, share all weight; equals of the last of them count, too."""

    keys: int

    def __post_init__(self) -> None:
        if isinstance(self.keys, bool) or not isinstance(self.keys, int) or self.keys < 1:
            raise QkvError(f"Best.keys must be a whole number of at least 1, not {self.keys!r}")


@dataclass(frozen=True)
class StraightThrough:
    """The key with the largest score gets all weight, and the gradient is that of the softmax, as if it had not (hard attention
    by the estimator of Bengio et al. 2013)."""


@dataclass(frozen=True)
class Sampled:
    """In training one key gets all weight, drawn with the softmax's probabilities; these learn from how much better or worse a
    sentence then went than others (hard attention by the score function, Xu et al. 2015, section 4.1, after Williams 1992).
    Otherwise the likeliest key is taken."""


@dataclass(frozen=True)
class LocalMonotonic:
    """Query t sees the keys at most `reach` places from place t alone (Luong et al. 2015, section 3.2, local-m)."""

    reach: int = 10

    def __post_init__(self) -> None:
        _reaches(self)


@dataclass(frozen=True)
class LocalPredictive:
    """Each query says where it looks: at p = S sigmoid(v . tanh(W q)) among S keys. It sees the keys at most `reach` places from
    there, and the softmax's weights are multiplied by exp(-(s - p)^2 / (2 (reach/2)^2)) at place s, and not made to sum to 1
    again (Luong et al. 2015, section 3.2, local-p, equations 9 and 10)."""

    reach: int = 10

    def __post_init__(self) -> None:
        _reaches(self)


def _reaches(owner: LocalMonotonic | LocalPredictive) -> None:
    if isinstance(owner.reach, bool) or not isinstance(owner.reach, int) or owner.reach < 1:
        raise QkvError(f"{type(owner).__name__}.reach must be a whole number of places of at least 1, not {owner.reach!r}")


Near = LocalMonotonic | LocalPredictive
"""Those that say where to look."""
Choice = Soft | Best | StraightThrough | Sampled | Near


def predicts(choice: Choice, heads: int, width: int) -> dict[str, tuple[int, ...]]:
    """The shapes of what a choice has to learn, of so many heads of some width."""
    return {"place_map": (heads, width, width), "place_vector": (heads, width)} if isinstance(choice, LocalPredictive) else {}
