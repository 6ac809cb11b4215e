"""Attention to several sets of keys, from attention to each: what queries receive in all.

Of attended a_1, a_2 and logarithms L_1, L_2 of the sums of exponentials of scores become, with L = log(e^L_1 + e^L_2),

    a = e^(L_1 - L) a_1 + e^(L_2 - L) a_2 .

That is associative, in any order, and nothing at all is its identity: so a database may come in any pieces, and a sparse pattern
may be a union of sets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Partial(NamedTuple):
    """What queries receive from some keys, and the logarithms of the sums of the exponentials of their scores."""

    attended: Float[Tensor, "*T W"]
    sums: Float[Tensor, "*T 1"]


def lowest(dtype: torch.dtype) -> float:
    """The logarithm of no sum at all: finite, so that differences are numbers."""
    return torch.finfo(dtype).min / 2


def nothing(like: Float[Tensor, "*T W"]) -> Partial:
    """What queries receive from no keys."""
    return Partial(torch.zeros_like(like), torch.full_like(like[..., :1], lowest(like.dtype)))


def join(one: Partial, other: Partial) -> Partial:
    """What queries receive from two sets of keys that have none in common."""
    found = Partial(*(each.clone() for each in one))
    join_to(found, other)
    return found


def join_to(found: Partial, other: Partial) -> None:
    """The same, in place of the first."""
    attended, before = found
    both = torch.logaddexp(before, other.sums)
    mine = other.attended.to(both.dtype)
    attended.copy_((attended * (before - both).exp_()).addcmul_(mine, (other.sums - both).exp_()))
    before.copy_(both)
