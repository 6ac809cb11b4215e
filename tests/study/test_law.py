"""A fit as a whole: constants that are known, intervals, what is held out, and what is refused or doubted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.study.laddered import PUBLISHED, SIZES, TOKENS, ladder, table

from qkv.error import QkvError
from qkv.spec.law import (
    Counted,
    Coupled,
    FittedFloor,
    Floor,
    Form,
    Line,
    OfBoth,
    OfFlops,
    OfParameters,
    OfTokens,
    Parametric,
    Projection,
    Resamples,
    SixND,
    Subsamples,
    Surface,
    WithoutEmbeddings,
)
from qkv.study.law import Asked, Fit, fit
from qkv.study.points import best_members, cost_of
from qkv.study.table import Member

FEW = Resamples(20)
QUICK = Asked(Parametric(Projection()), resampling=FEW)


def fitted(members: list[Member], asked: Asked = QUICK) -> Fit:
    (found,) = fit(table(*members), asked)
    return found


@pytest.mark.parametrize("form", [Parametric(), Parametric(Projection())])
def test_a_table_gives_back_its_law(form: Form) -> None:
    found = fitted(ladder(), replace(QUICK, form=form, held_out=("largest",)))
    assert isinstance(found.law, Surface) and found.cost == SixND()
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(found.law, name) == pytest.approx(getattr(PUBLISHED, name), rel=1e-4)
        assert found.interval(getattr(found.each, name)) == pytest.approx([getattr(PUBLISHED, name)] * 2, rel=1e-3)
    assert len(found.fitted) == 25 and {member.parameters for member in found.held_out} == {SIZES[-1]}
    assert found.held_out_goodness is not None and found.held_out_goodness.error < 1e-5
    assert found.goodness.r_squared == pytest.approx(1) and found.doubts == ()


def test_parameters_and_tokens_may_hold_each_other_back() -> None:
    """The constants of Kaplan et al. 2020, section 4.1; a sum of two powers does not follow them, and says what may."""
    law = Coupled(6.4e13, 1.8e13, 0.076, 0.103)
    sizes, tokens = np.geomspace(1e5, 3e7, 6).tolist(), np.geomspace(1e6, 1e9, 5).tolist()
    members = ladder(law, sizes, tokens)
    found = fitted(members, replace(QUICK, form=OfBoth(), held_out=("largest",)))
    assert isinstance(found.law, Coupled) and found.doubts == ()
    for name in ("N_c", "D_c", "alpha_N", "alpha_D"):
        assert getattr(found.law, name) == pytest.approx(getattr(law, name), rel=1e-3)
        assert found.interval(getattr(found.each, name)) == pytest.approx([getattr(law, name)] * 2, rel=1e-2)
    assert found.held_out_goodness is not None and found.held_out_goodness.error < 1e-5
    coupled = ladder(Coupled(2.7e9, 2.8e8, 0.095, 0.22), np.geomspace(1e3, 1e7, 6).tolist(), np.geomspace(1e5, 1e9, 5).tolist())
    *_, doubt = fitted(coupled, QUICK).doubts
    assert doubt.startswith("member 0 is off by 15%") and doubt.endswith("this law; see whether they follow --law 'OfBoth()'")
    assert fitted(coupled, replace(QUICK, form=OfBoth())).goodness.error < 1e-6


@pytest.mark.parametrize(
    ("form", "law"),
    [
        (OfParameters(), Line(0.0, 8.8e13, 0.076)),
        (OfParameters(Floor(1.2)), Line(1.2, 1e9, 0.3)),
        (OfTokens(), Line(0.0, 5.4e13, 0.095)),
        (OfTokens(FittedFloor()), Line(1.2, 1e9, 0.3)),
        (OfFlops(), Line(0.0, 3e20, 0.05)),
        (OfFlops(FittedFloor()), Line(0.9, 1e16, 0.2)),
    ],
)
def test_a_law_of_one_variable_is_found(form: Any, law: Line) -> None:
    """Those of Kaplan et al. 2020, section 1.2, among them; the members that were held back by something else do not count."""
    best, worse = list[Member](), list[Member]()
    for x in np.geomspace(1e6, 1e10, 7).tolist():
        match form:
            case OfParameters():
                n, d, less = x, 1e12, (x, 5e11)
            case OfTokens():
                n, d, less = 1e12, x, (5e11, x)
            case _:
                n, d, less = x, 20 * x, (x / 2, 40.5 * x)
        loss = law.loss(6 * n * d if isinstance(form, OfFlops) else x)
        best.append(Member(f"best {x:.3g}", n, None, d, loss))
        worse.append(Member(f"worse {x:.3g}", less[0], None, less[1], 1.2 * loss))
    found = fitted(worse + best, replace(QUICK, form=form))
    assert isinstance(found.law, Line)
    assert (found.law.E, found.law.exponent) == pytest.approx((law.E, law.exponent), abs=1e-5)
    assert found.law.scale == pytest.approx(law.scale, rel=1e-3)
    assert found.goodness.members == 7 and found.goodness.error < 1e-5


def test_of_several_seeds_the_mean_counts() -> None:
    seeds = [Member(name, 1e6, None, 1e8, loss) for name, loss in (("a", 4.0), ("b", 4.41))]
    (best,) = best_members(OfParameters(), seeds, QUICK.convention, SixND())
    assert best.loss == pytest.approx(4.2) and best.name == "a"


def test_budgets_that_are_nearly_the_same_are_one() -> None:
    members = [
        Member(f"{size}", size, None, tokens, loss)
        for size, tokens, loss in ((1e6, 0.999e9, 4.0), (2e6, 0.5e9, 3.0), (4e6, 5e9, 2))
    ]
    assert [best.name for best in best_members(OfFlops(), members, QUICK.convention, SixND())] == ["2000000.0", "4000000.0"]


def test_intervals_are_as_wide_as_the_noise_makes_them() -> None:
    """Beside the covariance of the linearised least squares: sigma^2 (J'J)^-1, of which 80% lie within 1.28 deviations."""
    noise, members = 0.005, ladder(noise=0.005, seed=3)
    found = fitted(members, replace(QUICK, resampling=Resamples(200)))
    x = np.log([(member.parameters, member.tokens) for member in members])

    def log_loss(packed: np.ndarray) -> np.ndarray:
        a, b, alpha, beta, e = packed
        return np.log(np.exp(a - alpha * x[:, 0]) + np.exp(b - beta * x[:, 1]) + np.exp(e))

    at = np.array([np.log(PUBLISHED.A), np.log(PUBLISHED.B), PUBLISHED.alpha, PUBLISHED.beta, np.log(PUBLISHED.E)])
    jacobian = np.stack([(log_loss(at + step) - log_loss(at - step)) / 2e-6 for step in 1e-6 * np.eye(5)], 1)
    deviations = noise * np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
    for name, deviation in (("alpha", deviations[2]), ("beta", deviations[3])):
        low, high = found.interval(getattr(found.each, name))
        assert 0.6 < (high - low) / (2 * 1.2816 * deviation) < 1.6, name
    papers = fitted(members, replace(QUICK, resampling=Subsamples(200)))
    for name in ("alpha", "beta"):
        narrow, wide = papers.interval(getattr(papers.each, name)), found.interval(getattr(found.each, name))
        assert narrow[1] - narrow[0] < 0.75 * (wide[1] - wide[0]), "the paper's own samples"
    assert found.doubts == ()


def test_the_same_seed_gives_the_same_draws_and_ladders_are_paired() -> None:
    """A second architecture with the same noise on the same rungs is off by the same, draw by draw."""
    one = ladder(noise=0.01, seed=2, architecture="one")
    other = [replace(member, name=f"x {member.name}", architecture="other") for member in reversed(one)]
    found = fit(table(*one, *other), QUICK)
    assert [each.architecture for each in found] == ["one", "other"]
    assert np.array(found[0].draws) == pytest.approx(np.array(found[1].draws), rel=1e-6)
    again, otherwise = fit(table(*one), QUICK)[0], fit(table(*one), replace(QUICK, seed=2))[0]
    assert again.draws == found[0].draws != otherwise.draws


def test_held_out_by_name() -> None:
    members = ladder(noise=0.005)
    found = fitted(members, replace(QUICK, held_out=("member 3", "largest")))
    assert {member.name for member in found.held_out} == {"member 3", *(f"member {number}" for number in range(25, 30))}
    (one,) = fit(table(*members), replace(QUICK, held_out=("member 29",)))
    assert one.held_out_goodness is not None and one.held_out_goodness.r_squared is None
    assert one.held_out_goodness.worst == "member 29" and one.held_out_goodness.members == 1
    expected = abs(one.law.loss(SIZES[-1], TOKENS[-1]) / members[29].loss - 1)  # type: ignore[union-attr]
    assert one.held_out_goodness.error == pytest.approx(expected)


def test_operations_are_those_of_the_table() -> None:
    members = [replace(member, flops=7.2 * (member.parameters or 0) * member.tokens) for member in ladder()]
    cost = cost_of(members, QUICK.convention)
    assert isinstance(cost, Counted) and cost.sizes == tuple(SIZES) and cost.ratios == pytest.approx([1.2] * 6)
    assert cost_of([*members[1:], replace(members[0], flops=None)], QUICK.convention) == SixND()
    kaplan = [replace(member, parameters_without_embeddings=member.parameters) for member in members]
    assert cost_of(kaplan, WithoutEmbeddings()) == SixND(), "which knows no other"


def test_kaplans_numbers_are_another_law() -> None:
    members = [replace(member, parameters_without_embeddings=member.parameters, parameters=2e9) for member in ladder()]
    found = fitted(members, replace(QUICK, convention=WithoutEmbeddings()))
    assert isinstance(found.law, Surface) and found.law.alpha == pytest.approx(0.34, abs=1e-4)
    with pytest.raises(QkvError, match="the members have 1 different sizes"):
        fitted(members)


def along(factor: float, noise: float = 0.0) -> list[Member]:
    """A ladder whose tokens grow with its sizes."""
    found = [ladder(sizes=[n], tokens=[factor * n], noise=noise, seed=place)[0] for place, n in enumerate(SIZES)]
    return [replace(member, name=f"{factor:g} {place}") for place, member in enumerate(found)]


BENT = [replace(each, loss=each.loss * 1.1) if each.parameters == SIZES[-1] else each for each in ladder(noise=0.001)]
LOOSE = [Member(f"{d:g}", 1e7, None, d, loss) for d, loss in zip(TOKENS, (3.0, 2.2, 2.9, 2.1, 2.6), strict=True)]
RISING = [replace(member, loss=2 + SIZES.index(member.parameters or 0) / 9) for member in ladder()]


@pytest.mark.parametrize(
    ("members", "asked", "words"),
    [
        (ladder()[:5], QUICK, "have 1 different sizes, and L.N, D. cannot be told from fewer than 3"),
        (ladder(tokens=[1e9, 1e10]), QUICK, "have 2 different numbers of tokens"),
        (
            along(20)[:5],
            QUICK,
            "5 members are too few for a law of 5 numbers and its error, which take 6 or more: train others, or",
        ),
        (
            ladder(sizes=[1e7, 1e8]),
            Asked(OfParameters()),
            "2 sizes are too few for a law of 2 numbers and its error, which take 3",
        ),
        (ladder(sizes=[1e7, 1e8, 1e9]), Asked(OfParameters(FittedFloor())), "3 sizes are too few for a law of 3 numbers"),
        (ladder(tokens=[1e9, 1e10]), Asked(OfTokens()), "2 numbers of tokens are too few"),
        (along(20)[:2], Asked(OfFlops()), "2 budgets are too few"),
        (ladder(), Asked(OfParameters(Floor(4.0))), "is not above the floor of 4 nats: give a lower one, or FittedFloor"),
        (
            [*ladder(), Member("odd one", 1e9, None, 1e11, 1.2)],
            Asked(resampling=FEW),
            r"odd one has a loss of 1\.2, below the floor of 1\.688 that the other members show",
        ),
        (ladder(), Asked(held_out=tuple(f"member {number}" for number in range(30))), "every member of the table is held out"),
        (ladder(), Asked(held_out=("member 31",)), "unknown member 'member 31': did you mean 'member"),
        (RISING, Asked(OfParameters()), "the loss does not fall"),
        (RISING, QUICK, "no share of some variable in the loss: it does not fall with it"),
        (ladder(architecture="gpt")[:5], QUICK, "^gpt: the members have 1 different sizes"),
    ],
)
def test_what_cannot_be_fitted_is_refused(members: list[Member], asked: Asked, words: str) -> None:
    with pytest.raises(QkvError, match=words):
        fit(table(*members), asked)


def test_a_question_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(QkvError, match=r"a share of the draws between 0 and 1, such as 0.8, not 80"):
        Asked(share=80)
    with pytest.raises(QkvError, match="a seed is not negative: -1"):
        Asked(seed=-1)


@pytest.mark.parametrize(
    ("members", "asked", "words"),
    [
        (ladder(sizes=[1e7, 2e7, 3e7, 4e7]), QUICK, "the sizes span 4-fold alone: an exponent rests on 10-fold at least"),
        (ladder(tokens=[1e9, 2e9, 3e9, 4e9]), QUICK, "the numbers of tokens span 4-fold alone"),
        (ladder(sizes=[1e7, 1.1e7, 1.2e7]), QUICK, "A and E trade off: one can grow with the other"),
        (along(20), replace(QUICK, form=Parametric()), "A and B trade off"),
        (ladder(sizes=SIZES[::2], tokens=TOKENS[::2], noise=0.01), QUICK, "9 points for 5 numbers: the law follows the noise"),
        (ladder(noise=0.15, seed=4), Asked(resampling=FEW), "in 80% of the samples: that is too wide to reckon with"),
        (ladder(Surface(0.0, 406.4, 410.7, 0.34, 0.28)), Asked(resampling=FEW), "no floor was found"),
        (
            ladder(Surface(1.0, 3e20, 410.7, 3.5, 0.28), np.geomspace(1e6, 1e7, 5).tolist()),
            QUICK,
            "alpha is 3, at the end of where",
        ),
        ([*along(10), along(40)[0]], Asked(resampling=FEW), "of the samples settle no law and were drawn anew"),
        ([replace(ladder()[0], flops=1e18), *ladder()[1:]], QUICK, "the FLOPs of 29 members were not counted, so that all are"),
        (LOOSE, Asked(OfTokens(), resampling=FEW), "of what was fitted: the members do not follow this law"),
        (BENT, replace(QUICK, held_out=("largest",)), "times worse than what was: the law bends"),
    ],
)
def test_what_the_data_cannot_support_is_doubted(members: list[Member], asked: Asked, words: str) -> None:
    doubts = fitted(members, asked).doubts
    assert any(words in doubt for doubt in doubts), doubts
