"""Scores: each by its formula, and those that fold as the vectors whose dot products they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from qkv.attention.call import Call
from qkv.error import QkvError
from qkv.spec.score import (
    Additive,
    Boxcar,
    Constant,
    ContentBased,
    Dot,
    Gaussian,
    General,
    Location,
    Product,
    ScaledDot,
    Score,
    Triangular,
    folds,
)

Learned = Mapping[str, Tensor]


def scores(call: Call) -> Float[Tensor, "B H T S"]:
    """What the softmax is taken of, in fp32 or better; -inf where a kernel gives no weight at all."""
    exact = torch.promote_types(call.q.dtype, torch.float32)
    q, k, score = call.q.to(exact), call.per_head(call.k).to(exact), call.score
    match score:
        case Dot() | ScaledDot():
            return call.scale() * (q @ k.transpose(-1, -2))
        case General():
            return (q @ _learned(call, "map")) @ k.transpose(-1, -2)
        case ContentBased():
            return _of_heads(_sharpness(score, call.learned)) * (normalize(q, dim=-1) @ normalize(k, dim=-1).transpose(-1, -2))
        case Additive():
            sums = torch.tanh(q[:, :, :, None] + k[:, :, None])
            return torch.einsum("bhtsk,hk->bhts", sums, _learned(call, "vector"))
        case Location(longest=longest):
            places, said = call.places(), q @ _learned(call, "map")
            if (last := int(places.max())) >= longest:
                raise QkvError(f"{score} knows {longest} places, and was asked about {last + 1}")
            return said.gather(3, places[:, None, None].expand(*said.shape[:3], -1))
        case Gaussian():
            return -0.5 * (_distances(q, k) / _of_heads(_width(score, call.learned))).square()
        case Boxcar(width=width):
            distances = _distances(q, k)
            return (0 * distances).masked_fill(distances >= width, -torch.inf)
        case Triangular():
            left = 1 - _distances(q, k) / _of_heads(_width(score, call.learned))
            return torch.where(left > 0, left, 1.0).log().masked_fill(left <= 0, -torch.inf)
        case Constant():
            return 0 * (q @ k.transpose(-1, -2))


def numbers(call: Call) -> int:
    """How many numbers stand in memory for the scores of a call."""
    each = call.q.shape[3] if isinstance(call.score, Additive) else 1
    return each * call.q.shape[:3].numel() * call.k.shape[2]


def folded(call: Call) -> Call:
    """The same call with dot products for scores; the score must fold."""
    if isinstance(call.score, Product):
        return call
    q, k = folded_queries(call.score, call.learned, call.q), folded_keys(call.score, call.k)
    return replace(call, q=q, k=k, v=call.v.to(k.dtype), score=Dot(), learned={})


def folded_queries(score: Score, learned: Learned, q: Float[Tensor, "B H T K"]) -> Float[Tensor, "B H T _"]:
    """The vectors of queries whose dot products with those of keys are the scores."""
    match score:
        case General():
            return q @ learned["map"].to(q.dtype)
        case ContentBased():
            return _directed(q, _of_heads(_sharpness(score, learned)))
        case Gaussian():  # -|q - k|^2 / 2 = q . k - |k|^2 / 2, and a number that is the same for all keys
            q = _exact(q)
            return torch.cat([q, torch.ones_like(q[..., :1])], -1) / _of_heads(_width(score, learned)) ** 2
        case Constant():
            return 0 * q
        case _:
            assert folds(score), f"{score} does not fold"
            return q


def folded_keys(score: Score, k: Float[Tensor, "B G S K"]) -> Float[Tensor, "B G S _"]:
    """The vectors of keys."""
    match score:
        case ContentBased():
            return _directed(k)
        case Gaussian():  # in 16 bits the squares would lose what tells keys apart
            k = _exact(k)
            return torch.cat([k, -0.5 * k.square().sum(-1, keepdim=True)], -1)
        case _:
            return k


def _directed(x: Float[Tensor, "... K"], length: Tensor | float = 1.0) -> Float[Tensor, "... K"]:
    """`normalize(x, dim=-1) * length` in half of its time, both ways: products where the gradient of the former has quotients."""
    shortest = 1e-24  # squared, as there: a vector of zeros stays one
    return x * (x.square().sum(-1, keepdim=True).clamp_min(shortest).rsqrt() * length)


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _learned(call: Call, name: str) -> Tensor:
    return call.learned[name].to(torch.promote_types(call.q.dtype, torch.float32))


def _distances(q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H S K"]) -> Float[Tensor, "B H T S"]:
    return torch.cdist(q, k, compute_mode="donot_use_mm_for_euclid_dist")


def _sharpness(score: ContentBased, learned: Learned) -> Tensor | float:
    return learned["log_sharpness"].exp() if score.learned else float(score.sharpness)


def _width(score: Gaussian | Triangular, learned: Learned) -> Tensor | float:
    return learned["log_width"].exp() if score.learned else float(score.width)


def _of_heads(value: Tensor | float) -> Tensor | float:
    """A number for each head, or one for all, beside (B, H, T, S)."""
    return value.view(-1, 1, 1) if isinstance(value, Tensor) else value
