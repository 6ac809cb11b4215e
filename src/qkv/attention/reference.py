"""The meaning of attention, which every other backend is held to.

    attended = softmax(scores + bias) v          (Vaswani et al. 2017, equation 1, where scores = q k^T / sqrt(K) and bias = 0)

in the input's precision and never below fp32.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from qkv.attention.call import Call
from qkv.attention.score import numbers, scores
from qkv.spec.pattern import PerHead
from qkv.spec.score import Boxcar, Triangular

LARGEST_SCORES = 2**31  # bytes; more than this is asked for only by name


class Reference:
    """Scores, mask, softmax and sum, each written out."""

    name, by_head, any_score = "reference", False, True

    def declines(self, call: Call) -> str:
        """Why the call is not for this backend, in words; empty where it runs."""
        b, h, t, _ = call.q.shape
        size = numbers(call) * 4
        if size > LARGEST_SCORES:
            return f"the scores of {b} x {h} heads, {t} queries and {call.k.shape[2]} keys would take {size / 2**30:.1f} GiB"
        return ""

    def run(self, call: Call) -> Float[Tensor, "B H T W"]:
        return (weights(call) @ call.per_head(call.v).to(_precision(call))).to(call.q.dtype)


def weights(call: Call) -> Float[Tensor, "B H T S"]:
    """What the softmax gives each key, in fp32 or better; rows of zeros for queries that may see nothing."""
    if isinstance(call.pattern, PerHead):
        return torch.cat([weights(each) for each in call.by_head()], 1)
    found, mask = scores(call), call.mask()
    if isinstance(call.score, Boxcar | Triangular):
        near = found > -torch.inf
        mask = near if mask is None else mask & near
    if call.bias is not None:
        found = found + call.bias
    if mask is None:
        return found.softmax(-1)
    # a finite fill keeps the gradient of an empty row zero, where -inf would make it not a number
    filled = found.masked_fill(~mask, torch.finfo(found.dtype).min).softmax(-1)
    return filled.masked_fill(~mask, 0.0)


def _precision(call: Call) -> torch.dtype:
    return torch.promote_types(call.q.dtype, torch.float32)
