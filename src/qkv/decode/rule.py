"""How hypotheses are valued, and which tokens may be chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.error import QkvError

SMALL = 2**15  # numbers, of which `topk` is as quick as anything


@dataclass(frozen=True)
class Certain:
    """A search stops when no hypothesis that goes on can come to be worth more: a log-probability only falls, and is worth most
    over the largest penalty that it can come to be divided by."""

    def longest(self, length: int, most: int) -> int:
        """The length up to which a hypothesis of some length may yet gain."""
        return most


@dataclass(frozen=True)
class Likely:
    """A search stops when no hypothesis that goes on would be worth more if it ended now at no cost.

    One that is worth less at this point hardly ever comes to win; not to wait for it saves a seventh of the work.
    """

    def longest(self, length: int, most: int) -> int:
        """The length up to which a hypothesis of some length may yet gain."""
        return length + 1


@dataclass(frozen=True)
class Beam:
    """How translations are searched for: `beam` hypotheses side by side, valued with the length penalty of GNMT.

    A hypothesis that is less probable than the best one beside it by more than `prune` nats is dropped (relative threshold
    pruning, Freitag and Al-Onaizan 2017); all are kept as it is.

    A translation has at most `source length + extra` tokens and never more than `most`, all end symbols counted; it does not
    end in the first `least` tokens.
    """

    beam: int = 4
    length_penalty: float = 0.6
    extra: int = 50
    least: int = 0
    most: int = 2**31
    stop: Certain | Likely = Likely()
    prune: float = math.inf

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise QkvError(f"a beam holds at least 1 hypothesis, not {self.beam}")
        if not self.prune > 0:
            raise QkvError(f"what is pruned is less probable by a positive number of nats, not by {self.prune}")
        if self.most < 1 or self.extra < 0:
            raise QkvError(
                f"a translation has at least its end symbol: most={self.most} must be at least 1 and extra={self.extra} at "
                f"least 0"
            )
        if self.least > self.most:
            raise QkvError(f"a translation cannot have at least {self.least} and at most {self.most} tokens")

    def at_most(self, most: int) -> Beam:
        """The same for no more than so many tokens."""
        return replace(self, most=min(self.most, most), least=min(self.least, most))

    def value(self, logarithm: float, length: int) -> float:
        """log P / ((5 + length) / 6) ** length_penalty; the length counts the end symbol (Wu et al. 2016, equation 14)."""
        return logarithm / self.penalty(length)

    def hope(self, logarithm: float, length: int, most: int) -> float:
        """The most that a hypothesis of some length is taken to come to be worth."""
        longest = self.stop.longest(length, most) if self.length_penalty > 0 else length + 1
        return self.value(logarithm, longest)

    def penalty(self, length: int) -> float:
        """What a log-probability is divided by."""
        return ((5 + length) / 6) ** self.length_penalty


def best(logits: Float[Tensor, "R V"], count: int) -> tuple[Float[Tensor, "R count"], Int[Tensor, "R count"]]:
    """The largest entries of each row, in descending order: `topk`, some times faster where a row is long.

    The row is laid out as a table; the largest `count` entries all stand in the `count` columns whose peaks are largest.
    """
    rows, entries = logits.shape
    height = 10  # a low table has many columns, a high one many entries in those that are chosen
    columns = entries // height
    if columns < 4 * count or logits.numel() < SMALL:
        return logits.topk(count, dim=1)
    body = logits[:, : height * columns].view(rows, height, columns)
    peaks = body.amax(1)
    of_columns = peaks.topk(count, dim=1, sorted=False).indices
    offsets = torch.arange(height, device=logits.device) * columns
    places = (of_columns[:, :, None] + offsets).flatten(1)
    if entries > height * columns:
        rest = torch.arange(height * columns, entries, device=logits.device).expand(rows, -1)
        places = torch.cat([places, rest], 1)
    values, found = logits.gather(1, places).topk(count, dim=1)
    return values, places.gather(1, found)
