"""One call of attention: queries, keys, values, and who may see whom. It knows nothing of where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qkv.attention.sight import Plain, Sight
from qkv.spec.choice import Choice, Soft
from qkv.spec.pattern import Full, Pattern, PerHead, by_head
from qkv.spec.score import Product, ScaledDot, Score


@dataclass(frozen=True, slots=True)
class Call:
    """Queries q against keys k with values v.

    Keys stand at positions 0 .. S-1, or where `stands` says, which rises; queries at first .. first+T-1. A query that may see
    nothing receives nothing (zeros). With G heads of keys and values, fewer than H, head h asks those of number h // (H/G). The
    bias, if there is one, is added to the scores. What a score has to learn, in which each head has a part, comes along; and so
    does the centre of what a query sees, a place between those of keys, where the choice says that it does not look everywhere,
    and where keys are drawn the `chance` of each, which is added to the logarithm of its weight before the largest is taken.
    """

    q: Float[Tensor, "B H T K"]
    k: Float[Tensor, "B G S K"]
    v: Float[Tensor, "B G S W"]
    pattern: Pattern = Full()
    keys: Sight = field(default_factory=Plain)
    first: int = 0
    score: Score = ScaledDot()
    bias: Float[Tensor, "#B H T S"] | None = None
    stands: Int[Tensor, " S"] | None = None
    learned: Mapping[str, Float[Tensor, "H ..."]] = field(default_factory=dict)
    choice: Choice = Soft()
    centre: Float[Tensor, "#B #H T"] | None = None
    chance: Float[Tensor, "B H T S"] | None = None

    def mask(self) -> Bool[Tensor, "#B 1 #T S"] | None:
        """True where a query may see a key; None where all of them may see all."""
        assert not isinstance(self.pattern, PerHead), "heads of different patterns are different calls"
        queries, keys = self.q.shape[2], self.k.shape[2]
        last = self.first + queries
        visible = self.keys.visible(self.first, queries, keys if self.stands is None else last)
        if visible is not None and self.stands is not None:
            visible = visible.index_select(3, self.stands)
        if self.pattern.spares(self.first, keys if self.stands is None else last):
            return visible
        allowed = self.pattern.allows(*self._positions())[:, None]
        return allowed if visible is None else allowed & visible

    @property
    def blank(self) -> bool:
        """Whether some query may see nothing."""
        return self.keys.blank or any(each.blank for _, each in by_head(self.pattern, self.q.shape[1]))

    def _positions(self) -> tuple[Int[Tensor, "#B T 1"], Int[Tensor, "#B 1 S"]]:
        """Where queries and keys stand: in their row, or in their text where that makes a difference."""
        queries, keys = self.q.shape[2], self.k.shape[2]
        last = max(self.first + queries, keys)
        places = self.keys.places(0, last) if self.pattern.anchored else None
        if places is None:
            places = torch.arange(last, device=self.q.device)[None]
        i, j = places[:, self.first : self.first + queries], places[:, :keys]
        return i[:, :, None], (j if self.stands is None else places.index_select(1, self.stands))[:, None, :]

    def places(self) -> Int[Tensor, "#B S"]:
        """Where keys stand, each in its text."""
        last = max(self.first + self.q.shape[2], self.k.shape[2])
        found = self.keys.places(0, last)
        found = torch.arange(last, device=self.q.device)[None] if found is None else found
        return found[:, : self.k.shape[2]] if self.stands is None else found.index_select(1, self.stands)

    def by_head(self) -> list[Call]:
        """The same in several calls, if heads have different patterns: for some heads each."""
        if not isinstance(self.pattern, PerHead):
            return [self]
        found, at, share = [], 0, self.q.shape[1] // self.k.shape[1]
        for count, pattern in by_head(self.pattern, self.q.shape[1]):
            mine, theirs = slice(at, at + count), slice(at // share, (at + count) // share)
            bias = None if self.bias is None else self.bias[:, mine]
            q, k, v = self.q[:, mine], self.k[:, theirs], self.v[:, theirs]
            learned = {name: each[mine] for name, each in self.learned.items()}
            centre = self.centre if self.centre is None or self.centre.shape[1] == 1 else self.centre[:, mine]
            found.append(replace(self, q=q, k=k, v=v, pattern=pattern, bias=bias, learned=learned, centre=centre))
            at += count
        return found

    def scale(self) -> float:
        """What the dot products are multiplied by."""
        assert isinstance(self.score, Product), "other scores are folded first"
        return self.score.scale(self.q.shape[3])

    def per_head(self, x: Float[Tensor, "B G S W"]) -> Float[Tensor, "B H S W"]:
        """Keys or values, one for each head of the queries."""
        heads, groups = self.q.shape[1], x.shape[1]
        return x if heads == groups else x.repeat_interleave(heads // groups, dim=1)


@runtime_checkable
class Backend(Protocol):
    """One way to compute a call; `by_head` says whether different heads of it may have different patterns, `any_weights` whether
    its scores may be other than dot products, and its weights other than their softmax."""

    name: str
    by_head: bool
    any_weights: bool

    def declines(self, call: Call) -> str:
        """Why the call is not for this backend, in words; empty where it runs."""
        ...

    def run(self, call: Call) -> Float[Tensor, "B H T W"]:
        """What each query receives."""
        ...
