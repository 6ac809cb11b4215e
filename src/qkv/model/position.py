"""Positions as tensors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from qkv.spec.position import Sinusoid


def sinusoids(spec: Sinusoid, length: int, width: int) -> Float[Tensor, "length width"]:
    """PE[pos, 2i] = sin(pos / base^(2i/width)), PE[pos, 2i+1] = cos(the same) (Vaswani et al. 2017, section 3.5), computed in
    fp64."""
    channel = torch.arange(0, width, 2, dtype=torch.float64)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * spec.base ** (-channel / width)
    table = torch.empty(length, width, dtype=torch.float64)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : width // 2]
    return table
