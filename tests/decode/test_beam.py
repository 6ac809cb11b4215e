"""Beam search: a full beam finds what there is to be found, and a sentence is searched as if it were alone."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch

from qkv.attention.sight import Plain
from qkv.data.symbols import OURS
from qkv.decode.beam import Hypothesis, search, write_on
from qkv.decode.rule import Beam, Certain, Likely
from qkv.decode.sample import NoRepeat, Rule, Temperature, apply_all
from qkv.decode.translate import log_probabilities
from qkv.error import QkvError
from qkv.model.transformer import build
from qkv.papers.bart import bart
from qkv.spec.model import Joint

PAD, BOS, EOS = 0, 1, 2
FULL = 128  # more than there are hypotheses below


def brute_force(model, source: list[int], least: int, most: int, alpha: float) -> list[tuple[float, tuple[int, ...]]]:
    """Every sentence that may be said, valued by its own full pass, best first; only `most` counts the end symbol."""
    memory = model.encode(torch.tensor([source]), Plain())
    found = []
    for length in range(least, most):
        for tokens in itertools.product(
            [t for t in range(model.spec.vocabulary.target) if t not in (PAD, BOS, EOS)], repeat=length
        ):
            logits = model.logits(model.decode(torch.tensor([[BOS, *tokens]]), memory))[0]
            logarithm = logits.log_softmax(-1)[torch.arange(length + 1), torch.tensor([*tokens, EOS])].sum().item()
            found.append((logarithm / ((5 + length + 1) / 6) ** alpha, tokens))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.6, 3.0])
@pytest.mark.parametrize(("entries", "least", "most"), [(5, 0, 5), (6, 0, 4), (5, 2, 5), (7, 1, 3)])
@torch.no_grad()
def test_a_full_beam_equals_exhaustive_search(make_model, symbols, alpha: float, entries: int, least: int, most: int) -> None:
    for seed in range(2):
        model = make_model(9, entries, seed=seed)
        source = [4 + seed, 7, 3, EOS]
        expected = brute_force(model, source, least, most, alpha)
        found = search(model, [source], symbols, Beam(FULL, alpha, least=least, most=most), count=len(expected))[0]
        assert [hypothesis.tokens for hypothesis in found] == [tokens for _, tokens in expected]
        assert [hypothesis.score for hypothesis in found] == pytest.approx([score for score, _ in expected], abs=1e-5)
        assert all(hypothesis.finished for hypothesis in found)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.6, 3.0])
def test_a_search_that_stops_early_finds_what_one_that_goes_on_finds(make_model, symbols, sources, alpha: float) -> None:
    rule = Beam(FULL, alpha, most=6, stop=Certain())  # there are 63 hypotheses: to look for all of them is to go on to the end
    for seed in range(2):
        model, read = make_model(9, 5, seed=seed, ending=0.5), sources(12, 9, seed=seed)
        everything = search(model, read, symbols, rule, FULL)
        assert {len(found) for found in everything} == {63}
        for count in (1, 3):
            for stopped, found in zip(search(model, read, symbols, rule, count), everything, strict=True):
                assert same(stopped, found[:count])


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.6, 3.0])
def test_a_search_that_stops_where_nothing_better_is_likely_finds_nothing_better(
    make_model, symbols, sources, alpha: float
) -> None:
    worse, steps = 0, {Certain(): 0, Likely(): 0}
    for seed in range(3):
        model, read = make_model(23, 19, seed=seed, sharpness=3.0), sources(20, 23, seed=seed)
        found = {}
        for stop in steps:
            with counted(model, steps, stop):
                found[stop] = search(model, read, symbols, Beam(4, alpha, extra=20, stop=stop))
        for certain, likely in zip(found[Certain()], found[Likely()], strict=True):
            assert likely[0].score <= certain[0].score + 1e-6
            worse += likely[0].score < certain[0].score - 1e-6
    assert worse == 0 if alpha <= 0 else worse < 12
    assert steps[Likely()] == steps[Certain()] if alpha <= 0 else steps[Likely()] <= steps[Certain()]


@contextmanager
def counted(model, steps: dict[object, int], name: object) -> Iterator[None]:
    """Counts the hypotheses whose logits are asked for."""
    logits = model.logits

    def counting(hidden: torch.Tensor) -> torch.Tensor:
        steps[name] += len(hidden)
        return logits(hidden)

    model.logits = counting
    try:
        yield
    finally:
        del model.logits


@pytest.mark.parametrize("beam", [1, 2, 4, 9])
def test_pad_and_start_are_never_chosen_but_have_their_share_of_the_softmax(make_model, symbols, sources, beam: int) -> None:
    model = make_model(23, sharpness=1.0)
    model.output.weight.data[[PAD, BOS]] *= 3  # often the most probable of all
    read = sources(6, 23)
    for source, found in zip(read, search(model, read, symbols, Beam(beam, 0.0, most=8), beam), strict=True):
        assert found
        for hypothesis in found:
            assert not {PAD, BOS, EOS} & set(hypothesis.tokens)
            if hypothesis.finished:
                expected = log_probabilities(model, [source], [[*hypothesis.tokens, EOS]], OURS)[0]
                assert hypothesis.logarithm == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("beam", [1, 3])
def test_what_has_not_ended_is_given_at_the_greatest_length_only_where_nothing_has(
    make_model, symbols, sources, beam: int
) -> None:
    endless = make_model(12, 12)
    ending = endless.output.weight.data[EOS]
    endless.decoder.blocks[-1].sublayers[-1].norm.bias.data -= 50 * ending / ending.norm()
    read = sources(5, 12)
    for source, found in zip(read, search(endless, read, symbols, Beam(beam, 0.6, extra=2), beam), strict=True):
        assert len(found) == beam
        for hypothesis in found:
            assert not hypothesis.finished
            assert len(hypothesis.tokens) == len(source) + 2
            given = torch.tensor([[BOS, *hypothesis.tokens[:-1]]])
            with torch.no_grad():
                logits = endless(torch.tensor([source]), Plain(), given)[0].log_softmax(-1)
            logarithm = logits[torch.arange(given.shape[1]), torch.tensor(hypothesis.tokens)].sum().item()
            assert hypothesis.logarithm == pytest.approx(logarithm, abs=1e-4)
            assert hypothesis.score == pytest.approx(Beam(length_penalty=0.6).value(hypothesis.logarithm, len(hypothesis.tokens)))


def test_finished_and_unfinished_are_never_mixed_and_best_comes_first(make_model, symbols, sources) -> None:
    model = make_model(15, 15, sharpness=4.0)
    kinds = set()
    for most in (2, 4, 9):
        for found in search(model, sources(20, 15), symbols, Beam(4, 0.6, most=most), 4):
            assert len({hypothesis.finished for hypothesis in found}) == 1
            assert found == sorted(found, reverse=True)
            assert len({hypothesis.tokens for hypothesis in found}) == len(found)
            assert all(len(hypothesis.tokens) + hypothesis.finished <= most for hypothesis in found)
            kinds.add(found[0].finished)
    assert len(kinds) == 2


@pytest.mark.parametrize(("beam", "prune"), [(1, math.inf), (4, math.inf), (4, 3.0), (4, 0.5)])
def test_a_beam_of_one_is_greedy_and_wider_ones_are_a_straightforward_search(
    make_model, symbols, sources, beam: int, prune: float
) -> None:
    """Together they lose hypotheses, and leave, at different times."""
    model, read = make_model(13, 11, sharpness=4.0), sources(10, 13)
    for source, found in zip(read, search(model, read, symbols, Beam(beam, 0.6, most=7, prune=prune), beam), strict=True):
        expected = plain_search(model, source, beam, 0.6, 7, prune)
        assert [hypothesis.tokens for hypothesis in found] == [tokens for _, tokens in expected]
        assert [hypothesis.score for hypothesis in found] == pytest.approx([score for score, _ in expected], abs=1e-5)


@torch.no_grad()
def plain_search(
    model, source: list[int], beam: int, alpha: float, most: int, prune: float
) -> list[tuple[float, tuple[int, ...]]]:
    """The same search by full passes, lists and sorting, without stopping early."""
    memory = model.encode(torch.tensor([source]), Plain())
    going: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, most + 1):
        candidates = []
        for logarithm, tokens in going:
            row = model.logits(model.decode(torch.tensor([[BOS, *tokens]]), memory))[0, -1].log_softmax(-1)
            candidates += [(logarithm + row[t].item(), (*tokens, t)) for t in range(len(row)) if t not in (PAD, BOS)]
        candidates.sort(reverse=True)
        finished += [
            (score / ((5 + length) / 6) ** alpha, tokens[:-1]) for score, tokens in candidates[:beam] if tokens[-1] == EOS
        ]
        going = [(score, tokens) for score, tokens in candidates if tokens[-1] != EOS][:beam]
        going = [(score, tokens) for score, tokens in going if score >= going[0][0] - prune]
        if len(finished) >= beam:
            break
    finished = finished or [(score / ((5 + most) / 6) ** alpha, tokens) for score, tokens in going]
    return sorted(finished, reverse=True)[:beam]


def same(one: list[Hypothesis], other: list[Hypothesis]) -> bool:
    return [h.tokens for h in one] == [h.tokens for h in other] and all(
        math.isclose(a.score, b.score, abs_tol=1e-5) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("extra", [1, 6])
def test_alone_in_a_batch_and_in_a_shuffled_batch_a_sentence_gets_the_same(
    make_model, symbols, sources, beam: int, extra: int
) -> None:
    model = make_model(23, 19, sharpness=4.0)
    read = sources(16, 23, longest=12)
    rule = Beam(beam, 0.6, extra=extra)
    together = search(model, read, symbols, rule, beam)
    order = random.Random(1).sample(range(len(read)), len(read))
    shuffled = search(model, [read[i] for i in order], symbols, rule, beam)
    for place, i in enumerate(order):
        assert same(shuffled[place], together[i])
        assert same(search(model, [read[i]], symbols, rule, beam)[0], together[i])
    assert len({len(found[0].tokens) for found in together}) > 3, "sentences must leave the batch at different times"


def test_the_n_best_begin_with_the_best_and_a_beam_holds_no_more_than_its_width(make_model, symbols, sources) -> None:
    model, read = make_model(23, 19, sharpness=3.0), sources(10, 23)
    rule = Beam(4, 0.0, most=10)
    for one, four, nine in zip(*(search(model, read, symbols, rule, count) for count in (1, 4, 9)), strict=True):
        assert len(one) == 1 and len(nine) == len(four) <= 4
        assert same(nine, four)
        assert four[0].score >= one[0].score - 1e-6


@pytest.mark.parametrize("beam", [1, 4])
def test_lengths_stay_between_least_and_most_and_within_the_source_and_extra(make_model, symbols, sources, beam: int) -> None:
    model, read = make_model(23, 19, sharpness=4.0, ending=0.45), sources(20, 23)

    def lengths(**limits: int) -> list[int]:
        """How long the hypotheses are, their end symbols counted."""
        found = search(model, read, symbols, Beam(beam, 2.0, **limits), beam)
        return [len(h.tokens) + h.finished for hypotheses in found for h in hypotheses]

    free = lengths(extra=8)
    assert min(free) < 4 < max(free), "or the limits below would limit nothing"
    assert min(lengths(least=4, extra=8)) >= 5
    assert max(lengths(most=4)) == 4
    assert set(lengths(least=3, most=4)) == {4}
    reached = set()
    for source, found in zip(read, search(model, read, symbols, Beam(beam, extra=1), beam), strict=True):
        longest = max(len(hypothesis.tokens) + hypothesis.finished for hypothesis in found)
        assert longest <= len(source) + 1
        reached.add(longest == len(source) + 1)
    assert True in reached


def test_at_most_the_end_symbol_is_an_empty_translation(make_model, symbols, sources) -> None:
    for found in search(make_model(12, 12), sources(5, 12), symbols, Beam(12, most=1)):
        assert [hypothesis.tokens for hypothesis in found] == [()]


def test_the_rows_of_dropped_hypotheses_are_not_computed(make_model, symbols, sources) -> None:
    model, read = make_model(13, 11, sharpness=4.0), sources(10, 13)
    computed: dict[float, int] = {}
    forward = model.logits
    for prune in (math.inf, 1.0):
        rows: list[int] = []

        def counted(hidden: torch.Tensor, rows: list[int] = rows) -> torch.Tensor:
            rows.append(len(hidden))
            return forward(hidden)

        with mock.patch.object(model, "logits", counted):
            search(model, read, symbols, Beam(4, most=7, prune=prune))
        computed[prune] = sum(rows)
    assert computed[1.0] < 0.8 * computed[math.inf]


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam": 0},
        {"prune": 0.0},
        {"prune": -1.0},
        {"prune": math.nan},
        {"beam": -3},
        {"least": 5, "most": 4},
        {"most": 0},
        {"extra": -1},
    ],
)
def test_a_rule_that_nothing_can_fulfil_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(QkvError):
        Beam(**wrong)


# Beams of a decoder by itself


@torch.no_grad()
def everything(model, prompt: list[int], most: int, alpha: float, rules: tuple[Rule, ...]) -> list[tuple[float, tuple[int, ...]]]:
    """Every continuation that ends in at most `most` tokens, its end among them, by full passes that know nothing of each
    other, best first."""
    entries, found = model.spec.vocabulary.size, []
    for length in range(most):
        for tokens in itertools.product([t for t in range(entries) if t not in (PAD, BOS, EOS)], repeat=length):
            logarithm = 0.0
            for place, token in enumerate((*tokens, EOS)):
                so_far = torch.tensor([[*prompt, *tokens[:place]]])
                logits = apply_all(rules, model(so_far, Plain())[:, -1], so_far)
                logarithm += logits.log_softmax(1)[0, token].item()
            if logarithm > -math.inf:
                found.append((logarithm / ((5 + length + 1) / 6) ** alpha, tokens))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("rules", [(), (NoRepeat(1), Temperature(2.0))], ids=["plain", "ruled"])
def test_a_full_beam_of_continuations_equals_exhaustive_search(
    make_decoder, symbols, alpha: float, rules: tuple[Rule, ...]
) -> None:
    model, prompts = make_decoder(6, ending=0.0), [[BOS, 4, 3], [BOS, 5, 5]]
    found = write_on(model, prompts, symbols, Beam(FULL, alpha, most=4), FULL, rules)
    for prompt, hypotheses in zip(prompts, found, strict=True):
        expected = everything(model, prompt, 4, alpha, rules)
        assert [hypothesis.tokens for hypothesis in hypotheses] == [tokens for _, tokens in expected]
        assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-5)


def test_rules_see_what_those_have_said_that_were_not_dropped(make_decoder, symbols) -> None:
    model, prompts = make_decoder(9, ending=0.0), [[BOS, 4, 3], [BOS, 5, 6]]
    rules = (NoRepeat(1),)
    for prompt, hypotheses in zip(prompts, write_on(model, prompts, symbols, Beam(4, most=5, prune=0.7), 4, rules), strict=True):
        for hypothesis in hypotheses:
            said = [*prompt, *hypothesis.tokens]
            assert len(set(said)) == len(said)
            logarithm = 0.0
            for place, token in enumerate((*hypothesis.tokens, *([EOS] if hypothesis.finished else []))):
                so_far = torch.tensor([[*prompt, *hypothesis.tokens[:place]]])
                logits = apply_all(rules, model(so_far, Plain())[:, -1], so_far)
                logarithm += logits.log_softmax(1)[0, token].item()
            assert logarithm == pytest.approx(hypothesis.logarithm, abs=1e-6)


def test_a_translation_is_no_longer_than_the_model_has_places_for() -> None:
    few, many = (build(bart(Joint(11), width=16, heads=2, depth=1, longest=longest)).eval() for longest in (7, 40))
    generator = torch.Generator().manual_seed(3)
    for parameter in many.parameters():
        parameter.data += 0.4 * torch.randn(parameter.shape, generator=generator)
    for name, parameter in few.named_parameters():
        parameter.data.copy_(dict(many.named_parameters())[name][: len(parameter)])
    many.head.offset.data[EOS] = few.head.offset.data[EOS] = -9.0  # so that they would go on and on
    sources = [[4, 5, 6, 7, EOS], [9, 8, EOS]]
    found = search(few, sources, OURS, Beam(3), 3)
    assert {len(hypothesis.tokens) for hypotheses in found for hypothesis in hypotheses} == {7}
    expected = search(many, sources, OURS, Beam(3, most=7), 3)
    assert [[each.tokens for each in hypotheses] for hypotheses in found] == [[e.tokens for e in each] for each in expected]
