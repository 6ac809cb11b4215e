"""Dense attention of many short texts, there and back, with the logarithms of the sums of the exponentials of the scores.

Back from a gradient g, the weight of a key is e^(s - L), and the gradient of its score is e^(s - L) (g v^T - g a^T), with the
sum L and the attended a that are given: those of a whole that these texts are but a part of, where other parts were joined to it.

PyTorch's kernels for a CPU do this without the scores ever standing in memory, but are no part of what it promises: `Kernels`
says where they are not what was tested, and `Products` runs everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from qkv.attention.fold import Tile

BITS = 1 / math.log(2)  # in a nat: powers of 2 of very small numbers are quick, those of e are not
ROWS = 128  # queries of a diagonal that are taken at once: what is hidden from all of them is never computed


class Given(NamedTuple):
    """Queries, keys and values of many texts that look alike."""

    q: Float[Tensor, "n H t K"]
    k: Float[Tensor, "n H s K"]
    v: Float[Tensor, "n H s W"]


class Whole(NamedTuple):
    """What queries receive in all, the logarithms of their sums, and the gradients of what they receive."""

    attended: Float[Tensor, "n H t W"]
    sums: Float[Tensor, "n H t 1"]
    gradient: Float[Tensor, "n H t W"]

    def to(self, dtype: torch.dtype) -> Whole:
        """The same with other numbers, but for the sums."""
        return Whole(self.attended.to(dtype), self.sums, self.gradient.to(dtype))


class Short(Protocol):
    """One way to do it."""

    def attend(self, tile: Tile, given: Given, scale: float) -> tuple[Float[Tensor, "n H t W"], Float[Tensor, "n H t 1"]]:
        """What each query receives, and the logarithm of its sum."""
        ...

    def back(self, tile: Tile, given: Given, whole: Whole, scale: float) -> Given:
        """The gradients of queries, keys and values."""
        ...


class Kernels:
    """PyTorch's own kernels for a CPU."""

    FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
    TAKES = (
        "query, key, value, dropout_p, is_causal, attn_mask, scale",
        "grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, attn_mask, scale",
    )

    def __init__(self) -> None:
        self._forward, self._backward = (getattr(torch.ops.aten, self.FORWARD + end, None) for end in ("", "_backward"))
        self._unknown = next(filter(None, map(self._differs, (self._forward, self._backward), self.TAKES)), "")

    def _differs(self, operator: Any, takes: str) -> str:
        """How an operator is not the one that was tested, in words."""
        if operator is None:
            return f"PyTorch {torch.__version__} has no {self.FORWARD}, or none that goes back"
        found = ", ".join(argument.name for argument in operator.default._schema.arguments)
        return "" if found == takes else f"the kernels of PyTorch {torch.__version__} take {found}, and not {takes}"

    def declines(self, x: Float[Tensor, "..."]) -> str:
        """Why they are not for such vectors, in words; empty where they are."""
        if x.device.type != "cpu":
            return f"they are for a CPU, not for {x.device.type}"
        if x.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            return f"they do not compute in {x.dtype}"
        return self._unknown

    def attend(self, tile: Tile, given: Given, scale: float) -> tuple[Float[Tensor, "n H t W"], Float[Tensor, "n H t 1"]]:
        """What each query receives, and the logarithm of its sum."""
        q, k, v = map(_padded, given, (given.v.shape[3], given.v.shape[3], given.k.shape[3]))
        attended, sums = self._forward(q, k, v, 0.0, tile.diagonal, attn_mask=tile.hidden, scale=scale)  # pyright: ignore
        return attended[..., : given.v.shape[3]], sums[..., None]

    def back(self, tile: Tile, given: Given, whole: Whole, scale: float) -> Given:
        """The gradients of queries, keys and values."""
        keys, values = given.k.shape[3], given.v.shape[3]
        q, k, v = map(_padded, given, (values, values, keys))
        attended, gradient = _padded(whole.attended, keys), _padded(whole.gradient, keys)
        how = (0.0, tile.diagonal)
        found = self._backward(gradient, q, k, v, attended, whole.sums[..., 0], *how, attn_mask=tile.hidden, scale=scale)  # pyright: ignore
        return Given(found[0][..., :keys], found[1][..., :keys], found[2][..., :values])


class Products:
    """Matrix products, for as many texts at once as a processor's cache has room for."""

    def attend(self, tile: Tile, given: Given, scale: float) -> tuple[Float[Tensor, "n H t W"], Float[Tensor, "n H t 1"]]:
        """What each query receives, and the logarithm of its sum."""
        found, exact = given.q.shape[:3], torch.promote_types(given.q.dtype, torch.float32)
        attended, sums = given.q.new_empty(*found, given.v.shape[3]), given.q.new_empty(*found, 1, dtype=exact)
        q, k, v, out, total = (x.flatten(0, 1) for x in (*given, attended, sums))
        for texts, rows, seen in _parts(tile, q, k):
            scores = _scores(tile, q[texts, rows] * scale, k[texts, :seen], rows)
            weights = torch.softmax(scores, -1)
            largest = weights.amax(-1, keepdim=True).to(exact)
            total[texts, rows] = scores.amax(-1, keepdim=True) - largest.log_()
            out[texts, rows] = torch.bmm(weights, v[texts, :seen])
        return attended, sums

    def back(self, tile: Tile, given: Given, whole: Whole, scale: float) -> Given:
        """The gradients of queries, keys and values, those of lower precisions in fp32."""
        exact = whole.sums.dtype
        found = Given(*(torch.zeros(x.shape, dtype=exact, device=x.device) for x in given))
        of_q, of_k, of_v = (x.flatten(0, 1) for x in found)
        gradient, q, k, v = (x.flatten(0, 1) for x in (whole.gradient, *given))
        means = (whole.gradient * whole.attended).sum(-1, keepdim=True, dtype=exact).flatten(0, 1)
        sums = (whole.sums * BITS).flatten(0, 1)
        for texts, rows, seen in _parts(tile, q, k):
            queries, keys, values = q[texts, rows], k[texts, :seen], v[texts, :seen]
            upstream, mean, total = gradient[texts, rows], means[texts, rows], sums[texts, rows]
            scores = _scores(tile, queries * (scale * BITS), keys, rows)
            rounded = total.to(scores.dtype)
            if rounded.dtype != total.dtype:  # what rounding takes from the sums is given to the gradients
                lost = (rounded - total).exp2_()
                upstream, mean = (upstream * lost).to(scores.dtype), (mean * lost).to(scores.dtype)
            weights = scores.sub_(rounded).exp2_()
            of_v[texts, :seen] += torch.bmm(weights.transpose(1, 2), upstream)
            of_scores = torch.bmm(upstream, values.transpose(1, 2)).sub_(mean).mul_(weights).mul_(scale)
            of_q[texts, rows] = torch.bmm(of_scores, keys).to(exact)
            of_k[texts, :seen] += torch.bmm(of_scores.transpose(1, 2), queries)
        return found


def _padded(x: Float[Tensor, "n H t W"], width: int) -> Float[Tensor, "n H t wider"]:
    """With zeros up to a width, which change no product: the kernels take keys and values of one width."""
    return x if x.shape[3] >= width else pad(x, (0, width - x.shape[3]))


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


def _scores(tile: Tile, q: Float[Tensor, "n t K"], k: Float[Tensor, "n s K"], rows: slice) -> Float[Tensor, "n t s"]:
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
