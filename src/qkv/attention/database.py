"""Attention to a database that need not fit in memory: keys and values come in chunks, and what each gives is joined.

The query is the same for a database of any size, and another database gives another answer; nothing of it is compressed or
approximated. What is remembered between two chunks is what each query has received so far, and the logarithm of its sum.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from qkv.attention.call import Call
from qkv.attention.join import Partial, join_to, lowest, nothing
from qkv.attention.score import scores
from qkv.error import QkvError
from qkv.spec.score import Location, ScaledDot, Score

AT_ONCE = 2**20  # numbers in the keys of a chunk: more would leave the cache, and of fewer the calls themselves would cost most

Chunk = tuple[Float[Tensor, "S K"], Float[Tensor, "S W"]]
Told = Callable[[int], None]


class Arrays:
    """Keys (N, K) and values (N, W) in two files of NumPy (.npy), mapped into memory and read chunk by chunk.

    Raises QkvError where a file is no array of numbers in rows, or not whole; where the two differ in length. Nothing pickled is
    read.
    """

    def __init__(self, keys: str | Path, values: str | Path, rows: int = 0) -> None:
        self.keys, self.values = mapped(Path(keys)), mapped(Path(values))
        _alike(self.keys.shape, self.values.shape, str(keys), str(values))
        self.rows = rows or max(1, AT_ONCE // self.keys.shape[1])

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Chunk]:
        for start in range(0, len(self.keys), self.rows):
            yield _tensor(self.keys[start : start + self.rows]), _tensor(self.values[start : start + self.rows])


class Tensors:
    """The same in one file of safetensors, by the names of its tensors."""

    def __init__(self, path: str | Path, keys: str = "keys", values: str = "values", rows: int = 0) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            self._file = safe_open(str(path), "pt")
            self.keys, self.values = (self._file.get_slice(name) for name in (keys, values))
        except (OSError, SafetensorError) as error:
            raise QkvError(f"{path} is no whole file of safetensors with {keys!r} and {values!r}: {error}") from None
        shapes = [tuple(each.get_shape()) for each in (self.keys, self.values)]
        _alike(shapes[0], shapes[1], keys, values)
        self._length = shapes[0][0]
        self.rows = rows or max(1, AT_ONCE // shapes[0][1])

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Chunk]:
        for start in range(0, self._length, self.rows):
            yield self.keys[start : start + self.rows], self.values[start : start + self.rows]


def attend_over(
    q: Float[Tensor, "*T K"],
    database: Iterable[tuple[Any, Any]],
    score: Score = ScaledDot(),
    learned: Mapping[str, Tensor] | None = None,
    told: Told | None = None,
) -> Float[Tensor, "*T W"]:
    """What each query receives from all of a database: its values, weighted by how well their keys match the query.

    The database gives pairs of keys (S, K) and values (S, W), tensors or arrays, in chunks of any length: `Arrays`, `Tensors`, a
    list, or any iterable. Exact: any chunking gives the same, up to rounding. The gradient to the queries, and to what the score
    learns (`qkv.spec.score.learns`, of one head), takes a second pass: then the database must be one that can be gone through
    again, and no iterator. `told` hears how many keys have been seen.

    Raises QkvError where keys and values differ in length, are of another width than before or than the queries, are no numbers,
    or hold one that is not finite.
    """
    given = dict(learned or {})
    wanted = torch.is_grad_enabled() and any(each.requires_grad for each in (q, *given.values()))
    if wanted and iter(database) is database:
        raise QkvError("a gradient takes a second pass, and an iterator can be gone through once: give a list, or files")
    how = _How(database, score, tuple(given), told)
    attended = _Over.apply(q.reshape(-1, q.shape[-1]), how, *given.values())
    return attended.reshape(*q.shape[:-1], -1)  # pyright: ignore


@dataclass(frozen=True)
class _How:
    """What a search is about besides the queries."""

    database: Iterable[tuple[Any, Any]]
    score: Score
    names: tuple[str, ...]
    told: Told | None

    def calls(self, q: Float[Tensor, "T K"], learned: tuple[Tensor, ...]) -> Iterator[Call]:
        """The queries against each chunk."""
        exact, seen, wide = torch.promote_types(q.dtype, torch.float32), 0, 0
        q, own = q.to(exact)[None, None], dict(zip(self.names, learned, strict=True))
        for keys, values in self.database:
            k, v = (_numbers(each, name, seen).to(q.device, exact) for each, name in ((keys, "keys"), (values, "values")))
            if len(k) != len(v):
                raise QkvError(f"from key {seen} on come {len(k)} keys and {len(v)} values: each key has one value")
            if k.shape[1] != q.shape[3]:
                raise QkvError(f"from key {seen} on keys are {k.shape[1]} wide, and queries {q.shape[3]}")
            if wide and v.shape[1] != wide:
                raise QkvError(f"from value {seen} on values are {v.shape[1]} wide, and {wide} before")
            wide = v.shape[1]
            if not len(k):
                continue
            stands = torch.arange(seen, seen + len(k), device=q.device) if isinstance(self.score, Location) else None
            seen += len(k)
            yield Call(q, k[None, None], v[None, None], score=self.score, first=seen, stands=stands, learned=own)
            if self.told is not None:
                self.told(seen)
        if not wide:
            raise QkvError("the database is empty: there is no value that a query could receive")


class _Over(torch.autograd.Function):
    """With p the weights of a query, v the values and a what it receives, the gradient g of that gives p (g v^T - g a) to its
    scores."""

    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, how: _How, *learned: Tensor) -> Float[Tensor, "T W"]:
        found: Partial | None = None
        for call in how.calls(q, learned):
            one = _partial(scores(call)[0, 0], call.v[0, 0])
            if not (one.attended.isfinite().all() and one.sums.isfinite().all()):
                first = call.first - call.k.shape[2]
                raise QkvError(f"keys {first} to {call.first - 1}, their values or the queries hold a number that is not finite")
            one = Partial(*(each.double() for each in one))  # a sum of many is rounded once
            found = nothing(one.attended) if found is None else found
            join_to(found, one)
        assert found is not None
        ctx.save_for_backward(q, found.attended, found.sums, *learned)
        ctx.how = how  # pyright: ignore[reportAttributeAccessIssue]
        return found.attended.to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        q, attended, sums, *learned = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        how: _How = ctx.how  # pyright: ignore[reportAttributeAccessIssue]
        exact = torch.promote_types(q.dtype, torch.float32)
        leaves = [each.detach().requires_grad_() for each in (q.to(exact), *learned)]
        totals = [torch.zeros_like(each, dtype=torch.float64) for each in leaves]
        upstream = gradient.to(exact)
        mean, total = (gradient * attended).sum(1, keepdim=True).to(exact), sums.to(exact)
        for call in how.calls(leaves[0].detach(), tuple(leaves[1:])):
            with torch.enable_grad():
                found = scores(replace(call, q=leaves[0][None, None]))[0, 0]
            weights = (found.detach() - total).exp_()
            of_scores = (upstream @ call.v[0, 0].t()).sub_(mean).mul_(weights)
            for each, part in zip(totals, torch.autograd.grad(found, leaves, of_scores, allow_unused=True), strict=True):
                if part is not None:
                    each += part
        of_q, *of_learned = (each.to(like.dtype) for each, like in zip(totals, (q, *learned), strict=True))
        return of_q, None, *of_learned


def _partial(found: Float[Tensor, "T S"], v: Float[Tensor, "S W"]) -> Partial:
    """What queries receive from the keys that have these scores; nothing where all are -inf."""
    most = found.amax(1, keepdim=True).clamp_(min=lowest(found.dtype))
    weights = found.sub_(most).exp_()
    total = weights.sum(1, keepdim=True)
    blank = total == 0
    attended = (weights @ v) / total.masked_fill(blank, 1.0)
    return Partial(attended, (most + total.log()).masked_fill_(blank, lowest(found.dtype)))


def _numbers(x: Any, what: str, seen: int) -> Float[Tensor, "S _"]:
    """A chunk as a tensor of rows."""
    found = x if isinstance(x, Tensor) else _tensor(np.asarray(x))
    if found.ndim != 2 or not found.is_floating_point():
        raise QkvError(f"from key {seen} on {what} are {found.dtype} of shape {tuple(found.shape)}, not numbers in rows")
    return found


def _tensor(x: NDArray[Any]) -> Tensor:
    """A tensor with the same memory where it may be written to, which PyTorch asks for and nobody does."""
    if x.dtype.kind not in "fiub" or not x.dtype.isnative:
        raise QkvError(f"an array of {x.dtype} holds no numbers that can be computed with")
    return torch.from_numpy(x) if x.flags.writeable else torch.tensor(x)


def mapped(path: Path) -> NDArray[Any]:
    """Numbers in rows from a .npy, mapped into memory. Raises QkvError where it is anything else, or not whole."""
    try:
        found = np.load(path, mmap_mode="c", allow_pickle=False)  # written to, the copy of a page would change, and not the file
    except (OSError, ValueError, EOFError, struct.error) as error:
        raise QkvError(f"{path} is no whole .npy file of numbers: {error}") from None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind != "f":
        shape = getattr(found, "shape", "several arrays")
        raise QkvError(f"{path} should hold numbers in rows, and holds {getattr(found, 'dtype', '')} of shape {shape}")
    return found


def _alike(keys: tuple[int, ...], values: tuple[int, ...], one: str, other: str) -> None:
    if len(keys) != 2 or len(values) != 2:
        raise QkvError(f"{one} and {other} should be numbers in rows, and are of shape {keys} and {values}")
    if keys[0] != values[0]:
        raise QkvError(f"{one} has {keys[0]:,} keys, and {other} has {values[0]:,} values: each key has one value")
