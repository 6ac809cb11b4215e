"""The values before training.

`Reduced` is as the paper of `spec.model.Reduced` has it, and for relative biases, masks, neighbourhoods and offsets as `Glorot`.
`Likeness` is as `Glorot`, and then the maps of keys are those of queries, and the maps behind attention the transposes of those
of values, where they fit, for as many heads as it says, and 0 for the others; `Orthogonal` draws those of queries and values
anew, and the embeddings; all other maps back onto the residual stream are then 0, and trained signals a tenth as long.

| place                   | `Glorot`                     | `Normal`                          | `FanIn`                         |
|-------------------------|------------------------------|-----------------------------------|---------------------------------|
| embeddings, places      | normal, deviation width^-0.5 | normal, its deviation             | normal, deviation 1             |
| untied output map,      | the same                     | the same                          | normal, deviation width^-0.5    |
| words of labels         |                              |                                   |                                 |
| linear maps             | Xavier uniform; q, k, v each | the same                          | normal, deviation inputs^-0.5   |
| maps back onto the      | as other maps                | divided by sqrt(number of these), | as other maps                   |
| residual stream         |                              | if they shrink                    |                                 |
| queries of `Dot` scores | as other maps                | as other maps                     | divided by sqrt(head width)     |
| maps of scores          | Xavier uniform, head by head | normal, its deviation             | normal, deviation inputs^-0.5   |
| widths, sharpnesses     | what the score says          | the same                          | the same                        |
| relative biases         | 0                            | 0                                 | normal, deviation heads^-0.5    |
| masks of words          | 1                            | the same                          | the same                        |
| masks of words of a     | 1 or -1                      | the same                          | the same                        |
| label                   |                              |                                   |                                 |
| neighbourhoods          | normal, deviation reach^-0.5 | the same                          | the same                        |
| offset of halting       | what `Halt` says             | the same                          | the same                        |
| offsets; norms          | 0; scale 1, offset 0         | the same                          | the same                        |
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qkv.model.attention import Attention, MemoryAttention
from qkv.model.block import Residual
from qkv.model.cell import Cell
from qkv.model.convolution import Neighbourhood
from qkv.model.embedding import Embedding, Entries, Table
from qkv.model.linear import Linear
from qkv.model.output import Output, Spelling
from qkv.model.position import RelativeBias, Signal
from qkv.model.recurrence import Recurrence
from qkv.model.recurrent import Unit
from qkv.model.score import Scored
from qkv.spec.halt import Halt
from qkv.spec.model import AllHeads, FanIn, Glorot, Initial, Likeness, Normal, Orthogonal, Reduced
from qkv.spec.position import Factorised, Position
from qkv.spec.score import ContentBased, Dot, Gaussian, Triangular

FAINT = 0.1  # how long signals are beside words, where attention begins by exact likeness


def initialise(model: nn.Module, how: Initial, seed: int) -> None:
    """Set every parameter, a pure function of the seed; the global random state stays as it was."""
    draw = _Draw(torch.Generator().manual_seed(seed), how, _parts(model), _back(model))
    for module in model.modules():
        match module:
            case Embedding():
                draw.rows(module.weight)
                for beside, tables in ((module.places, _tables(module.spec.position)), (module.segments, 1)):
                    if beside is not None:
                        draw.rows(beside, tables)
                if module.words is not None:
                    nn.init.ones_(module.words)
            case Spelling(masks=masks):
                draw.output(module.weight)
                if masks is not None:
                    _signs(masks.data, draw.generator)
            case Entries():
                pass
            case Table():
                draw.output(module.weight)
            case RelativeBias():
                draw.biases(module)
            case Scored():
                draw.score(module)
            case Signal():
                for table in (module.places, module.steps):
                    if table is not None:
                        draw.rows(table)
            case Neighbourhood():
                draw.neighbourhood(module.weight)
            case Recurrence(halting=nn.Linear() as halting, spec=described):
                assert isinstance(described.halt, Halt)
                draw.map(halting)
                nn.init.constant_(halting.bias, described.halt.bias)
            case Linear():
                draw.map(module)
            case Output(offset=offset) if offset is not None:
                nn.init.zeros_(offset)
            case nn.LayerNorm() | nn.RMSNorm():
                module.reset_parameters()
    if isinstance(how, Likeness):
        backs = {
            each: each.out for each in model.modules() if isinstance(each, Attention | MemoryAttention) and each.out is not None
        }
        if isinstance(how.maps, Orthogonal):
            _sharpen(model, how.maps, draw.back.difference(backs.values()), draw.generator)
            for attention in backs:
                _keep_angles(attention, _alike(attention, how), how.maps, draw.generator)
        for attention, back in backs.items():
            _liken(attention, _alike(attention, how), back.weight.data)


def _sharpen(model: nn.Module, maps: Orthogonal, others: set[nn.Module], generator: torch.Generator) -> None:
    """Let words be as unlike each other as their vectors can, and nothing blur what they say."""
    for module in model.modules():
        match module:
            case Embedding():
                nn.init.orthogonal_(module.weight, max(1.0, len(module.weight) / module.weight.shape[1]) ** 0.5, generator)
                if module.words is not None:
                    _signs(module.words.data[:, : round(maps.ordered * module.words.shape[1])], generator)
            case Signal():
                for table in (module.places, module.steps):
                    if table is not None:
                        table.data.mul_(FAINT)
            case _ if module in others:
                assert isinstance(module, nn.Linear)
                nn.init.zeros_(module.weight)
            case _:
                pass


def _alike(attention: Attention | MemoryAttention, how: Likeness) -> int:
    """How many of its heads begin by likeness."""
    return attention.spec.heads if isinstance(how.heads, AllHeads) else min(how.heads, attention.spec.heads)


def _keep_angles(attention: Attention | MemoryAttention, alike: int, maps: Orthogonal, generator: torch.Generator) -> None:
    """Draw the maps of queries and of values of the first heads so that they keep angles, at the size that `maps` says."""
    q, _, v, shared = maps_of(attention)
    wide = q.shape[0] // attention.spec.heads
    q, v = q[: alike * wide], v[: _served(alike, attention, shared) * (v.shape[0] // shared)]
    for weight in (q, v):
        nn.init.orthogonal_(weight, generator=generator)
    # of a normed vector, of length width^0.5, a head has this much on average; `ScaledDot` divides by wide^0.5
    own = q.shape[1] * wide / max(q.shape)
    q.mul_((maps.sharpness * wide**0.5 / _missing(attention) / own) ** 0.5)
    v.mul_(maps.taken**0.5)


def _liken(attention: Attention | MemoryAttention, alike: int, back: Tensor) -> None:
    """Let keys of the first heads be mapped as their queries, those that several heads share as the queries of the first of them,
    and map back what they receive as values are mapped, turned round; and what others receive to 0."""
    q, k, v, shared = maps_of(attention)
    heads, served = attention.spec.heads // shared, _served(alike, attention, shared)
    if q.shape[1] == k.shape[1]:
        queries = q.unflatten(0, (shared, heads, -1))[:served, 0].flatten(0, 1)
        k[: len(queries)] = queries
    if back.shape[0] == v.shape[1]:
        back.copy_(v.unflatten(0, (shared, 1, -1)).expand(-1, heads, -1, -1).flatten(0, 2).T)
        back[:, alike * (back.shape[1] // attention.spec.heads) :] = 0


def _served(alike: int, attention: Attention | MemoryAttention, shared: int) -> int:
    """How many heads of keys and values so many heads have."""
    return -(-alike * shared // attention.spec.heads)


def maps_of(attention: Attention | MemoryAttention) -> tuple[Tensor, Tensor, Tensor, int]:
    """The maps of queries, keys and values, and how many heads of the latter two there are."""
    if isinstance(attention, Attention):
        q, k, v = attention.qkv.weight.data.split(attention.widths)
        return q, k, v, attention.kv_heads
    assert attention.q is not None and attention.kv is not None, "what has an output map has the others"
    k, v = attention.kv.weight.data.chunk(2)
    return attention.q.weight.data, k, v, attention.spec.heads


def _signs(masks: Tensor, generator: torch.Generator) -> None:
    """Let masks tell places apart from the start: what is multiplied by one is unlike what is multiplied by another."""
    masks.copy_(torch.randint(2, masks.shape, generator=generator) * 2 - 1)


def _tables(position: Position) -> int:
    """How many vectors a place is the sum of."""
    return len(position.sizes) if isinstance(position, Factorised) else 1


def _parts(model: nn.Module) -> dict[nn.Module, tuple[list[int], float]]:
    """The maps that are several in one: the rows of each, and what the first of them, the queries, are divided by in `FanIn`."""
    found: dict[nn.Module, tuple[list[int], float]] = {}
    for module in model.modules():
        match module:
            case Attention():
                found[module.qkv] = list(module.widths), _missing(module)
            case MemoryAttention():
                if module.q is not None and module.kv is not None:
                    found[module.q] = [module.wide], _missing(module)
                    found[module.kv] = [module.wide, module.wide], 1.0
            case Unit():
                for each in (module.into, module.around, module.beside):
                    if each is not None:
                        found[each] = [module.hidden] * module.gates, 1.0
    return found


def _missing(attention: Attention | MemoryAttention) -> float:
    """The scale that scores lack, to be made up for by the queries."""
    spec = attention.spec
    asked = attention.key_width if isinstance(attention, Attention) else attention.wide // spec.heads
    return asked**0.5 if isinstance(spec.score, Dot) else 1.0


def _back(model: nn.Module) -> set[nn.Module]:
    """The maps whose result is added to the residual stream."""
    ends = [getattr(module.sublayer, "out", None) for module in model.modules() if isinstance(module, Residual)]
    found: set[nn.Module] = {each for each in ends if each is not None}
    return found.union(*(module.back() for module in model.modules() if isinstance(module, Cell)))


class _Draw:
    """Random values of one kind, from one generator."""

    def __init__(
        self, generator: torch.Generator, how: Initial, parts: dict[nn.Module, tuple[list[int], float]], back: set[nn.Module]
    ) -> None:
        self.generator, self.how, self.parts, self.back = generator, how, parts, back

    def rows(self, weight: Tensor, tables: int = 1) -> None:
        """A vector for each entry, or place; of places as many are added up as there are tables."""
        match self.how:
            case Glorot() | Likeness():
                self._normal(weight, weight.shape[1] ** -0.5)
            case Normal(deviation=deviation):
                self._normal(weight, deviation)
            case FanIn():
                self._normal(weight, 1.0)
            case Reduced(factor=factor):
                self._normal(weight, factor * (weight.shape[1] * tables) ** -0.5)

    def output(self, weight: Tensor) -> None:
        """A matrix that is an output map and nothing else."""
        match self.how:
            case FanIn():
                self._normal(weight, weight.shape[1] ** -0.5)
            case Reduced():
                nn.init.zeros_(weight)
            case _:
                self.rows(weight)

    def neighbourhood(self, weight: Tensor) -> None:
        """A weight for each distance and channel; their sum over a neighbourhood keeps the size of what it is of."""
        self._normal(weight, len(weight) ** -0.5)

    def map(self, linear: nn.Linear) -> None:
        """A linear map, which may be several in one."""
        rows, missing = self.parts.get(linear, ([linear.out_features], 1.0))
        for place, weight in enumerate(linear.weight.data.split(rows)):
            match self.how:
                case Glorot() | Likeness():
                    nn.init.xavier_uniform_(weight, generator=self.generator)
                case Normal(deviation=deviation, shrink=shrink):
                    self._normal(weight, deviation / (len(self.back) ** 0.5 if shrink and linear in self.back else 1.0))
                case FanIn():
                    self._normal(weight, linear.in_features**-0.5 / (missing if place == 0 else 1.0))
                case Reduced(factor=factor):
                    self._normal(weight, factor * (linear.in_features * (len(self.back) if linear in self.back else 1)) ** -0.5)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)

    def biases(self, relative: RelativeBias) -> None:
        """What is added to scores."""
        if isinstance(self.how, FanIn):
            self._normal(relative.weight, relative.weight.shape[1] ** -0.5)
        else:
            nn.init.zeros_(relative.weight)

    def score(self, scored: Scored) -> None:
        """What a score has to learn: maps or vectors, head by head, or numbers that the spec says."""
        for name, weight in scored.named_parameters():
            match scored.spec:
                case Gaussian(width=value) | Triangular(width=value) | ContentBased(sharpness=value) if name in scored.names:
                    nn.init.constant_(weight, math.log(value))
                    continue
                case _:
                    pass
            for each in weight.data:
                match self.how:
                    case Glorot() | Likeness():
                        nn.init.xavier_uniform_(each.view(len(each), -1), generator=self.generator)
                    case Normal(deviation=deviation):
                        self._normal(each, deviation)
                    case FanIn() | Reduced():
                        self._normal(each, len(each) ** -0.5)

    def _normal(self, weight: Tensor, deviation: float) -> None:
        nn.init.normal_(weight, std=deviation, generator=self.generator)
