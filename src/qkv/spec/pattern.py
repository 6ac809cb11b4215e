"""Who may see whom, as one formula on two positions.

`allows(i, j)` works on ints, arrays and tensors alike; the mask, the picture and the test are derived from it.
True means that a query at position i may see a key at position j.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Full:
    """Every query sees every key."""

    def allows(self, i: Any, j: Any) -> Any:
        return (i == i) & (j == j)

    def spares(self, first: int, keys: int) -> bool:
        """Whether every query from position `first` on sees all keys 0 .. keys-1, so that no mask is needed."""
        return True

    def keeps(self, j: Any, now: Any) -> Any:
        """Whether a query at `now` or later may still see a key at `j`: what a cache may not forget."""
        return (j == j) & (now == now)


@dataclass(frozen=True)
class Causal:
    """A query sees the keys that do not lie after it, its own among them (Vaswani et al. 2017, section 3.2.3)."""

    def allows(self, i: Any, j: Any) -> Any:
        return j <= i

    def spares(self, first: int, keys: int) -> bool:
        """Whether every query from position `first` on sees all keys 0 .. keys-1, so that no mask is needed."""
        return first >= keys - 1

    def keeps(self, j: Any, now: Any) -> Any:
        """Whether a query at `now` or later may still see a key at `j`: what a cache may not forget."""
        return (j == j) & (now == now)


Pattern = Full | Causal
