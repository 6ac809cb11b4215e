"""Pairs of a world, question and answer, drawn on the spot; and how many of the answers that were told are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import eq
from random import Random
from typing import Literal

from qkv.data.pair import Pair
from qkv.error import QkvError
from qkv.spec.world import (
    VARIABLES,
    Addition,
    AddProgram,
    Control,
    ConvexHull,
    Copy,
    Double,
    Drawn,
    Program,
    Reverse,
    Sorting,
    World,
)

Point = tuple[int, int]

Kind = Literal["sum", "product", "variable", "choice", "loop"]
"""What a level of a program may be."""

PLAIN: tuple[Kind, ...] = ("sum", "product", "variable")
CONTROL: tuple[Kind, ...] = (*PLAIN, "choice", "loop")
OPERANDS: dict[Kind, int] = {"sum": 2, "product": 1, "variable": 2, "choice": 4, "loop": 2}

SIGNS = (("+", 1), ("-", -1))
MOST_SMALL = 9  # the greatest factor, and the most rounds of a loop


@dataclass(frozen=True)
class Accuracy:
    """How much of what was told is right: the share of characters, and the share of answers right as a whole."""

    characters: float
    sequences: float


def pairs(drawn: Drawn) -> Iterator[Pair]:
    """The pairs, one after the other. Each is a pure function of the world, the seed and its place, however many are drawn."""
    # Of a string, or some other seed and place would come to the same number.
    name = f"qkv {drawn.world!r} {drawn.seed}"
    for place in range(drawn.number):
        yield _pair(drawn.world, Random(f"{name} {place}"))


def accuracy(told: Sequence[str], truth: Sequence[str]) -> Accuracy:
    """How much of what was told is right, answer by answer, each against its truth.

    An answer is right as a whole where it is the same string as the truth: no space is forgiven. Its characters are compared
    place by place from the first on, so that one left out puts all behind it in the wrong place. A missing character is wrong,
    and so is each one too many: there are as many places as the longer of the two strings has. The share of characters is over
    the places of all answers together, so that long answers weigh more; it is 1 where there are no places at all.
    """
    if len(told) != len(truth) or not truth:
        raise QkvError(f"{len(told)} answer(s) told for {len(truth)} true one(s): expected one for each, and at least one")
    sides = list(zip(told, truth, strict=True))
    places = sum(max(len(one), len(other)) for one, other in sides)
    right = sum(sum(map(eq, one, other)) for one, other in sides)
    return Accuracy(right / places if places else 1.0, sum(one == other for one, other in sides) / len(sides))


def _pair(world: World, random: Random) -> Pair:
    match world:
        case Copy(longest=longest):
            text = _digits(random.randint(1, longest), random)
            return text, text
        case Reverse(longest=longest):
            text = _digits(random.randint(1, longest), random)
            return text, text[::-1]
        case Double(longest=longest):
            text = _digits(random.randint(1, longest), random)
            return text, text + text
        case Addition(longest=longest):
            first = random.randint(1, longest // 2)
            second = random.randint(1, longest - first - 1)
            left, right = _digits(first, random), _digits(second, random)
            return f"{left}+{right}", str(int(left[::-1]) + int(right[::-1]))[::-1]
        case AddProgram(length=length):
            digits = random.randint(1, length)
            left, right = (random.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
            return f"print({left}+{right})", str(left + right)
        case Program():
            return _program(world, PLAIN, random)
        case Control():
            return _program(world, CONTROL, random)
        case Sorting(longest=longest, below=below):
            numbers = random.sample(range(below), random.randint(2, longest))
            return " ".join(map(str, numbers)), " ".join(map(str, sorted(numbers)))
        case ConvexHull():
            return _convex_hull(world, random)


def _convex_hull(world: ConvexHull, random: Random) -> Pair:
    count, corners, points = random.randint(3, world.longest), [], []
    while len(corners) < 3:
        points = [divmod(place, world.side) for place in random.sample(range(world.side**2), count)]
        corners = hull(points)
    first = corners.index(next(point for point in points if point in corners))
    question, answer = (" ".join(f"{x},{y}" for x, y in row) for row in (points, corners[first:] + corners[:first]))
    return question, answer


def hull(points: Sequence[Point]) -> list[Point]:
    """The corners of the convex hull of different points, counter-clockwise (Andrew 1979); of points on one line both ends."""

    def half(ordered: Sequence[Point]) -> list[Point]:
        found: list[Point] = []
        for x, y in ordered:
            while len(found) > 1:
                (a, b), (c, d) = found[-2:]
                if (c - a) * (y - b) > (d - b) * (x - a):  # a turn to the left
                    break
                found.pop()
            found.append((x, y))
        return found[:-1]

    ordered = sorted(points)
    return half(ordered) + half(ordered[::-1])


def _digits(count: int, random: Random) -> str:
    """So many digits, each as likely as any other."""
    return str(random.randrange(10**count)).zfill(count)


@dataclass(frozen=True)
class _Term:
    """An expression, and what it comes to after the statements that are to stand before it."""

    text: str
    value: int
    before: tuple[str, ...] = ()


def _program(world: Program | Control, kinds: tuple[Kind, ...], random: Random) -> Pair:
    nesting, bound = random.randint(1, world.nesting), 10 ** random.randint(1, world.length)
    term, statements = _number(bound, random), []
    for variable in random.sample(VARIABLES, nesting):
        kind = random.choice(kinds)
        operands = [term, *(_number(bound, random) for _ in range(OPERANDS[kind] - 1))]
        random.shuffle(operands)
        term = _level(kind, operands, variable, random)
        statements.extend(term.before)
    return ";".join([*statements, f"print({term.text})"]), str(term.value)


def _number(bound: int, random: Random) -> _Term:
    value = random.randrange(1, bound)
    return _Term(str(value), value)


def _level(kind: Kind, operands: list[_Term], variable: str, random: Random) -> _Term:
    """What a level makes of its operands, with a variable that no other level has."""
    first, last = operands[0], operands[-1]
    match kind:
        case "sum":
            mark, sign = random.choice(SIGNS)
            return _Term(f"({first.text}{mark}{last.text})", first.value + sign * last.value)
        case "product":
            small = random.randint(1, MOST_SMALL)
            text = random.choice((f"({small}*{first.text})", f"({first.text}*{small})"))
            return _Term(text, small * first.value)
        case "variable":
            mark, sign = random.choice(SIGNS)
            return _Term(f"({variable}{mark}{last.text})", first.value + sign * last.value, (f"{variable}={first.text}",))
        case "choice":
            chosen, left, right, other = operands
            mark, sure = random.choice(((">", left.value > right.value), ("<", left.value < right.value)))
            text = f"({chosen.text} if {left.text}{mark}{right.text} else {other.text})"
            return _Term(text, chosen.value if sure else other.value)
        case "loop":
            mark, sign = random.choice(SIGNS)
            rounds = random.randint(1, MOST_SMALL)
            before = (f"{variable}={first.text}", f"for x in range({rounds}):{variable}{mark}={last.text}")
            return _Term(variable, first.value + sign * rounds * last.value, before)
