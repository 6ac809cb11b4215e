"""The loss on text that a model does not learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from qkv.train.loss import Smoothing
from qkv.train.ponder import Tally
from qkv.train.task import Example, Losses


@torch.no_grad()
def mean_loss(
    losses: Callable[..., Losses],
    model: Any,
    batches: Iterable[Example],
    device: torch.device,
    tally: Tally | None = None,
) -> float:
    """The plain loss per prediction of some batches, without dropout; a tally takes note of the ponder times."""
    total, count = 0.0, 0
    for batch in batches:
        trace = None if tally is None else tally.trace()
        moved = batch.to(device)
        total += losses(model, moved, Smoothing(0.0), None, torch.float32, trace)[1].item()
        if tally is not None:
            tally.add(trace, moved)
        count += batch.tokens
    return total / count
