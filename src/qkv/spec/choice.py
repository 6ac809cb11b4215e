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


Choice = Soft | Best | StraightThrough
