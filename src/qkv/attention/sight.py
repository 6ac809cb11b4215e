"""Which keys are there at all, and where a token stands: a batch says by construction whether it is plain, padded, packed or
late, nobody looks into tensors to find out."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Stretch = tuple[range, int, int]
"""A text in some rows: where it starts, and where it stops."""


@dataclass(frozen=True)
class Plain:
    """Every key is a token."""

    blank = False

    def visible(self, first: int, queries: int, keys: int) -> None:
        """No mask: there is nothing to hide."""

    def places(self, first: int, length: int) -> None:
        """Token t of every row stands at first + t."""

    def present(self, first: int, length: int) -> None:
        """Every position holds a token."""

    def together(self, first: int, length: int, ahead: int) -> None:
        """All tokens of a row belong together."""

    def keep(self, sentences: Int[Tensor, " kept"]) -> Plain:
        """The same for some of the sentences."""
        return self


@dataclass(frozen=True)
class Padded:
    """Key j of sentence b is a token where j < lengths[b], and padding after; `blank` says whether a sentence may have none."""

    lengths: Int[Tensor, " B"]
    blank: bool = True
    _made: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def visible(self, first: int, queries: int, keys: int) -> Bool[Tensor, "B 1 1 S"]:
        """True where a key is a token. Made once, since all layers ask."""
        if keys not in self._made:
            self._made[keys] = (torch.arange(keys, device=self.lengths.device) < self.lengths[:, None])[:, None, None, :]
        return self._made[keys]

    def places(self, first: int, length: int) -> Int[Tensor, "B T"] | None:
        """None: token t of every row stands at first + t."""

    def present(self, first: int, length: int) -> Bool[Tensor, "B T"]:
        """True where a position holds a token."""
        return torch.arange(first, first + length, device=self.lengths.device) < self.lengths[:, None]

    def together(self, first: int, length: int, ahead: int) -> None:
        """All tokens of a row belong together."""

    def stretches(self, length: int) -> list[Stretch]:
        """The texts in rows of this length."""
        stops = self.lengths.clamp(max=length).tolist()
        return [(range(row, row + 1), 0, stop) for row, stop in enumerate(stops) if stop]

    def keep(self, sentences: Int[Tensor, " kept"]) -> Padded:
        """The same for some of the sentences."""
        return Padded(self.lengths[sentences], self.blank)


@dataclass(frozen=True)
class Placed(Padded):
    """The same, and token t of row b stands at `pos[b, t]`."""

    pos: Int[Tensor, "B T"] = field(kw_only=True)

    def places(self, first: int, length: int) -> Int[Tensor, "B T"]:
        """Where the tokens stand."""
        return self.pos[:, first : first + length]

    def keep(self, sentences: Int[Tensor, " kept"]) -> Placed:
        """The same for some of the sentences."""
        return Placed(self.lengths[sentences], self.blank, pos=self.pos[sentences])


@dataclass(frozen=True)
class Packed:
    """Several documents in each row, one after the other: token t of row b belongs to document number `documents[b, t]`, sees
    that one alone, and stands at `pos[b, t]` in it."""

    documents: Int[Tensor, "B T"]
    pos: Int[Tensor, "B T"]
    blank = False
    _made: dict[tuple[int, int, int], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def visible(self, first: int, queries: int, keys: int) -> Bool[Tensor, "B 1 T S"]:
        """True where query and key belong to the same document. Made once, since all layers ask."""
        wanted = (first, queries, keys)
        if wanted not in self._made:
            of_queries, of_keys = self.documents[:, first : first + queries], self.documents[:, :keys]
            self._made[wanted] = (of_queries[:, :, None] == of_keys[:, None, :])[:, None]
        return self._made[wanted]

    def places(self, first: int, length: int) -> Int[Tensor, "B T"]:
        """Where the tokens stand in their documents."""
        return self.pos[:, first : first + length]

    def present(self, first: int, length: int) -> None:
        """Every position holds a token."""

    def together(self, first: int, length: int, ahead: int) -> Bool[Tensor, "B T"] | None:
        """True where a token and the one so many positions further on belong to the same document; where there is none, as may
        be."""
        if not ahead:
            return None
        here = self.documents[:, first : first + length]
        return here == self.documents.roll(-ahead, 1)[:, first : first + length]

    def stretches(self, length: int) -> list[Stretch]:
        """The texts in rows of this length."""
        documents = self.documents[:, :length]
        found: list[Stretch] = []
        for row, changes in enumerate(documents[:, 1:] != documents[:, :-1]):
            bounds = [0, *(changes.nonzero().flatten() + 1).tolist(), length]
            found += [(range(row, row + 1), start, stop) for start, stop in pairwise(bounds)]
        return found

    def keep(self, sentences: Int[Tensor, " kept"]) -> Packed:
        """The same for some of the rows."""
        return Packed(self.documents[sentences], self.pos[sentences])


@dataclass(frozen=True)
class Late:
    """Row b begins with `starts[b]` positions of padding: texts of different lengths that end together, so that the next token
    of all of them stands in one column."""

    starts: Int[Tensor, " B"]
    blank = True  # to the padding itself nothing is visible

    def visible(self, first: int, queries: int, keys: int) -> Bool[Tensor, "B 1 1 S"]:
        """True where a key is a token."""
        return (torch.arange(keys, device=self.starts.device) >= self.starts[:, None])[:, None, None, :]

    def places(self, first: int, length: int) -> Int[Tensor, "B T"]:
        """Where the tokens stand in their own row; padding stands at 0."""
        return (torch.arange(first, first + length, device=self.starts.device) - self.starts[:, None]).clamp(min=0)

    def present(self, first: int, length: int) -> Bool[Tensor, "B T"]:
        """True where a position holds a token."""
        return torch.arange(first, first + length, device=self.starts.device) >= self.starts[:, None]

    def together(self, first: int, length: int, ahead: int) -> None:
        """All tokens of a row belong together."""

    def stretches(self, length: int) -> list[Stretch]:
        """The texts in rows of this length."""
        return [(range(row, row + 1), start, length) for row, start in enumerate(self.starts.tolist()) if start < length]

    def keep(self, sentences: Int[Tensor, " kept"]) -> Late:
        """The same for some of the rows."""
        return Late(self.starts[sentences])


Sight = Plain | Padded | Packed | Late
