"""Dense attention of many short texts, there and back, with the logarithms of the sums of the exponentials of the scores.

Back from a gradient g, the weight of a key is e^(s - L), and the gradient of its score is e^(s - L) (g v^T - g a^T), with the
sum L and the attended a that are given: those of a whole that these texts are but a part of, where other parts were joined to it.

PyTorch's kernels for a CPU do this without the scores ever standing in memory, but are no part of what it promises: `Kernels`
says where they are not what was tested, and `Products` runs everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from qkv.attention.fold import Tile

Grads = tuple[Tensor, Tensor, Tensor]
BITS = 1 / math.log(2)  # in a nat: powers of 2 of very small numbers are quick, those of e are not
ROWS = 128  # queries of a diagonal that are taken at once: what is hidden from all of them is never computed


class Short(Protocol):
    """One way to do it."""

    def attend(
        self,
        tile: Tile,
        q: Float[Tensor, "n H t K"],
        k: Float[Tensor, "n H s K"],
        v: Float[Tensor, "n H s W"],
        scale: float,
    ) -> tuple[Float[Tensor, "n H t W"], Float[Tensor, "n H t"]]:
        """What each query receives, and its sum."""
        ...

    def back(
        self,
        tile: Tile,
        gradient: Float[Tensor, "n H t W"],
        q: Float[Tensor, "n H t K"],
        k: Float[Tensor, "n H s K"],
        v: Float[Tensor, "n H s W"],
        attended: Float[Tensor, "n H t W"],
        sums: Float[Tensor, "n H t"],
        scale: float,
    ) -> Grads:
        """The gradients of q, k and v."""
        ...


class Kernels:
    """PyTorch's own kernels for a CPU. Keys and values must have the same width."""

    FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
    TAKES = (
        "query, key, value, dropout_p, is_causal, attn_mask, scale",
        "grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, attn_mask, scale",
    )

    def __init__(self) -> None:
        self._forward, self._backward = (getattr(torch.ops.aten, self.FORWARD + end, None) for end in ("", "_backward"))

    def declines(self, tile: Tile, k: Float[Tensor, "n H s K"], v: Float[Tensor, "n H s W"]) -> str:
        """Why they are not used for a tile and such numbers, in words; empty where they are."""
        for operator, takes in zip((self._forward, self._backward), self.TAKES, strict=True):
            if operator is None:
                return f"PyTorch {torch.__version__} has no {self.FORWARD}"
            found = ", ".join(argument.name for argument in operator.default._schema.arguments)
            if found != takes:
                return f"the kernels of PyTorch {torch.__version__} take {found}, and not {takes}"
        if v.device.type != "cpu":
            return f"they are for a CPU, not for {v.device.type}"
        if k.shape[3] != v.shape[3]:
            return f"keys of width {k.shape[3]} and values of width {v.shape[3]} are not for them"
        if v.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            return f"they do not compute in {v.dtype}"
        return ""

    def attend(
        self, tile: Tile, q: Tensor, k: Tensor, v: Tensor, scale: float
    ) -> tuple[Float[Tensor, "n H t W"], Float[Tensor, "n H t"]]:
        """What each query receives, and its sum."""
        assert self._forward is not None
        return self._forward(q, k, v, 0.0, tile.diagonal, attn_mask=tile.hidden, scale=scale)

    def back(
        self,
        tile: Tile,
        gradient: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attended: Tensor,
        sums: Tensor,
        scale: float,
    ) -> Grads:
        """The gradients of q, k and v."""
        assert self._backward is not None
        return self._backward(gradient, q, k, v, attended, sums, 0.0, tile.diagonal, attn_mask=tile.hidden, scale=scale)


class Products:
    """Matrix products, for as many texts at once as a processor's cache has room for."""

    def attend(
        self, tile: Tile, q: Tensor, k: Tensor, v: Tensor, scale: float
    ) -> tuple[Float[Tensor, "n H t W"], Float[Tensor, "n H t"]]:
        """What each query receives, and its sum."""
        found, exact = q.shape[:3], torch.promote_types(q.dtype, torch.float32)
        attended, sums = q.new_empty(*found, v.shape[3]), q.new_empty(*found, 1, dtype=exact)
        q, k, v, out, total = (x.flatten(0, 1) for x in (q, k, v, attended, sums))
        for texts, rows, seen in _parts(tile, q, k):
            scores = _scores(q[texts, rows] * scale, k[texts, :seen], rows, tile)
            weights = torch.softmax(scores, -1)
            largest = weights.amax(-1, keepdim=True).to(exact)
            total[texts, rows] = scores.amax(-1, keepdim=True) - largest.log_()
            out[texts, rows] = torch.bmm(weights, v[texts, :seen])
        return attended, sums[..., 0]

    def back(
        self,
        tile: Tile,
        gradient: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attended: Tensor,
        sums: Tensor,
        scale: float,
    ) -> Grads:
        """The gradients of q, k and v, those in lower precisions in fp32."""
        found = tuple(torch.zeros(x.shape, dtype=sums.dtype, device=x.device) for x in (q, k, v))
        means = (gradient * attended).sum(-1, keepdim=True, dtype=sums.dtype).flatten(0, 1)
        of_q, of_k, of_v = (x.flatten(0, 1) for x in found)
        gradient, q, k, v = (x.flatten(0, 1) for x in (gradient, q, k, v))
        sums = (sums * BITS).flatten(0, 1)[..., None]
        for texts, rows, seen in _parts(tile, q, k):
            queries, keys, values = q[texts, rows], k[texts, :seen], v[texts, :seen]
            upstream, mean, total = gradient[texts, rows], means[texts, rows], sums[texts, rows]
            scores = _scores(queries * (scale * BITS), keys, rows, tile)
            rounded = total.to(scores.dtype)
            if rounded.dtype != total.dtype:  # what rounding takes from the sums is given to the gradients
                lost = (rounded - total).exp2_()
                upstream, mean = (upstream * lost).to(scores.dtype), (mean * lost).to(scores.dtype)
            weights = scores.sub_(rounded).exp2_()
            of_v[texts, :seen] += torch.bmm(weights.transpose(1, 2), upstream)
            of_scores = torch.bmm(upstream, values.transpose(1, 2)).sub_(mean).mul_(weights).mul_(scale)
            of_q[texts, rows] = torch.bmm(of_scores, keys).to(of_q.dtype)
            of_k[texts, :seen] += torch.bmm(of_scores.transpose(1, 2), queries)
        return found[0], found[1], found[2]


KERNELS, PRODUCTS = Kernels(), Products()


def _parts(tile: Tile, q: Float[Tensor, "N t K"], k: Float[Tensor, "N s K"]) -> Iterator[tuple[slice, slice, int]]:
    """Some texts, some of their queries, and how many keys these see at most."""
    count, queries, keys = len(q), q.shape[1], k.shape[1]
    length = ROWS if tile.diagonal else queries
    for row in range(0, queries, length):
        rows = slice(row, min(row + length, queries))
        seen = rows.stop if tile.diagonal else keys
        fit = max(1, 2**22 // q.dtype.itemsize**2 // ((rows.stop - rows.start) * seen))
        for start in range(0, count, fit):
            yield slice(start, start + fit), rows, seen


def _scores(q: Float[Tensor, "n t K"], k: Float[Tensor, "n s K"], rows: slice, tile: Tile) -> Float[Tensor, "n t s"]:
    """Scores, tiny where a key is hidden."""
    keys = k.transpose(1, 2)
    if tile.hidden is not None:
        return torch.baddbmm(tile.hidden, q, keys)
    scores = torch.bmm(q, keys)
    if tile.diagonal:
        length = rows.stop - rows.start
        later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu_(1)
        scores[:, :, rows.start :].masked_fill_(later, torch.finfo(q.dtype).min / 2)
    return scores
