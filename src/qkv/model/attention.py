"""Attention as sublayers: of a sequence to itself, and of the decoder to the encoder's memory."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn

from qkv.attention.attend import attend
from qkv.attention.call import Call
from qkv.attention.sight import Plain
from qkv.model.context import Context, Step
from qkv.model.linear import Linear, of_few_rows
from qkv.model.state import Once
from qkv.spec import part
from qkv.spec.pattern import Full


def _heads(x: Float[Tensor, "B T D"], heads: int) -> Float[Tensor, "B H T K"]:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _joined(x: Float[Tensor, "B H T K"]) -> Float[Tensor, "B T D"]:
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself (Vaswani et al. 2017, section 3.2.2); q, k and v are one map, in that
    order."""

    def __init__(self, spec: part.Attention, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.qkv = Linear(width, 3 * width, bias=spec.offset)
        self.out = Linear(width, width, bias=spec.offset)

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        q, k, v = (_heads(part, self.spec.heads) for part in self.qkv(x).chunk(3, dim=-1))
        if ctx.state is not None:
            k, v = ctx.state.keys(ctx.path).append(k, v)
        call = Call(q, k, v, self.spec.pattern, ctx.sight, ctx.first)
        if ctx.trace is not None:
            ctx.trace.attention(ctx.path, call)
        return self.out(_joined(attend(call)))

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        assert ctx.state is not None, "a step remembers"
        qkv, out, slot = self.qkv.product(), self.out.product(), ctx.state.keys(ctx.path)
        heads, pattern, sight = self.spec.heads, self.spec.pattern, ctx.sight

        def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
            q, k, v = qkv(x).view(x.shape[0], 3, heads, 1, -1).unbind(1)
            first = slot.length
            keys, values = slot.append(k, v)
            return out(attend(Call(q, keys, values, pattern, sight, first)).reshape(x.shape))

        return step


class MemoryAttention(nn.Module):
    """Multi-head attention of the decoder to the encoder's memory (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, spec: part.MemoryAttention, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.q = Linear(width, width, bias=spec.offset)
        self.kv = Linear(width, 2 * width, bias=spec.offset)
        self.out = Linear(width, width, bias=spec.offset)

    def forward(self, x: Float[Tensor, "R T D"], ctx: Context) -> Float[Tensor, "R T D"]:
        memory = self._memory(ctx)
        rows, length, width = x.shape
        sentences = memory.k.shape[0]
        # the hypotheses of a sentence ask as if they were one longer sequence: the memory is never copied for each
        q = _heads(self.q(x).view(sentences, -1, width), self.spec.heads)
        call = Call(q, memory.k, memory.v, Full(), memory.sight)
        if ctx.trace is not None:
            ctx.trace.attention(ctx.path, call)
        return self.out(_joined(attend(call)).view(rows, length, width))

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        memory, heads = self._memory(ctx), self.spec.heads
        sentences, _, length, _ = memory.k.shape
        alone = sentences == 1 and isinstance(memory.sight, Plain)
        if self.q.packed and alone and 2 * heads * length <= self.q.in_features:
            return self._alone(memory)
        into, out = self.q.product(), self.out.product()

        def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
            q = into(x).view(memory.k.shape[0], -1, heads, memory.k.shape[3]).transpose(1, 2)
            attended = attend(Call(q, memory.k, memory.v, Full(), memory.sight))
            return out(attended.transpose(1, 2).reshape(x.shape))

        return step

    def _alone(self, memory: Once) -> Step:
        """A step for the hypotheses of one sentence alone, and a short one: then its keys and values, with the maps before and
        after folded into them, have fewer numbers than these maps.

        q k^T = x (W_q^T k)^T, and the output map of a weighted sum of values is the weighted sum of their output maps, head by
        head. What remains is two products with a row for every key of every head.
        """
        k, v, heads = memory.k[0], memory.v[0], self.spec.heads
        k = k / math.sqrt(k.shape[2])
        offset = None if self.q.bias is None else (k @ self.q.bias.view(heads, -1, 1)).flatten()
        keys = (k @ self.q.weight.unflatten(0, (heads, -1))).flatten(0, 1)
        values = (self.out.weight.unflatten(1, (heads, -1)).transpose(0, 1) @ v.transpose(1, 2)).transpose(0, 1).flatten(1)
        into, out = of_few_rows(keys, offset), of_few_rows(values, self.out.bias)

        def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
            weights = into(x).view(len(x), heads, -1).softmax(2)
            return out(weights.view(len(x), -1))

        return step

    def _memory(self, ctx: Context) -> Once:
        if ctx.state is not None and ctx.path in ctx.state.slots:
            slot = ctx.state.slots[ctx.path]
            assert isinstance(slot, Once)
            return slot
        assert ctx.memory is not None, "memory attention outside a decoder"
        k, v = (_heads(part, self.spec.heads) for part in self.kv(ctx.memory.vectors).chunk(2, dim=-1))
        once = Once(k, v, ctx.memory.sight)
        if ctx.state is not None:
            ctx.state.slots[ctx.path] = once
        return once
