"""Worlds whose every question has one right answer that can be worked out, as frozen values: what is asked, and how long it is.

The algorithmic tasks of Dehghani et al. 2018, Universal Transformers, section 3.4, and those of learning to execute, section
3.5, which are after Zaremba and Sutskever 2014. Questions longer than those to learn from are a world of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from qkv.error import QkvError

LONGEST = 4000  # unless told to, Python neither reads nor writes numbers of more than 4300 digits
VARIABLES = "abcdefghij"  # a level of nesting takes at most one of them


@dataclass(frozen=True)
class Copy:
    """Digits, and the same digits (Dehghani et al. 2018, sections 3.4 and 3.5). All lengths from 1 up are equally likely."""

    longest: int = 40

    def __post_init__(self) -> None:
        _check(self, "longest", 1, LONGEST)


@dataclass(frozen=True)
class Reverse:
    """Digits, and the same digits from the last to the first (Dehghani et al. 2018, sections 3.4 and 3.5). All lengths from 1
    up are equally likely."""

    longest: int = 40

    def __post_init__(self) -> None:
        _check(self, "longest", 1, LONGEST)


@dataclass(frozen=True)
class Double:
    """Digits, and the same digits twice (Dehghani et al. 2018, section 3.5). All lengths from 1 up are equally likely; it is
    the question that `longest` bounds, not the answer."""

    longest: int = 55

    def __post_init__(self) -> None:
        _check(self, "longest", 1, LONGEST)


@dataclass(frozen=True)
class Addition:
    """Two numbers with + between them, and their sum, each with its lowest digit first (Dehghani et al. 2018, section 3.4).

    `longest` bounds the question with its +. The first number has 1 to longest // 2 digits, the second 1 to as many as there is
    room left for, all equally likely. So are all digits, the highest included: numbers may end in zeros. The sum never does,
    unless it is 0. Difference to the released code, where the highest of several digits is never 0.
    """

    longest: int = 40

    def __post_init__(self) -> None:
        _check(self, "longest", 4, LONGEST)


@dataclass(frozen=True)
class AddProgram:
    """A program in Python that prints the sum of two numbers, and what it prints (Zaremba and Sutskever 2014, section 3.1).

    Both numbers have the same number of digits, from 1 to `length`, all equally likely; the first digit is never 0.
    """

    length: int = 5

    def __post_init__(self) -> None:
        _check(self, "length", 1, LONGEST)


@dataclass(frozen=True)
class Program:
    """A program in Python without control flow, and what it prints (Zaremba and Sutskever 2014, section 3).

    It grows from one number, level by level. On each level what there is so far becomes one operand, in any place, of a sum or
    a difference, of a product with a number from 1 to 9, or of a sum or a difference whose first operand is a variable that was
    assigned just before; all three are equally likely. It is one line: a semicolon parts statements. The last one is print.

    There are 1 to `nesting` levels and 1 to `length` digits, both drawn evenly and anew for every program: the paper's mixed
    strategy (section 4). All numbers of so many digits or fewer are equally likely, but for 0.

    Differences to the released code: the number of digits is not drawn anew for every number, numbers stop short of 10**digits,
    the small factor does not grow with the digits, and there is no level that changes nothing.
    """

    nesting: int = 2
    length: int = 5

    def __post_init__(self) -> None:
        _check(self, "nesting", 1, len(VARIABLES))
        _check(self, "length", 1, LONGEST)


@dataclass(frozen=True)
class Control:
    """A program in Python with control flow, and what it prints (Zaremba and Sutskever 2014, section 3).

    It is as in `Program`, but a level may also be a choice between two operands, by which of two others is the greater, or a
    loop that adds an operand to a variable, or subtracts it, 1 to 9 times. All five are equally likely, so that a program may
    well have neither. Before and after a loop Python itself would want a line break where a semicolon stands here.
    """

    nesting: int = 2
    length: int = 5

    def __post_init__(self) -> None:
        _check(self, "nesting", 1, len(VARIABLES))
        _check(self, "length", 1, LONGEST)


@dataclass(frozen=True)
class Sorting:
    """Different numbers below `below`, and the same numbers from the smallest to the largest (Vinyals et al. 2016, Order Matters,
    section 5.1, of whole numbers). All counts from 2 up are equally likely."""

    longest: int = 10
    below: int = 1000

    def __post_init__(self) -> None:
        _check(self, "longest", 2, LONGEST)
        _check(self, "below", self.longest)


@dataclass(frozen=True)
class ConvexHull:
    """Different points of a grid, written x,y, and the corners of their convex hull: counter-clockwise, from the one that the
    question names first (Vinyals et al. 2015, Pointer Networks, section 3.1, of points in a square).

    All counts from 3 up are equally likely. A corner is where the outline turns: a point on a side is none. Points that all lie
    on one line are drawn anew.
    """

    longest: int = 10
    side: int = 32

    def __post_init__(self) -> None:
        _check(self, "longest", 3, LONGEST)
        _check(self, "side", 2)
        if self.side**2 < self.longest:
            raise QkvError(f"a grid of {self.side} x {self.side} has no {self.longest} points: raise ConvexHull.side")


World = Copy | Reverse | Double | Addition | AddProgram | Program | Control | Sorting | ConvexHull
POINTED = (Sorting, ConvexHull)
"""Those whose answers are words of their questions, and not characters."""


@dataclass(frozen=True)
class Drawn:
    """`number` pairs drawn from a world. Fewer of the same seed are the first of them; those of another seed are others."""

    world: World
    number: int
    seed: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.world, World):
            raise QkvError(f"Drawn.world must be a world, such as Copy(longest=40), not {self.world!r}")
        _check(self, "number", 1)
        _check(self, "seed", 0)


def _check(owner: object, place: str, least: int, most: int | None = None) -> None:
    value = getattr(owner, place)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise QkvError(f"{type(owner).__name__}.{place} must be a whole number {bounds}, not {value!r}")
