"""PyTorch's FlexAttention for sparse patterns on a GPU: blocks of the square in which the formula allows nothing are skipped.

It cannot train on a CPU; what it makes of a call there, without a kernel, is only for judging it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from qkv.attention.call import Call
from qkv.attention.sight import Late, Packed, Padded, Sight
from qkv.spec.pattern import Causal, Full, by_head

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # of row, head, query and key, as FlexAttention asks it


class Flex:
    """`torch.nn.attention.flex_attention`."""

    name, by_head = "flex", True

    def declines(self, call: Call) -> str:
        """Why the call is not for this backend, in words; empty where it runs."""
        if not call.q.is_cuda:
            return f"it cannot train on {call.q.device.type}"
        if isinstance(call.pattern, Full | Causal):
            return f"{call.pattern} has kernels of its own"
        if not (call.q.dtype == call.k.dtype == call.v.dtype):
            return f"q, k and v differ in precision: {call.q.dtype}, {call.k.dtype}, {call.v.dtype}"
        if call.bias is not None or call.stands is not None:
            return "it adds no bias to scores, and wants keys at 0 .. S-1"
        if call.q.shape[2] == 1:
            return "one query is no square"
        return ""

    def run(self, call: Call) -> Float[Tensor, "B H T W"]:
        q, k, v = call.q, call.per_head(call.k), call.per_head(call.v)
        rows = None if call.keys.visible(call.first, q.shape[2], k.shape[2]) is None else len(q)
        heads = q.shape[1] if len(by_head(call.pattern, q.shape[1])) > 1 else None
        rule = _rule(call)
        mask = create_block_mask(
            lambda row, head, query, key: rule(row, head, query, key), rows, heads, q.shape[2], k.shape[2], device=str(q.device)
        )
        attended = (_compiled() if q.is_cuda else flex_attention)(q, k, v, block_mask=mask, scale=call.scale())
        assert isinstance(attended, Tensor)
        return attended


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention)  # pyright: ignore


def _rule(call: Call) -> Rule:
    """The formula of a call at any place of the square."""
    patterns, first, there = by_head(call.pattern, call.q.shape[1]), call.first, _there(call.keys, call.first)
    places = call.keys.places(0, call.k.shape[2]) if call.pattern.anchored else None

    def rule(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        i, j = (query + first, key) if places is None else (places[row, query + first], places[row, key])
        allowed, at = torch.zeros_like(i == j), 0
        for count, pattern in patterns:
            allowed = torch.where((head >= at) & (head < at + count), pattern.allows(i, j), allowed)
            at += count
        return allowed & there(row, query, key)

    return rule


def _there(sight: Sight, first: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Whether a key is there at all, for a query of a row."""
    match sight:
        case Padded(lengths=lengths):
            return lambda row, query, key: key < lengths[row]
        case Late(starts=starts):
            return lambda row, query, key: key >= starts[row]
        case Packed(documents=documents):
            return lambda row, query, key: documents[row, query + first] == documents[row, key]
        case _:
            return lambda row, query, key: key == key
