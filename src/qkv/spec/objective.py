"""What a model is to learn from text, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from qkv.error import QkvError
from qkv.spec.pooling import MeanToken, Pooling

LONGEST_MEAN = 1e9  # no text has spans like that, and no sum of lengths overflows


@dataclass(frozen=True)
class Translate:
    """To say the target of a source.

    In training the share `slips` of the tokens that the decoder is to go on from are others of the batch, and what it is to say
    remains: one that never met a wrong token is lost after its own first (near to Bengio et al. 2015, Scheduled Sampling, without
    a model to choose them).
    """

    slips: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.slips < 1:
            raise QkvError(f"Translate.slips is a share of tokens, from 0 to below 1, not {self.slips!r}")


@dataclass(frozen=True)
class Generate:
    """To say the next token of a text."""


@dataclass(frozen=True)
class MaskedWords:
    """Some words to be restored where they stand.

    Devlin et al. 2019, BERT, section 3.1. A `share` of the tokens, at least one, is picked. Of these each becomes the mask with
    the probability `masked`, another word with the probability `random`, and otherwise stays as it is, independently of the rest.

    Differences: the share is of the tokens without the frame, which the released code counts, too; and the other word, which may
    by chance be the same one, is an ordinary entry, where the released code may draw a special symbol.
    """

    share: float = 0.15
    masked: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        _check_share(self, self.share)
        parts = (self.masked, self.random)
        if not all(_is_number(part) and part >= 0 for part in parts) or not sum(parts) <= 1:
            raise QkvError(f"MaskedWords.masked and random must be probabilities that add up to 1 or less, not {parts}")


@dataclass(frozen=True)
class Spans:
    """Spans to be restored, each behind a sentinel of its own.

    Raffel et al. 2020, T5, sections 3.1.4 and 3.3.4. A `share` of the tokens is noise, in spans of `mean` tokens on average. Gaps
    and spans take turns, a gap first, so that a span comes last; both are random partitions into that many parts, none of them
    empty, and all partitions are equally likely. In the source one sentinel stands for each span; the target is every sentinel
    with its span behind it, and then one more sentinel, that ends the last span.

    Where the paper leaves it open: there are never more spans than tokens in the gaps. A single token is left as it is, as in the
    released code: there is nothing to restore, and the target is the final sentinel alone. Difference to the released code, which
    has no final sentinel: the one in the paper's figure is here.
    """

    share: float = 0.15
    mean: float = 3.0

    def __post_init__(self) -> None:
        _check_share(self, self.share)
        _check_mean(self, self.mean)

    def counts(self, n: int) -> tuple[int, int]:
        """The number of tokens hidden in a row of n, and of the spans that they make: 0 and 0 where n is 1."""
        noise = min(max(round(n * self.share), 1), n - 1)
        return noise, min(max(round(noise / self.mean), 1), noise, n - noise)


@dataclass(frozen=True)
class Infill:
    """Spans to be restored, behind one mask each that does not say how long they are, in sentences out of order.

    Lewis et al. 2020, BART, section 2.2: text infilling, with sentence permutation where `permute` says so. The lengths of spans
    are drawn from a Poisson distribution around `mean`. A span of length 0 is a mask where nothing is missing. The target is the
    whole row as it was.

    Where the paper leaves it open: lengths are drawn until they reach round(share * n), and the last one drawn is cut, so that
    exactly so many tokens are masked; none is where that number is 0. Then the spans are shuffled, or the one that was cut would
    always be the last in the text. They do not overlap, and all orders of masks and of tokens that stay are equally likely: spans
    may touch, also across the end of a sentence, and then their masks stand side by side.
    """

    share: float = 0.3
    mean: float = 3.0
    permute: bool = True

    def __post_init__(self) -> None:
        _check_share(self, self.share)
        _check_mean(self, self.mean)


@dataclass(frozen=True)
class Delete:
    """Tokens to be restored that are gone without a trace: where they stood is to be found out, too.

    Lewis et al. 2020, BART, section 2.2: token deletion. Exactly round(share * n) tokens are taken out, but never all of them.
    """

    share: float

    def __post_init__(self) -> None:
        _check_share(self, self.share)


@dataclass(frozen=True)
class Rotate:
    """A text whose start is to be found: it begins at any of its tokens, and what stood before that comes last.

    Lewis et al. 2020, BART, section 2.2: document rotation. All tokens, the first among them, are equally likely to come first.
    """


@dataclass(frozen=True)
class Classify:
    """To tell the label of a text, from the vector that `pooling` makes of it."""

    pooling: Pooling = MeanToken()


Noise = Spans | Infill | Delete | Rotate
Objective = Translate | Generate | MaskedWords | Noise | Classify


def _check_share(owner: object, share: object) -> None:
    if not _is_number(share) or not 0 < share < 1:
        raise QkvError(f"{type(owner).__name__}.share must lie between 0 and 1, such as 0.15, not {share!r}")


def _check_mean(owner: object, mean: object) -> None:
    if not _is_number(mean) or not 1 <= mean <= LONGEST_MEAN:
        raise QkvError(f"{type(owner).__name__}.mean must be a number of tokens, at least 1, such as 3.0, not {mean!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
