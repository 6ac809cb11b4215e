"""The same block again and again: depth as time (Dehghani et al. 2018), and positions that stop by themselves (Graves 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qkv.model.block import AnyNorm, closing, normaliser
from qkv.model.cell import unit
from qkv.model.context import Context, Step
from qkv.model.position import Signal
from qkv.model.recurring import Recurring
from qkv.spec import part
from qkv.spec.halt import Direction, Halt, Mean, Remainder, Stays


@dataclass(frozen=True)
class _Pass:
    """One pass over a text, or over the next token of every row."""

    signals: Callable[[int], Tensor | None]  # what is added to the positions before a step
    through: Callable[[int, Tensor], Tensor]  # what the block makes of them
    stay: Callable[[int], None]  # a step that none of them makes
    recurring: Recurring
    ctx: Context


class Recurrence(nn.Module):
    """x[t] = block(x[t-1] + signal[t]) for steps t = 1 .. N (section 2.1); where norms stand before the sublayers, one more
    closes the recurrence.

    With a rule for halting, a position is done when its halting probabilities add up to more than the threshold, and what comes
    out of it is made of its states so far (appendix C). With gradients every position is computed at every step, and what halted
    positions do is masked. Without, they are left out where nobody can see what they would do: those that stay at once, those
    that go on when all have halted, unless a state wants their later keys and values for the tokens to come.
    """

    def __init__(self, spec: part.Recurrence, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.block = unit(spec.block, width)
        self.norm = closing(spec.block.norm, width)
        self.signal = Signal(spec.signal, spec.steps, width)
        self.halting = nn.Linear(width, 1) if isinstance(spec.halt, Halt) else None

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        recurring, at = self._contexts(ctx)
        recurring.begin(tuple(x.shape[:2]))

        def through(step: int, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
            return self.block(x, at[step]) if x.dim() == 3 else self.block(x[None], at[step])[0]

        signals = self.signal(ctx.sight, ctx.first, x.shape[1], x, ctx.noise)
        made = _Pass(signals, through, lambda step: self.block.stay(at[step]), recurring, ctx)
        return self.norm(self._run(x, made, ctx.sight.present(ctx.first, x.shape[1])))

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        assert ctx.state is not None, "a step remembers"
        state = ctx.state
        recurring, at = self._contexts(ctx)
        steps = [self.block.stepper(each) for each in at]
        norm: Step = (lambda x: x) if isinstance(self.norm, nn.Identity) else normaliser(cast(AnyNorm, self.norm))

        def step(x: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
            x = state.spread(x)
            signals = self.signal(ctx.sight, state.length, 1, x)
            recurring.begin((len(x),))
            of_one = _Pass(
                lambda step: _of_one(signals(step)),
                lambda step, x: steps[step](x),
                lambda step: self.block.stay(at[step]),
                recurring,
                ctx,
            )
            return norm(state.own(self._run(x, of_one, None)))

        return step

    def _contexts(self, ctx: Context) -> tuple[Recurring, list[Context]]:
        """What the steps share, and the surroundings of each."""
        stays = isinstance(self.spec.halt, Halt) and isinstance(self.spec.halt.halted, Stays)
        recurring = Recurring(ctx.path, stays)
        within = replace(ctx, recurring=recurring)
        return recurring, [within.at(str(step)) for step in range(self.spec.steps)]

    def _run(self, x: Float[Tensor, "... D"], made: _Pass, present: Bool[Tensor, "..."] | None) -> Float[Tensor, "... D"]:
        halt = self.spec.halt
        if not isinstance(halt, Halt):
            for step in range(self.spec.steps):
                x = made.through(step, _moved(x, made.signals(step)))
            return x
        pondering = _Pondering(halt, self.spec.steps, x, present)
        if isinstance(halt.halted, Stays) and not torch.is_grad_enabled():
            self._leaving(x, made, pondering)
        else:
            self._masked(x, made, pondering)
        if made.ctx.trace is not None:
            made.ctx.trace.ponder(made.ctx.path, pondering.steps, pondering.remainder)
        return pondering.output

    def _masked(self, x: Float[Tensor, "... D"], made: _Pass, pondering: _Pondering) -> None:
        """All positions make all steps, or, where nobody can see the rest, as many as the last of them needs."""
        stays = isinstance(pondering.halt.halted, Stays)
        may_end = not stays and made.ctx.state is None and not torch.is_grad_enabled()
        for step in range(self.spec.steps):
            moved = _moved(x, made.signals(step))
            running = pondering.running
            if stays:
                made.recurring.mask(running)
            weight = pondering.weigh(step, self._probability(moved))
            new = made.through(step, moved)
            x = torch.where(running[..., None], new, x) if stays else new
            pondering.add(x, weight)
            if may_end and not pondering.running.any():
                return

    def _leaving(self, x: Float[Tensor, "... D"], made: _Pass, pondering: _Pondering) -> None:
        """Positions that have halted leave the work; with a state, what they show goes into the slots of all later steps."""
        whole = x.shape
        numbers = None if pondering.running.all() else pondering.numbers()
        if numbers is not None:
            made.recurring.leave(numbers)
            x = x.flatten(0, -2)[numbers]
        for step in range(self.spec.steps):
            if numbers is not None and not len(numbers):
                if made.ctx.state is None:
                    return
                made.stay(step)
                continue
            signal = made.signals(step)
            if numbers is not None and signal is not None:
                signal = signal.expand(whole).flatten(0, -2)[numbers]
            moved = _moved(x, signal)
            weight = pondering.weigh(step, self._probability(moved), numbers)
            x = made.through(step, moved)
            pondering.add(x, weight, numbers)
            left = pondering.numbers()
            if len(left) < (pondering.running.numel() if numbers is None else len(numbers)):
                still = pondering.running.flatten() if numbers is None else pondering.running.flatten()[numbers]
                x, numbers = x.flatten(0, -2)[still], left
                made.recurring.leave(left)

    def _probability(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """How probable it is that a position halts."""
        halting = cast(nn.Linear, self.halting)
        if isinstance(cast(Halt, self.spec.halt).reads, Direction):
            x = nn.functional.normalize(x, dim=-1)
        return halting(x).to(torch.promote_types(x.dtype, torch.float32)).sigmoid()[..., 0]


class _Pondering:
    """Of every position: whether it runs, the sum of its probabilities, its steps, its remainder, and what comes out of it
    (Dehghani et al. 2018, appendix C). Positions that are padding never run."""

    def __init__(self, halt: Halt, steps: int, x: Float[Tensor, "... D"], present: Bool[Tensor, "..."] | None) -> None:
        self.halt = halt
        self._end = steps - 1 if isinstance(halt.last, Remainder) else None  # the step at which whoever still runs halts
        shape, precise = x.shape[:-1], torch.promote_types(x.dtype, torch.float32)
        self.running = torch.ones(shape, dtype=torch.bool, device=x.device) if present is None else present.expand(shape)
        self._sum = torch.zeros(shape, dtype=precise, device=x.device)
        self.steps = torch.zeros_like(self._sum)
        self.remainder = torch.zeros_like(self._sum)
        self.output = torch.zeros_like(x)

    def numbers(self) -> Tensor:
        """The numbers of the positions that run, counted through."""
        return self.running.flatten().nonzero().flatten()

    def weigh(self, step: int, p: Float[Tensor, "..."], numbers: Tensor | None = None) -> Float[Tensor, "..."]:
        """How much the coming step of each position counts; `numbers` are those that p is of, where it is not of all."""
        threshold = -math.inf if step == self._end else self.halt.threshold
        if numbers is not None:
            total = self._sum.flatten()[numbers]
            halts = total + p > threshold
            weight = torch.where(halts, 1 - total, p)
            self._sum.view(-1)[numbers] = total + weight
            self.steps.view(-1)[numbers] += 1
            self.remainder.view(-1)[numbers] = torch.where(halts, weight, 0.0)
            running = self.running.flatten().clone()
            running[numbers] = ~halts
            self.running = running.view(self.running.shape)
            return weight
        halts = self.running & (self._sum + p > threshold)
        weight = torch.where(halts, 1 - self._sum, p) * self.running
        self.remainder = self.remainder + halts * (1 - self._sum)
        self._sum = self._sum + weight
        self.steps = self.steps + self.running
        self.running = self.running & ~halts
        return weight

    def add(self, x: Float[Tensor, "... D"], weight: Float[Tensor, "..."], numbers: Tensor | None = None) -> None:
        """What comes out, after a step that gave x."""
        weight = weight[..., None].to(x.dtype)
        before = self.output if numbers is None else self.output.flatten(0, -2)[numbers]
        new = before + weight * x if isinstance(self.halt.output, Mean) else torch.lerp(before, x, weight)
        if numbers is None:
            self.output = new
        else:
            self.output.view(-1, x.shape[-1])[numbers] = new


def _moved(x: Tensor, signal: Tensor | None) -> Tensor:
    return x if signal is None else x + signal


def _of_one(signal: Float[Tensor, "... 1 D"] | None) -> Float[Tensor, "... D"] | None:
    """The signal of a single token in every row: (1, D) stays, (R, 1, D) becomes (R, D)."""
    return signal if signal is None or signal.dim() == 2 else signal[:, 0]
