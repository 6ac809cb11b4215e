"""Speculative decoding writes what the large model would have written, as often as it would have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest
import torch

from qkv.attention.sight import Plain
from qkv.data.symbols import START
from qkv.decode.sample import Rule, Temperature, TopK, apply_all
from qkv.decode.speculate import Speculative, speculated
from qkv.error import QkvError
from qkv.model.state import State

TEXTS, LENGTH, ENTRIES = 50, 40, 6


@torch.no_grad()
def chances(model, rules: Sequence[Rule]) -> torch.Tensor:
    """The probability of each token (column) after each (row), by plain passes."""
    last = torch.arange(ENTRIES)[:, None]
    return apply_all(rules, model(last, Plain())[:, -1], last).softmax(1)


def far(counts: torch.Tensor, odds: torch.Tensor) -> float:
    """Pearson's chi-square of how often each token came after each, in deviations of a normal variable (Wilson and Hilferty
    1931)."""
    expected = counts.sum(1, keepdim=True) * odds
    possible = odds > 0
    square = (((counts - expected) ** 2)[possible] / expected[possible]).sum().item()
    free = int(possible.sum()) - ENTRIES
    return ((square / free) ** (1 / 3) - (1 - 2 / (9 * free))) / math.sqrt(2 / (9 * free))


def chain(model, seed: int) -> Any:
    """The same with a table in place of its blocks: what comes next depends on the last token alone. It is quick, and what a
    model remembers is tested elsewhere."""
    table = torch.randn(ENTRIES, ENTRIES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def decode(ids: torch.Tensor, sight: Plain, state: State | None = None, **_: object) -> torch.Tensor:
        if state is not None:
            state.length += ids.shape[1]
        return torch.nn.functional.one_hot(ids, ENTRIES).double()

    model.decode, model.logits = decode, lambda hidden: hidden @ table
    return model


@pytest.mark.parametrize(("ahead", "rules"), [(3, ()), (1, (Temperature(1.5), TopK(4)))], ids=["plain", "ruled"])
def test_what_is_written_is_distributed_as_the_large_model_alone_would(make_decoder, ahead: int, rules: tuple[Rule, ...]) -> None:
    large, small = (chain(make_decoder(ENTRIES, longest=LENGTH + 9), seed) for seed in (1, 2))
    of_large, of_small = (chances(model, rules) for model in (large, small))
    assert (of_large - of_small).abs().sum(1).mean() / 2 > 0.2, "or the draft is as good"
    how, counts = Speculative(small, ahead, seed=11), torch.zeros(ENTRIES, ENTRIES, dtype=torch.float64)
    for key in range(TEXTS):
        text = [START, *islice(speculated(large, [START], how, rules, key), LENGTH)]
        for pair in itertools.pairwise(text):
            counts[pair] += 1
    assert counts.sum() == TEXTS * LENGTH and not counts[of_large == 0].any()
    assert far(counts, of_large) < 3
    # what the draft would write must be told from it, where it may be written at all
    both = (of_small > 0) & (of_large > 0)
    assert far(counts * both, (of_small * both) / (of_small * both).sum(1, keepdim=True)) > 10


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_a_greedy_one_is_greedy(make_decoder, ahead: int) -> None:
    large, small = make_decoder(19, seed=1), make_decoder(19, seed=2)
    for prompt in ([START], [START, 5, 9, 4, 12]):
        text = list(prompt)
        for _ in range(14):
            with torch.no_grad():
                text.append(int(large(torch.tensor([text]), Plain())[0, -1].argmax()))
        found = islice(speculated(large, prompt, Speculative(small, ahead), (TopK(1),)), 14)
        assert list(found) == text[len(prompt) :]


def test_a_draft_that_is_the_model_is_always_right(make_decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the large model makes one pass for every `ahead` + 1 tokens, and that is what it is for."""
    large, small = make_decoder(19), make_decoder(19)
    passes = []
    decode = large.decode
    monkeypatch.setattr(large, "decode", lambda *given: passes.append(1) or decode(*given))
    assert len(list(islice(speculated(large, [START, 5], Speculative(small, 3)), 20))) == 20
    assert len(passes) == 5


@pytest.mark.parametrize(("large_places", "small_places"), [(16, 16), (16, 64), (30, 9), (30, 3)])
def test_no_token_is_proposed_beyond_the_last_place_of_either(make_decoder, large_places: int, small_places: int) -> None:
    large = make_decoder(19, seed=1, longest=large_places)
    small = make_decoder(19, seed=2, longest=small_places)
    prompt = [START, 5, 9, 4]
    room = large_places - len(prompt)
    expected, text = [], list(prompt)
    for _ in range(room):
        with torch.no_grad():
            expected.append(int(large(torch.tensor([text]), Plain())[0, -1].argmax()))
        text.append(expected[-1])
    for ahead in (2, 4):
        assert list(islice(speculated(large, prompt, Speculative(small, ahead), (TopK(1),)), room)) == expected


def test_a_draft_with_another_vocabulary_or_without_proposals_is_refused(make_decoder) -> None:
    with pytest.raises(QkvError, match=r"a draft has the vocabulary of the model: .*20.* is not .*19.* same tokenizer"):
        next(speculated(make_decoder(19), [START], Speculative(make_decoder(20))))
    with pytest.raises(QkvError, match="a draft proposes at least 1 token, not 0"):
        Speculative(make_decoder(19), 0)
