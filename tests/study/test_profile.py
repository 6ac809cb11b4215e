"""IsoFLOP profiles: exponents that are known, and ladders that have none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.study.laddered import PUBLISHED, ladder, table

from qkv.error import QkvError
from qkv.spec.law import FittedFloor, IsoFlops, Resamples, Valley
from qkv.study.law import Asked, fit
from qkv.study.table import Member

BUDGETS = np.geomspace(1e18, 1e21, 5).tolist()
ASKED = Asked(IsoFlops(), resampling=Resamples(20))


def profiles(budgets: list[float] = BUDGETS, steps: int = 7) -> list[Member]:
    """Members whose sizes lie evenly about the best of each budget."""
    sizes = [(flops, PUBLISHED.best(flops)[0] * step) for flops in budgets for step in np.geomspace(0.2, 5, steps).tolist()]
    return [Member(f"{flops:.3g} {n:.3g}", n, None, flops / 6 / n, PUBLISHED.loss(n, flops / 6 / n)) for flops, n in sizes]


def test_parabolas_that_are_exact_are_found_exactly() -> None:
    members = []
    for flops in BUDGETS:
        lowest, loss = 0.3 * flops**0.47, (1e19 / flops) ** 0.06
        for step in (0.2, 0.4, 0.8, 1.5, 2.5, 4.0):
            n = lowest * step
            members.append(Member(f"{flops:.3g} {step}", n, None, flops / 6 / n, loss + 0.05 * math.log(step) ** 2))
    (found,) = fit(table(*members), ASKED)
    law = found.law
    assert isinstance(law, Valley)
    assert (law.a, law.b, law.n, law.exponent) == pytest.approx((0.47, 0.53, 0.3, 0.06), rel=1e-6)
    assert law.d == pytest.approx(1 / (6 * 0.3), rel=1e-6) and law.scale == pytest.approx(1e19, rel=1e-6)
    assert found.interval(found.each.a) == pytest.approx([0.47, 0.47], rel=1e-6) and found.doubts == ()


def test_the_exponents_of_the_published_law_are_found() -> None:
    """The loss of a budget is no parabola, but the same curve for every budget: what it is off by, it is off by everywhere."""
    (found,) = fit(table(*profiles()), replace(ASKED, form=IsoFlops(FittedFloor())))
    law = found.law
    assert isinstance(law, Valley)
    assert (law.a, law.b) == pytest.approx((PUBLISHED.a, PUBLISHED.b), abs=1e-6)
    assert pytest.approx(1.69, abs=0.01) == law.E
    assert law.exponent == pytest.approx(PUBLISHED.alpha * PUBLISHED.beta / (PUBLISHED.alpha + PUBLISHED.beta), rel=0.01)
    assert found.goodness.members == 5 and found.goodness.error < 0.01


def test_a_budget_without_a_best_size_is_left_out_and_said() -> None:
    one_sided = [each for each in profiles() if float(each.name.split()[0]) > 2e18 or each.name.split()[0] != "1e+18"]
    smallest = [each for each in profiles(BUDGETS[:1]) if (each.parameters or 0) > 1.6 * PUBLISHED.best(BUDGETS[0])[0]]
    (found,) = fit(table(*one_sided, *smallest), ASKED)
    assert isinstance(found.law, Valley) and found.law.a == pytest.approx(PUBLISHED.a, abs=1e-3)
    assert any("1 of 5 budgets are left out" in doubt for doubt in found.doubts)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (
            ladder(sizes=[1e7, 1.1e8, 1e9], tokens=[1e9, 7e9, 6e10]),
            r"^0 budgets have a best size .* need 3 \(0 have 3 sizes or more",
        ),
        (profiles(BUDGETS[:2]), r"^2 budgets have a best size .* need 3"),
        (profiles(steps=2), "^0 budgets"),
    ],
)
def test_a_ladder_without_profiles_is_refused(members: list[Member], words: str) -> None:
    with pytest.raises(QkvError, match=words):
        fit(table(*members), ASKED)


def test_a_floor_takes_another_budget() -> None:
    with pytest.raises(QkvError, match="3 budgets are too few for a law of 3 numbers"):
        fit(table(*profiles(BUDGETS[:3])), replace(ASKED, form=IsoFlops(FittedFloor())))


def test_what_each_budget_was_is_said_where_the_span_is_small() -> None:
    (found,) = fit(table(*profiles(np.geomspace(1e18, 5e18, 4).tolist())), ASKED)
    assert any("the budgets span 5-fold alone" in doubt for doubt in found.doubts)
