"""One vector of many."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from qkv.attention.sight import Sight
from qkv.spec.pooling import FirstToken, LastToken, Pooling


def pooled(pooling: Pooling, hidden: Float[Tensor, "B S D"], sight: Sight) -> Float[Tensor, "B D"]:
    """One vector for each text; padding has no part in it."""
    if isinstance(pooling, FirstToken):
        return hidden[:, 0]
    there = sight.present(0, hidden.shape[1])
    if isinstance(pooling, LastToken):
        if there is None:
            return hidden[:, -1]
        last = (there * torch.arange(1, there.shape[1] + 1, device=there.device)).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    if there is None:
        return hidden.mean(1)
    present = there[:, :, None].to(hidden.dtype)
    return (hidden * present).sum(1) / present.sum(1).clamp(min=1)
