"""Worlds: every answer found again by other means, questions as likely as said, and pairs that depend on their place alone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import FrozenInstanceError
from itertools import islice, zip_longest
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.data.text import Pair
from qkv.data.world import Accuracy, accuracy, hull, pairs
from qkv.error import QkvError
from qkv.spec.world import (
    LONGEST,
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

WORLDS: tuple[World, ...] = (Copy(), Reverse(), Double(), Addition(), AddProgram(), Program(), Control())
MANY = 1000
PAIRS = [f"{number:02}" for number in range(100)]

SEEDS = st.integers(0, 2**70)


def draw(world: World, number: int = MANY, seed: int = 1) -> list[Pair]:
    return list(pairs(Drawn(world, number, seed)))


def assert_even(seen: Iterable, outcomes: Iterable) -> None:
    """All outcomes and no others, none so often or so rarely that a fair draw would do it once in ten thousand times."""
    counted, possible = Counter(seen), list(outcomes)
    assert set(counted) == set(possible)
    expected, free = counted.total() / len(possible), len(possible) - 1
    statistic = sum((counted[outcome] - expected) ** 2 / expected for outcome in possible)
    # The cube root of a chi-square is nearly normal (Wilson and Hilferty 1931).
    assert ((statistic / free) ** (1 / 3) - (1 - 2 / (9 * free))) / sqrt(2 / (9 * free)) < 3.8, counted


def lines(program: str) -> str:
    """A program as Python can run it."""
    return program.replace(";", "\n")


def printed(program: str) -> list[str]:
    """All that a program prints, by Python itself."""
    said: list[str] = []
    exec(lines(program), {"__builtins__": {"print": lambda value: said.append(str(value)), "range": range}})
    return said


def levels(program: str) -> int:
    return len(re.findall(r"\*|[+-](?!=)|\bif\b|\bfor\b", program))


def only_level(program: str) -> str:
    """What the one level of a program with one level is."""
    assert levels(program) == 1
    marks = {"for": "loop", "if": "choice", "*": "product", "=": "variable"}
    return next((level for mark, level in marks.items() if mark in program), "sum")


def numbers(program: str) -> list[int]:
    return [int(number) for number in re.findall("[0-9]+", program)]


# Digits


@pytest.mark.parametrize(
    ("world", "answer"),
    [
        (Copy(40), lambda question: question),
        (Reverse(40), lambda question: "".join(reversed(question))),
        (Double(55), lambda question: "".join([*question, *question])),
    ],
)
def test_memory(world: Copy | Reverse | Double, answer: Callable[[str], str]) -> None:
    drawn = draw(world)
    assert all(told == answer(question) for question, told in drawn)
    assert_even((len(question) for question, _ in drawn), range(1, world.longest + 1))
    for place in (0, -1):
        assert_even((question[place] for question, _ in drawn), "0123456789")
    assert_even("".join(question for question, _ in drawn), "0123456789")


def test_digits_do_not_depend_on_those_before() -> None:
    assert_even((a + b for question, _ in draw(Copy()) for a, b in zip(question[::2], question[1::2], strict=False)), PAIRS)


def test_sums_of_numbers_with_the_lowest_digit_first() -> None:
    for question, answer in draw(Addition()):
        found = re.fullmatch(r"([0-9]{1,20})\+([0-9]{1,38})", question)
        assert found and len(question) <= 40
        values = [sum(int(digit) * 10**power for power, digit in enumerate(number)) for number in found.groups()]
        assert "".join(reversed(answer)) == str(sum(values)), question


def test_lengths_of_numbers_to_add() -> None:
    long = [[len(side) for side in question.split("+")] for question, _ in draw(Addition())]
    assert_even((first for first, _ in long), range(1, 21))
    short = [tuple(len(side) for side in question.split("+")) for question, _ in draw(Addition(7))]
    assert_even((first for first, _ in short), range(1, 4))
    for first in range(1, 4):
        assert_even((second for other, second in short if other == first), range(1, 7 - first))
    assert {tuple(len(side) for side in question.split("+")) for question, _ in draw(Addition(4))} == {(1, 1), (1, 2), (2, 1)}


def test_digits_of_numbers_to_add() -> None:
    drawn = draw(Addition())
    for side in (0, 1):
        for place in (0, -1):
            assert_even((question.split("+")[side][place] for question, _ in drawn), "0123456789")
    # Zeros that stand for nothing are in the numbers but not in the sum.
    assert {answer for question, answer in draw(Addition(4), 2 * MANY) if set(question) <= {"0", "+"}} == {"0"}
    assert not any(answer.endswith("0") and answer != "0" for _, answer in drawn)


# Programs


def test_programs_that_add() -> None:
    drawn = draw(AddProgram())
    lengths = []
    for program, answer in drawn:
        found = re.fullmatch(r"print\(([1-9][0-9]*)\+([1-9][0-9]*)\)", program)
        assert found and len(found[1]) == len(found[2])
        assert printed(program) == [answer]
        lengths.append(len(found[1]))
    assert_even(lengths, range(1, 6))
    short = [re.findall("[0-9]", program) for program, _ in draw(AddProgram(1))]
    assert_even((tuple(digits) for digits in short), [(a, b) for a in "123456789" for b in "123456789"])


@pytest.mark.parametrize("world", [Program(), Control(), Program(10, 3), Control(10, 2), Control(3, 40), Control(1, 1)])
def test_answers_are_what_python_prints(world: Program | Control) -> None:
    for program, answer in draw(world, 300):
        assert printed(program) == [answer], program
        assert "print" in program.split(";")[-1]


@given(st.integers(1, 10), st.integers(1, 60), SEEDS)
def test_answers_are_what_python_prints_in_any_world(nesting: int, length: int, seed: int) -> None:
    for world in (Program(nesting, length), Control(nesting, length), AddProgram(length)):
        for program, answer in draw(world, 3, seed):
            assert printed(program) == [answer], program


@pytest.mark.parametrize("world", [Program(4, 5), Control(4, 5)])
def test_nesting_and_length_are_as_likely_as_said(world: Program | Control) -> None:
    programs = [program for program, _ in draw(world)]
    assert_even((levels(program) for program in programs), range(1, 5))
    for program in programs:
        assert min(numbers(program)) >= 1 and max(numbers(program)) < 10**5
    # Nine of ten numbers have as many digits as there may be in their program.
    longest = Counter(len(str(max(numbers(program)))) for program in programs)
    assert set(longest) == set(range(1, 6))
    assert all(0.17 < longest[length] / MANY < 0.25 for length in longest), longest


def test_numbers_of_a_program_are_as_likely_as_said() -> None:
    sums = [program for program, _ in draw(Program(1, 1), 2 * MANY) if only_level(program) == "sum"]
    assert_even((tuple(numbers(program)) for program in sums), [(a, b) for a in range(1, 10) for b in range(1, 10)])
    # One digit is all there may be in half of the programs; in the other half, 9 numbers in 99 have no more.
    found = [number for program, _ in draw(Program(1, 2)) if only_level(program) == "sum" for number in numbers(program)]
    assert sum(number < 10 for number in found) / len(found) == pytest.approx((1 + 9 / 99) / 2, abs=0.07)
    assert_even((number // 10 for number in found if number > 9), range(1, 10))


def test_kinds_of_levels() -> None:
    plain = ["product", "sum", "variable"]
    assert_even((only_level(program) for program, _ in draw(Program(1, 2))), plain)
    assert_even((only_level(program) for program, _ in draw(Control(1, 2))), [*plain, "choice", "loop"])
    assert not any(re.search("if|for|<|>", program) for program, _ in draw(Program()))


def test_signs_and_small_numbers() -> None:
    programs = [program for program, _ in draw(Control(1, 3), 2 * MANY)]
    by: dict[str, list[str]] = defaultdict(list)
    for program in programs:
        by[only_level(program)].append(program)
    for kind in ("sum", "variable", "loop"):
        assert_even((re.findall("[+-]", program)[0] for program in by[kind]), "+-")
    assert_even((re.findall("[<>]", program)[0] for program in by["choice"]), "<>")
    assert_even((re.findall(r"range\((\d+)\)", program)[0] for program in by["loop"]), "123456789")
    # With numbers of up to three digits a factor of one digit can be told only where the other has more.
    sides = [re.findall(r"\d+", program) for program in by["product"]]
    uneven = [(int(len(a) == 1), min(a, b, key=len)) for a, b in sides if len(a) != len(b)]
    assert_even((small for _, small in uneven), "123456789")
    assert_even((first for first, _ in uneven), (0, 1))
    assert all(min(len(a), len(b)) == 1 for a, b in sides)
    assert_even((program[0] for program in by["variable"] + by["loop"]), VARIABLES)


def test_what_there_is_so_far_may_be_any_operand() -> None:
    programs = [program for program, _ in draw(Control(2, 2), 3 * MANY)]
    # Where the level below is a product, all other operands are numbers.
    part = r"([0-9]+|\([0-9]+\*[0-9]+\))"
    choices = [re.fullmatch(rf"print\(\({part} if {part}[<>]{part} else {part}\)\)", program) for program in programs]
    loops = [re.fullmatch(rf".={part};for x in range\(.\):.[+-]={part};print\(.\)", program) for program in programs]
    for found, count in ((choices, 4), (loops, 2)):
        inside = [["*" in operand for operand in match.groups()].index(True) for match in found if match and "*" in match[0]]
        assert_even(inside, range(count))


def test_variables_are_assigned_once_and_then_used() -> None:
    for program, _ in draw(Control(10, 2), 300):
        *before, last = program.split(";")
        assigned = [line[0] for line in before if line[1] == "="]
        assert len(set(assigned)) == len(assigned) and set(assigned) <= set(VARIABLES)
        assert all(len(re.findall(rf"\b{name}\b", program)) >= 2 for name in assigned), program
        assert last.startswith("print(") and last.endswith(")") and program.count("print") == 1


@pytest.mark.parametrize("world", WORLDS)
def test_a_pair_is_two_lines_of_plain_characters(world: World) -> None:
    for question, answer in draw(world, 300):
        assert re.fullmatch(r"[0-9a-z+*=<>:;() -]+", question) and re.fullmatch(r"-?[0-9]+", answer)
        assert question == question.strip()


# Purity


@pytest.mark.parametrize("world", WORLDS)
def test_the_world_the_seed_and_the_place_decide_everything(world: World) -> None:
    first = draw(world, 10)
    assert len(first) == 10 and draw(world, 10) == first
    more = draw(world, 300)
    assert more[:10] == first and len(set(more)) > 200
    assert draw(world, 10, seed=2) != first


def test_no_two_seeds_share_pairs() -> None:
    seeds = (0, 1, 2, 11, 12, 2**32, 2**32 + 1, 2**64, 2**64 + 1)
    long = [{question for question, _ in draw(Copy(), 200, seed) if len(question) > 15} for seed in seeds]
    assert len(set.union(*long)) == sum(map(len, long)) > 900


def test_pairs_are_drawn_one_by_one() -> None:
    assert list(islice(pairs(Drawn(Reverse(), 10**15)), 3)) == draw(Reverse(), 3)


def test_pairs_stay_what_they_are() -> None:
    # Whoever changes these changes what has been learnt from.
    assert draw(Reverse(9), 3) == [("8507244", "4427058"), ("73802", "20837"), ("1844352", "2534481")]
    assert draw(Addition(9), 3) == [("0+0", "0"), ("8+8", "61"), ("03+9036", "9336")]
    assert draw(AddProgram(), 3) == [("print(666+371)", "1037"), ("print(375+892)", "1267"), ("print(7+2)", "9")]
    assert draw(Control(), 4, seed=7) == [
        ("g=4832;print(((g-7227)+8495))", "6100"),
        ("e=3;print((e+(5*3)))", "18"),
        ("print((3*1))", "3"),
        ("d=9;for x in range(7):d+=9;a=d;print((a+6))", "78"),
    ]


# Bounds


@given(st.integers(4, 300), SEEDS)
def test_no_question_is_too_long(longest: int, seed: int) -> None:
    for world in (Copy(longest), Reverse(longest), Double(longest), Addition(longest)):
        assert all(1 <= len(question) <= longest for question, _ in draw(world, 5, seed))


def test_the_greatest_worlds_can_be_drawn_from() -> None:
    memory = (Copy(LONGEST), Reverse(LONGEST), Double(LONGEST))
    for world in (*memory, Addition(LONGEST), AddProgram(LONGEST), Program(10, LONGEST), Control(10, LONGEST)):
        assert max(len(question) for question, _ in draw(world, 5)) > 1000


def test_the_smallest_worlds() -> None:
    assert {len(question) for question, _ in draw(Copy(1), 50)} == {1}
    assert Drawn(Copy(), 1, 0).seed == 0 and len(draw(Addition(4), 1, 0)) == 1
    assert [Copy().longest, Reverse().longest, Double().longest, Addition().longest, AddProgram().length] == [40, 40, 55, 40, 5]
    assert Program() == Program(nesting=2, length=5) and Control() == Control(nesting=2, length=5)
    with pytest.raises(FrozenInstanceError):
        Copy().longest = 3  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [0, -1, True, 2.0, "3", None, LONGEST + 1])
def test_lengths_that_are_none(wrong: object) -> None:
    for world in (Copy, Reverse, Double, Addition):
        with pytest.raises(QkvError, match=rf"{world.__name__}\.longest must be a whole number from . to {LONGEST}, not "):
            world(longest=wrong)  # type: ignore[arg-type]
    for world in (AddProgram, Program, Control):
        with pytest.raises(QkvError, match=rf"{world.__name__}\.length must be a whole number from 1 to {LONGEST}, not "):
            world(length=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0, -1, True, 2.0, "3", None, 11])
def test_nestings_that_are_none(wrong: object) -> None:
    for world in (Program, Control):
        with pytest.raises(QkvError, match=rf"{world.__name__}\.nesting must be a whole number from 1 to 10, not "):
            world(nesting=wrong)  # type: ignore[arg-type]


def test_an_addition_needs_room() -> None:
    with pytest.raises(QkvError, match=r"Addition\.longest must be a whole number from 4 to 4000, not 3"):
        Addition(3)


def test_draws_that_are_none() -> None:
    for wrong in (0, -1, True, 1.0, "1"):
        with pytest.raises(QkvError, match=r"Drawn\.number must be a whole number of at least 1, not "):
            Drawn(Copy(), wrong)  # type: ignore[arg-type]
    for wrong in (-1, False, 1.0, None):
        with pytest.raises(QkvError, match=r"Drawn\.seed must be a whole number of at least 0, not "):
            Drawn(Copy(), 1, wrong)  # type: ignore[arg-type]
    for wrong in ("copy", Copy, None):
        with pytest.raises(QkvError, match=r"Drawn\.world must be a world, such as Copy\(longest=40\), not "):
            Drawn(wrong, 1)  # type: ignore[arg-type]


# Accuracy

TEXTS = st.text("01 -", max_size=6)
SIDES = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("told", "truth", "characters", "sequences"),
    [
        (["123"], ["123"], 1, 1),
        (["124"], ["123"], 2 / 3, 0),
        (["12"], ["123"], 2 / 3, 0),
        (["1234"], ["123"], 3 / 4, 0),
        ([""], ["123"], 0, 0),
        (["123"], [""], 0, 0),
        (["23"], ["123"], 0, 0),
        (["1123"], ["123"], 1 / 4, 0),
        (["123 "], ["123"], 3 / 4, 0),
        (["12 3"], ["123"], 2 / 4, 0),
        (["٣"], ["3"], 0, 0),
        (["-5", "5"], ["5", "5"], 1 / 3, 1 / 2),
        (["1", "000000000"], ["1", "123456789"], 1 / 10, 1 / 2),
        (["1", "2"], ["2", "1"], 0, 0),
        (["1", "1", "1", "2"], ["1", "1", "1", "1"], 3 / 4, 3 / 4),
        ([""], [""], 1, 1),
        (["", "1"], ["", "2"], 0, 1 / 2),
    ],
)
def test_accuracy(told: list[str], truth: list[str], characters: float, sequences: float) -> None:
    assert accuracy(told, truth) == Accuracy(float(characters), float(sequences))


@given(SIDES)
def test_accuracy_place_by_place(sides: list[tuple[str, str]]) -> None:
    told, truth = [one for one, _ in sides], [other for _, other in sides]
    places = [one == other for pair in sides for one, other in zip_longest(*pair)]
    found = accuracy(told, truth)
    assert found.characters == (sum(places) / len(places) if places else 1)
    assert found.sequences == sum(one == other for one, other in sides) / len(sides)
    assert (found.characters == 1) == (found.sequences == 1) == (told == truth)


@given(SIDES)
def test_accuracy_favours_no_side_and_no_order(sides: list[tuple[str, str]]) -> None:
    told, truth = [one for one, _ in sides], [other for _, other in sides]
    assert accuracy(told, truth) == accuracy(truth, told) == accuracy(told[::-1], truth[::-1]) == accuracy(told * 2, truth * 2)
    assert accuracy(truth, truth) == Accuracy(1.0, 1.0)


@given(st.lists(st.text("0123456789", min_size=1, max_size=9), min_size=1, max_size=6), st.data())
def test_one_wrong_character(truth: list[str], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(truth) - 1))
    where = data.draw(st.integers(0, len(truth[which]) - 1))
    told = list(truth)
    told[which] = truth[which][:where] + "x" + truth[which][where + 1 :]
    total = sum(map(len, truth))
    assert accuracy(told, truth) == Accuracy((total - 1) / total, (len(truth) - 1) / len(truth))


def test_accuracy_of_nothing() -> None:
    for told, truth in ([], []), (["1"], []), ([], ["1"]), (["1"], ["1", "2"]):
        with pytest.raises(QkvError, match=rf"{len(told)} answer\(s\) told for {len(truth)} true one\(s\): expected one"):
            accuracy(told, truth)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_a_corner_of_the_hull_is_a_point_that_a_line_parts_from_all_others(points: set[tuple[int, int]]) -> None:
    """Some direction in which it alone is the farthest: of whole numbers, among those between two directions of differences."""
    found = hull(sorted(points))
    span = 13  # more than any difference: directions as fine as the grid knows
    directions = [(x, y) for x in range(-span, span + 1) for y in range(-span, span + 1) if x or y]
    corners = set()
    for x, y in directions:
        farthest = max(a * x + b * y for a, b in points)
        best = [(a, b) for a, b in points if a * x + b * y == farthest]
        if len(best) == 1:
            corners.add(best[0])
    assert set(found) == (corners if len(points) > 1 else set())
    if len(found) > 2:
        area = sum(a * d - b * c for (a, b), (c, d) in zip(found, found[1:] + found[:1], strict=True))
        assert area > 0, "counter-clockwise"


def test_answers_that_are_words_of_their_questions() -> None:
    for question, answer in pairs(Drawn(Sorting(longest=6, below=50), 200)):
        numbers = [int(each) for each in question.split(" ")]
        assert 2 <= len(numbers) <= 6 and len(set(numbers)) == len(numbers) and max(numbers) < 50
        assert answer == " ".join(map(str, sorted(numbers)))
    seen = set()
    for question, answer in pairs(Drawn(ConvexHull(longest=7, side=5), 300)):
        words, corners = question.split(" "), answer.split(" ")
        seen.add(len(words))
        assert len(set(words)) == len(words) and len(corners) >= 3 and set(corners) <= set(words)
        assert corners[0] == next(word for word in words if word in corners)
        points = [tuple(map(int, word.split(","))) for word in words]
        assert {tuple(map(int, word.split(","))) for word in corners} == set(hull(points))
    assert seen == {3, 4, 5, 6, 7}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Sorting(longest=20, below=10), "Sorting.below must be a whole number of at least 20, not 10"),
        (lambda: ConvexHull(longest=10, side=3), "a grid of 3 x 3 has no 10 points"),
        (lambda: ConvexHull(longest=2), "ConvexHull.longest must be a whole number from 3"),
    ],
)
def test_a_world_that_makes_no_sense(wrong, words: str) -> None:
    with pytest.raises(QkvError, match=words):
        wrong()
