"""Convolutions over the positions of a text."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qkv.model.context import Context, Step
from qkv.model.feedforward import ACTIVATIONS
from qkv.model.linear import Linear
from qkv.model.state import Path, Tail
from qkv.spec import part
from qkv.spec.pattern import Causal, Full


class Neighbourhood(nn.Module):
    """Each channel summed over the positions around it, with a weight for each distance: a depthwise convolution.

    What is not there counts as zero: padding, other documents of the row, and what lies before the text or after it. With the
    pattern `Causal()` a position sees itself and those before it; else as many on either side, and one more after it where the
    neighbourhood is even.
    """

    def __init__(self, channels: int, reach: int, pattern: Full | Causal) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(reach, channels))
        self.before = reach - 1 if isinstance(pattern, Causal) else (reach - 1) // 2
        self.after = reach - 1 - self.before

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, path: Path) -> Float[Tensor, "B T D"]:
        """`path` is where a state remembers what came before."""
        length = x.shape[1]
        present = ctx.sight.present(ctx.first, length)
        if present is not None:
            x = x * present[..., None]
        if ctx.state is None:
            padded = nn.functional.pad(x, (0, 0, self.before, self.after))
        else:
            assert not self.after, "who decodes does not see the future"
            padded = ctx.state.tail(path).append(x, self.before)
        result = torch.zeros_like(x)
        for tap, weight in enumerate(self.weight):
            near = padded[:, tap : tap + length]
            together = ctx.sight.together(ctx.first, length, tap - self.before)
            result = torch.addcmul(result, near if together is None else near * together[..., None], weight)
        return result

    def step(self, tail: Tail, x: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
        """`forward` for one more token of every row, given what came before."""
        return torch.einsum("rkd,kd->rd", tail.append(x[:, None], self.before), self.weight)


class SeparableFeedForward(nn.Module):
    """convolve(activation(convolve(x))), where each convolution sums every channel over its neighbourhood and joins the channels
    by a linear map (Dehghani et al. 2018, section 2.1)."""

    def __init__(self, spec: part.SeparableFeedForward, width: int) -> None:
        super().__init__()
        self.first = Neighbourhood(width, spec.first, spec.pattern)
        self.into = Linear(width, spec.hidden, bias=spec.offset)
        self.second = Neighbourhood(spec.hidden, spec.second, spec.pattern)
        self.out = Linear(spec.hidden, width, bias=spec.offset)
        self._activation = ACTIVATIONS[spec.activation]

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        hidden = self._activation(self.into(_convolved(self.first, x, ctx.at("first"))))
        return self.out(_convolved(self.second, hidden, ctx.at("second")))

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        first, second = _stepper(self.first, ctx.at("first")), _stepper(self.second, ctx.at("second"))
        into, out, activation = self.into.product(), self.out.product(), self._activation
        return lambda x: out(second(activation(into(first(x)))))

    def stay(self, ctx: Context) -> None:
        """A step of a recurrence at which every position has halted: it shows what it showed before."""
        assert ctx.state is not None and ctx.recurring is not None, "without a state, nobody asks"
        for near, within in ((self.first, ctx.at("first")), (self.second, ctx.at("second"))):
            shown = ctx.recurring.last(within.path)
            ctx.state.tail(within.path).append(shown.view(len(shown), -1, shown.shape[-1]), near.before)


def _convolved(near: Neighbourhood, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
    if ctx.recurring is None:
        return near(x, ctx, ctx.path)
    return ctx.recurring.own(near(ctx.recurring.shown(ctx.path, x), ctx, ctx.path))


def _stepper(near: Neighbourhood, ctx: Context) -> Step:
    assert ctx.state is not None, "a step remembers"
    tail, recurring = ctx.state.tail(ctx.path), ctx.recurring

    def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
        seen = x if recurring is None else recurring.shown(ctx.path, x)
        found = near.step(tail, seen)
        return found if recurring is None else recurring.own(found)

    return step
