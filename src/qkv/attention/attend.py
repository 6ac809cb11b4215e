"""The chooser: the first backend that does not decline runs; it can say who ran, and why the others did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qkv.attention.call import Backend, Call
from qkv.attention.flex import Flex
from qkv.attention.folded import Folded
from qkv.attention.fused import Fused
from qkv.attention.products import Products
from qkv.attention.reference import Reference
from qkv.attention.score import folded
from qkv.error import QkvError
from qkv.spec.choice import Soft
from qkv.spec.pattern import PerHead
from qkv.spec.score import Product, folds

BACKENDS: tuple[Backend, ...] = (Flex(Folded(), Fused()), Folded(), Products(), Fused(), Reference())


@dataclass(frozen=True)
class Chosen:
    """Who runs a call, and why those before it declined."""

    backend: Backend
    declined: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "; ".join([f"{name} declined: {why}" for name, why in self.declined] + [f"{self.backend.name} runs"])


def choose(call: Call, backends: Sequence[Backend] = BACKENDS) -> Chosen:
    """The first backend that runs a call as a whole. Raises QkvError with every reason if all decline."""
    call = _as_products(call)
    declined: list[tuple[str, str]] = []
    for backend in backends:
        why = _declines(backend, call)
        if not why:
            return Chosen(backend, tuple(declined))
        declined.append((backend.name, why))
    raise QkvError("no backend runs this attention: " + "; ".join(f"{name}: {why}" for name, why in declined))


def attend(call: Call, backends: Sequence[Backend] = BACKENDS) -> Float[Tensor, "B H T W"]:
    """What each query receives: the values, weighted by how well their keys match it."""
    if not isinstance(call.score, Product) or not isinstance(call.choice, Soft):
        return _of_any_weights(call, backends)
    for backend in backends:  # a step of a search has no time for reasons that nobody reads
        if not _declines(backend, call):
            return backend.run(call)
    if isinstance(call.pattern, PerHead):
        return torch.cat([attend(each, backends) for each in call.by_head()], 1)
    return choose(call, backends).backend.run(call)  # which says them all


def _of_any_weights(call: Call, backends: Sequence[Backend]) -> Float[Tensor, "B H T W"]:
    """What each query receives, by dot products where the score folds."""
    if folds(call.score) and isinstance(call.choice, Soft):
        return attend(folded(call), backends).to(call.q.dtype)
    if isinstance(call.pattern, PerHead):
        return torch.cat([attend(each, backends) for each in call.by_head()], 1)
    return choose(call, backends).backend.run(call)


def _as_products(call: Call) -> Call:
    return folded(call) if folds(call.score) else call


def _declines(backend: Backend, call: Call) -> str:
    if isinstance(call.pattern, PerHead) and not backend.by_head:
        return "its heads have different patterns, and are calls of their own"
    if not backend.any_weights:
        if not isinstance(call.score, Product):
            return f"{call.score} is no dot product, and does not fold into one"
        if not isinstance(call.choice, Soft):
            return f"{call.choice} makes other weights of the softmax's"
    return backend.declines(call)
