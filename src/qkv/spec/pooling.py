"""How many vectors become one, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FirstToken:
    """A text is the vector of its first token."""


@dataclass(frozen=True)
class MeanToken:
    """A text is the mean of the vectors of its tokens."""


@dataclass(frozen=True)
class LastToken:
    """A text is the vector of its last token, or of its last sentence: the question that a story ends with."""


Pooling = FirstToken | MeanToken | LastToken
