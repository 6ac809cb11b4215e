"""Keys that are drawn: as often as they should be, and with the gradient of what is to be expected."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from qkv.attention.call import Call
from qkv.attention.reference import log_probability, weights
from qkv.data.batch import Batch
from qkv.model.dropout import Noise
from qkv.model.trace import Trace
from qkv.model.transformer import build
from qkv.papers.bahdanau import bahdanau
from qkv.papers.transformer import transformer
from qkv.spec import plain
from qkv.spec.choice import Sampled, Soft
from qkv.spec.model import Joint
from qkv.train import choices
from qkv.train.loss import Smoothing
from qkv.train.pairs import losses

LENGTHS = torch.tensor([2, 1])
BATCH = Batch(
    source=torch.tensor([[5, 6], [7, 2]]),
    source_lengths=torch.tensor([2, 2]),
    target_in=torch.tensor([[1, 5], [1, 0]]),
    target_out=torch.tensor([[5, 2], [6, 0]]),
    target_lengths=LENGTHS,
    tokens=3,
    padded_source=False,
    padded_target=True,
)
MODELS = {
    "Transformer": plain.change(
        transformer(Joint(9), width=4, hidden=6, heads=1, depth=1, dropout=0.0), "decoder.blocks.0.sublayers.1.choice=Sampled()"
    ),
    "Bahdanau": plain.change(bahdanau(Joint(9), width=4), "*.choice=Sampled()"),
}


def test_keys_are_drawn_as_often_as_the_softmax_says() -> None:
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(1, 1, length, 3, generator=generator) for length in (1, 4, 4))
    call = Call(q.expand(1, 1, 40_000, 3), k, v, choice=Sampled())
    soft = weights(replace(call, choice=Soft()))
    drawn = weights(replace(call, chance=Noise(1, 2).gumbel(soft, ("decoder",))))
    assert drawn.sum(3).unique().tolist() == [1.0]
    torch.testing.assert_close(drawn.mean(2), soft[:, :, 0], rtol=0, atol=0.01)
    again, other = (Noise(1, step).gumbel(soft, ("decoder",)) for step in (2, 3))
    assert torch.equal(drawn, weights(replace(call, chance=again)))
    assert not torch.equal(drawn, weights(replace(call, chance=other)))
    likeliest = weights(call)  # where nothing is drawn
    assert torch.equal(likeliest.argmax(3), soft.argmax(3))
    found = log_probability(replace(call, chance=again))
    torch.testing.assert_close(found, (soft * drawn).sum(3).log())


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_that_of_the_expected_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way in which keys can be drawn, with its probability."""
    model: Any = build(MODELS[name], 3).double()
    for parameter in model.parameters():
        parameter.data += 0.4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    parameters = list(model.parameters())
    expected = torch.zeros((), dtype=torch.float64)
    estimated = [torch.zeros_like(each) for each in parameters]
    total = 0.0
    for drawn in itertools.product((0, 1), repeat=4):
        to_come = torch.tensor(drawn).view(2, 2)  # of each sentence, at each token

        def chosen(noise: Noise, like: Tensor, path: tuple[str, ...], to_come: Tensor = to_come) -> Tensor:
            first = int(path[-1])
            picked = to_come[:, first : first + like.shape[2]]
            return torch.zeros_like(like).scatter_(3, picked[:, None, :, None], 1000.0)

        monkeypatch.setattr(Noise, "gumbel", chosen)
        trace = Trace(lambda path: False)
        loss, _ = losses(model, BATCH, Smoothing(0.0), Noise(1, 1), trace=trace)
        (logarithms,) = trace.chosen.values()
        probability = logarithms.sum().exp()
        total += probability.item()
        cost = choices.cost(trace, BATCH, 1)
        for each, gradient in zip(estimated, torch.autograd.grad(loss + cost, parameters, retain_graph=True), strict=True):
            each += probability.detach() * gradient
        expected = expected + probability * loss
    assert total == pytest.approx(1.0)
    exact = torch.autograd.grad(expected, parameters)
    for found, wanted in zip(estimated, exact, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert max(each.abs().max().item() for each in exact) > 1e-3


def test_only_who_draws_pays() -> None:
    assert choices.draws(MODELS["Transformer"])
    assert choices.draws(MODELS["Bahdanau"])
    assert not choices.draws(transformer(Joint(9)))
    assert choices.cost(Trace(), BATCH, 3) == 0.0
