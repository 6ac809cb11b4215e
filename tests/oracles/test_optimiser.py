"""The learning rates of the paper, and Adam as it was written down."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qkv.spec.run import Adam, Cosine, Noam
from qkv.train.optimiser import moments, optimiser, put_moments
from qkv.train.schedule import learning_rate


@given(
    step=st.integers(1, 300_000), width=st.sampled_from([128, 512, 1024]), warmup=st.integers(1, 16000), factor=st.floats(0.1, 5)
)
def test_noam_is_equation_3(step: int, width: int, warmup: int, factor: float) -> None:
    expected = factor / math.sqrt(width) * (1 / math.sqrt(step) if step > warmup else step / warmup / math.sqrt(warmup))
    assert learning_rate(Noam(warmup, factor), step, 100_000, width) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("width", "peak"), [(512, 6.99e-4), (1024, 4.94e-4)])
def test_the_peak_of_noam_is_that_of_the_paper_and_at_the_end_of_the_warmup(width: int, peak: float) -> None:
    rates = {step: learning_rate(Noam(4000), step, 100_000, width) for step in (1, 2, 1000, 3999, 4000, 4001, 16000)}
    assert max(rates, key=rates.__getitem__) == 4000
    assert rates[4000] == pytest.approx(peak, rel=1e-3)
    assert rates[2] == pytest.approx(2 * rates[1]) and rates[1000] == pytest.approx(rates[4000] / 4)
    assert rates[16000] == pytest.approx(rates[4000] / 2)


def test_cosine_rises_in_a_line_and_falls_to_its_last_value() -> None:
    schedule = Cosine(peak=0.003, warmup=100, last=0.1)
    rates = [learning_rate(schedule, step, 500, 512) for step in range(1, 601)]
    assert rates[49] == pytest.approx(0.0015) and rates[99] == pytest.approx(0.003)
    assert rates[299] == pytest.approx(0.003 * (0.1 + 0.9 / 2))
    assert rates[499] == rates[599] == pytest.approx(0.0003)
    assert rates[:100] == sorted(rates[:100]) and rates[99:] == sorted(rates[99:], reverse=True)


def test_adam_is_algorithm_1_with_the_learning_rate_of_each_step() -> None:
    spec = Adam()
    assert (spec.beta1, spec.beta2, spec.epsilon) == (0.9, 0.98, 1e-9)
    module = nn.Linear(3, 2).double()
    adam = optimiser(spec, module)
    theta = [p.detach().clone() for p in module.parameters()]
    m, v = ([torch.zeros_like(p) for p in theta] for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 8):
        rate = learning_rate(Noam(4), step, 7, 16)
        adam.param_groups[0]["lr"] = rate
        for i, parameter in enumerate(module.parameters()):
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            m[i] = 0.9 * m[i] + 0.1 * parameter.grad
            v[i] = 0.98 * v[i] + 0.02 * parameter.grad**2
            theta[i] -= rate * (m[i] / (1 - 0.9**step)) / ((v[i] / (1 - 0.98**step)).sqrt() + 1e-9)
        adam.step()
        torch.testing.assert_close(list(module.parameters()), [nn.Parameter(t) for t in theta], rtol=1e-9, atol=1e-12)
    found = moments(adam, module)
    torch.testing.assert_close([found["exp_avg/weight"], found["exp_avg_sq/bias"]], [m[0], v[1]])


def test_moments_put_back_go_on_as_if_nothing_had_been() -> None:
    def step(module: nn.Linear, adam: torch.optim.Adam, seed: int) -> None:
        adam.param_groups[0]["lr"] = 0.01
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        adam.step()

    first = nn.Linear(3, 2)
    adam = optimiser(Adam(), first)
    for seed in range(3):
        step(first, adam, seed)
    second = nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    again = optimiser(Adam(), second)
    put_moments(again, second, {name: tensor.clone() for name, tensor in moments(adam, first).items()})
    step(first, adam, 9)
    step(second, again, 9)
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)
