"""What the steps of one pass over a recurrence share, and what others see of positions that have halted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qkv.model.state import Once, Path

FEW = 3  # times fewer: what is copied is read, written, and read again


class Recurring:
    """One pass over a recurrence, as its sublayers see it.

    Where halted positions stay, what others see of one is what it showed at its last step. Such positions are left out of the
    work at inference: then a sublayer gets a row for each position that is still running, (1, A, D) in a full pass and (A, D) in
    a step, and asks here for those of all. In training all positions are computed, and the old is put in place of the new.
    """

    def __init__(self, path: Path, stays: bool = False) -> None:
        self._path, self._stays = path, stays
        self._held: dict[Path, Tensor] = {}
        self._shape: tuple[int, ...] = ()
        self._running: Bool[Tensor, "..."] | None = None
        self._numbers: Int[Tensor, " A"] | None = None
        self.once: dict[Path, Once] = {}
        self.steppers: dict[Path, Callable[[Tensor], Tensor]] = {}

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass over positions of this shape, (B, T), or (R,) where each row has one; all of them run."""
        self._shape, self._running, self._numbers = shape, None, None
        self._held.clear()

    def mask(self, running: Bool[Tensor, "..."]) -> None:
        """Only these run; all are computed."""
        self._running = running

    def leave(self, numbers: Int[Tensor, " A"]) -> None:
        """Only these run, and they alone are computed; position t of row b has the number b T + t."""
        self._numbers = numbers

    def few(self) -> Int[Tensor, " A"] | None:
        """The positions that run, where they are so few that to copy what they attend to costs less than to attend for all."""
        return self._numbers if self._numbers is not None and FEW * len(self._numbers) < self._count() else None

    def lasting(self, path: Path) -> Path:
        """A path without the step: what it leads to is the same at every step."""
        depth = len(self._path)
        return path[:depth] + path[depth + 1 :]

    def shown(self, path: Path, x: Float[Tensor, "... E"]) -> Float[Tensor, "... E"]:
        """What others see of all positions, where those that run show x."""
        if not self._stays:
            return x
        path = self.lasting(path)
        held = self._held.get(path)
        if self._numbers is not None:
            rows = x.flatten(0, -2)
            held = x.new_zeros(self._count(), x.shape[-1]) if held is None else held.flatten(0, -2)
            x = held.index_copy_(0, self._numbers, rows).view(*self._shape, -1)
        elif self._running is not None and held is not None:
            x = torch.where(self._running[..., None], x, held)
        self._held[path] = x
        return x

    def last(self, path: Path) -> Float[Tensor, "... E"]:
        """What others saw of all positions at the last step that any of them made."""
        return self._held[self.lasting(path)]

    def spread(self, x: Float[Tensor, "... E"]) -> Float[Tensor, "... E"]:
        """A row for each position; zeros for those that are left out."""
        if self._numbers is None:
            return x
        rows = x.new_zeros(self._count(), x.shape[-1])
        return rows.index_copy_(0, self._numbers, x.flatten(0, -2)).view(*self._shape, -1)

    def own(self, x: Float[Tensor, "... E"]) -> Float[Tensor, "... E"]:
        """The rows of those that are computed."""
        if self._numbers is None:
            return x
        rows = x.flatten(0, -2).index_select(0, self._numbers)
        return rows if len(self._shape) == 1 else rows[None]

    def _count(self) -> int:
        return int(torch.Size(self._shape).numel())
