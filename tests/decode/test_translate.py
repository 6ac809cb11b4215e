"""Lines in, lines out: in order, with scores that can be checked, whatever the batches."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.attention.sight import Plain
from qkv.data.symbols import OURS
from qkv.decode import translate as module
from qkv.decode.beam import search
from qkv.decode.rule import Beam
from qkv.decode.translate import Translator, likeliest, log_probabilities
from qkv.error import QkvError

RULE = Beam(4, 0.6, extra=3, least=1)
EOS = OURS.end


def lines(count: int) -> list[str]:
    chance = random.Random(5)
    return ["".join(chance.choices("abcdefghklm", k=chance.randint(1, 12))) for _ in range(count)]


def test_the_order_is_kept_whatever_the_batches(translator: Translator) -> None:
    given = lines(14)
    expected = [translator.translate([line], RULE)[0][0] for line in given]
    assert len({translation.text for translation in expected}) > 7
    for batch_tokens in (1, 60, 4096):
        found = translator.translate(given, RULE, batch_tokens=batch_tokens)
        assert [translation[0].text for translation in found] == [translation.text for translation in expected]
        assert [translation[0].score for translation in found] == pytest.approx([t.score for t in expected], abs=1e-5)


def test_empty_lines_stay_empty_in_their_places(translator: Translator) -> None:
    found = translator.translate(["", "abc", "   ", "\t", "cab"], RULE)
    assert [bool(translations[0].text) for translations in found] == [False, True, False, False, True]
    assert [len(translations) for translations in found] == [1] * 5
    assert translator.translate([], RULE) == []
    assert translator.translate(["", " "], RULE) == [[module.Translation("", 0.0)]] * 2


def test_space_around_a_line_is_not_part_of_it(translator: Translator) -> None:
    (plain,), (spaced,) = translator.translate(["ab c", "  ab c \n"], RULE)
    assert plain.text == spaced.text


def test_a_line_that_is_too_long_is_named_and_never_cut(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 5)
    given = ["abcde", "abcdef", "", "a", "abcdefgh"]
    assert translator.too_long(given) == [1, 4]
    assert translator.too_long([" abcde \n"]) == [], "space around a line is not part of it here either"
    assert [bool(found[0].text) for found in translator.translate(given, RULE)] == [True, False, False, True, False]


@pytest.mark.parametrize("batch_tokens", [1, 100, 4096])
def test_note_is_told_how_many_are_done_rising_to_all(translator: Translator, batch_tokens: int) -> None:
    told: list[int] = []
    translator.translate(["", *lines(9), ""], RULE, batch_tokens=batch_tokens, note=told.append)
    assert told == sorted(set(told)) and told[-1] == 11
    assert told[0] >= 3, "empty lines are done from the start"
    assert len(told) == 9 or batch_tokens > 1


def test_the_n_best_fall_in_score(translator: Translator) -> None:
    found = translator.translate(lines(10), Beam(4, 0.6, most=8), count=3)
    assert max(map(len, found)) == 3
    for translations in found:
        scores = [translation.score for translation in translations]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_score_gives_what_decoding_reported(translator: Translator, alpha: float) -> None:
    given, rule = lines(25), Beam(4, alpha, extra=9)
    hypotheses = search(translator.model, [[*ids, EOS] for ids in translator.source.encode(given)], OURS, rule, 4)
    sources, targets, reported = [], [], []
    for line, found, translations in zip(given, hypotheses, translator.translate(given, rule, count=4), strict=True):
        for hypothesis, translation in zip(found, translations, strict=True):
            if hypothesis.finished and spelled(translator, hypothesis.tokens) == translation.text:
                sources.append(line)
                targets.append(translation.text)
                reported.append(translation.score)
    assert len(reported) > 20 and len(set(map(len, targets))) > 4
    for batch_tokens in (1, 4096):
        assert translator.score(sources, targets, alpha, batch_tokens=batch_tokens) == pytest.approx(reported, abs=2e-5)


def spelled(translator: Translator, tokens: tuple[int, ...]) -> str | None:
    """The text of some pieces, if it would be cut into the same pieces again."""
    text = translator.target.decode(tokens)
    return text if translator.target.encode([text.strip()])[0] == list(tokens) else None


def test_score_counts_the_end_and_divides_by_the_penalty(translator: Translator) -> None:
    source, target = translator.source.encode(["abc"])[0], translator.target.encode(["DEAF"])[0]
    logarithm = log_probabilities(translator.model, [[*source, EOS]], [[*target, EOS]], OURS)[0]
    assert translator.score(["abc"], ["DEAF"], 0.6) == pytest.approx([logarithm / (10 / 6) ** 0.6])


def test_log_probabilities_of_a_batch_are_those_of_each_pair_alone(translator: Translator, sources) -> None:
    read, written = sources(12, translator.source.size), sources(12, translator.target.size, seed=1)
    together = log_probabilities(translator.model, read, written, OURS)
    alone = [log_probabilities(translator.model, [s], [t], OURS)[0] for s, t in zip(read, written, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == 12


def test_as_many_tokens_are_the_likeliest_after_the_truth_as_were_chosen_so(translator: Translator, sources) -> None:
    coins, read, written, chosen = random.Random(0), sources(8, translator.source.size), [], []
    for length, source in enumerate(read):
        target, right = [], 0
        for _ in range(length + 1):
            with torch.inference_mode():
                best = int(
                    translator.model(torch.tensor([source]), Plain(), torch.tensor([[*OURS.opening, *target]]))[0, -1].argmax()
                )
            likely = coins.random() < 0.5
            target.append(best if likely else (best + 1) % translator.target.size)
            right += likely
        written.append(target)
        chosen.append(right)
    assert likeliest(translator.model, read, written, OURS) == chosen
    assert 0 < sum(chosen) < sum(map(len, written))


def test_tokens_after_the_truth_are_counted_with_the_end_whatever_the_batch(translator: Translator) -> None:
    sources, targets = ["abc", "", "fade", "b"], ["DEAF", "A", "", "BAD CAB"]
    lengths = [len(ids) + 1 for ids in translator.target.encode(targets)]
    alone = translator.teacher_forced(sources, targets, batch_tokens=1)
    assert [whole for _, whole in alone] == [lengths[0], 0, *lengths[2:]]
    assert translator.teacher_forced(sources, targets) == alone


def test_scores_are_asked_for_in_pairs(translator: Translator) -> None:
    with pytest.raises(QkvError, match="2 sources and 1 targets"):
        translator.score(["a", "b"], ["A"])


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=80), tokens=st.integers(1, 300), threads=st.integers(1, 4))
def test_even_batches_hold_everything_once_and_no_more_than_they_may(lengths: list[int], tokens: int, threads: int) -> None:
    places = list(range(len(lengths)))
    groups = module.even(places, lengths, tokens, threads)
    assert sorted(place for group in groups for place in group) == places
    assert all(len(group) == 1 or len(group) * max(lengths[i] for i in group) <= tokens for group in groups)
    longest_first = [lengths[i] for group in groups for i in group]
    assert longest_first == sorted(longest_first, reverse=True)
    fewest = len(module.batches(places, lengths, tokens))
    assert fewest <= len(groups) < fewest + threads


def test_even_batches_leave_no_thread_waiting() -> None:
    lengths = [7 + i % 13 for i in range(1000)]
    places, odd = list(range(1000)), 0
    for tokens in range(1300, 1900, 100):
        sizes = [sum(lengths[i] for i in group) for group in module.even(places, lengths, tokens, 2)]
        assert len(sizes) % 2 == 0
        assert min(sizes) > 0.75 * max(sizes)
        odd += len(module.batches(places, lengths, tokens)) % 2
    assert odd
