"""Dropout that draws from a counter: the same seed, step and path give the same mask, with no saved state.

PyTorch's own dropout on a CPU draws one random number for each element, one after the other, and costs a sixth of a training
step. Here 64 random bits from a small fast generator serve four elements.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.model.state import Path

LEVELS = 2**16


@dataclass(frozen=True)
class Noise:
    """Where the random numbers of one pass come from; a training step that adds up several passes gives each its own. Its places
    are counted from a random number on, of at most `roaming`, and where so many are `spread`, they have gaps as well."""

    seed: int
    step: int
    roaming: int = 0
    spread: int = 0

    @cached_property
    def origin(self) -> int:
        """Where the first place stands, the same on all sides of a model: from 1 to 2, from 3 to 6 or from 7 to 14 equally often.

        Texts to be read begin at 0, and it is what lies at an end of the range that is learned last. So 0 itself is drawn often,
        and a narrow range is met often enough to be learned first.
        """
        if not self.roaming:
            return 0
        return int((self.roaming + 2) ** np.random.default_rng((self.seed, self.step)).random()) - 1

    def moved(self, places: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Where those stand in this pass that are counted from 0."""
        if not self.spread:
            return places + self.origin
        return torch.from_numpy(self._standing).to(places.device)[places]

    @cached_property
    def _standing(self) -> Int[np.ndarray, " spread"]:
        """In a third of all passes side by side, else drawn from a range that is evenly often of any order of magnitude up to all
        that is left: such gaps as texts have when they are read are met most."""
        random = np.random.default_rng((self.seed, self.step, 1))
        widest = (self.spread + self.roaming - self.origin) / self.spread
        span = int(self.spread * widest ** max(0.0, 1.5 * random.random() - 0.5))
        return self.origin + np.sort(random.choice(span, self.spread, replace=False))

    def _key(self, path: Path) -> tuple[int, int, int]:
        """What the random numbers for one place in the model are a function of."""
        return self.seed, self.step, zlib.crc32("/".join(path).encode())

    def mask(self, like: Tensor, probability: float, path: Path) -> Float[Tensor, "..."]:
        """Zeros with the probability (to 1/65536), and 1/(1-probability) elsewhere, in the shape of `like`."""
        threshold = round(probability * LEVELS)
        drawn = _levels(like, self._key(path))
        kept = drawn >= threshold - LEVELS // 2
        return kept.to(like.dtype).mul_(LEVELS / (LEVELS - threshold))

    def turned(self, x: Tensor, path: Path) -> Tensor:
        """The same with what stands in it a random number of places further on, and around its end."""
        return x.roll(int(np.random.default_rng(self._key(path)).integers(1, max(2, len(x)))))

    def gumbel(self, like: Tensor, path: Path) -> Float[Tensor, "..."]:
        """Random numbers in the shape of `like`, such that the largest of logarithms of probabilities with them added is a draw
        (Gumbel 1954)."""
        high, low = _levels(like.new_empty(2, *like.shape), self._key(path)).double() + LEVELS // 2
        return -torch.log(-torch.log((high + (low + 0.5) / LEVELS) / LEVELS)).to(like.dtype)


def _levels(like: Tensor, key: tuple[int, int, int]) -> Tensor:
    """Uniform int16 in the shape of `like`, a function of the key."""
    if like.is_cuda:
        generator = torch.Generator(like.device)
        generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
        return torch.empty(like.shape, dtype=torch.int16, device=like.device).random_(
            -LEVELS // 2, LEVELS // 2, generator=generator
        )
    words = np.random.SFC64(np.random.SeedSequence(key)).random_raw(-(-like.numel() // 4))
    return torch.from_numpy(words.view(np.int16)[: like.numel()]).view(like.shape)
