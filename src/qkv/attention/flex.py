"""PyTorch's FlexAttention for sparse patterns on a GPU: blocks of the square in which the formula allows nothing are skipped.

It cannot train on a CPU; what it makes of a call there, without a kernel, is only for judging it. Its kernels are made for each
GPU on the spot, so it is tried on the spot, too: it takes a call only where it agrees with a rival and is quicker than that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from qkv.attention.call import Backend, Call
from qkv.attention.sight import Late, Packed, Padded, Sight
from qkv.spec.pattern import Causal, Full, PerHead, by_head

CLOSE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 3e-2, torch.float64: 1e-3}  # of the largest value
TURNS = 3
Kind = tuple[Any, ...]
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # of row, head, query and key, as FlexAttention asks it


class Flex:
    """`torch.nn.attention.flex_attention`, where it is quicker than the first of its rivals that would take the call."""

    name, by_head, any_weights = "flex", True, False

    def __init__(self, *rivals: Backend) -> None:
        self._rivals, self._found = rivals, dict[Kind, str]()

    def declines(self, call: Call) -> str:
        """Why the call is not for this backend, in words; empty where it runs."""
        if not call.q.is_cuda:
            return f"it cannot train on {call.q.device.type}"
        if isinstance(call.pattern, Full | Causal):
            return f"{call.pattern} has kernels of its own"
        if not (call.q.dtype == call.k.dtype == call.v.dtype):
            return f"q, k and v differ in precision: {call.q.dtype}, {call.k.dtype}, {call.v.dtype}"
        if call.bias is not None or call.stands is not None:
            return "it adds no bias to scores, and wants keys at 0 .. S-1"
        if call.q.shape[2] == 1:
            return "one query is no square"
        return self.outrun(call)

    def outrun(self, call: Call) -> str:
        """Why calls of this kind are better left to a rival, found out by the first of them; empty where they are not."""
        able = (each for each in self._rivals if each.by_head or not isinstance(call.pattern, PerHead))
        rival = next((each for each in able if not each.declines(call)), None)
        if rival is None:
            return ""
        kind = (rival.name, *_kind(call))
        if kind not in self._found:
            self._found[kind] = _lost(self, rival, call)
        return self._found[kind]

    def run(self, call: Call) -> Float[Tensor, "B H T W"]:
        q, k, v = call.q, call.per_head(call.k), call.per_head(call.v)
        rows = None if call.keys.visible(call.first, q.shape[2], k.shape[2]) is None else len(q)
        heads = q.shape[1] if len(by_head(call.pattern, q.shape[1])) > 1 else None
        rule = _rule(call)
        masked, attend = (
            (_compiled(create_block_mask), _compiled(flex_attention)) if q.is_cuda else (create_block_mask, flex_attention)
        )
        mask = masked(
            lambda row, head, query, key: rule(row, head, query, key), rows, heads, q.shape[2], k.shape[2], device=str(q.device)
        )
        attended = attend(q, k, v, block_mask=mask, scale=call.scale())
        assert isinstance(attended, Tensor)
        return attended


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function)


def _kind(call: Call) -> Kind:
    """What calls have in common that are as quick as each other: sizes to a power of two, and all else that matters."""
    sizes = (call.q.shape[0], call.q.shape[2], call.k.shape[2])
    exact = (call.q.shape[1], call.k.shape[1], call.q.shape[3], call.v.shape[3], call.q.dtype, call.q.device)
    return call.pattern, type(call.keys), call.q.requires_grad, *exact, *(size.bit_length() for size in sizes)


def _lost(mine: Backend, rival: Backend, call: Call) -> str:
    """Why the rival takes this call, forward and backward; empty where it does not."""
    try:
        found, wanted = _worked(mine, call), _worked(rival, call)
        for one, other in zip(found, wanted, strict=True):
            off = (one.float() - other.float()).abs().max().item() / max(other.float().abs().max().item(), 1e-6)
            if not off <= CLOSE[call.q.dtype]:
                return f"it is {off:.1g} from what {rival.name} finds"
        seconds: dict[str, float] = {}
        for backend in (mine, rival) * TURNS:
            seconds[backend.name] = min(_seconds(backend, call), seconds.get(backend.name, math.inf))
    except Exception as error:  # a kernel that is made on the spot may fail in any way
        return f"it failed here: {type(error).__name__}: {error}".partition("\n")[0]
    took, rivals = seconds[mine.name], seconds[rival.name]
    return "" if took < rivals else f"{rival.name} took {1e3 * rivals:.2f} ms here, and it {1e3 * took:.2f}"


@torch.enable_grad()
def _worked(backend: Backend, call: Call) -> list[Tensor]:
    """What each query receives, and where the call is to be learnt from, the gradients of its sum of squares."""
    given = [each.detach().requires_grad_(call.q.requires_grad) for each in (call.q, call.k, call.v)]
    attended = backend.run(replace(call, q=given[0], k=given[1], v=given[2]))
    there = call.keys.present(call.first, attended.shape[2])
    attended = attended if there is None else attended * there[:, None, :, None]  # what padding receives matters to nobody
    return [attended, *(torch.autograd.grad(attended.square().sum(), given) if call.q.requires_grad else ())]


def _seconds(backend: Backend, call: Call) -> float:
    _wait(call)
    start = time.perf_counter()
    _worked(backend, call)
    _wait(call)
    return time.perf_counter() - start


def _wait(call: Call) -> None:
    if call.q.is_cuda:
        torch.cuda.synchronize(call.q.device)


def _rule(call: Call) -> Rule:
    """The formula of a call at any place of the square."""
    patterns, first, there = by_head(call.pattern, call.q.shape[1]), call.first, _there(call.keys, call.first)
    places = call.keys.places(0, call.k.shape[2]) if call.pattern.anchored else None

    def rule(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        i, j = (query + first, key) if places is None else (places[row, query + first], places[row, key])
        allowed, at = torch.zeros_like(i == j), 0
        for count, pattern in patterns:
            allowed = torch.where((head >= at) & (head < at + count), pattern.allows(i, j), allowed)
            at += count
        return allowed & there(row, query, key)

    return rule


def _there(sight: Sight, first: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Whether a key is there at all, for a query of a row."""
    match sight:
        case Padded(lengths=lengths):
            return lambda row, query, key: key < lengths[row]
        case Late(starts=starts):
            return lambda row, query, key: key >= starts[row]
        case Packed(documents=documents):
            return lambda row, query, key: documents[row, query + first] == documents[row, key]
        case _:
            return lambda row, query, key: key == key
