"""Contrastive search, held to the paper's formula by full passes."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from qkv.attention.sight import Plain
from qkv.data.symbols import START
from qkv.decode.contrast import Contrastive, contrasted
from qkv.decode.sample import Allow, NoRepeat, Rule, apply_all
from qkv.error import QkvError


@torch.no_grad()
def equation_5(model, text: list[int], how: Contrastive, rules: tuple[Rule, ...]) -> int:
    """The next token by Su et al. 2022, equation 5: the argmax over the k likeliest v of
    (1 - alpha) p(v | x) - alpha max_j cos(h_v, h_x_j), where every h is that of a full pass over x and v."""
    logits = apply_all(rules, model(torch.tensor([text]), Plain())[:, -1], torch.tensor([text]))
    probabilities = logits.softmax(1)[0]
    values = {}
    for v in probabilities.topk(how.count).indices.tolist():
        if probabilities[v] > 0:
            h = model.decode(torch.tensor([[*text, v]]), Plain())[0]
            closest = max(torch.cosine_similarity(h[-1], h[j], dim=0).item() for j in range(len(text)))
            values[v] = (1 - how.penalty) * probabilities[v].item() - how.penalty * closest
    return max(values, key=lambda v: values[v])


@pytest.mark.parametrize("how", [Contrastive(4, 0.6), Contrastive(9, 0.2), Contrastive(3, 1.0)], ids=str)
@pytest.mark.parametrize("rules", [(), (NoRepeat(1), Allow(tuple(range(4, 17))))], ids=["plain", "ruled"])
def test_every_token_is_that_of_the_formula(make_decoder, how: Contrastive, rules: tuple[Rule, ...]) -> None:
    model = make_decoder(19, sharpness=0.5)
    for prompt in ([START], [START, 8, 5, 8]):
        text = list(prompt)
        for token in islice(contrasted(model, prompt, how, rules), 10):
            assert token == equation_5(model, text, how, rules)
            text.append(token)


def test_without_a_penalty_or_a_choice_it_is_greedy_and_with_one_it_is_not(make_decoder) -> None:
    model = make_decoder(19, sharpness=0.5)
    text = [START, 8, 5]
    for _ in range(9):
        with torch.no_grad():
            text.append(int(model(torch.tensor([text]), Plain())[0, -1].argmax()))
    for how, same in ((Contrastive(6, 0.0), True), (Contrastive(1, 0.9), True), (Contrastive(6, 0.9), False)):
        assert (list(islice(contrasted(model, text[:3], how), 9)) == text[3:]) is same


def test_a_penalty_that_is_no_share_is_refused() -> None:
    for wrong in ((0, 0.5), (4, -0.1), (4, 1.1)):
        with pytest.raises(QkvError, match="at least 1 token, by a penalty from 0 to 1"):
            Contrastive(*wrong)
