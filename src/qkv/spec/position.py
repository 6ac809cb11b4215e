"""Where a token stands, said at the place where it acts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sinusoid:
    """Sines in the even channels and cosines in the odd ones, added to the embedding (Vaswani et al. 2017, section 3.5)."""

    base: float = 10000.0


Position = Sinusoid
