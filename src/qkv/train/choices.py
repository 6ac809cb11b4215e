"""What keys that were drawn learn from: how much better or worse things went after them (Williams 1992; Xu et al. 2015, section
4.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from qkv.model.trace import Trace
from qkv.spec.choice import Sampled
from qkv.spec.model import Model, sides
from qkv.spec.part import Recurrent
from qkv.train.ponder import present
from qkv.train.task import Example


def draws(spec: Model) -> bool:
    """Whether some attention of a model draws its keys."""
    sublayers = [each for depth in sides(spec).values() for block in depth.blocks for each in block.sublayers]
    asking = [each.asks if isinstance(each, Recurrent) else each for each in sublayers]
    return any(isinstance(getattr(each, "choice", None), Sampled) for each in asking)


def cost(trace: Trace, batch: Example, tokens: int) -> Float[Tensor, ""] | float:
    """What the keys drawn in a batch add to the loss of a step over so many tokens. Its value means nothing: its gradient is that
    of the expected loss by the probabilities of the draws.

    A draw at token t had no part in what was said before: it is held to the losses from there on, each less the mean loss of a
    token in the other sentences of the batch, which does not depend on the draw.
    """
    if not trace.chosen:
        return 0.0
    assert trace.told is not None, "a task that knows of draws tells how its predictions went"
    there = present(batch.sides["decoder"])
    of_row, counted = trace.told.sum(1), there.sum(1)
    others = (of_row.sum() - of_row) / (counted.sum() - counted).clamp(min=1)
    worse = (trace.told - others[:, None]) * there
    since = worse.flip(1).cumsum(1).flip(1)
    drawn = sum(each.sum(1) for each in trace.chosen.values())
    return (since * drawn * there).sum() / tokens


def told(each: Float[Tensor, " N"], like: Tensor, there: Tensor | None) -> Float[Tensor, "B T"]:
    """Losses of predictions in rows, 0 where there is padding."""
    if there is None:
        return each.view(like.shape[:2])
    return torch.zeros(like.shape[:2], dtype=each.dtype, device=each.device).masked_scatter(there, each)
