"""Attention for those who want nothing else of `qkv`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.attention.attend import attend as run
from qkv.attention.call import Call
from qkv.attention.choice import centres
from qkv.attention.reference import Reference
from qkv.attention.reference import weights as weights_of
from qkv.attention.sight import Padded, Plain, Sight
from qkv.error import QkvError
from qkv.spec.choice import Choice, Soft, predicts
from qkv.spec.pattern import Full, Pattern
from qkv.spec.score import ScaledDot, Score, learns


def attend(
    q: Float[Tensor, "..."],
    k: Float[Tensor, "..."],
    v: Float[Tensor, "..."],
    *,
    score: Score = ScaledDot(),
    pattern: Pattern = Full(),
    bias: Float[Tensor, "..."] | None = None,
    lengths: Int[Tensor, " _"] | None = None,
    learned: Mapping[str, Tensor] | None = None,
    choice: Choice = Soft(),
    dropout: float = 0.0,
    weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # their shapes are checked below, for everybody
    """What each query receives: the values, weighted by how well their keys match it.

    q is (B, H, T, K): a batch of B, H heads, T queries of width K. k is (B, G, S, K) and v (B, G, S, W), where G heads of keys
    and values serve H / G heads of queries each. Without a batch they have three dimensions, without heads two. The result is
    (B, H, T, W), with as many dimensions as q; with `weights`, also these, (B, H, T, S), which sum to 1 over the keys, or to 0
    where a query may see nothing, and then receives nothing.

    * `score`, a value of `qkv.spec.score`: how strongly a query matches a key, before the softmax. What it learns comes as
      `learned`, a tensor for each name that `qkv.spec.score.learns(score, H, K)` gives, with its shape.
    * `pattern`, a value of `qkv.spec.pattern`: which keys a query may see; query t and key t stand at place t.
    * `bias`, (B or 1, H, T, S): added to the scores.
    * `lengths`: how many of the S keys are there, row by row of the batch.
    * `choice`, a value of `qkv.spec.choice`: whether all keys count, the best few, the very best one, or those about some place.
      What it learns comes as `learned`, too: `qkv.spec.choice.predicts(choice, H, K)` gives names and shapes.
    * `dropout`: the probability with which a weight becomes 0, the others made up for it; from PyTorch's own generator.

    It runs on the quickest kernel that does exactly this, forward and backward. Raises QkvError for shapes that do not fit
    together and for what no kernel can do, with all their reasons.
    """
    if not q.ndim == k.ndim == v.ndim or not 2 <= q.ndim <= 4:
        raise QkvError(f"q, k and v have 2 to 4 dimensions, all as many, not {q.ndim}, {k.ndim} and {v.ndim}")
    if not 0 <= dropout < 1:
        raise QkvError(f"dropout is a probability below 1, not {dropout!r}")
    wide = (None,) * (4 - q.ndim)
    given = _call(q[wide], k[wide], v[wide], score, pattern, bias, lengths, learned, choice)
    if not weights and not dropout:
        return run(given).view(*q.shape[:-1], -1)
    if why := Reference().declines(given):
        raise QkvError(f"the weights themselves were asked for, or are to be dropped: {why}")
    found = weights_of(given)
    kept = torch.nn.functional.dropout(found, dropout)
    attended = (kept @ given.per_head(given.v).to(found.dtype)).to(q.dtype).view(*q.shape[:-1], -1)
    return (attended, found.view(*q.shape[:-1], -1)) if weights else attended


def _call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    score: Score,
    pattern: Pattern,
    bias: Tensor | None,
    lengths: Tensor | None,
    learned: Mapping[str, Tensor] | None,
    choice: Choice,
) -> Call:
    """The call, once its shapes are known to fit together."""
    batch, heads, queries, width = q.shape
    if k.shape[0] != batch or k.shape[3] != width:
        raise QkvError(
            f"queries of shape {tuple(q.shape)} cannot ask keys of shape {tuple(k.shape)}: batch and width must be equal"
        )
    if v.shape[:3] != k.shape[:3]:
        raise QkvError(f"keys of shape {tuple(k.shape)} have no values of shape {tuple(v.shape)}: each key has one value")
    if heads % k.shape[1]:
        raise QkvError(f"{k.shape[1]} heads of keys and values cannot serve {heads} heads evenly")
    own, wanted = dict(learned or {}), learns(score, heads, width) | predicts(choice, heads, width)
    if {name: tuple(each.shape) for name, each in own.items()} != wanted:
        given = {name: tuple(each.shape) for name, each in own.items()}
        raise QkvError(f"{score} and {choice} learn {wanted or 'nothing'}, and were given {given}")
    if bias is not None:
        bias = bias[(None,) * (4 - bias.ndim)]
        if bias.shape[0] not in (1, batch) or bias.shape[1:] != (heads, queries, k.shape[2]):
            raise QkvError(
                f"a bias of shape {tuple(bias.shape)} cannot be added to scores of {(batch, heads, queries, k.shape[2])}"
            )
    sight: Sight = Plain()
    if lengths is not None:
        if lengths.shape != (batch,) or int(lengths.min()) < 0 or int(lengths.max()) > k.shape[2]:
            raise QkvError(f"lengths are {batch} numbers from 0 to {k.shape[2]}, one for each row, not {lengths.tolist()}")
        sight = Padded(lengths)
    centre = centres(choice, own, q, torch.arange(queries, device=q.device), sight, k.shape[2])
    return Call(q, k, v, pattern, sight, score=score, bias=bias, learned=own, choice=choice, centre=centre)
