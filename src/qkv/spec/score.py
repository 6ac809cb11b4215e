"""How strongly a query matches a key, before the softmax, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dot:
    """q . k (Luong et al. 2015; T5, where the initial values make up for the missing scale)."""

    def scale(self, head_width: int) -> float:
        """What the dot product is multiplied by."""
        return 1.0


@dataclass(frozen=True)
class ScaledDot:
    """q . k / sqrt(head width) (Vaswani et al. 2017, equation 1)."""

    def scale(self, head_width: int) -> float:
        """What the dot product is multiplied by."""
        return head_width**-0.5


Score = Dot | ScaledDot
