"""Diverse beam search, held to a transcription of the paper's algorithm."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qkv.attention.sight import Plain
from qkv.data.symbols import END, START
from qkv.decode.beam import write_on
from qkv.decode.diverse import Diverse, diverse
from qkv.decode.rule import Beam
from qkv.decode.sample import Ban
from qkv.error import QkvError


@torch.no_grad()
def algorithm_1(model, prompt: list[int], how: Diverse, most: int) -> list[tuple[float, list[int]]]:
    """Vijayakumar et al. 2016, algorithm 1 with Hamming diversity (section 5.1), every pass a full one: the best of each group.

    What ends among the best of a group is set aside; the group goes on with the best of what does not end until it has set as
    many aside as it holds.
    """
    going = [[(0.0, list[int]())] for _ in range(how.groups)]
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(how.groups)]
    for time in range(1, most + 1):
        said = np.zeros(model.spec.vocabulary.size)
        for group in range(how.groups):
            if len(ended[group]) >= how.beam:
                continue
            candidates = []
            for worth, tokens in going[group]:
                theta = model(torch.tensor([prompt + tokens]), Plain())[0, -1].log_softmax(0).numpy() - how.strength * said
                candidates += [(worth + theta[token], [*tokens, token]) for token in range(len(theta))]
            candidates = sorted(candidates, reverse=True)[: 2 * how.beam]
            for worth, tokens in candidates[: how.beam]:
                if tokens[-1] == END and len(ended[group]) < how.beam:
                    ended[group].append((worth / ((5 + time) / 6) ** how.length_penalty, tokens[:-1]))
                    said[END] += 1
            going[group] = [each for each in candidates if each[1][-1] != END][: how.beam]
            for _, tokens in going[group]:
                said[tokens[-1]] += 1
        if all(len(each) >= how.beam for each in ended):
            break
    unended = [[(worth / ((5 + most) / 6) ** how.length_penalty, tokens) for worth, tokens in group] for group in going]
    return [max(one or other) for one, other in zip(ended, unended, strict=True)]


@pytest.mark.parametrize("how", [Diverse(3, 1, 0.5), Diverse(2, 3, 1.5), Diverse(4, 2, 20.0, 0.0)], ids=str)
@pytest.mark.parametrize(("seed", "ending"), [(0, 0.3), (1, 0.5), (2, -1.0)])
def test_it_is_the_algorithm_of_the_paper(make_decoder, symbols, how: Diverse, seed: int, ending: float) -> None:
    model = make_decoder(13, seed=seed, ending=ending)
    for prompt in ([START], [START, 7, 4, 9]):
        expected = algorithm_1(model, prompt, how, 6)
        found = diverse(model, prompt, symbols, how, 6)
        assert [list(each.tokens) for each in found] == [tokens for _, tokens in expected]
        assert [each.score for each in found] == pytest.approx([score for score, _ in expected], abs=1e-9)
        assert len({each.tokens for each in found}) > 1 or how.strength < 10, "far apart they cannot say the same"


def test_one_group_is_a_beam(make_decoder, symbols) -> None:
    model, rules = make_decoder(13, ending=-1.0), (Ban((symbols.pad, symbols.start)),)
    for prompt in ([START], [START, 7, 4]):
        (beam,) = write_on(model, [prompt], symbols, Beam(3, 0.6, most=6), 1, rules)
        assert [each.tokens for each in diverse(model, prompt, symbols, Diverse(1, 3), 6, rules)] == [beam[0].tokens]


def test_groups_that_nothing_keeps_apart_say_the_same(make_decoder, symbols) -> None:
    model = make_decoder(13)
    assert len({each.tokens for each in diverse(model, [START, 5], symbols, Diverse(3, 2, 0.0), 6)}) == 1


@pytest.mark.parametrize("wrong", [(0, 1), (2, 0), (2, 2, -0.1)])
def test_no_groups_and_no_hypotheses_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(QkvError, match="at least 1 group of at least 1 hypothesis"):
        Diverse(*wrong)
