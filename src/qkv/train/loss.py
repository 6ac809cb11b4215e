"""Cross-entropy with label smoothing, from the decoder's vectors in one go.

The logits of a batch are the largest thing a small model makes: V numbers for each target token. They are computed a few rows
at a time, turned into their own gradient where they stand, multiplied out, and dropped, so that they pass through the cache
once and never stand in memory whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx

ROWS = 256  # a slab of logits of this many rows and 10,000 columns is 10 MB in fp32
SLABS = 4  # of gradients in a lower precision, multiplied out at once: what comes of it has to be widened and added
SMALLEST = 1e-30  # a probability whose logarithm is still exact in fp32


@dataclass(frozen=True)
class Smoothing:
    """The target is the truth with probability 1 - amount, and any other entry, equally, with the rest (Vaswani et al. 2017,
    section 5.4).

    The released code shares `amount` among the V - 1 wrong entries; so do we.
    """

    amount: float = 0.1


def reference(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    target: Int[Tensor, " N"],
    smoothing: Smoothing,
    offset: Float[Tensor, " V"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What `smoothed_cross_entropy` computes, written out: the smoothed loss and the plain one, both summed over N, in nats."""
    logits = hidden @ weight.t()
    return of_scores(logits if offset is None else logits + offset, target, smoothing)


def of_scores(
    logits: Float[Tensor, "N V"], target: Int[Tensor, " N"], smoothing: Smoothing
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The smoothed loss and the plain one of a score for every entry, both summed over N, in nats."""
    logarithms = logits.log_softmax(-1)
    wrong = smoothing.amount / (logits.shape[1] - 1)
    truth = logarithms.gather(1, target[:, None]).sum()
    smoothed = -(1 - smoothing.amount - wrong) * truth - wrong * logarithms.sum()
    return smoothed, -truth.detach()


class _SmoothedCrossEntropy(torch.autograd.Function):
    """The gradient is made in the forward pass, where the logits are at hand.

    With e = amount/(V-1), the gradient of a row's loss by its logits is softmax - e - (1-amount-e) [truth]: the constant e
    leaves as one vector for all rows (the sum of the weight's rows), so that smoothing costs no pass over the logits.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        offset: Tensor | None,
        target: Tensor,
        amount: float,
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        entries = weight.shape[0]
        wrong = amount / (entries - 1)
        right = 1 - amount - wrong
        narrow = weight.to(precision)
        mixed = precision != hidden.dtype
        every = weight.sum(0)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight)
        offset_gradient = None if offset is None else torch.full_like(offset, -wrong * len(hidden))
        total_offset = 0.0 if offset is None else offset.sum()
        plain = hidden.new_zeros((), dtype=torch.float64)
        spread = hidden.new_zeros((), dtype=torch.float64)
        # made once: to ask for new pages takes longer than to fill them
        logits, shares = hidden.new_empty(2, min(ROWS, len(hidden)), entries)
        slabs = narrow.new_empty(min(ROWS * SLABS, len(hidden)), entries) if mixed else shares
        for start in range(0, len(hidden), ROWS):
            rows = hidden[start : start + ROWS]
            truth = target[start : start + ROWS, None]
            into = start % len(slabs)
            gradient = slabs[into : into + len(rows)]
            slab = _logits(rows, narrow, offset, logits[: len(rows)], gradient)
            of_truth = slab.gather(1, truth)
            share = torch.softmax(slab, -1, out=shares[: len(rows)])
            likely = share.gather(1, truth)
            # quicker, unless it would lose what the softmax rounded away
            lost = likely.min() <= SMALLEST
            normaliser = slab.logsumexp(-1, keepdim=True) if lost else of_truth - likely.log()
            plain += (normaliser - of_truth).sum()
            spread += entries * normaliser.sum() - (rows @ every).sum() - len(rows) * total_offset
            share.scatter_add_(1, truth, share.new_full((1, 1), -right).expand(len(rows), 1))
            if offset_gradient is not None:
                offset_gradient += share.sum(0)
            gradient.copy_(share)
            torch.sub((gradient @ narrow).to(hidden.dtype), every, alpha=wrong, out=hidden_gradient[start : start + ROWS])
            if not mixed:
                weight_gradient.addmm_(gradient.t(), rows)
            elif into + ROWS >= len(slabs) or start + ROWS >= len(hidden):
                done = hidden[start - into : start + len(rows)].to(precision)
                weight_gradient += slabs[: len(done)].t() @ done
        weight_gradient -= wrong * hidden.sum(0)
        ctx.save_for_backward(hidden_gradient, weight_gradient, offset_gradient)  # pyright: ignore
        plain = plain.to(hidden.dtype)
        smoothed = right * plain + wrong * spread.to(hidden.dtype)
        ctx.mark_non_differentiable(plain)  # pyright: ignore[reportAttributeAccessIssue]
        return smoothed, plain

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        of_hidden, of_weight, of_offset = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return of_hidden * gradient, of_weight * gradient, None if of_offset is None else of_offset * gradient, None, None, None


def _logits(rows: Tensor, narrow: Tensor, offset: Tensor | None, out: Tensor, room: Tensor) -> Tensor:
    """The logits of some rows, multiplied in the precision of the weight, in that of the rows; `room` has that of the weight."""
    if rows.dtype == narrow.dtype:
        torch.mm(rows, narrow.t(), out=out)
    else:
        out.copy_(torch.mm(rows.to(narrow.dtype), narrow.t(), out=room))
    return out if offset is None else out.add_(offset)


def _value(
    hidden: Tensor, weight: Tensor, offset: Tensor | None, target: Tensor, smoothing: Smoothing, precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The two losses without any gradient, which is two thirds of the work."""
    entries, narrow, every = len(weight), weight.to(precision), weight.sum(0)
    wrong = smoothing.amount / (entries - 1)
    total_offset = 0.0 if offset is None else offset.sum()
    plain, spread = hidden.new_zeros(2, dtype=torch.float64)
    logits = hidden.new_empty(min(ROWS, len(hidden)), entries)
    room = torch.empty_like(logits, dtype=precision)
    for start in range(0, len(hidden), ROWS):
        rows = hidden[start : start + ROWS]
        slab = _logits(rows, narrow, offset, logits[: len(rows)], room[: len(rows)])
        normaliser = slab.logsumexp(-1)
        plain += (normaliser - slab.gather(1, target[start : start + ROWS, None])[:, 0]).sum()
        spread += entries * normaliser.sum() - (rows @ every).sum() - len(rows) * total_offset
    smoothed = (1 - smoothing.amount - wrong) * plain + wrong * spread
    return smoothed.to(hidden.dtype), plain.to(hidden.dtype)


@torch.no_grad()
def of_each(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    target: Int[Tensor, " N"],
    precision: torch.dtype = torch.float32,
    offset: Float[Tensor, " V"] | None = None,
) -> Float[Tensor, " N"]:
    """The plain loss of each row, in nats, without a gradient."""
    narrow = weight.to(hidden.dtype if precision == torch.float32 else precision)
    found = []
    for start in range(0, len(hidden), ROWS):
        rows = hidden[start : start + ROWS]
        logits = (rows.to(narrow.dtype) @ narrow.t()).to(hidden.dtype)
        logits = logits if offset is None else logits + offset
        found.append(logits.logsumexp(-1) - logits.gather(1, target[start : start + ROWS, None])[:, 0])
    return torch.cat(found)


def smoothed_cross_entropy(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    target: Int[Tensor, " N"],
    smoothing: Smoothing,
    precision: torch.dtype = torch.float32,
    offset: Float[Tensor, " V"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The smoothed loss, which has a gradient, and the plain one, which has none; both summed over N, in nats.

    `precision` is that of the two large matrix products; all else is in the precision of `hidden`.
    """
    precision = hidden.dtype if precision == torch.float32 else precision
    if not torch.is_grad_enabled():
        return _value(hidden, weight, offset, target, smoothing, precision)
    return _SmoothedCrossEntropy.apply(hidden, weight, offset, target, smoothing.amount, precision)  # pyright: ignore
