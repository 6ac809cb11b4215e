"""PyTorch's fused kernel: the same result without the scores ever standing in memory."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from qkv.attention.call import Call
from qkv.attention.sight import Plain
from qkv.spec.pattern import Causal


class Fused:
    """`torch.nn.functional.scaled_dot_product_attention`."""

    name = "fused"

    def declines(self, call: Call) -> str:
        """Why the call is not for this backend, in words; empty where it runs."""
        if not (call.q.dtype == call.k.dtype == call.v.dtype):
            return f"q, k and v differ in precision: {call.q.dtype}, {call.k.dtype}, {call.v.dtype}"
        return ""

    def run(self, call: Call) -> Float[Tensor, "B H T K"]:
        q, k, v = call.q, call.k, call.v
        if isinstance(call.pattern, Causal) and isinstance(call.keys, Plain) and call.first == 0 and q.shape[2] == k.shape[2]:
            return scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
        mask = call.mask()
        if mask is None:
            return scaled_dot_product_attention(q, k, v)
        if not call.keys.blank:  # the first key is there, and no pattern hides it
            return scaled_dot_product_attention(q, k, v, attn_mask=mask)
        # the kernels disagree on rows that see nothing: let such a row see all, then give it nothing
        seeing = mask.any(-1, keepdim=True)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask | ~seeing) * seeing
