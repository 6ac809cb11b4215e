"""A state that is handed from token to token: the sublayer of the models before the Transformer."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qkv.attention.call import Call
from qkv.attention.sight import Padded
from qkv.model.attention import MemoryAttention, received
from qkv.model.context import Context, Step
from qkv.model.linear import Linear
from qkv.model.pooling import pooled
from qkv.spec import part

GATES = {part.GRU: 3, part.LSTM: 4}


class Unit(nn.Module):
    """How a state changes at a token: W x + b of all gates beside each other, and U s + c (`spec.part.GRU`, `spec.part.LSTM`).

    The state of an LSTM is s, which comes out, and then c, which does not.
    """

    def __init__(self, spec: part.GRU | part.LSTM, inputs: int, hidden: int, beside: int | None) -> None:
        super().__init__()
        self.gates, self.hidden = GATES[type(spec)], hidden
        self.size = hidden * (2 if isinstance(spec, part.LSTM) else 1)
        self.into = Linear(inputs, self.gates * hidden)
        self.around = Linear(hidden, self.gates * hidden)
        self.beside = None if beside is None else Linear(beside, self.gates * hidden, bias=False)

    def forward(self, made: Float[Tensor, "R G"], state: Float[Tensor, "R E"]) -> Float[Tensor, "R E"]:
        """The state after a token of which `into` has made this, from the one before."""
        if self.gates == GATES[part.GRU]:
            of_r, of_z, of_n = made.chunk(3, 1)
            by_r, by_z, by_n = self.around(state).chunk(3, 1)
            new = torch.tanh(of_n + torch.sigmoid(of_r + by_r) * by_n)
            return new + torch.sigmoid(of_z + by_z) * (state - new)
        shown, kept = state.chunk(2, 1)
        let_in, keep, new, let_out = (made + self.around(shown)).chunk(4, 1)
        kept = torch.sigmoid(keep) * kept + torch.sigmoid(let_in) * torch.tanh(new)
        return torch.cat([torch.sigmoid(let_out) * torch.tanh(kept), kept], 1)

    def shown(self, state: Float[Tensor, "R E"]) -> Float[Tensor, "R H"]:
        """What of a state comes out."""
        return state[:, : self.hidden]


class Recurrent(nn.Module):
    """States forwards, and backwards or what was received beside them, where the spec says so."""

    def __init__(self, spec: part.Recurrent, width: int, inputs: int | None = None, outputs: int | None = None) -> None:
        super().__init__()
        self.spec = spec
        inputs, hidden = inputs or width, part.recurrent_width(spec, outputs or width, width)
        self.asks = MemoryAttention(spec.asks, width, hidden, hidden) if isinstance(spec.asks, part.MemoryAttention) else None
        self.forwards = Unit(spec.unit, inputs, hidden, None if self.asks is None else hidden)
        self.backwards = Unit(spec.unit, inputs, hidden, None) if isinstance(spec.pattern, part.Full) else None
        self.start = None if isinstance(spec.start, part.Zeros) else Linear(width, self.forwards.size)

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T O"]:
        ahead = self._ahead(x, ctx)
        if self.backwards is None:
            return ahead
        assert ctx.state is None, "who decodes does not see the future"
        return torch.cat([ahead, self._back(self.backwards, x, ctx)], 2)

    def _ahead(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T _"]:
        """The states on the way forwards, and beside them what each token received."""
        made, first = self.forwards.into(x), self._before(x, ctx)
        linked, there = ctx.sight.together(ctx.first, x.shape[1], -1), None
        if not isinstance(ctx.sight, Padded):  # its padding comes last, and changes no state that counts
            there = ctx.sight.present(ctx.first, x.shape[1])
        asking = None if self.asks is None else Asking(self.asks, ctx.at("asks"))
        state, states, found = first, [], []
        for t, token in enumerate(made.unbind(1)):
            before = _restarted(state, first, linked, t)
            if asking is not None and self.forwards.beside is not None:
                found.append(asking(self.forwards.shown(before), t))
                token = token + self.forwards.beside(found[-1])
            state = _passed(self.forwards(token, before), before, there, t)
            states.append(state)
        if ctx.state is not None:
            ctx.state.tail(ctx.path).append(torch.stack(states, 1), 0)
        if asking is not None:
            asking.trace()
        shown = torch.stack([self.forwards.shown(state) for state in states], 1)
        return torch.cat([shown, torch.stack(found, 1)], 2) if found else shown

    def _back(self, unit: Unit, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T H"]:
        """The states on the way back, which begins with zeros."""
        linked, there = ctx.sight.together(ctx.first, x.shape[1], 1), ctx.sight.present(ctx.first, x.shape[1])
        first = x.new_zeros(len(x), unit.size)
        state, states, tokens = first, [], unit.into(x).unbind(1)
        for t in reversed(range(len(tokens))):
            before = _restarted(state, first, linked, t)
            state = _passed(unit(tokens[t], before), before, there, t)
            states.append(unit.shown(state))
        return torch.stack(states[::-1], 1)

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        assert ctx.state is not None, "a step remembers"
        slot, unit, into = ctx.state.tail(ctx.path), self.forwards, self.forwards.into.product()
        spread, own = ctx.all_rows(shown=False)
        state = ctx.state
        memory = None if self.asks is None else self.asks.memory(ctx.at("asks"))

        def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R O"]:
            x = spread(x)
            token, before = into(x), self._before(x[:, None], ctx)
            out = []
            if self.asks is not None and unit.beside is not None and memory is not None:
                q = self.asks.queries(unit.shown(before)[:, None])
                out = [self.asks.mapped(received(self.asks.call(q, memory, replace(ctx, first=state.length)), q))[:, 0]]
                token = token + unit.beside(out[0])
            after = unit(token, before)
            slot.append(after[:, None], 0)
            return own(torch.cat([unit.shown(after), *out], 1))

        return step

    def _before(self, x: Float[Tensor, "R T D"], ctx: Context) -> Float[Tensor, "R E"]:
        """The state before the first of these tokens."""
        slot = None if ctx.state is None else ctx.state.tail(ctx.path)
        if slot is not None and slot.length:
            return slot.last()
        if self.start is None or isinstance(self.spec.start, part.Zeros):
            return x.new_zeros(len(x), self.forwards.size)
        assert ctx.memory is not None, "a memory outside a decoder"
        vectors = pooled(self.spec.start, ctx.memory.vectors, ctx.memory.sight)
        return torch.tanh(self.start(vectors)).to(x.dtype).repeat_interleave(len(x) // len(vectors), 0)


class Asking:
    """What states ask a memory, one token after the other."""

    def __init__(self, asks: MemoryAttention, ctx: Context) -> None:
        self._asks, self._ctx, self._memory = asks, ctx, asks.memory(ctx)
        self._calls: list[Call] = []

    def __call__(self, state: Float[Tensor, "R H"], t: int) -> Float[Tensor, "R H"]:
        q = self._asks.queries(state[:, None])
        call = self._asks.call(q, self._memory, replace(self._ctx, first=self._ctx.first + t))
        if self._ctx.trace is not None:
            self._calls.append(call)
        return self._asks.mapped(received(call, q))[:, 0]

    def trace(self) -> None:
        """Let out the weights of all of them, if anybody asks, and what was drawn."""
        if self._ctx.trace is not None:
            self._ctx.trace.attention(self._ctx.path, *self._calls)
            if self._calls[0].chance is not None:
                self._ctx.trace.choice(self._ctx.path, *self._calls)


def _restarted(
    state: Float[Tensor, "B E"], first: Float[Tensor, "B E"], linked: Bool[Tensor, "B T"] | None, t: int
) -> Float[Tensor, "B E"]:
    """The state before token t: another text of the same row begins anew."""
    return state if linked is None else torch.where(linked[:, t, None], state, first)


def _passed(
    after: Float[Tensor, "B E"], before: Float[Tensor, "B E"], there: Bool[Tensor, "B T"] | None, t: int
) -> Float[Tensor, "B E"]:
    """The state after token t: padding changes nothing."""
    return after if there is None else torch.where(there[:, t, None], after, before)
