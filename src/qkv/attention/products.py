"""Attention as batched matrix products, for training on a CPU.

In bf16, where products are quick, PyTorch's fused kernel takes two to four times as long; in fp32 it takes longer for long causal
texts, and it learns no bias.

The scores stand in memory a few rows of the batch at a time, the weights until they have been used to go back. Causal texts are
taken a block of queries at a time, each with the keys up to its own last: the upper half of the square is never computed.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from qkv.attention.call import Call
from qkv.attention.sight import Plain
from qkv.spec.pattern import Causal

LARGEST_WEIGHTS = 2**28  # bytes that the weights of a call may take until its gradient is known
SCORES = 2**20  # computed at once: what a processor's cache holds
QUERIES = 128  # of a block
LONG = 512  # keys from which it is worth while in fp32


class Products:
    """Two products forward, four back."""

    name, by_head, any_weights = "products", False, False

    def declines(self, call: Call) -> str:
        """Why the call is not for this backend, in words; empty where it runs."""
        q, keys = call.q, call.k.shape[2]
        if q.device.type != "cpu":
            return f"it is for CPUs, not for {q.device.type}"
        if not torch.is_grad_enabled() or not (q.requires_grad or call.k.requires_grad or call.v.requires_grad):
            return "it is for training, and no gradient is asked for"
        if not (q.dtype == call.k.dtype == call.v.dtype):
            return f"q, k and v differ in precision: {q.dtype}, {call.k.dtype}, {call.v.dtype}"
        learned = call.bias is not None and call.bias.requires_grad
        if q.dtype == torch.float32 and not learned and not (_aligned(call) and keys >= LONG):
            return "in fp32 it is worth while for long causal texts and learned biases alone"
        size = q.shape[:3].numel() * keys * q.itemsize
        if size > LARGEST_WEIGHTS:
            return f"its weights would take {size / 2**20:.0f} MiB until the gradient is known"
        return ""

    def run(self, call: Call) -> Float[Tensor, "B H T W"]:
        q, k, v = call.q, call.per_head(call.k), call.per_head(call.v)
        cut = _aligned(call)
        mask = None if cut and isinstance(call.keys, Plain) else call.mask()
        bias = None if call.bias is None else call.bias.to(q.dtype)
        return _Products.apply(q, k, v, bias, mask, call.scale(), cut, call.blank)  # pyright: ignore


def _aligned(call: Call) -> bool:
    """Whether query t sees none of the keys after key t."""
    return isinstance(call.pattern, Causal) and call.first == 0 and call.q.shape[2] == call.k.shape[2]


class _Products(torch.autograd.Function):
    """With p the weights of a row, o = p v what it receives and g the gradient of o, the gradient of its scores is
    p (g v^T - g o^T)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        scale: float,
        cut: bool,
        blank: bool,
    ) -> Tensor:
        out = _like(q, v.shape[3])
        found = []
        with torch.autocast("cpu", enabled=False):
            for rows, blocks in _plan(q, k, cut):
                queries, keys, values = (_flat(x, rows) for x in (q, k, v))
                queries = queries * scale
                for first, last, seen in blocks:
                    scores = torch.bmm(queries[:, first:last], keys[:, :seen].transpose(1, 2))
                    by_head = scores.view(-1, q.shape[1], last - first, seen)
                    if bias is not None:
                        by_head += _piece(bias, rows, first, last, seen)
                    hidden = None if mask is None else ~_piece(mask, rows, first, last, seen)
                    if hidden is not None:
                        by_head.masked_fill_(hidden, torch.finfo(q.dtype).min)
                    elif cut:
                        scores[:, :, first:] += _future(scores, last - first)
                    weights = torch.softmax(scores, -1)
                    if hidden is not None and blank:  # who may see nothing receives nothing
                        weights.view(by_head.shape).masked_fill_(hidden, 0)
                    found.append(weights)
                    out[rows, :, first:last] = torch.bmm(weights, values[:, :seen]).view(-1, q.shape[1], last - first, v.shape[3])
        ctx.save_for_backward(q, k, v, bias, out, *found)  # pyright: ignore[reportArgumentType]
        ctx.how = (scale, cut)  # pyright: ignore[reportAttributeAccessIssue]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        q, k, v, bias, out, *found = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        scale, cut = ctx.how  # pyright: ignore[reportAttributeAccessIssue]
        of_q, of_k, of_v = (_like(x, x.shape[3]) for x in (q, k, v))
        learned = ctx.needs_input_grad[3]  # pyright: ignore[reportAttributeAccessIssue]
        of_bias = None if bias is None or not learned else torch.zeros_like(bias)
        means = (gradient * out).sum(-1, keepdim=True)
        at = 0
        for rows, blocks in _plan(q, k, cut):
            queries, keys, values, upstream, mean = (_flat(x, rows) for x in (q, k, v, gradient, means))
            for_k, for_v = torch.zeros_like(keys), torch.zeros_like(values)
            for first, last, seen in blocks:
                weights, given = found[at], upstream[:, first:last]
                at += 1
                for_v[:, :seen] += torch.bmm(weights.transpose(1, 2), given)
                of_scores = torch.bmm(given, values[:, :seen].transpose(1, 2)).sub_(mean[:, first:last]).mul_(weights)
                if of_bias is not None:
                    by_head = of_scores.view(-1, q.shape[1], last - first, seen)
                    place = _piece(of_bias, rows, first, last, seen)
                    place += by_head.sum(0, keepdim=True) if len(of_bias) == 1 else by_head
                of_q[rows, :, first:last] = (
                    torch.bmm(of_scores, keys[:, :seen]).mul_(scale).view(-1, *of_q[0, :, first:last].shape)
                )
                for_k[:, :seen] += torch.bmm(of_scores.transpose(1, 2), queries[:, first:last])
            of_k[rows] = for_k.mul_(scale).view(-1, *k.shape[1:])
            of_v[rows] = for_v.view(-1, *v.shape[1:])
        return of_q, of_k, of_v, of_bias, None, None, None, None


def _plan(q: Tensor, k: Tensor, cut: bool) -> list[tuple[slice, list[tuple[int, int, int]]]]:
    """Which rows of the batch are taken at once, and for them, blocks of queries first .. last-1 with the keys 0 .. seen-1."""
    batch, heads, length, _ = q.shape
    keys = k.shape[2]
    blocks = [(first, min(first + QUERIES, length)) for first in range(0, length, QUERIES)] if cut else [(0, length)]
    together = max(1, SCORES // (heads * length * keys))
    seen = [(first, last, last if cut else keys) for first, last in blocks]
    return [(slice(row, min(row + together, batch)), seen) for row in range(0, batch, together)]


def _like(x: Tensor, width: int) -> Tensor:
    """Memory for a tensor of heads that will be joined: (B, H, T, width), laid out as (B, T, H, width)."""
    batch, heads, length, _ = x.shape
    return x.new_empty(batch, length, heads, width).transpose(1, 2)


def _flat(x: Tensor, rows: slice) -> Tensor:
    """Some rows with their heads in one dimension."""
    return x[rows].reshape(-1, *x.shape[2:])


def _piece(x: Tensor, rows: slice, first: int, last: int, seen: int) -> Tensor:
    """The part of a mask or a bias (#B, #H, #T, S) that some queries and keys of some rows have to do with."""
    x = x if x.shape[0] == 1 else x[rows]
    return (x if x.shape[2] == 1 else x[:, :, first:last])[..., :seen]


def _future(scores: Tensor, length: int) -> Tensor:
    """Added to a square of scores: what hides every key after the query."""
    return scores.new_full((length, length), torch.finfo(scores.dtype).min / 2).triu_(1)
