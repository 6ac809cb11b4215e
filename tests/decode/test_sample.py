"""The rules of sampling, held to Hugging Face's processors and to the papers' definitions; and the dice."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qkv.decode.sample import (
    Allow,
    Ban,
    Constrained,
    Dice,
    MinP,
    NoRepeat,
    Repetition,
    Rule,
    Temperature,
    TopK,
    TopP,
    Typical,
    apply_all,
    draw,
    greedy,
)
from qkv.error import QkvError, QkvFailure

theirs = pytest.importorskip("transformers.generation.logits_process")

NEVER = -math.inf
SHAPES = [(1, 1), (1, 7), (4, 50), (3, 1000), (2, 6000)]


def plain(rows: int, entries: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, entries, generator=torch.Generator().manual_seed(seed))


def tied(rows: int, entries: int, seed: int = 0) -> Tensor:
    return torch.randint(-4, 4, (rows, entries), generator=torch.Generator().manual_seed(seed)).float()


def holed(rows: int, entries: int, seed: int = 0) -> Tensor:
    """Most entries are -inf, and in the first row all but one."""
    logits = plain(rows, entries, seed)
    holes = torch.rand(rows, entries, generator=torch.Generator().manual_seed(seed + 1)) < 0.7
    holes[0] = True
    holes[:, entries // 2] = False
    return logits.masked_fill(holes, NEVER)


def flat(rows: int, entries: int, seed: int = 0) -> Tensor:
    """All tokens lie so near to each other that no rough sorting separates them."""
    return plain(rows, entries, seed) / 1000


MADE = pytest.mark.parametrize("made", [plain, tied, holed, flat], ids=lambda made: made.__name__)
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=["fp64", "fp32", "bf16"])
Make = Callable[..., Tensor]


def histories(rows: int, length: int, entries: int, seed: int = 0) -> Tensor:
    return torch.randint(entries, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(history: Tensor, count: int) -> Tensor:
    return torch.cat([history.new_full((len(history), count), -1), history], 1)


def nothing(logits: Tensor) -> Tensor:
    """A history in which nothing has been said."""
    return torch.empty(len(logits), 0, dtype=torch.int64)


def ruled(rule: Rule, logits: Tensor) -> Tensor:
    """What a rule leaves that does not look at the history, or has none to look at."""
    return rule.apply(logits, nothing(logits))


def kept(logits: Tensor) -> Tensor:
    return logits > NEVER


def after_last(tokens: tuple[int, ...]) -> list[int]:
    """A constraint: the tokens next to the last one, in a vocabulary of 11 or more."""
    return [(tokens[-1] + step) % 11 for step in (1, 2)] if tokens else [0]


# Held to Hugging Face, whose processors are given fp64: what lies on the edge of a set may not hang on the rounding of theirs

NARROWING: list[tuple[Rule, Callable[[], Any]]] = [
    *[(TopK(count), lambda count=count: theirs.TopKLogitsWarper(count)) for count in (1, 3, 50, 10**6)],
    *[(TopP(mass), lambda mass=mass: theirs.TopPLogitsWarper(mass)) for mass in (1e-9, 0.1, 0.5, 0.9, 0.999, 1.0)],
    *[(MinP(share), lambda share=share: theirs.MinPLogitsWarper(share)) for share in (1e-6, 0.05, 0.3, 1.0)],
    *[(Typical(mass), lambda mass=mass: theirs.TypicalLogitsWarper(mass)) for mass in (1e-9, 0.2, 0.5, 0.9, 0.999)],
]


@MADE
@DTYPES
@pytest.mark.parametrize(("rule", "make_their"), NARROWING, ids=[str(rule) for rule, _ in NARROWING])
def test_what_is_kept_is_what_hugging_face_keeps(
    rule: Rule, make_their: Callable[[], Any], made: Make, dtype: torch.dtype
) -> None:
    for shape in SHAPES:
        logits = made(*shape).to(dtype)
        ours, expected = ruled(rule, logits), make_their()(nothing(logits), logits.double())
        assert ours.dtype == dtype
        if isinstance(rule, TopP):  # which of several equal tokens are in the nucleus is for each to say
            assert torch.equal(ours.double().sort(1).values, expected.sort(1).values)
            assert torch.equal(ours[kept(ours)], logits[kept(ours)])
        else:
            assert torch.equal(ours.double(), expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mass", [0.3, 0.9, 1.0])
def test_a_nucleus_without_ties_has_the_very_tokens_of_hugging_face(shape: tuple[int, int], mass: float) -> None:
    logits = plain(*shape).double()
    logits += torch.linspace(0, 1e-5, shape[1], dtype=torch.float64)
    assert all(len(row.unique()) == shape[1] for row in logits)
    assert torch.equal(ruled(TopP(mass), logits), theirs.TopPLogitsWarper(mass)(nothing(logits), logits))


@MADE
@pytest.mark.parametrize("value", [0.01, 0.7, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_temperature_is_that_of_hugging_face(made: Make, value: float, dtype: torch.dtype) -> None:
    logits = made(3, 40).to(dtype)
    assert torch.equal(ruled(Temperature(value), logits), theirs.TemperatureLogitsWarper(value)(nothing(logits), logits))


@MADE
@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_penalty_on_repetition_is_that_of_hugging_face(made: Make, penalty: float, dtype: torch.dtype) -> None:
    logits, history = made(4, 30).to(dtype), histories(4, 25, 30)
    expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(history, logits)
    assert torch.equal(Repetition(penalty).apply(logits, history), expected)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize(("length", "entries"), [(0, 5), (1, 5), (2, 5), (4, 5), (30, 9), (300, 40), (1000, 4)])
def test_what_would_be_a_repetition_is_what_hugging_face_says(size: int, length: int, entries: int) -> None:
    logits, history = plain(5, entries), histories(5, length, entries)
    expected = theirs.NoRepeatNGramLogitsProcessor(size)(history, logits)
    empty = ~kept(expected).any(1, keepdim=True)  # theirs may leave nothing
    assert torch.equal(NoRepeat(size).apply(logits, history), torch.where(empty, logits, expected))


@MADE
def test_a_constraint_is_that_of_hugging_face(made: Make) -> None:
    logits, history = made(6, 20), histories(6, 8, 11)
    process = theirs.PrefixConstrainedLogitsProcessor(lambda _, tokens: after_last(tuple(tokens.tolist())), 1)
    assert torch.equal(Constrained(after_last).apply(logits, history), process(history, logits))


@MADE
@pytest.mark.parametrize("tokens", [(7,), (0, 7, 29), tuple(range(30))], ids=len)
def test_tokens_are_allowed_as_by_hugging_face(made: Make, tokens: tuple[int, ...]) -> None:
    logits, history = made(4, 30), histories(4, 3, 30)
    expected = theirs.PrefixConstrainedLogitsProcessor(lambda _, __: list(tokens), 1)(history, logits)
    left = kept(expected).any(1)  # where none of them was left, ours keep their promise
    assert left.any() or made is holed
    found = Allow(tokens).apply(logits, history)
    assert torch.equal(found[left], expected[left])
    assert torch.equal(kept(found[~left]), torch.zeros(int((~left).sum()), 30).bool().index_fill(1, torch.tensor(tokens), True))


@MADE
def test_tokens_are_banned_as_by_hugging_face(made: Make) -> None:
    logits, tokens = made(4, 30), (0, 7, 29)
    expected = theirs.SuppressTokensLogitsProcessor(list(tokens))(nothing(logits), logits)
    assert torch.equal(ruled(Ban(tokens), logits), expected)


def test_a_row_of_rules_is_that_of_hugging_face() -> None:
    logits, history = plain(8, 400), histories(8, 50, 400)
    rules = [Repetition(1.2), NoRepeat(2), Temperature(0.8), TopK(60), TopP(0.9), MinP(0.01), Typical(0.95)]
    chain = [
        theirs.RepetitionPenaltyLogitsProcessor(1.2),
        theirs.NoRepeatNGramLogitsProcessor(2),
        theirs.TemperatureLogitsWarper(0.8),
        theirs.TopKLogitsWarper(60),
        theirs.TopPLogitsWarper(0.9),
        theirs.MinPLogitsWarper(0.01),
        theirs.TypicalLogitsWarper(0.95),
    ]
    expected = theirs.LogitsProcessorList(chain)(history, logits)
    assert torch.equal(apply_all(rules, logits, history), expected)


# Held to the definitions, written out


def probabilities_of(row: Sequence[float]) -> list[float]:
    odds = [math.exp(logit - max(row)) for logit in row]
    return [odd / math.fsum(odds) for odd in odds]


def reached(order: list[int], probabilities: list[float], mass: float) -> set[int]:
    """The first tokens in an order that come to a mass."""
    sums = itertools.accumulate(probabilities[token] for token in order)
    return set(order[: 1 + next(place for place, total in enumerate(sums) if total >= mass - 1e-12)])


@settings(max_examples=60)
@given(
    row=st.lists(st.integers(-6, 6) | st.just(NEVER), min_size=1, max_size=12).filter(lambda row: max(row) > NEVER),
    mass=st.floats(0.01, 0.99),
)
def test_nucleus_and_typical_tokens_are_those_of_the_papers(row: list[float], mass: float) -> None:
    logits, probabilities = torch.tensor([row]).float(), probabilities_of(row)
    likeliest = sorted(range(len(row)), key=lambda token: -row[token])  # stable: of the equal ones, the first
    nucleus = reached(likeliest, probabilities, mass)
    assert set(kept(ruled(TopP(mass), logits))[0].nonzero().flatten().tolist()) == nucleus

    surprise = [-math.log(p) if p else math.inf for p in probabilities]
    entropy = math.fsum(p * s for p, s in zip(probabilities, surprise, strict=True) if p)
    distances = [round(abs(s - entropy), 9) if s < math.inf else s for s in surprise]
    core = reached(sorted(range(len(row)), key=lambda token: distances[token]), probabilities, mass)
    typical = {token for token in range(len(row)) if distances[token] <= max(distances[core_token] for core_token in core)}
    assert set(kept(ruled(Typical(mass), logits))[0].nonzero().flatten().tolist()) == typical


@given(history=st.lists(st.integers(0, 3), max_size=40), size=st.integers(1, 4))
def test_no_token_completes_what_has_been_said(history: list[int], size: int) -> None:
    logits = plain(1, 4)
    said = {tuple(history[i : i + size]) for i in range(len(history) - size + 1)}
    free = [(*history[len(history) - size + 1 :], token)[-size:] not in said for token in range(4)]
    expected = torch.tensor([free if any(free) and len(history) >= size else [True] * 4])
    assert torch.equal(kept(NoRepeat(size).apply(logits, torch.tensor([history], dtype=torch.int64))), expected)


def test_the_nucleus_takes_the_first_of_equals() -> None:
    assert kept(ruled(TopP(0.5), torch.zeros(1, 8))).tolist() == [[True] * 4 + [False] * 4]
    assert kept(ruled(TopP(0.51), torch.zeros(1, 8))).tolist() == [[True] * 5 + [False] * 3]


def test_equals_are_kept_together_by_the_other_rules() -> None:
    logits = torch.tensor([[1.0, 2.0, 1.0, 0.0, 1.0]])
    for rule in (TopK(2), MinP(math.exp(-1.0) - 1e-9)):
        assert kept(ruled(rule, logits)).tolist() == [[True, True, True, False, True]]
    assert kept(ruled(Typical(0.1), torch.zeros(1, 8))).all()


def test_a_mass_of_one_loses_no_token() -> None:
    logits = torch.linspace(0, -700, 3000, dtype=torch.float64)[None].repeat(2, 1)
    for rule in (TopP(1.0), Typical(1.0)):
        assert torch.equal(ruled(rule, logits), logits)


def test_the_penalty_lowers_what_was_said_and_nothing_else() -> None:
    logits = torch.tensor([[3.0, -3.0, 3.0, -3.0, 0.0, NEVER]])
    lowered = Repetition(1.5).apply(logits, torch.tensor([[0, 1, 1, 4, 5]]))
    assert lowered.tolist() == [[2.0, -4.5, 3.0, -3.0, 0.0, NEVER]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_largest_penalty_forbids_nothing(dtype: torch.dtype) -> None:
    limits, said = torch.finfo(dtype), torch.tensor([[0, 1, 2]])
    logits = torch.tensor([[limits.min, limits.max, 0.0, NEVER]], dtype=dtype)
    assert Repetition(1e30).apply(logits, said)[0, 0] == limits.min
    assert Repetition(1e-30).apply(logits, said)[0, 1] == limits.max
    for penalty in (1e30, 1e-30):
        assert Repetition(penalty).apply(logits, said).isfinite().tolist() == [[True, True, True, False]]


def test_only_what_is_allowed_remains_and_never_what_is_banned() -> None:
    logits = plain(3, 6)
    assert kept(ruled(Allow((4, 1, 4)), logits)).nonzero()[:, 1].tolist() == [1, 4] * 3
    assert kept(ruled(Ban((4, 1, 4)), logits)).nonzero()[:, 1].tolist() == [0, 2, 3, 5] * 3
    assert torch.equal(ruled(Ban(()), logits), logits)


def test_a_promise_is_kept_where_nothing_promised_is_left() -> None:
    logits, history = torch.tensor([[1.0, NEVER, NEVER, NEVER], [1.0, 2.0, 3.0, NEVER]]), torch.tensor([[0, 1], [0, 1]])
    for rule in (Allow((1, 3)), Constrained(lambda _: [1, 3]), Ban((0, 2))):
        assert rule.apply(logits, history).tolist() == [[NEVER, 0.0, NEVER, 0.0], [NEVER, 2.0, NEVER, NEVER]]


def test_a_text_may_repeat_itself_where_it_could_say_nothing_else() -> None:
    logits, history = plain(2, 3), torch.tensor([[0, 1, 2], [0, 1, 1]])
    assert NoRepeat(1).apply(logits, history).tolist() == [logits[0].tolist(), [NEVER, NEVER, logits[1, 2].item()]]
    assert NoRepeat(2).apply(logits, torch.tensor([[0, 0, 1, 0, 2, 0]] * 2)).equal(logits)


def test_a_constraint_sees_each_text_from_its_beginning() -> None:
    seen: list[tuple[int, ...]] = []

    def note(tokens: tuple[int, ...]) -> tuple[int, ...]:
        seen.append(tokens)
        return (len(tokens),)

    logits = Constrained(note).apply(plain(3, 5), torch.tensor([[-1, 3, 1], [-1, -1, -1], [0, 0, 4]]))
    assert seen == [(3, 1), (), (0, 0, 4)]
    assert kept(logits).nonzero()[:, 1].tolist() == [2, 0, 3]


@DTYPES
def test_the_coldest_temperature_is_greedy(dtype: torch.dtype) -> None:
    logits = torch.tensor([[3.0, 1e4, 1e4 + 64, NEVER, -5e4], [-5e4, -4e4, NEVER, NEVER, NEVER], [0.0, 1, 0, -1, NEVER]]).to(
        dtype
    )
    for value in (1e-30, 1e-20):
        colder = ruled(Temperature(value), logits)
        assert not colder.isnan().any()
        assert torch.equal(greedy(colder), logits.argmax(1))
        assert torch.equal(draw(colder, torch.full((3,), 0.999, dtype=torch.float64)), logits.argmax(1))


def test_a_temperature_too_cold_for_the_precision_keeps_the_distances() -> None:
    logits = torch.tensor([[100.0, 99.0, 0.0]], dtype=torch.float16)
    assert ruled(Temperature(0.001), logits).tolist() == [[0.0, pytest.approx(-1000, rel=1e-3), NEVER]]


# What holds for every rule

RULES: list[Rule] = [
    *[Temperature(value) for value in (1e-30, 1e-4, 0.7, 1e30)],
    *[TopK(count) for count in (1, 5, 100)],
    *[TopP(mass) for mass in (1e-20, 0.5, 0.95, 1.0)],
    *[MinP(share) for share in (1e-300, 0.1, 1.0)],
    *[Typical(mass) for mass in (1e-20, 0.5, 0.95, 1.0)],
    *[Repetition(penalty) for penalty in (1e-30, 0.8, 1.2, 1e30)],
    *[NoRepeat(size) for size in (1, 2, 4)],
    *[Ban((0, 3)), Allow((1, 2, 6)), Constrained(after_last)],
]
EVERY = pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule).split(" at ")[0])


@st.composite
def rows_of_logits(draws: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits of some precision and extremes, where each row but the last has a token; and histories with padding."""
    rows, entries = draws(st.integers(1, 4)), draws(st.integers(11, 40))
    dtype = draws(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    made = draws(st.sampled_from([plain, tied, holed, flat]))
    scale = draws(st.sampled_from([1.0, 100.0, 4000.0]))
    logits = (made(rows, entries, draws(st.integers(0, 2**20))) * scale).clamp(-6e4, 6e4).to(dtype)
    logits = torch.where(made(rows, entries) == NEVER, NEVER, logits)
    history = padded(histories(rows, draws(st.integers(0, 30)), 8, draws(st.integers(0, 2**20))), draws(st.integers(0, 3)))
    return torch.cat([logits, logits[:1] * 0 + NEVER]).nan_to_num(neginf=NEVER, nan=NEVER), torch.cat([history, history[:1]])


@EVERY
@settings(max_examples=12)
@given(made=rows_of_logits())
def test_a_rule_forbids_never_changes_its_input_and_leaves_something(rule: Rule, made: tuple[Tensor, Tensor]) -> None:
    logits, history = made
    before, history_before = logits.clone(), history.clone()
    after = rule.apply(logits, history)
    assert isinstance(rule, Rule)
    assert torch.equal(logits, before) and torch.equal(history, history_before)
    assert after.dtype == logits.dtype and after.shape == logits.shape
    assert not after.isnan().any() and not after.isposinf().any()
    assert torch.equal(kept(after).any(1), kept(logits).any(1))
    if not isinstance(rule, Allow | Ban | Constrained):
        assert not (kept(after) & ~kept(logits)).any()
    if isinstance(rule, TopK | TopP | MinP | Typical | NoRepeat):
        assert torch.equal(after[kept(after)], logits[kept(after)])


@EVERY
@settings(max_examples=12)
@given(made=rows_of_logits())
def test_a_row_is_ruled_as_if_it_were_alone(rule: Rule, made: tuple[Tensor, Tensor]) -> None:
    logits, history = made
    together = rule.apply(logits, history)
    alone = [rule.apply(logits[i : i + 1], history[i : i + 1]) for i in range(len(logits))]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("rule", [TopK(40), TopP(0.9), MinP(0.02), Typical(0.9)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_long_row_is_ruled_as_if_it_were_alone(rule: Rule, dtype: torch.dtype) -> None:
    logits = torch.cat([plain(2, 50000), flat(2, 50000), tied(1, 50000)]).to(dtype)
    together = ruled(rule, logits)
    for i in range(5):
        assert torch.equal(together[i : i + 1], ruled(rule, logits[i : i + 1]))


@EVERY
def test_padding_is_no_token(rule: Rule) -> None:
    logits = plain(4, 12)
    for length, count in itertools.product([0, 1, 2, 3, 9], [1, 2, 7]):
        history = histories(4, length, 4)
        expected = rule.apply(logits, history)
        assert torch.equal(rule.apply(logits, padded(history, count)), expected)
        assert torch.equal(rule.apply(logits, padded(history.int(), count)), expected)


@pytest.mark.parametrize("rule", [TopK(5), MinP(0.1), NoRepeat(2), Ban((0, 3)), Allow((1, 2)), Constrained(after_last)], ids=type)
def test_what_only_forbids_forbids_no_more_the_second_time(rule: Rule) -> None:
    logits, history = plain(5, 40), histories(5, 60, 11)
    once = rule.apply(logits, history)
    assert not torch.equal(once, logits)
    assert torch.equal(rule.apply(once, history), once)


@given(low=st.floats(0.01, 1), high=st.floats(0.01, 1), seed=st.integers(0, 2**20))
def test_more_mass_is_more_tokens(low: float, high: float, seed: int) -> None:
    low, high = sorted((low, high))
    logits = tied(3, 60, seed)
    for rule, more in ((TopP(low), TopP(high)), (Typical(low), Typical(high)), (MinP(high), MinP(low))):
        assert (kept(ruled(rule, logits)) <= kept(ruled(more, logits))).all()


def test_rules_are_applied_in_their_order() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    assert kept(apply_all([Ban((0,)), TopK(2)], logits, nothing(logits))).tolist() == [[False, True, True, False]]
    assert kept(apply_all([TopK(2), Ban((0,))], logits, nothing(logits))).tolist() == [[False, True, False, False]]


def test_rules_together_work_in_single_precision_or_better() -> None:
    logits = plain(3, 20).bfloat16()
    warmed = apply_all([Temperature(0.7), Temperature(1.3)], logits, nothing(logits))
    assert warmed.dtype == torch.float32
    assert torch.allclose(warmed, logits.float() / 0.91, rtol=1e-6)
    assert apply_all([], logits.double(), nothing(logits)).dtype == torch.float64


def test_not_everything_is_a_rule() -> None:
    assert not isinstance(Dice(0), Rule)


# Dice

NUMBERS = st.integers(0, 2**64 - 1)


@given(seed=NUMBERS, keys=st.lists(NUMBERS, min_size=1, max_size=8), step=NUMBERS, order=st.randoms())
def test_a_row_has_its_number_whoever_else_is_there(seed: int, keys: list[int], step: int, order: Any) -> None:
    alone = {key: Dice(seed).uniform([key], step).item() for key in keys}
    mixed = order.sample(keys, len(keys))
    numbers = Dice(seed).uniform(mixed, step)
    assert numbers.dtype == torch.float64
    assert numbers.tolist() == [alone[key] for key in mixed]
    assert ((numbers >= 0) & (numbers < 1)).all()


@given(first=st.tuples(NUMBERS, NUMBERS, NUMBERS), second=st.tuples(NUMBERS, NUMBERS, NUMBERS))
def test_another_seed_key_or_step_is_another_number(first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    small = {(a, b, c): Dice(a).uniform([b], c).item() for a in range(3) for b in range(3) for c in range(3)}
    assert len(set(small.values())) == 27
    if first != second:
        assert Dice(first[0]).uniform([first[1]], first[2]) != Dice(second[0]).uniform([second[1]], second[2])


def test_numbers_are_the_same_for_ever() -> None:
    """A text drawn with a seed can be drawn again next year."""
    assert Dice(7).uniform([0, 1, 2**64 - 1], 3).tolist() == [0.44205212947108785, 0.0931189622036861, 0.5853472269512391]


def critical(bins: int, chance: float = 1e-4) -> float:
    """What chi-square with so many bins exceeds by so small a chance (Wilson and Hilferty 1931)."""
    freedom = bins - 1
    return freedom * (1 - 2 / (9 * freedom) + NormalDist().inv_cdf(1 - chance) * math.sqrt(2 / (9 * freedom))) ** 3


def chi_square(counts: Sequence[float], expected: Sequence[float]) -> float:
    return sum((count - mean) ** 2 / mean for count, mean in zip(counts, expected, strict=True))


@pytest.mark.parametrize(
    "numbers",
    [
        lambda: torch.stack([Dice(0).uniform([0], step)[0] for step in range(2000)]),
        lambda: Dice(0).uniform(range(2000), 0),
        lambda: torch.stack([Dice(seed).uniform([0], 0)[0] for seed in range(2000)]),
    ],
    ids=["steps", "keys", "seeds"],
)
def test_numbers_are_uniform_and_say_nothing_of_their_neighbours(numbers: Callable[[], Tensor]) -> None:
    drawn = numbers()
    counts = torch.histc(drawn, 40, 0, 1).tolist()
    assert chi_square(counts, [50.0] * 40) < critical(40)
    pairs = (drawn[:-1] * 6).floor() * 6 + (drawn[1:] * 6).floor()
    assert chi_square(torch.bincount(pairs.long(), minlength=36).tolist(), [1999 / 36] * 36) < critical(36)


def test_texts_are_drawn_from_the_distribution() -> None:
    logits = holed(2, 12, seed=5)[1:].expand(200, -1)
    drawn = torch.cat([draw(logits, Dice(11).uniform(range(200), step)) for step in range(40)])
    means = (8000 * logits[0].double().softmax(0)).tolist()
    counts = torch.bincount(drawn, minlength=12).tolist()
    possible = [token for token in range(12) if means[token] > 0]
    assert 3 <= len(possible) < 12
    assert sum(counts[token] for token in possible) == 8000
    assert chi_square([counts[t] for t in possible], [means[t] for t in possible]) < critical(len(possible))


@MADE
@DTYPES
def test_evenly_spread_numbers_draw_each_token_as_often_as_its_probability_says(made: Make, dtype: torch.dtype) -> None:
    logits, count = made(2, 30)[1:].to(dtype), 50000
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    counts = torch.bincount(draw(logits.expand(count, -1), uniforms), minlength=30)
    assert (counts - count * logits[0].double().softmax(0)).abs().max() < 1 + 1e-6


@given(
    row=st.lists(st.floats(-20, 20) | st.just(NEVER), min_size=1, max_size=30).filter(lambda row: max(row) > NEVER),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_the_token_is_where_the_sum_first_exceeds_the_number(row: list[float], uniform: float) -> None:
    logits = torch.tensor([row], dtype=torch.float64)
    token = int(draw(logits, torch.tensor([uniform], dtype=torch.float64)))
    probabilities = probabilities_of(row)
    assert probabilities[token] > 0
    assert math.fsum(probabilities[:token]) <= uniform + 1e-12
    assert math.fsum(probabilities[: token + 1]) >= uniform - 1e-12


@pytest.mark.parametrize("uniform", [0.0, 5e-324, 2.0**-53, 0.5, 1 - 2.0**-53])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_has_no_probability_is_never_drawn(uniform: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(200, 300, generator=generator)
    logits[:, :100] = logits[:, 200:] = NEVER
    logits[::2, 100:200:2] = -5e4  # underflows
    drawn = draw(logits.to(dtype), torch.full((200,), uniform, dtype=torch.float64))
    possible = logits.double().softmax(1) > 0
    assert possible.gather(1, drawn[:, None]).all()
    ends = {0.0: 101, 1 - 2.0**-53: 199}
    if uniform in ends:
        assert (drawn[::2] == ends[uniform]).all()


def test_drawing_leaves_its_input_alone() -> None:
    for dtype in (torch.float64, torch.float32):
        logits, uniforms = plain(3, 9).to(dtype), Dice(0).uniform([0, 1, 2], 0)
        before, numbers = logits.clone(), uniforms.clone()
        draw(logits, uniforms)
        assert torch.equal(logits, before) and torch.equal(uniforms, numbers)


def test_a_row_is_drawn_as_if_it_were_alone() -> None:
    logits, uniforms = plain(6, 50000), Dice(1).uniform(range(6), 2)
    together = draw(logits, uniforms)
    assert together.tolist() == [draw(logits[i : i + 1], uniforms[i : i + 1]).item() for i in range(6)]


@MADE
@DTYPES
def test_the_greedy_token_is_the_first_of_the_likeliest(made: Make, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        logits = made(*shape).to(dtype)
        assert greedy(logits).tolist() == [row.index(max(row)) for row in logits.tolist()]


def test_the_likeliest_token_is_drawn_by_a_nucleus_of_nothing() -> None:
    logits = tied(50, 20)
    narrowed = apply_all([TopP(1e-9)], logits, nothing(logits))
    assert torch.equal(draw(narrowed, Dice(0).uniform(range(50), 0)), greedy(logits))


def test_counting_what_is_drawn_after_the_rules() -> None:
    """Rules and dice together, with a history that grows: no pair of tokens comes twice, and banned ones never."""
    rules = [Ban((0,)), NoRepeat(2), Temperature(1.5), TopP(0.95)]
    history = padded(histories(3, 1, 5) + 1, 2)
    for step in range(12):
        logits = apply_all(rules, plain(3, 6, seed=step), history)
        history = torch.cat([history, draw(logits, Dice(5).uniform([9, 8, 7], step))[:, None]], 1)
    for row in history[:, 2:].tolist():
        assert 0 not in row
        assert max(Counter(itertools.pairwise(row)).values()) == 1


# Errors


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Temperature(0.0), "a temperature is above 0, not 0: .* greedily"),
        (lambda: Temperature(-1.0), "a temperature is a number above 0, .* not -1.0"),
        (lambda: Temperature(math.inf), "a temperature .* not inf"),
        (lambda: Temperature(math.nan), "a temperature .* not nan"),
        (lambda: TopK(0), "at least 1 of the most likely tokens is kept, not 0"),
        (lambda: TopP(0.0), "the mass of a nucleus is above 0 and at most 1, not 0.0"),
        (lambda: TopP(1.1), "the mass of a nucleus is above 0 and at most 1, not 1.1"),
        (lambda: TopP(math.nan), "not nan"),
        (lambda: MinP(0.0), "the share .* is above 0 and at most 1, not 0.0"),
        (lambda: MinP(2.0), "the share .* not 2.0"),
        (lambda: Typical(-0.5), "the mass of the typical tokens is above 0 and at most 1, not -0.5"),
        (lambda: Repetition(0.0), "a penalty on repetition is a number above 0, .* not 0.0"),
        (lambda: NoRepeat(0), "has at least 1 token, not 0"),
        (lambda: Allow(()), "no token is allowed: name at least 1"),
        (lambda: ruled(Ban((5,)), plain(1, 5)), "5 is listed, which is not a token: those of this model are 0 to 4"),
        (lambda: ruled(Allow((-1,)), plain(1, 5)), "-1 is listed, which is not a token"),
        (lambda: ruled(Ban((2, 0, 1)), plain(1, 3)), "all 3 tokens of the vocabulary are banned: leave at least 1"),
        (lambda: Constrained(lambda _: []).apply(plain(1, 5), torch.tensor([[-1, 3]])), r"allows no token after \[3\]"),
        (lambda: ruled(Constrained(lambda _: [9]), plain(1, 5)), "9 is listed"),
        (lambda: Repetition(1.1).apply(plain(1, 5), torch.tensor([[5]])), r"the history holds 5, .* -1 \(padding\) .* 0 to 4"),
        (lambda: NoRepeat(1).apply(plain(1, 5), torch.tensor([[-2]])), "the history holds -2"),
        (lambda: Dice(-1), "a seed is a whole number from 0 to 18446744073709551615, not -1"),
        (lambda: Dice(0).uniform([1, -5], 0), "the key of a row .* not -5"),
        (lambda: Dice(0).uniform([1], 2**64), "a step .* not 18446744073709551616"),
        (lambda: draw(plain(1, 5), torch.tensor([1.0])), "at least 0 and below 1, not by 1.0"),
        (lambda: draw(plain(2, 5), torch.tensor([0.0, math.nan])), "at least 0 and below 1, not by nan"),
    ],
)
def test_what_is_wrong_is_said(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(QkvError, match=words):
        wrong()


@pytest.mark.parametrize("value", [NEVER, math.nan, math.inf])
def test_where_nothing_can_be_chosen_nothing_is(value: float) -> None:
    logits = torch.full((3, 4), value)
    logits[0] = 0.0
    for choose in (greedy, lambda logits: draw(logits, torch.zeros(3))):
        with pytest.raises(QkvFailure, match=f"no token of row 1 can be chosen: the largest of its logits is {value}"):
            choose(logits)
