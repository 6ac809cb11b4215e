"""The frontier: closed forms against numerical minimisation, and the numbers of the paper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from tests.study.laddered import PUBLISHED

from qkv.spec.law import Cost, Counted, Coupled, Line, SixND, Surface, Valley
from qkv.study.frontier import best, flops, least, ratio, reaching

SMALL = Counted((1e6, 1e7, 1e9), (1.7, 1.2, 1.05))
laws = st.builds(
    Surface, st.floats(0.5, 3), st.floats(1, 1e3), st.floats(1, 1e3), alpha=st.floats(0.1, 0.8), beta=st.floats(0.1, 0.8)
) | st.builds(Coupled, st.floats(1e10, 1e15), st.floats(1e10, 1e15), st.floats(0.05, 0.3), st.floats(0.05, 0.4))


def test_the_published_frontier() -> None:
    """Hoffmann et al. 2022 with their rounded constants: G = 1.345, exponents 0.452 and 0.548, and for Gopher's budget 32 billion
    parameters and 3.0 trillion tokens."""
    assert pytest.approx(1.345, abs=5e-4) == PUBLISHED.G
    assert (round(PUBLISHED.a, 3), round(PUBLISHED.b, 3)) == (0.452, 0.548)
    size, tokens = best(PUBLISHED, SixND(), 5.76e23)
    assert round(size / 1e9) == 32 and round(tokens / 1e12, 1) == 3.0


@given(law=laws, exponent=st.floats(15, 26), cost=st.sampled_from([SixND(), SMALL]))
def test_no_size_is_better_than_the_best(law: Surface | Coupled, exponent: float, cost: Cost) -> None:
    budget = 10.0**exponent
    size, tokens = best(law, cost, budget)
    assert flops(cost, size, tokens) == pytest.approx(budget, rel=1e-9)

    def loss(log_size: float) -> float:
        return float(law.loss(np.exp(log_size), budget / flops(cost, np.exp(log_size), 1.0)))

    found = minimize_scalar(loss, bounds=(np.log(size) - 3, np.log(size) + 3), method="bounded", options={"xatol": 1e-9})
    assert loss(float(np.log(size))) <= found.fun * (1 + 1e-8)
    assert least(law, cost, budget) == pytest.approx(loss(float(np.log(size))), rel=1e-12)


@given(law=laws, exponent=st.floats(16, 24), cost=st.sampled_from([SixND(), SMALL]))
def test_the_budget_for_a_loss_buys_that_loss(law: Surface | Coupled, exponent: float, cost: Cost) -> None:
    budget = 10.0**exponent
    loss = float(least(law, cost, budget))
    assert float(reaching(law, cost, loss)) == pytest.approx(budget, rel=1e-4)


def test_many_laws_at_once_are_each_by_itself() -> None:
    draw = np.random.default_rng(1)
    rows = np.array([PUBLISHED.E, PUBLISHED.A, PUBLISHED.B, PUBLISHED.alpha, PUBLISHED.beta]) * draw.uniform(0.9, 1.1, (7, 5))
    together, budgets = Surface(*rows.T[..., None]), np.geomspace(1e18, 1e23, 4)  # type: ignore[arg-type]
    for cost in (SixND(), SMALL):
        found = best(together, cost, budgets)[0]
        each = [[best(Surface(*map(float, row)), cost, float(budget))[0] for budget in budgets] for row in rows]
        assert found == pytest.approx(np.array(each), rel=1e-6)
        spent = np.ravel(reaching(together, cost, 2.3))
        assert spent == pytest.approx([float(reaching(Surface(*map(float, row)), cost, 2.3)) for row in rows], rel=1e-6)


def test_what_was_counted_lies_between_the_sizes_and_stays_beyond_them() -> None:
    assert ratio(SMALL, np.array([1e5, 1e6, 1e8, 1e9, 1e12])) == pytest.approx([1.7, 1.7, 1.125, 1.05, 1.05])
    assert flops(SMALL, 1e7, 1e9) == pytest.approx(1.2 * 6e16)
    assert flops(SixND(), 1e7, 1e9) == 6e16


def test_laws_of_one_variable() -> None:
    line = Line(0.5, 1e10, 0.1)
    assert least(line, SixND(), 1e10) == pytest.approx(1.5)
    assert reaching(line, SixND(), float(line.loss(1e15))) == pytest.approx(1e15)
    valley = Valley(0.5, 0.45, 1 / 3, 0.55, 0.5, 1e10, 0.1)
    assert least(valley, SixND(), 1e10) == pytest.approx(1.5)
    assert best(valley, SixND(), 1e20) == pytest.approx((0.5e9, 1e11 / 3))
