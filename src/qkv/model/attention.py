"""Attention as sublayers: of a sequence to itself, and of the decoder to the encoder's memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from qkv.attention.attend import attend
from qkv.attention.call import Call
from qkv.attention.sight import Plain
from qkv.model.context import Context, Step
from qkv.model.linear import Linear, of_few_rows
from qkv.model.position import LinearBias, Turn
from qkv.model.score import Scored
from qkv.model.state import Once, State
from qkv.spec import part
from qkv.spec.choice import Sampled, Soft
from qkv.spec.pattern import Full, PerHead, by_head, forgets
from qkv.spec.position import ALiBi, Rotary
from qkv.spec.score import Product


def _heads(x: Float[Tensor, "B T D"], heads: int) -> Float[Tensor, "B H T K"]:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _joined(x: Float[Tensor, "B H T K"]) -> Float[Tensor, "B T D"]:
    return x.transpose(1, 2).flatten(2)


def received(call: Call, q: Float[Tensor, "R T E"]) -> Float[Tensor, "R T W"]:
    """What queries receive, all heads beside each other, in rows as they asked."""
    return _joined(attend(call)).view(*q.shape[:2], -1)


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself (Vaswani et al. 2017, section 3.2.2); q, k and v are one map, in that
    order. What comes in and goes out is as wide as the model, unless something else is said."""

    def __init__(self, spec: part.Attention, width: int, inputs: int | None = None, outputs: int | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.head_width, self.key_width = part.head_width(spec, width), part.key_width(spec, width)
        self.kv_heads = part.kv_heads(spec)
        self.widths = spec.heads * self.key_width, self.kv_heads * self.key_width, self.kv_heads * self.head_width
        self.qkv = Linear(inputs or width, sum(self.widths), bias=spec.offset)
        self.out = Linear(spec.heads * self.head_width, outputs or width, bias=spec.offset)
        self.score = Scored(spec.score, spec.heads, self.key_width, spec.choice)
        self._turn = Turn(spec.rotate, self.key_width) if isinstance(spec.rotate, Rotary) else None
        self._forgets = any(forgets(pattern) for _, pattern in by_head(spec.pattern, spec.heads))
        self._linear_bias = LinearBias(spec.bias, spec.heads) if isinstance(spec.bias, ALiBi) else None

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T O"]:
        qkv, recurring = self.qkv(x), ctx.recurring
        if recurring is not None:
            qkv = recurring.shown(ctx.path, qkv)
        q, k, v = self._by_head(qkv, ctx.first)
        if ctx.state is not None and self._forgets:
            attended = self._kept(q, k, v, ctx, ctx.state)
        else:
            if ctx.state is not None:
                k, v = ctx.state.keys(ctx.path).append(k, v)
            bias = self._bias(ctx, q, ctx.first, k.shape[2])
            call = Call(q, k, v, self.spec.pattern, ctx.sight, ctx.first, bias=bias, **self.score.how)
            if ctx.trace is not None:
                ctx.trace.attention(ctx.path, call)
            attended = attend(call)
        attended = _joined(attended)
        return self.out(attended if recurring is None else recurring.own(attended))

    def _kept(
        self, q: Float[Tensor, "R H T K"], k: Float[Tensor, "R G T K"], v: Float[Tensor, "R G T W"], ctx: Context, state: State
    ) -> Float[Tensor, "R H T W"]:
        """What heads attend to that remember no more than their patterns may see, those of one pattern at a time."""
        found = [attend(call) for call in self._remember(q, k, v, ctx, state)]
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def _remember(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context, state: State) -> list[Call]:
        """A call for the heads of each pattern, with what they may see, the new keys and values among it."""
        bias = self._bias(ctx, q, ctx.first, ctx.first + q.shape[2])
        call = Call(q, k, v, self.spec.pattern, ctx.sight, ctx.first, **self.score.how)
        calls, at = call.by_head(), 0
        for number, call in enumerate(calls):
            assert not isinstance(call.pattern, PerHead), "these heads have one pattern"
            keys, values, stands = state.kept((*ctx.path, str(number)), call.pattern).append(call.k, call.v, ctx.sight)
            added = None if bias is None else bias[:, at : at + call.q.shape[1]]
            if added is not None and stands is not None:
                added = added.index_select(3, stands)
            at += call.q.shape[1]
            calls[number] = replace(call, k=keys, v=values, stands=stands, bias=added)
        return calls

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        assert ctx.state is not None, "a step remembers"
        if self._forgets:
            return self._slowly(ctx)
        state, recurring = ctx.state, ctx.recurring
        qkv, out, slot = self.qkv.product(), self.out.product(), state.keys(ctx.path)
        spread, own = ctx.all_rows(shown=True)
        pattern, sight, how = self.spec.pattern, ctx.sight, self.score.how
        biased = self._linear_bias is not None or ctx.bias is not None

        def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R O"]:
            first = slot.length
            made = qkv(x)
            left = state.alive if recurring is None else None
            if left is None:
                made = spread(made)
                q, k, v = self._by_head(made[:, None], first)
                keys, values = slot.append(k, v)
            else:
                q, k, v = self._by_head(made[:, None], first)
                keys, values = slot.append_to(*left, k, v)
                q = spread(q.flatten(1)).view(-1, *q.shape[1:])
            bias = self._bias(ctx, q, first, first + 1) if biased else None
            few = None if recurring is None else recurring.few()
            if few is not None:
                q, keys, values = (each.index_select(0, few) for each in (q, keys, values))
                call = Call(q, keys, values, pattern, sight.keep(few), first, bias=bias, **how)
                return out(attend(call).reshape(len(few), -1))
            call = Call(q, keys, values, pattern, sight, first, bias=bias, **how)
            return out(own(attend(call).reshape(q.shape[0], -1)))

        return step

    def stay(self, ctx: Context) -> None:
        """A step of a recurrence at which every position has halted: it shows what it showed before."""
        assert ctx.state is not None and ctx.recurring is not None, "without a state, nobody asks"
        qkv = ctx.recurring.last(ctx.path)
        q, k, v = self._by_head(qkv.view(len(qkv), -1, qkv.shape[-1]), ctx.state.length)
        if self._forgets:
            self._remember(q, k, v, ctx, ctx.state)
        else:
            ctx.state.keys(ctx.path).append(k, v)

    def _slowly(self, ctx: Context) -> Step:
        """`forward` for one more token of every row, where heads forget."""
        assert ctx.state is not None, "a step remembers"
        qkv, out, state = self.qkv.product(), self.out.product(), ctx.state
        spread, own = ctx.all_rows(shown=True)

        def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R O"]:
            made = spread(qkv(x))
            q, k, v = self._by_head(made[:, None], state.length)
            return out(own(self._kept(q, k, v, replace(ctx, first=state.length), state).reshape(len(made), -1)))

        return step

    def _by_head(self, qkv: Float[Tensor, "B T E"], first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, the first two turned where they are to be, and folded where the score is."""
        if self.key_width == self.head_width:
            by_head = qkv.unflatten(2, (-1, self.head_width)).transpose(1, 2)
            q, k, v = by_head.split_with_sizes([self.spec.heads, self.kv_heads, self.kv_heads], 1)
        else:
            heads = (self.spec.heads, self.kv_heads, self.kv_heads)
            q, k, v = (_heads(x, count) for x, count in zip(qkv.split_with_sizes(self.widths, 2), heads, strict=True))
        if self._turn is not None:
            q, k = self._turn(q, first), self._turn(k, first)
        if self.score.plain:
            return q, k, v
        q, k = self.score.queries(q), self.score.keys(k)
        return q, k, v.to(k.dtype)

    def _bias(self, ctx: Context, q: Tensor, first: int, keys: int) -> Float[Tensor, "1 H T S"] | None:
        """What is added to the scores: this sublayer's own, and what its stack shares."""
        own = None if self._linear_bias is None else self._linear_bias(q, first, keys)
        shared = None if ctx.bias is None else ctx.bias(first, q.shape[2], keys)
        return shared if own is None else own if shared is None else own + shared


class MemoryAttention(nn.Module):
    """Multi-head attention of the decoder to the encoder's memory (Vaswani et al. 2017, section 3.2.3). What comes in and goes
    out is as wide as the memory, unless something else is said."""

    def __init__(self, spec: part.MemoryAttention, width: int, inputs: int | None = None, outputs: int | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.wide = spec.heads * part.head_width(spec, width)
        self.q, self.kv, self.out = None, None, None
        if isinstance(spec.maps, part.Projected):
            self.q = Linear(inputs or width, self.wide, bias=spec.offset)
            self.kv = Linear(width, 2 * self.wide, bias=spec.offset)
            self.out = Linear(self.wide, outputs or width, bias=spec.offset)
        self.score = Scored(spec.score, spec.heads, self.wide // spec.heads, spec.choice)

    def forward(self, x: Float[Tensor, "R T D"], ctx: Context) -> Float[Tensor, "R T O"]:
        memory, recurring = self.memory(ctx), ctx.recurring
        q = self.queries(x) if recurring is None else recurring.spread(self.queries(x))
        call = self.call(q, memory, ctx)
        if ctx.trace is not None:
            ctx.trace.attention(ctx.path, call)
            if call.chance is not None:
                ctx.trace.choice(ctx.path, call)
        attended = received(call, q)
        return self.mapped(attended if recurring is None else recurring.own(attended))

    def queries(self, x: Float[Tensor, "R T D"]) -> Float[Tensor, "R T E"]:
        """The queries of all heads beside each other."""
        return x if self.q is None else self.q(x)

    def call(self, q: Float[Tensor, "R T E"], memory: Once, ctx: Context) -> Call:
        """What queries ask, from the first of the context on. The hypotheses of a sentence ask as if they were one longer
        sequence, and so the memory is never copied for each."""
        beside = len(q) // memory.k.shape[0]
        asked = _heads(q.unflatten(0, (-1, beside)).flatten(1, 2), self.spec.heads)
        at = torch.arange(ctx.first, ctx.first + q.shape[1], device=q.device).repeat(beside) if self.score.looks else None
        call = self._call(asked, memory, at)
        if ctx.noise is None or not isinstance(self.spec.choice, Sampled):
            return call
        like = asked.new_empty(*asked.shape[:3], memory.k.shape[2], dtype=torch.promote_types(asked.dtype, torch.float32))
        return replace(call, chance=ctx.noise.gumbel(like, (*ctx.path, str(ctx.first))))

    def mapped(self, attended: Float[Tensor, "... E"]) -> Float[Tensor, "... O"]:
        """What goes out, of what the heads have received."""
        return attended if self.out is None else self.out(attended)

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time; all steps of a recurrence do the same."""
        if ctx.recurring is None:
            return self._stepper(ctx)
        known, path = ctx.recurring.steppers, ctx.recurring.lasting(ctx.path)
        if path not in known:
            known[path] = self._stepper(ctx)
        return known[path]

    def _stepper(self, ctx: Context) -> Step:
        memory, heads, state = self.memory(ctx), self.spec.heads, ctx.state
        assert state is not None, "a step remembers"
        sentences, _, length, _ = memory.k.shape
        alone = sentences == 1 and isinstance(memory.sight, Plain)
        score, soft = self.spec.score, isinstance(self.spec.choice, Soft)
        if self._packed and alone and soft and isinstance(score, Product) and 2 * heads * length <= self.wide:
            return self._alone(memory, score.scale(memory.k.shape[3]))
        into = (lambda x: x) if self.q is None else self.q.product()
        out = (lambda x: x) if self.out is None else self.out.product()
        spread, own = ctx.all_rows(shown=False)

        def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R O"]:
            q = spread(into(x))
            rows, beside = len(q), len(q) // memory.k.shape[0]
            asked = q.view(-1, beside, heads, q.shape[1] // heads).transpose(1, 2)
            at = torch.full((beside,), state.length, device=q.device) if self.score.looks else None
            return out(own(attend(self._call(asked, memory, at)).transpose(1, 2).reshape(rows, -1)))

        return step

    def _call(self, q: Float[Tensor, "B H N K"], memory: Once, at: Int[Tensor, " N"] | None) -> Call:
        """What queries ask that stand at these places, which matter only where they say where they look."""
        centre = None if at is None else self.score.centre(q, at, memory.sight, memory.k.shape[2])
        asked = self.score.queries(q)
        return Call(asked, memory.k, memory.v, Full(), memory.sight, centre=centre, **self.score.how)

    @property
    def _packed(self) -> bool:
        return self.q is not None and self.q.packed is not None

    def _alone(self, memory: Once, scale: float) -> Step:
        """A step for the hypotheses of one sentence alone, and a short one: then its keys and values, with the maps before and
        after folded into them, have fewer numbers than these maps.

        q k^T = x (W_q^T k)^T, and the output map of a weighted sum of values is the weighted sum of their output maps, head by
        head. What remains is two products with a row for every key of every head.
        """
        assert self.q is not None and self.out is not None, "what is packed has maps"
        k, v, heads, length = memory.k[0], memory.v[0], self.spec.heads, memory.k.shape[2]
        k = k * scale
        offset = None if self.q.bias is None else (k @ self.q.bias.view(heads, -1, 1)).flatten()
        keys = (k @ self.q.weight.unflatten(0, (heads, -1))).flatten(0, 1)
        values = (self.out.weight.unflatten(1, (heads, -1)).transpose(0, 1) @ v.transpose(1, 2)).transpose(0, 1).flatten(1)
        into, out = of_few_rows(keys, offset), of_few_rows(values, self.out.bias)

        def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R O"]:
            weights = into(x).view(len(x), heads, length).softmax(2)
            return out(weights.flatten(1))

        return step

    def memory(self, ctx: Context) -> Once:
        """Keys and values of the memory, made once in a decoding, and in a pass over a recurrence."""
        recurring, path = ctx.recurring, ctx.path
        if recurring is not None:
            path = recurring.lasting(path)
            if path in recurring.once:
                return recurring.once[path]
        if ctx.state is not None and path in ctx.state.slots:
            slot = ctx.state.slots[path]
            assert isinstance(slot, Once)
            return slot
        assert ctx.memory is not None, "memory attention outside a decoder"
        vectors = ctx.memory.vectors
        # copies, since sentences that leave a decoding are moved over in place
        pair = (vectors.clone(), vectors.clone()) if self.kv is None else self.kv(vectors).chunk(2, dim=-1)
        k, v = (_heads(each, self.spec.heads) for each in pair)
        k = self.score.keys(k)
        once = Once(k, v.to(k.dtype), ctx.memory.sight)
        if ctx.state is not None:
            ctx.state.slots[path] = once
        elif recurring is not None:
            recurring.once[path] = once
        return once
