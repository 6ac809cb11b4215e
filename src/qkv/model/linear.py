"""Linear maps, and how those of a finished model are made quick on a CPU.

PyTorch hands a product to a library that lays both factors out anew each time. A finished model multiplies by the same weights
again and again, often a handful of rows at a time: so its weights are laid out once, in the way that this CPU likes best, and
each product goes the way that is quickest for its number of rows. Libraries differ in their taste in processors, by factors of up
to four; so the ways are timed. The results are those of `functional.linear` but for rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from qkv import device as machine

UP_TO, TIMED = (1, 8, 48), (1, 4, 24)  # classes of rows, and the number that stands for each
MANY = 128  # rows, for which the ways are timed that lay the weight out
WIDE = 4096  # columns of the result, above which reading the weight decides: oneDNN does that best
SHAPE = (2048, 512)  # of the weight that stands for all others
GAIN = 0.9  # of the time of the weight as it lies: what a way must save to be taken

Product = Callable[[Float[Tensor, "... D"]], Float[Tensor, "... E"]]


class Linear(nn.Linear):
    """x -> x W^T + offset."""

    packed: Product | None = None

    def forward(self, input: Float[Tensor, "... D"]) -> Float[Tensor, "... E"]:
        return multiply(input, self.weight, self.bias, self.packed)

    def product(self) -> Product:
        """This map for many calls that want no gradient."""
        return self.packed or self.forward


def multiply(
    x: Float[Tensor, "... D"], weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None, packed: Product | None
) -> Float[Tensor, "... E"]:
    """x W^T + offset, by way of what was packed where there is such a thing and nobody wants a gradient."""
    return functional.linear(x, weight, offset) if packed is None or torch.is_grad_enabled() else packed(x)


def packed(weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None = None) -> Product:
    """x -> x W^T + offset for a weight that changes no more, with a copy of it laid out for this CPU."""
    weight, offset = weight.detach(), None if offset is None else offset.detach()
    if weight.dtype != torch.float32:
        return _packed(weight, offset)
    names, width = OF_WIDE if len(weight) > WIDE else _quickest(), weight.shape[1]
    made = {name: WAYS[name](weight, offset) for name in set(names)}
    one, few, some, more = (made[name] for name in names)
    at_one, at_few, at_some = (rows * width for rows in UP_TO)

    def product(x: Tensor) -> Tensor:
        size = x.numel()
        if size <= at_few:
            return one(x) if size <= at_one else few(x)
        return some(x) if size <= at_some else more(x)

    return product


def of_few_rows(weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None) -> Product:
    """x -> x W^T + offset for a handful of rows, by a weight that was just made: to pack it would take longer than it saves."""
    name = _quickest()[1]
    return WAYS["as it lies" if name == "packed" else name](weight, offset)


class InEightBits:
    """x -> x W^T + offset, with W rounded to eight bits, row by row."""

    def __init__(self, weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None = None) -> None:
        self._laid_out = machine.int8_weight(weight, offset)

    def __call__(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... E"]:
        return machine.int8_product(x, self._laid_out)


def _as_it_lies(weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None) -> Product:
    return lambda x: functional.linear(x, weight, offset)


def _from_the_other_side(weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None) -> Product:
    """(W x^T)^T."""
    width = weight.shape[1]
    column = weight.new_zeros(1, 1) if offset is None else offset[:, None]

    def product(x: Tensor) -> Tensor:
        y = torch.addmm(column, weight, x.reshape(-1, width).t())
        return y.t().contiguous().view(*x.shape[:-1], -1)

    return product


def _transposed(weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None) -> Product:
    """With a copy of the weight, column after column."""
    width, across = weight.shape[1], weight.t().contiguous()

    def product(x: Tensor) -> Tensor:
        rows = x.reshape(-1, width)
        y = torch.mm(rows, across) if offset is None else torch.addmm(offset, rows, across)
        return y.view(*x.shape[:-1], -1)

    return product


def _packed(weight: Float[Tensor, "E D"], offset: Float[Tensor, " E"] | None) -> Product:
    """With a copy of the weight as oneDNN likes it."""
    laid_out = machine.packed_weight(weight)
    return lambda x: machine.packed_product(x, laid_out, offset)


Way = Callable[[Tensor, Tensor | None], Product]
COPIES: dict[str, Way] = {"packed": _packed, "transposed": _transposed}
OF_WIDE = ("as it lies", "packed", "packed", "packed")
WAYS: dict[str, Way] = {"as it lies": _as_it_lies, "from the other side": _from_the_other_side, **COPIES}


@functools.cache
def _quickest() -> tuple[str, ...]:
    """The way to go for each class of rows, and for more of them than in any class, on this CPU; timed once."""
    copy = _better_copy()
    weight, offset = torch.ones(SHAPE), torch.zeros(SHAPE[0])
    made = {name: way(weight, offset) for name, way in WAYS.items() if name == copy or name not in COPIES}

    def quickest(rows: int) -> str:
        x = torch.ones(rows, SHAPE[1])
        seconds = {name: machine.shortest(functools.partial(way, x)) for name, way in made.items()}
        best = min(seconds, key=lambda name: seconds[name])
        return best if seconds[best] < GAIN * seconds["as it lies"] else "as it lies"

    return (*(quickest(rows) for rows in TIMED), copy)


@functools.cache
def _better_copy() -> str:
    """How a weight is laid out, where it is: one copy is enough."""
    weight, some, many = (torch.ones(rows, SHAPE[1]) for rows in (SHAPE[0], TIMED[-1], MANY))

    def seconds_a_row(way: Way) -> float:
        product = way(weight, None)
        return sum(machine.shortest(functools.partial(product, x)) / len(x) for x in (some, many))

    seconds = {name: seconds_a_row(way) for name, way in COPIES.items()}
    return min(seconds, key=lambda name: seconds[name])
