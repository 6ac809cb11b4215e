"""The correspondence of our parameters with the tensors of others: the same numbers under two names, some of them laid out in
another way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from qkv.error import QkvError


@dataclass(frozen=True)
class Same:
    """They have what we have."""

    def ours(self, tensor: Tensor) -> Tensor:
        return tensor

    def theirs(self, tensor: Tensor) -> Tensor:
        return tensor


@dataclass(frozen=True)
class Turned:
    """They keep (inputs, outputs) where we keep (outputs, inputs)."""

    def ours(self, tensor: Tensor) -> Tensor:
        return tensor.t()

    def theirs(self, tensor: Tensor) -> Tensor:
        return tensor.t()


@dataclass(frozen=True)
class Row:
    """They keep a vector as the only row of a matrix."""

    def ours(self, tensor: Tensor) -> Tensor:
        return tensor[0]

    def theirs(self, tensor: Tensor) -> Tensor:
        return tensor[None]


@dataclass(frozen=True)
class After:
    """Theirs begins with rows that nobody uses."""

    rows: int

    def ours(self, tensor: Tensor) -> Tensor:
        return tensor[self.rows :]

    def theirs(self, tensor: Tensor) -> Tensor:
        return torch.cat([tensor.new_zeros(self.rows, *tensor.shape[1:]), tensor])


@dataclass(frozen=True)
class Channels:
    """Along one dimension, that of the residual stream, they keep all channels with a sine first, then all with a cosine, where
    ours alternate."""

    dimension: int

    def ours(self, tensor: Tensor) -> Tensor:
        return tensor.index_select(self.dimension, self._order(tensor).argsort())

    def theirs(self, tensor: Tensor) -> Tensor:
        return tensor.index_select(self.dimension, self._order(tensor))

    def _order(self, tensor: Tensor) -> Tensor:
        channels = torch.arange(tensor.shape[self.dimension], device=tensor.device)
        return torch.cat([channels[0::2], channels[1::2]])


# how a tensor of theirs differs from ours, both ways
Change = Same | Turned | Row | After | Channels


@dataclass(frozen=True)
class Pair:
    """A parameter of ours, or one of its equal parts, row by row, and the tensor of theirs that holds the same numbers."""

    ours: str
    theirs: str
    change: Change = Same()
    part: int = 0
    parts: int = 1

    def place(self, parameter: Tensor) -> Tensor:
        """The part of our parameter, as a view."""
        return parameter.chunk(self.parts)[self.part] if self.parts > 1 else parameter


Table = Mapping[str, str | tuple[str, ...]]
"""Modules of ours and of theirs; where there are several of theirs, each is a part of ours, in this order."""

WEIGHT, BOTH = ("weight",), ("weight", "bias")


def paired(table: Table, ours: str, theirs: str, kinds: tuple[str, ...]) -> Iterator[Pair]:
    """The parameters of these modules, with what stands before the names of ours and of theirs."""
    for module, named in table.items():
        names = (named,) if isinstance(named, str) else named
        for part, name in enumerate(names):
            for kind in kinds:
                yield Pair(f"{ours}{module}.{kind}", f"{theirs}{name}.{kind}", part=part, parts=len(names))


def changed(pairs: Iterable[Pair], changes: Mapping[str, Change]) -> list[Pair]:
    """The pairs with the changes that go by the last two words of our name."""
    return [replace(pair, change=changes.get(".".join(pair.ours.split(".")[-2:]), pair.change)) for pair in pairs]


def brought_in(pairs: Iterable[Pair], theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Our parameters made of theirs, in fp32, in the shapes of our own.

    Raises QkvError that names the tensor which is missing, has another shape, or holds what is not a number.
    """
    pairs = list(pairs)
    lost = [pair.theirs for pair in pairs if pair.theirs not in theirs]
    if lost:
        raise QkvError(
            f"the weights in {where} lack {len(lost)} of the {len(pairs)} tensors that its config.json calls for, the first is "
            f"{lost[0]!r}: they are not whole, or of another kind of model; download the folder again"
        )
    made = {name: torch.empty_like(parameter, dtype=torch.float32) for name, parameter in own.items()}
    for pair in pairs:
        place, tensor = pair.place(made[pair.ours]), theirs[pair.theirs]
        wanted = pair.change.theirs(place).shape
        if tensor.shape != wanted:
            raise QkvError(
                f"{pair.theirs} in {where} has the shape {tuple(tensor.shape)}, and its config.json says {tuple(wanted)}: config "
                f"and weights are not of the same model; download the folder again"
            )
        if not tensor.isfinite().all():
            raise QkvError(
                f"{pair.theirs} in {where} holds what is no number (NaN or infinite): the weights are damaged; get others"
            )
        place.copy_(pair.change.ours(tensor.float()))
    assert own.keys() == {pair.ours for pair in pairs}, "a parameter of ours has no counterpart"
    return made


def sent_out(pairs: Iterable[Pair], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors made of our parameters, in fp32; every one has memory of its own."""
    ours = _with_offsets(ours)
    return {pair.theirs: pair.change.theirs(pair.place(ours[pair.ours].float())).contiguous().clone() for pair in pairs}


def _with_offsets(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters, and offsets of zero for the linear maps that have none: all of theirs have some, but for T5's."""
    zeros = {
        name.removesuffix("weight") + "bias": tensor.new_zeros(len(tensor))
        for name, tensor in ours.items()
        if name.split(".")[-2:-1] and name.split(".")[-2] in ("qkv", "q", "kv", "into", "out") and name.endswith(".weight")
    }
    return zeros | dict(ours)
