"""The chooser: the first backend that does not decline runs; it can say who ran, and why the others did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from qkv.attention.call import Call
from qkv.attention.fused import Fused
from qkv.attention.products import Products
from qkv.attention.reference import Reference
from qkv.error import QkvError


@runtime_checkable
class Backend(Protocol):
    """One way to compute a call."""

    name: str

    def declines(self, call: Call) -> str: ...

    def run(self, call: Call) -> Float[Tensor, "B H T K"]: ...


BACKENDS: tuple[Backend, ...] = (Products(), Fused(), Reference())


@dataclass(frozen=True)
class Choice:
    """Who runs a call, and why those before it declined."""

    backend: Backend
    declined: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "; ".join([f"{name} declined: {why}" for name, why in self.declined] + [f"{self.backend.name} runs"])


def choose(call: Call, backends: Sequence[Backend] = BACKENDS) -> Choice:
    """The first backend that runs the call. Raises QkvError with every reason if all decline."""
    declined: list[tuple[str, str]] = []
    for backend in backends:
        why = backend.declines(call)
        if not why:
            return Choice(backend, tuple(declined))
        declined.append((backend.name, why))
    raise QkvError("no backend runs this attention: " + "; ".join(f"{name}: {why}" for name, why in declined))


def attend(call: Call, backends: Sequence[Backend] = BACKENDS) -> Float[Tensor, "B H T K"]:
    """What each query receives: the values, weighted by how well their keys match it."""
    for backend in backends:  # a step of a search has no time for reasons that nobody reads
        if not backend.declines(call):
            return backend.run(call)
    return choose(call, backends).backend.run(call)  # which says them all
