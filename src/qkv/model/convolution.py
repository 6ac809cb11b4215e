"""Convolutions over the positions of a text."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qkv.attention.sight import Packed
from qkv.model.context import Context, Step
from qkv.model.feedforward import ACTIVATIONS
from qkv.model.linear import Linear
from qkv.model.state import Path, Tail
from qkv.spec import cell, part
from qkv.spec.pattern import Causal, Full


def depthwise(x: Float[Tensor, "B around_and_T D"], weight: Float[Tensor, "K D"]) -> Float[Tensor, "B T D"]:
    """Each channel summed over K positions, by PyTorch's kernel for pictures of one row, whose channels come last in memory.

    On a CPU that is quick in single precision alone: there a bf16 gradient of the weights takes four times as long.
    """
    kernel = weight.t()[:, None, None]
    rows = x.transpose(1, 2)[:, :, None]
    if x.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):
            found = nn.functional.conv2d(rows.float(), kernel.float(), groups=len(kernel)).to(x.dtype)
    else:
        found = nn.functional.conv2d(rows, kernel, groups=len(kernel))
    return found[:, :, 0].transpose(1, 2)


class Near(nn.Module):
    """What sees the positions around each: `reach` of them, `rate` from one to the next.

    What is not there counts as zero: padding, other documents of the row, and what lies before the text or after it. With the
    pattern `Causal()` a position sees itself and those before it; else as many on either side, and one more after it where the
    neighbourhood is even.
    """

    def __init__(self, reach: int, pattern: Full | Causal, rate: int = 1) -> None:
        super().__init__()
        self.reach, self.rate = reach, rate
        self.before = rate * (reach - 1 if isinstance(pattern, Causal) else (reach - 1) // 2)
        self.after = rate * (reach - 1) - self.before

    def surrounded(self, x: Float[Tensor, "B T D"], ctx: Context, path: Path) -> Float[Tensor, "B around_and_T D"]:
        """All positions with those before the first and after the last; `path` is where a state remembers what came before."""
        present = ctx.sight.present(ctx.first, x.shape[1])
        if present is not None:
            x = x * present[..., None]
        if ctx.state is None:
            return nn.functional.pad(x, (0, 0, self.before, self.after))
        assert not self.after, "who decodes does not see the future"
        return ctx.state.tail(path).append(x, self.before)

    def taps(self, x: Float[Tensor, "B T D"], ctx: Context, path: Path) -> Iterator[Float[Tensor, "B T D"]]:
        """What every position has at each distance, from the first."""
        length, padded = x.shape[1], self.surrounded(x, ctx, path)
        for start in range(0, self.rate * self.reach, self.rate):
            near = padded[:, start : start + length]
            together = ctx.sight.together(ctx.first, length, start - self.before)
            yield near if together is None else near * together[..., None]

    def window(self, tail: Tail, x: Float[Tensor, "R D"]) -> Float[Tensor, "R reach D"]:
        """The same for one more token of every row, given what came before."""
        return tail.append(x[:, None], self.before)[:, :: self.rate]


class Neighbourhood(Near):
    """Each channel summed over the positions around it, with a weight for each distance: a depthwise convolution."""

    def __init__(self, channels: int, reach: int, pattern: Full | Causal) -> None:
        super().__init__(reach, pattern)
        self.weight = nn.Parameter(torch.empty(reach, channels))

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, path: Path) -> Float[Tensor, "B T D"]:
        """`path` is where a state remembers what came before."""
        if not isinstance(ctx.sight, Packed) and x.dtype != torch.float64:
            return depthwise(self.surrounded(x, ctx, path), self.kernel())
        result = torch.zeros_like(x)
        for near, weight in zip(self.taps(x, ctx, path), self.kernel(), strict=True):
            result = torch.addcmul(result, near, weight)
        return result

    def step(self, tail: Tail, x: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
        """`forward` for one more token of every row, given what came before."""
        return torch.einsum("rkd,kd->rd", self.window(tail, x), self.kernel())

    def kernel(self) -> Float[Tensor, "reach D"]:
        """The weight of each distance and channel."""
        return self.weight


class Averaged(Neighbourhood):
    """A depthwise convolution whose weights are a softmax over the distances, and the same for `shared` channels beside each
    other (Wu et al. 2019, section 3)."""

    def __init__(self, spec: cell.Lightweight, channels: int) -> None:
        super().__init__(channels // spec.shared, spec.reach, spec.pattern)
        self.shared = spec.shared

    def kernel(self) -> Float[Tensor, "reach D"]:
        """The weight of each distance and channel."""
        return self.weight.softmax(0).repeat_interleave(self.shared, 1)


class Patches(Near):
    """Each channel of the result from all channels of all positions around it: a convolution as one usually means it."""

    def __init__(self, spec: cell.Convolution, inputs: int, outputs: int) -> None:
        super().__init__(spec.reach, spec.pattern, spec.rate)
        self.out = Linear(spec.reach * inputs, outputs, bias=spec.offset)

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, path: Path) -> Float[Tensor, "B T E"]:
        """`path` is where a state remembers what came before."""
        return self.out(torch.cat(list(self.taps(x, ctx, path)), -1))

    def step(self, tail: Tail, x: Float[Tensor, "R D"]) -> Float[Tensor, "R E"]:
        """`forward` for one more token of every row, given what came before."""
        return self.out.product()(self.window(tail, x).flatten(1))


class Reaching(nn.Module):
    """A convolution as a layer of its own, and the map that joins its channels if it is a separable one."""

    def __init__(self, near: Neighbourhood | Patches, out: Linear | None = None) -> None:
        super().__init__()
        self.near, self.out = near, out

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T E"]:
        x = _convolved(self.near, x, ctx)
        return x if self.out is None else self.out(x)

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        near = _stepper(self.near, ctx)
        if self.out is None:
            return near
        out = self.out.product()
        return lambda x: out(near(x))

    def stay(self, ctx: Context) -> None:
        """A step of a recurrence at which every position has halted: it shows what it showed before."""
        _stay(self.near, ctx)


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
        _stay(self.first, ctx.at("first"))
        _stay(self.second, ctx.at("second"))


def _stay(near: Near, ctx: Context) -> None:
    assert ctx.state is not None and ctx.recurring is not None, "without a state, nobody asks"
    shown = ctx.recurring.last(ctx.path)
    ctx.state.tail(ctx.path).append(shown.view(len(shown), -1, shown.shape[-1]), near.before)


def _convolved(near: Neighbourhood | Patches, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T E"]:
    if ctx.recurring is None:
        return near(x, ctx, ctx.path)
    return ctx.recurring.own(near(ctx.recurring.shown(ctx.path, x), ctx, ctx.path))


def _stepper(near: Neighbourhood | Patches, ctx: Context) -> Step:
    assert ctx.state is not None, "a step remembers"
    tail = ctx.state.tail(ctx.path)
    spread, own = ctx.all_rows(shown=True)
    return lambda x: own(near.step(tail, spread(x)))
