"""PyTorch's fused kernel: the same result without the scores ever standing in memory."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from qkv.attention.call import Call
from qkv.attention.sight import Plain
from qkv.spec.pattern import Causal, Full
from qkv.spec.score import ScaledDot

LARGEST_MASK = 2**26  # pairs of positions that a sparse pattern may be spread out to


class Fused:
    """`torch.nn.functional.scaled_dot_product_attention`."""

    name, by_head, any_weights = "fused", False, False

    def declines(self, call: Call) -> str:
        """Why the call is not for this backend, in words; empty where it runs."""
        if not (call.q.dtype == call.k.dtype == call.v.dtype):
            return f"q, k and v differ in precision: {call.q.dtype}, {call.k.dtype}, {call.v.dtype}"
        pairs = call.q.shape[2] * call.k.shape[2]
        if pairs > LARGEST_MASK and not isinstance(call.pattern, Full | Causal):
            return f"a mask of {call.q.shape[2]} x {call.k.shape[2]} would stand in memory, and all of it be computed"
        return ""

    def run(self, call: Call) -> Float[Tensor, "B H T W"]:
        q, k, v = call.q, call.per_head(call.k), call.per_head(call.v)
        scale = None if isinstance(call.score, ScaledDot) else call.scale()
        aligned = call.first == 0 and q.shape[2] == k.shape[2] and call.stands is None
        if isinstance(call.pattern, Causal) and isinstance(call.keys, Plain) and aligned and call.bias is None:
            return scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1, scale=scale)
        mask = call.mask()
        bias = None if call.bias is None else call.bias.to(q.dtype)
        if mask is None:
            return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        if not call.blank:  # every query sees a key, its own if no other
            return scaled_dot_product_attention(q, k, v, attn_mask=_joined(bias, mask), scale=scale)
        # the kernels disagree on rows that see nothing: let such a row see all, then give it nothing
        seeing = mask.any(-1, keepdim=True)
        return scaled_dot_product_attention(q, k, v, attn_mask=_joined(bias, mask | ~seeing), scale=scale) * seeing


def _joined(bias: Tensor | None, mask: Tensor) -> Tensor:
    return mask if bias is None else bias.masked_fill(~mask, -math.inf)
