"""Cells: layers in a graph. What the architecture search changes, what a paper file states and what a model runs is one value.

A cell is a row of nodes. Each has two branches and a combiner; a branch takes the input of the cell (0) or the result of a node
before it (1, 2, ...), and sends it through norm, layer and activation, in this order (So et al. 2019, section 3.1). What no node
takes comes out, added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from qkv.error import QkvError
from qkv.spec.part import (
    Activation,
    Attention,
    MemoryAttention,
    Norm,
    PreNorm,
    Recurrent,
    Unit,
    head_width,
    positive,
    recurrent_width,
    refuse_dropout,
    refuse_projection,
)
from qkv.spec.pattern import Causal, Full


@dataclass(frozen=True)
class Dense:
    """A linear map, the same at every position: a convolution one position wide."""

    offset: bool = True


@dataclass(frozen=True)
class Gate:
    """A gated linear unit: a linear map times the sigmoid of another (Dauphin et al. 2016)."""

    offset: bool = True


@dataclass(frozen=True)
class Convolution:
    """Every channel from all channels of a neighbourhood `reach` positions wide, `rate` positions from one to the next.

    The pattern says on which side neighbours lie: on both (`Full()`), or none of them later (`Causal()`).
    """

    reach: int
    rate: int = 1
    pattern: Full | Causal = Full()
    offset: bool = True

    def __post_init__(self) -> None:
        positive(self, "reach", "rate")


@dataclass(frozen=True)
class Separable:
    """Every channel summed over its neighbourhood, then a linear map that joins the channels (Chollet 2016)."""

    reach: int
    pattern: Full | Causal = Full()
    offset: bool = True

    def __post_init__(self) -> None:
        positive(self, "reach")


@dataclass(frozen=True)
class Depthwise:
    """Every channel summed over its neighbourhood, with weights of its own."""

    reach: int
    pattern: Full | Causal = Full()

    def __post_init__(self) -> None:
        positive(self, "reach")


@dataclass(frozen=True)
class Lightweight:
    """Every channel averaged over its neighbourhood, with weights that are a softmax, and the same for `shared` channels beside
    each other (Wu et al. 2019, section 3)."""

    reach: int
    shared: int = 1
    pattern: Full | Causal = Full()

    def __post_init__(self) -> None:
        positive(self, "reach", "shared")


@dataclass(frozen=True)
class Identity:
    """What comes in."""


@dataclass(frozen=True)
class Dead:
    """No branch: the other one alone is the result of the node."""


Layer = (
    Dense | Gate | Convolution | Separable | Depthwise | Lightweight | Attention | MemoryAttention | Recurrent | Identity | Dead
)
KEEPS = (Identity, Depthwise, Lightweight)  # the width of what comes in


@dataclass(frozen=True)
class AsInput:
    """As wide as what comes in."""


@dataclass(frozen=True)
class NoActivation:
    """No activation."""


@dataclass(frozen=True)
class Branch:
    """One way through a node; `width` is a multiple of the model's, such as 0.5 or 4."""

    input: int = 0
    layer: Layer = Identity()
    width: float | AsInput = AsInput()
    norm: bool = False
    activation: Activation | NoActivation = NoActivation()

    def __post_init__(self) -> None:
        if not isinstance(self.input, int) or self.input < 0:
            raise QkvError(f"Branch.input is 0, the input of the cell, or the number of a node, not {self.input!r}")
        if isinstance(self.layer, Dead) and (self.input, self.norm, self.width, self.activation) != (
            0,
            False,
            AsInput(),
            NoActivation(),
        ):
            raise QkvError("Dead() is no branch at all: it has no input, no width, no norm and no activation")
        if isinstance(self.layer, KEEPS) and not isinstance(self.width, AsInput):
            raise QkvError(f"{self.layer} keeps the width of what comes in: leave out the width of its branch")
        if not isinstance(self.width, AsInput) and not self.width > 0:
            raise QkvError(f"Branch.width is a multiple of the model's, more than 0, not {self.width!r}")


@dataclass(frozen=True)
class Add:
    """The sum of both branches; to the narrower one zeros are added as channels."""


@dataclass(frozen=True)
class Multiply:
    """The product of both branches, channel by channel; to the narrower one ones are added as channels."""


@dataclass(frozen=True)
class Concatenate:
    """The channels of the left branch, then those of the right one."""


@dataclass(frozen=True)
class Maximum:
    """The larger of both branches, channel by channel, the wider one's own where the other has none: of two linear maps, a maxout
    unit (Goodfellow et al. 2013)."""


Combiner = Add | Multiply | Concatenate | Maximum


@dataclass(frozen=True)
class Node:
    """Two branches, joined. Where `shared`, both take the same and have one norm between them."""

    left: Branch
    right: Branch = Branch(layer=Dead())
    combine: Combiner = Add()
    shared: bool = False

    def __post_init__(self) -> None:
        if all(isinstance(each.layer, Dead) for each in self.branches):
            raise QkvError("a node has two branches, of which one at most is Dead()")
        if self.shared and not (self.left.norm and self.right.norm and self.left.input == self.right.input):
            raise QkvError("branches that share a norm both have one, and take the same input")

    @property
    def branches(self) -> tuple[Branch, Branch]:
        """The left one and the right one."""
        return self.left, self.right

    @property
    def alive(self) -> list[Branch]:
        """The branches that there are."""
        return [each for each in self.branches if not isinstance(each.layer, Dead)]


@dataclass(frozen=True, init=False)
class Cell(Unit):
    """Nodes in a graph, in the place of a `Block`. Dropout comes after every layer but `Identity`."""

    nodes: tuple[Node, ...]
    norm: Norm
    dropout: float

    def __init__(self, *nodes: Node, norm: Norm = PreNorm(), dropout: float = 0.0) -> None:
        if not nodes:
            raise QkvError("a Cell needs at least one Node")
        refuse_dropout(self, dropout)
        for number, node in enumerate(nodes, 1):
            for branch in node.alive:
                if branch.input >= number:
                    raise QkvError(f"node {number} takes the result of node {branch.input}, which is not made before it")
        object.__setattr__(self, "nodes", tuple(nodes))
        object.__setattr__(self, "norm", norm)
        object.__setattr__(self, "dropout", dropout)

    @property
    def sublayers(self) -> tuple[Layer, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The layers of all branches, node by node."""
        return tuple(branch.layer for node in self.nodes for branch in node.branches)

    @property
    def loose(self) -> tuple[int, ...]:
        """The numbers of the nodes that no other takes: what comes out is their sum."""
        taken = {branch.input for node in self.nodes for branch in node.alive}
        return tuple(number for number in range(1, len(self.nodes) + 1) if number not in taken)

    def widths(self, width: int) -> list[int]:
        """The widths of the cell's input and of the results of its nodes, in a model of some width. Raises QkvError where one is
        no whole number, or heads or shared weights cannot divide theirs."""
        found = [width]
        for node in self.nodes:
            wide = [branch_width(branch, found[branch.input], width) for branch in node.alive]
            found.append(sum(wide) if isinstance(node.combine, Concatenate) else max(wide))
        return found


def branch_width(branch: Branch, inputs: int, width: int) -> int:
    """How wide the result of a branch is, whose input is `inputs` wide, in a model of some width. Raises QkvError where that is
    no whole number, or heads or shared weights cannot divide theirs."""
    if isinstance(branch.layer, Attention | MemoryAttention):
        head_width(branch.layer, width)
    if isinstance(branch.layer, Lightweight) and inputs % branch.layer.shared:
        raise QkvError(f"{branch.layer} shares its weights among {branch.layer.shared} channels, and cannot among {inputs}")
    wide = _asked(branch, inputs, width)
    if isinstance(branch.layer, MemoryAttention):
        refuse_projection(branch.layer, inputs, wide, width)
    if isinstance(branch.layer, Recurrent):
        recurrent_width(branch.layer, wide, width)
    return wide


def _asked(branch: Branch, inputs: int, width: int) -> int:
    if isinstance(branch.width, AsInput):
        return inputs
    wide = Fraction(branch.width).limit_denominator(10_000) * width
    if wide.denominator != 1:
        raise QkvError(f"a branch of {branch.width} times the width of {width} has no whole number of channels: {float(wide):g}")
    return int(wide)
