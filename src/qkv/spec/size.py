"""The same model in another size, as a value: wider, or wider and deeper, with its hidden widths and heads in proportion."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qkv.error import QkvError
from qkv.spec.cell import Branch, Cell, Node
from qkv.spec.count import parameters
from qkv.spec.model import AnyModel, sides
from qkv.spec.part import (
    Attention,
    Block,
    Depth,
    FeedForward,
    MemoryAttention,
    Recurrence,
    SeparableFeedForward,
    Stack,
    Unit,
    head_width,
)

WIDEST = 2**15
STEP = 8  # widths that are no multiple of it make matrix products slow
FAR = 1.5  # times as many parameters as were wanted, or as few
LEAST = 2  # blocks, or steps: models of fewer lie off the trend of all others (Kaplan et al. 2020, figure 6)


def widened(model: AnyModel, width: int) -> AnyModel:
    """The model with another width, its hidden widths in proportion, and as many heads and blocks as before. Raises QkvError
    where the heads cannot share that width."""
    share = width / model.width
    return _remade(model, width, lambda layer: _hidden(layer, share), 1.0, round)


def grown(model: AnyModel, width: int, rounded: Callable[[float], int] = round) -> AnyModel:
    """The model with another width, and everything in proportion: hidden widths, blocks or steps, of which at least two are left
    where there were two, and heads, which stay about as wide as they were. Raises QkvError where no number of heads can share
    that width."""
    share = width / model.width
    return _remade(model, width, lambda layer: _heads(_hidden(layer, share), width, share), share, rounded)


def nearest_width(model: AnyModel, wanted: int) -> AnyModel:
    """The model with the width that brings it nearest to so many parameters. Raises QkvError where none comes near."""
    best = Sizes(model, (widened,), 1).nearest(wanted)
    if abs(math.log(parameters(best) / wanted)) > math.log(FAR):
        found = f"the nearest is {best.width} wide and has {parameters(best):,}"
        raise QkvError(f"no width brings this model near {wanted:,} parameters: {found}")
    return best


def shallow(model: AnyModel, width: int) -> AnyModel:
    """The model grown, and where its depth is no whole number, the next lower one deep."""
    return grown(model, width, math.floor)


def deep(model: AnyModel, width: int) -> AnyModel:
    """The same, the next higher one deep."""
    return grown(model, width, math.ceil)


class Sizes:
    """A model in all its sizes: by default grown and shrunk in proportion, in widths that are quick to multiply by."""

    def __init__(self, model: Any, ways: tuple[Callable[[Any, int], Any], ...] = (shallow, deep), step: int = STEP) -> None:
        self._model, self._ways, self._step, self._width = model, ways, step, 0
        self._found: list[tuple[int, Any]] = []  # by parameters

    @property
    def smallest(self) -> Any:
        """The least of them. Raises QkvError where none can be built."""
        self._reach(1)
        return min(self._found, key=lambda each: each[0])[1]

    def nearest(self, wanted: float) -> Any:
        """The size that is nearest to so many parameters."""
        self._reach(wanted)
        return min(self._found, key=lambda each: abs(math.log(each[0] / wanted)))[1]

    def _reach(self, wanted: float) -> None:
        """Build sizes until all of a width have so many parameters."""
        while (not self._found or self._found[-1][0] < wanted) and self._width < WIDEST:
            self._width += self._step
            for way in self._ways[::-1]:  # the smallest of a width last
                with contextlib.suppress(QkvError):  # heads, or a cell, that cannot share this width
                    model = way(self._model, self._width)
                    self._found.append((parameters(model), model))
        if not self._found:
            raise QkvError("no size of this model can be built")


def _remade(model: Any, width: int, layer: Callable[[Any], Any], deeper: float, rounded: Callable[[float], int]) -> Any:
    stacks = {name: _depth(depth, layer, deeper, rounded) for name, depth in sides(model).items()}
    return replace(model, width=width, **stacks)


def _depth(depth: Depth, layer: Callable[[Any], Any], deeper: float, rounded: Callable[[float], int]) -> Depth:
    match depth:
        case Recurrence():
            steps = max(min(LEAST, depth.steps), rounded(depth.steps * deeper))
            return replace(depth, block=_unit(depth.block, layer), steps=steps)
        case Stack():
            row = len(depth.blocks)  # blocks that take turns stay whole rounds
            rounds, least = depth.depth / row, math.ceil(min(LEAST, depth.depth) / row)
            deep = depth.depth if deeper == 1.0 else row * max(least, rounded(rounds * deeper))
            return Stack(*(_unit(block, layer) for block in depth.blocks), depth=deep, bias=depth.bias)


def _unit(unit: Unit, layer: Callable[[Any], Any]) -> Unit:
    if isinstance(unit, Cell):
        return Cell(*(_node(node, layer) for node in unit.nodes), norm=unit.norm, dropout=unit.dropout)
    return Block(*map(layer, unit.sublayers), norm=unit.norm, dropout=unit.dropout)


def _node(node: Node, layer: Callable[[Any], Any]) -> Node:
    def branch(each: Branch) -> Branch:
        return replace(each, layer=layer(each.layer))

    return replace(node, left=branch(node.left), right=branch(node.right))


def _hidden(layer: Any, share: float) -> Any:
    if isinstance(layer, FeedForward | SeparableFeedForward):
        return replace(layer, hidden=max(1, round(layer.hidden * share)))
    return layer


def _heads(layer: Any, width: int, share: float) -> Any:
    """Attention with a number of heads that can share a width, as near to the same share of them as can be."""
    if not isinstance(layer, Attention | MemoryAttention):
        return layer
    wanted = layer.heads * share
    for heads in sorted(range(1, width + 1), key=lambda each: abs(math.log(each / wanted))):
        try:
            found = replace(layer, heads=heads, **_served(layer, heads))
            head_width(found, width)
        except QkvError:
            continue
        return found
    raise QkvError(f"no number of heads can share a width of {width} in {layer}")


def _served(layer: Attention | MemoryAttention, heads: int) -> dict[str, int]:
    """How many heads of keys and values there are for so many heads, if they are fewer."""
    if isinstance(layer, MemoryAttention) or not isinstance(layer.kv_heads, int):
        return {}
    return {"kv_heads": max(1, round(heads * layer.kv_heads / layer.heads))}
