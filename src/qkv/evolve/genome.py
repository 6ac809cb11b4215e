"""What the search changes: the fields of cells, and how often a cell stands upon itself (So et al. 2019, section 3.1).

There are no other genes than the description of a model: a child is a model whose cells have other fields.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from qkv.error import QkvError
from qkv.spec.cell import (
    KEEPS,
    Add,
    AsInput,
    Branch,
    Cell,
    Concatenate,
    Convolution,
    Dead,
    Dense,
    Depthwise,
    Gate,
    Identity,
    Layer,
    Lightweight,
    Multiply,
    NoActivation,
    Node,
    Separable,
)
from qkv.spec.count import parameters
from qkv.spec.model import Classifier, DecoderOnly, EncoderDecoder, EncoderOnly, sides
from qkv.spec.part import Attention, Block, FeedForward, LeakyReLU, MemoryAttention, PreNorm, ReLU, Stack, Swish, Unit
from qkv.spec.pattern import Causal, Full
from qkv.spec.search import AnyNumber, Between

Parent = EncoderDecoder | DecoderOnly | EncoderOnly | Classifier
WIDTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)  # ten relative widths: those of the published cells are among them
ACTIVATIONS = (NoActivation(), ReLU(), LeakyReLU(), Swish())
COMBINERS = (Add(), Multiply(), Concatenate())
HEADS = (4, 8, 16)
DEEPEST = 6  # cells of a stack
TRIES = 2000  # until a child can be built and has a number of parameters that is wanted


def layers(pattern: Full | Causal, memory: bool) -> tuple[Layer, ...]:
    """The layers that a branch may have."""
    asking: list[Layer] = [Attention(heads, pattern) for heads in HEADS]
    if memory:
        asking += [MemoryAttention(heads) for heads in HEADS]
    return (
        *asking,
        *(Convolution(reach, 1, pattern) for reach in (3, 5)),
        *(Convolution(reach, 2, pattern) for reach in (3, 5)),
        *(Separable(reach, pattern) for reach in (3, 5, 7, 9, 11)),
        *(Depthwise(reach, pattern) for reach in (3, 5, 7)),
        *(Lightweight(reach, shared, pattern) for reach in (3, 5, 7, 15) for shared in (1, 4, 16)),
        *(Dense(), Gate(), Identity(), Dead()),
    )


def beginning(model: Any) -> Parent:
    """The model that a search begins with, its blocks as cells.

    Raises QkvError where it is no stack of cells, or of blocks that cells can say: with norms before attention and feed-forwards.
    """
    assert isinstance(model, Parent), "a model of any shape"
    cells: dict[str, Any] = {}
    for name, depth in sides(model).items():
        if not isinstance(depth, Stack):
            raise QkvError(f"the {name} of a search is a stack, not {type(depth).__name__}(...)")
        cells[name] = Stack(*(as_cell(block, model.width) for block in depth.blocks), depth=depth.depth, bias=depth.bias)
    return replace(model, **cells)


def as_cell(unit: Unit, width: int) -> Cell:
    """A block with norms before its sublayers as a cell that does the same in a model of some width, but that dropout comes after
    the first map of a feed-forward, too."""
    if isinstance(unit, Cell):
        return unit
    assert isinstance(unit, Block)
    if not isinstance(unit.norm, PreNorm):
        raise QkvError("a search begins with norms before the sublayers: --set '*.norm=PreNorm()'")
    nodes: list[Node] = []
    for sublayer in unit.sublayers:
        at = len(nodes)
        match sublayer:
            case Attention() | MemoryAttention():
                nodes.append(Node(Branch(at, sublayer, norm=True), Branch(at)))
            case FeedForward(hidden=hidden, activation=activation, offset=offset, gated=False):
                nodes.append(Node(Branch(at, Dense(offset), hidden / width, norm=True, activation=activation)))
                nodes.append(Node(Branch(at + 1, Dense(offset), 1.0), Branch(at)))
            case _:
                raise QkvError(f"{sublayer} has no place in a cell: a search begins with attention and feed-forwards, not gated")
    return Cell(*nodes, norm=unit.norm, dropout=unit.dropout)


def mutated(model: Parent, rate: float, chance: Random) -> Parent:
    """Every field of every cell, and every depth, is drawn anew with some probability, evenly from all that it may be. What comes
    of it need not be a model that can be built."""
    cells: dict[str, Any] = {}
    for name, depth in sides(model).items():
        assert isinstance(depth, Stack)
        reads = name == "encoder"
        known = layers(Full() if reads else Causal(), isinstance(model, EncoderDecoder) and not reads)
        changed = (_cell(block, known, rate, chance) for block in depth.blocks if isinstance(block, Cell))
        deep = chance.randint(1, DEEPEST) if chance.random() < rate else depth.depth
        cells[name] = Stack(*changed, depth=deep, bias=depth.bias)
    return replace(model, **cells)


def bred(model: Parent, rate: float, wanted: Between | AnyNumber, chance: Random, known: Collection[Parent] = ()) -> Parent:
    """A changed copy that can be built, has a number of parameters that is wanted and is not known yet. Raises QkvError where
    none is found."""
    refused = "all of them are known"
    for _ in range(TRIES):
        try:
            child = mutated(model, rate, chance)
            count = parameters(child)
        except QkvError as error:
            refused = str(error)
            continue
        if child == model or child in known:
            continue
        if isinstance(wanted, AnyNumber) or wanted.least <= count <= wanted.most:
            return child
        refused = f"{count:,} parameters"
    raise QkvError(f"of {TRIES:,} changed models none can be built and is {wanted}; the last was refused: {refused}")


def _cell(cell: Cell, known: Sequence[Layer], rate: float, chance: Random) -> Cell:
    nodes = (_node(node, number, known, rate, chance) for number, node in enumerate(cell.nodes))
    return Cell(*nodes, norm=cell.norm, dropout=cell.dropout)


def _node(node: Node, number: int, known: Sequence[Layer], rate: float, chance: Random) -> Node:
    left, right = (_branch(branch, number, known, rate, chance) for branch in node.branches)
    combine = chance.choice(COMBINERS) if chance.random() < rate else node.combine
    dead = isinstance(left.layer, Dead) or isinstance(right.layer, Dead)
    shared = node.shared and left.norm and right.norm and left.input == right.input and not dead
    return Node(left, right, combine, shared)


def _branch(branch: Branch, number: int, known: Sequence[Layer], rate: float, chance: Random) -> Branch:
    """Its five fields, each by itself; a layer that keeps the width of what comes in has no use for that of its branch."""

    def drawn(now: Any, choices: Sequence[Any]) -> Any:
        return chance.choice(choices) if chance.random() < rate else now

    taken = drawn(branch.input, range(number + 1))
    norm = drawn(branch.norm, (True, False))
    layer = drawn(branch.layer, known)
    width = drawn(branch.width, WIDTHS)
    activation = drawn(branch.activation, ACTIVATIONS)
    if isinstance(layer, Dead):
        return Branch(layer=layer)
    if isinstance(layer, KEEPS):
        width = AsInput()
    elif isinstance(width, AsInput) and layer != branch.layer:
        width = chance.choice(WIDTHS)
    return Branch(taken, layer, width, norm, activation)


def differences(parent: Parent, child: Parent) -> Iterator[str]:
    """What of a child differs from its parent, in words."""
    for name, depth in sides(child).items():
        before = sides(parent)[name]
        if depth.tiled() and before.tiled() and len(depth.tiled()) != len(before.tiled()):
            yield f"{name}: {len(before.tiled())} cells became {len(depth.tiled())}"
        for at, (block, old) in enumerate(zip(depth.blocks, before.blocks, strict=False), 1):
            if not isinstance(block, Cell) or not isinstance(old, Cell):
                continue
            where = name if len(depth.blocks) == 1 else f"{name}, cell {at}"
            for number, (node, was) in enumerate(zip(block.nodes, old.nodes, strict=False), 1):
                if node.combine != was.combine:
                    yield f"{where}, node {number}: {type(was.combine).__name__} became {type(node.combine).__name__}"
                for place, mine, its in zip(("left", "right"), node.branches, was.branches, strict=True):
                    for field in ("input", "layer", "width", "norm", "activation"):
                        one, other = getattr(mine, field), getattr(its, field)
                        if one != other:
                            yield f"{where}, node {number}, {place}: {field} {other} became {one}"
