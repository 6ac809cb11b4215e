"""The meaning of attention, which every other backend is held to.

    attended = softmax(scores + bias) v          (Vaswani et al. 2017, equation 1, where scores = q k^T / sqrt(K) and bias = 0)

in the input's precision and never below fp32.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qkv.attention.call import Call
from qkv.attention.score import numbers, scores
from qkv.spec.choice import Best, LocalPredictive, Near, Sampled, Soft, StraightThrough
from qkv.spec.pattern import PerHead
from qkv.spec.score import Boxcar, Triangular

LARGEST_SCORES = 2**31  # bytes; more than this is asked for only by name


class Reference:
    """Scores, mask, softmax and sum, each written out."""

    name, by_head, any_weights = "reference", False, True

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
    if isinstance(call.choice, Near):
        close = _away(call).abs() <= call.choice.reach
        mask = close if mask is None else mask & close
    if call.bias is not None:
        found = found + call.bias
    if isinstance(call.choice, Best):
        seen = found if mask is None else found.masked_fill(~mask, -torch.inf)
        last = seen.topk(min(call.choice.keys, seen.shape[-1]), -1).values[..., -1:]
        mask = (seen >= last) & (seen > -torch.inf)
    soft = _softmax(found, mask)
    if isinstance(call.choice, LocalPredictive):
        return soft * torch.exp(-2 * (_away(call) / call.choice.reach).square())
    if not isinstance(call.choice, StraightThrough | Sampled):
        return soft
    hard = _chosen(call, soft)
    return hard if isinstance(call.choice, Sampled) else hard + soft - soft.detach()


def log_probability(call: Call) -> Float[Tensor, "B H T"]:
    """Of the keys that were drawn; 0 for queries that may see nothing."""
    soft = weights(replace(call, choice=Soft()))
    return torch.where(_chosen(call, soft) > 0, soft, 1.0).log().sum(-1)


def _chosen(call: Call, soft: Float[Tensor, "B H T S"]) -> Float[Tensor, "B H T S"]:
    """1 for the one key that each query chooses; who may see nothing chooses nothing."""
    liked = soft.detach() if call.chance is None else soft.detach().log() + call.chance
    return torch.zeros_like(soft).scatter_(-1, liked.argmax(-1, keepdim=True), 1.0) * (soft > 0)


def _softmax(found: Float[Tensor, "B H T S"], mask: Bool[Tensor, "#B #H #T S"] | None) -> Float[Tensor, "B H T S"]:
    if mask is None:
        return found.softmax(-1)
    # a finite fill keeps the gradient of an empty row zero, where -inf would make it not a number
    filled = found.masked_fill(~mask, torch.finfo(found.dtype).min).softmax(-1)
    return filled.masked_fill(~mask, 0.0)


def _away(call: Call) -> Float[Tensor, "#B #H T S"]:
    """How many places each key is from where each query looks."""
    assert call.centre is not None, "who looks somewhere says where"
    return call.places()[:, None, None] - call.centre[..., None]


def _precision(call: Call) -> torch.dtype:
    return torch.promote_types(call.q.dtype, torch.float32)
