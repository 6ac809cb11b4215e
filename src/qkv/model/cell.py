"""Layers in a graph: the nodes of a cell (So et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from qkv.model.attention import Attention, MemoryAttention
from qkv.model.block import AnyNorm, Block, in_a_row, norm_of, normaliser
from qkv.model.context import Context, Step
from qkv.model.convolution import Averaged, Neighbourhood, Patches, Reaching
from qkv.model.feedforward import ACTIVATIONS
from qkv.model.linear import Linear
from qkv.model.recurrent import Recurrent
from qkv.spec import cell as spec
from qkv.spec import part
from qkv.spec.part import Norm, ReLU

BRANCHES = 2  # of a node
JOINS: dict[type[spec.Combiner], tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
    spec.Add: (torch.add, 0.0),
    spec.Multiply: (torch.mul, 1.0),
    spec.Maximum: (torch.maximum, -torch.inf),
}


class Dense(nn.Module):
    """A linear map, or two of which the second one gates the first."""

    def __init__(self, gated: bool, inputs: int, outputs: int, offset: bool) -> None:
        super().__init__()
        self.out = Linear(inputs, outputs * (2 if gated else 1), bias=offset)
        self.gated = gated

    def forward(self, x: Float[Tensor, "... D"], ctx: Context) -> Float[Tensor, "... E"]:
        return self._opened(self.out(x))

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        out = self.out.product()
        return lambda x: self._opened(out(x))

    def _opened(self, x: Float[Tensor, "... _"]) -> Float[Tensor, "... E"]:
        return nn.functional.glu(x, -1) if self.gated else x


def layer(described: spec.Layer, inputs: int, outputs: int, width: int) -> nn.Module:
    """The module of a layer, from one width to another in a model of a third."""
    match described:
        case spec.Attention():
            return Attention(described, width, inputs, outputs)
        case spec.MemoryAttention():
            return MemoryAttention(described, width, inputs, outputs)
        case spec.Recurrent():
            return Recurrent(described, width, inputs, outputs)
        case spec.Dense() | spec.Gate():
            return Dense(isinstance(described, spec.Gate), inputs, outputs, described.offset)
        case spec.Convolution():
            return Reaching(Patches(described, inputs, outputs))
        case spec.Separable(reach=reach, pattern=pattern, offset=offset):
            return Reaching(Neighbourhood(inputs, reach, pattern), Linear(inputs, outputs, bias=offset))
        case spec.Depthwise(reach=reach, pattern=pattern):
            return Reaching(Neighbourhood(inputs, reach, pattern))
        case spec.Lightweight():
            return Reaching(Averaged(described, inputs))
        case spec.Identity() | spec.Dead():
            return nn.Identity()


class Branch(nn.Module):
    """Norm, layer, activation and dropout."""

    def __init__(self, described: spec.Branch, norm: Norm, dropout: float, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.norm = norm_of(norm, inputs) if described.norm else nn.Identity()
        self.sublayer = layer(described.layer, inputs, outputs, width)
        self._activation = None if isinstance(described.activation, spec.NoActivation) else ACTIVATIONS[described.activation]
        if isinstance(described.layer, spec.Identity) and isinstance(described.activation, ReLU):
            self._activation = torch.relu  # others may take what comes in, too
        self.dropout = 0.0 if isinstance(described.layer, spec.Identity) else dropout

    def forward(self, x: Float[Tensor, "... D"], ctx: Context) -> Float[Tensor, "... E"]:
        x = self.norm(x)
        x = x if isinstance(self.sublayer, nn.Identity) else self.sublayer(x, ctx)
        x = x if self._activation is None else self._activation(x)
        return x if ctx.noise is None or self.dropout == 0 else x * ctx.noise.mask(x, self.dropout, ctx.path)

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        norm: Step | None = None if isinstance(self.norm, nn.Identity) else normaliser(cast(AnyNorm, self.norm))
        through: Step | None = None
        if not isinstance(self.sublayer, nn.Identity):
            through = cast(Callable[[Context], Step], self.sublayer.stepper)(ctx)
        return in_a_row([each for each in (norm, through, self._activation) if each is not None])


class Cell(nn.Module):
    """Nodes in a graph."""

    def __init__(self, described: spec.Cell, width: int) -> None:
        super().__init__()
        widths = described.widths(width)
        self.spec = described
        self.branches = nn.ModuleList()
        for node in described.nodes:
            for branch in node.branches:
                inputs = widths[branch.input] if not isinstance(branch.layer, spec.Dead) else width
                outputs = spec.branch_width(branch, inputs, width)
                self.branches.append(Branch(branch, described.norm, described.dropout, inputs, outputs, width))
            if node.shared:
                cast(Branch, self.branches[-1]).norm = cast(Branch, self.branches[-2]).norm
        wide = max(widths[number] for number in described.loose)
        self.out = None if wide == width else Linear(wide, width)

    def forward(self, x: Float[Tensor, "... D"], ctx: Context) -> Float[Tensor, "... D"]:
        return self._through(x, [partial(cast(Branch, each), ctx=ctx.at(str(place))) for place, each in enumerate(self.branches)])

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        steps = [cast(Branch, each).stepper(ctx.at(str(place))) for place, each in enumerate(self.branches)]
        return lambda x: self._through(x, steps)

    def stay(self, ctx: Context) -> None:
        """A step of a recurrence at which every position has halted: what others see of it is put into the slots."""
        for place, branch in enumerate(self.branches):
            sublayer = cast(Branch, branch).sublayer
            if hasattr(sublayer, "stay"):
                cast(Callable[[Context], None], sublayer.stay)(ctx.at(str(place)))

    def back(self) -> Iterator[Linear]:
        """The maps whose result is added to what another branch lets through as it is: to the residual stream."""
        for number, node in enumerate(self.spec.nodes):
            kinds = [type(branch.layer) for branch in node.branches]
            if spec.Identity in kinds and isinstance(node.combine, spec.Add):
                for branch in list(self.branches)[BRANCHES * number :][:BRANCHES]:
                    out = getattr(cast(Branch, branch).sublayer, "out", None)
                    if isinstance(out, Linear):
                        yield out

    def _through(self, x: Float[Tensor, "... D"], steps: Sequence[Callable[[Tensor], Tensor]]) -> Float[Tensor, "... D"]:
        made = [x]
        for number, node in enumerate(self.spec.nodes):
            places = range(BRANCHES * number, BRANCHES * (number + 1))
            found = [
                steps[place](made[branch.input])
                for place, branch in zip(places, node.branches, strict=True)
                if not isinstance(branch.layer, spec.Dead)
            ]
            made.append(joined(found, node.combine))
        result = joined([made[number] for number in self.spec.loose], spec.Add())
        return result if self.out is None else self.out(result)


def joined(found: Sequence[Float[Tensor, "... _"]], combine: spec.Combiner) -> Float[Tensor, "... E"]:
    """What branches or nodes make together: channels that one of them lacks are 0 in a sum, 1 in a product, and no maximum."""
    if isinstance(combine, spec.Concatenate):
        return torch.cat(list(found), -1)
    how, lacking = JOINS[type(combine)]
    wide = max(x.shape[-1] for x in found)
    result, *others = (x if x.shape[-1] == wide else pad(x, (0, wide - x.shape[-1]), value=lacking) for x in found)
    for x in others:
        result = how(result, x)
    return result


def unit(described: part.Unit, width: int) -> Block | Cell:
    """The module of a block or a cell."""
    if isinstance(described, spec.Cell):
        return Cell(described, width)
    assert isinstance(described, part.Block), f"{described} is neither a block nor a cell"
    return Block(described, width)
