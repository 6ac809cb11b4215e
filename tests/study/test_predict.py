"""What a fit says of models that nobody trained, and fits on disk."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.study.laddered import PUBLISHED, ladder, table

from qkv.error import QkvError
from qkv.spec.law import (
    Counted,
    Coupled,
    IsoFlops,
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
    WithEmbeddings,
    WithoutEmbeddings,
)
from qkv.study import frontier
from qkv.study.law import Asked, Fit, fit
from qkv.study.predict import contest, of_budget, of_loss, of_model, size_in
from qkv.study.record import read_fits, write_fits

QUICK = Asked(Parametric(Projection()), resampling=Resamples(40))


def fits(*members: Any, asked: Asked = QUICK) -> tuple[Fit, ...]:
    return fit(table(*members), asked)


@pytest.fixture(scope="module")
def noisy() -> Fit:
    return fits(*ladder(noise=0.005))[0]


def test_the_numbers_of_the_paper() -> None:
    """Gopher's budget, by the constants of the paper."""
    (exact,) = fits(*ladder())
    found = of_budget(exact, 5.76e23)
    assert found.parameters is not None and found.tokens is not None and found.flops is not None
    assert round(found.parameters.value / 1e9) == 32 and round(found.tokens.value / 1e12, 1) == 3.0
    assert found.loss.value == pytest.approx(PUBLISHED.loss(*PUBLISHED.best(5.76e23)), rel=1e-5)
    assert any("times above the most FLOPs of any member" in each for each in found.cautions)
    back = of_loss(exact, found.loss.value)
    assert back.flops is not None and back.flops.value == pytest.approx(5.76e23, rel=1e-3)
    chinchilla = of_model(exact, 70e9, 1.4e12)
    assert chinchilla.loss.value == pytest.approx(PUBLISHED.loss(70e9, 1.4e12), rel=1e-5)
    assert chinchilla.flops is not None and chinchilla.flops.value == pytest.approx(5.88e23)


def test_intervals_are_those_of_the_draws(noisy: Fit) -> None:
    for flops in (1e19, 1e22):
        found = of_budget(noisy, flops)
        each = [Surface(*row) for row in noisy.draws]
        losses = [law.loss(*law.best(flops)) for law in each]
        low, high = np.quantile(losses, [0.1, 0.9], method="nearest")
        assert (found.loss.low, found.loss.high) == pytest.approx((low, high))
        assert found.loss.low <= found.loss.value <= found.loss.high
        assert found.parameters is not None and found.parameters.low < found.parameters.value < found.parameters.high
    near, far = of_budget(noisy, 1e20).loss, of_budget(noisy, 1e24).loss
    assert far.high - far.low > near.high - near.low, "far away one is less sure"
    assert of_budget(noisy, 1e20).cautions == ()


def test_a_loss_that_some_draws_do_not_reach_takes_a_budget_without_end() -> None:
    (found,) = fits(*ladder(noise=0.02, seed=5))
    floors = sorted(row[0] for row in found.draws)
    law = found.law
    assert isinstance(law, Surface) and floors[-6] > law.E + 0.004
    predicted = of_loss(found, law.E + 0.002)
    assert predicted.flops is not None and math.isfinite(predicted.flops.value) and predicted.flops.high == math.inf


def test_a_coupled_law_predicts_as_any_other() -> None:
    law = Coupled(6.4e13, 1.8e13, 0.076, 0.103)
    (found,) = fits(*ladder(law), asked=replace(QUICK, form=OfBoth()))
    assert of_model(found, 1e9, 1e10).loss.value == pytest.approx(law.loss(1e9, 1e10), rel=1e-5)
    bought = of_budget(found, 1e20)
    assert bought.parameters is not None and bought.tokens is not None
    assert 6 * bought.parameters.value * bought.tokens.value == pytest.approx(1e20)
    assert bought.loss.value <= min(law.loss(n, 1e20 / 6 / n) for n in bought.parameters.value * np.geomspace(0.5, 2, 9)) + 1e-6
    needed = of_loss(found, bought.loss.value)
    assert needed.flops is not None and needed.flops.value == pytest.approx(1e20, rel=1e-3)
    assert math.isfinite(of_loss(found, 0.01).loss.value), "it has no floor"


def test_counted_operations_are_what_a_budget_is_of() -> None:
    members = [replace(each, flops=6 * 1.25 * (each.parameters or 0) * each.tokens) for each in ladder()]
    (found,) = fits(*members)
    assert isinstance(found.cost, Counted)
    predicted = of_budget(found, 1.25e20)
    assert predicted.parameters is not None and predicted.tokens is not None
    assert predicted.parameters.value == pytest.approx(PUBLISHED.best(1e20)[0], rel=1e-3)
    assert 6 * predicted.parameters.value * predicted.tokens.value == pytest.approx(1e20, rel=1e-6)
    of_size = of_model(found, 1e9, 1e10)
    assert of_size.flops is not None and of_size.flops.value == pytest.approx(7.5e19)


def test_conventions_are_never_mixed() -> None:
    members = [replace(each, parameters_without_embeddings=0.5 * (each.parameters or 0)) for each in ladder()]
    chinchilla, kaplan = (
        fits(*members, asked=replace(QUICK, convention=each))[0] for each in (WithEmbeddings(), WithoutEmbeddings())
    )
    assert isinstance(chinchilla.law, Surface) and isinstance(kaplan.law, Surface)
    assert pytest.approx(406.4 * 0.5**0.34, rel=1e-3) == kaplan.law.A, "another law"
    assert size_in(kaplan, 1e9, WithoutEmbeddings()) == 1e9
    assert size_in(kaplan, 1e7, WithEmbeddings()) == 5e6, "a member's other number is known"
    assert size_in(chinchilla, 5e6, WithoutEmbeddings()) == 1e7
    with pytest.raises(
        QkvError, match=r"1.1e\+07 parameters with embeddings, but the fit counts them without embeddings.*give --parameters-w"
    ):
        size_in(kaplan, 1.1e7, WithEmbeddings())
    with pytest.raises(QkvError, match="give --parameters, or fit the table by the other convention"):
        size_in(chinchilla, 1.1e7, WithoutEmbeddings())


@pytest.mark.parametrize(
    ("form", "ask", "words"),
    [
        (Parametric(Projection()), lambda fit: of_model(fit, 1e9, None), "the loss of --parameters and --tokens: give both"),
        (OfParameters(), lambda fit: of_model(fit, 1e9, 1e9), "gives the loss of --parameters: give that, and no other"),
        (OfTokens(), lambda fit: of_model(fit, 1e9, None), "gives the loss of --tokens"),
        (OfTokens(), lambda fit: of_budget(fit, 1e20), r"knows nothing of operations: fit --law 'Parametric\(\)'"),
        (OfFlops(), lambda fit: of_model(fit, 1e9, 1e9), "knows the best loss of a budget alone: give --flops or --loss"),
        (Parametric(Projection()), lambda fit: of_loss(fit, 1.6), "a loss of 1.6: the law falls to its floor of 1.69 and"),
    ],
)  # fmt: skip
def test_what_a_law_does_not_say_is_refused(form: Any, ask: Any, words: str) -> None:
    (found,) = fits(*ladder(), asked=replace(QUICK, form=form))
    with pytest.raises(QkvError, match=words):
        ask(found)


def test_laws_of_one_variable_predict() -> None:
    members = ladder(noise=0.005)
    of_size, of_tokens, of_flops = (
        fits(*members, asked=replace(QUICK, form=form))[0] for form in (OfParameters(), OfTokens(), OfFlops())
    )
    by_size = of_model(of_size, 1e9, None)
    assert by_size.loss.value == of_size.law.loss(1e9) and by_size.flops is None and by_size.tokens is None  # type: ignore[union-attr, call-arg]
    found = of_loss(of_size, by_size.loss.value)
    assert found.parameters is not None and found.parameters.value == pytest.approx(1e9) and found.flops is None
    by_tokens = of_loss(of_tokens, of_model(of_tokens, None, 1e10).loss.value)
    assert by_tokens.tokens is not None and by_tokens.tokens.value == pytest.approx(1e10) and by_tokens.parameters is None
    by_flops = of_loss(of_flops, of_budget(of_flops, 1e20).loss.value)
    assert by_flops.flops is not None and by_flops.flops.value == pytest.approx(1e20) and by_flops.parameters is None
    assert by_flops.flops.low < 1e20 < by_flops.flops.high


def two(noise: float) -> tuple[Fit, ...]:
    """The second has the better exponent and the worse factor: it wins from some budget on."""
    other = replace(PUBLISHED, A=900.0, alpha=0.385)
    one = ladder(noise=noise, seed=1, architecture="one")
    return fits(*one, *ladder(other, noise=noise, seed=2, architecture="other"))


def test_which_architecture_wins_depends_on_the_budget() -> None:
    exact = two(0.0)
    losses = {flops: [float(frontier.least(each.law, SixND(), flops)) for each in exact] for flops in (1e16, 1e24)}
    for flops, winner in ((1e16, "one"), (1e24, "other")):
        found = contest(exact, flops)
        assert found.winner == winner and found.shares == {"one": float(winner == "one"), "other": float(winner == "other")}
        assert found.ahead.value == pytest.approx(abs(losses[flops][0] - losses[flops][1]), rel=1e-3)
    noisy = contest(two(0.02), 1e18)
    assert 0 < noisy.shares["one"] < 1 and sum(noisy.shares.values()) == pytest.approx(1)
    assert noisy.ahead.low < 0 < noisy.ahead.high


def test_what_cannot_be_paired_is_refused(noisy: Fit) -> None:
    with pytest.raises(QkvError, match="different numbers of samples"):
        contest((noisy, replace(noisy, draws=noisy.draws[1:])), 1e20)
    with pytest.raises(QkvError, match="were counted and those of another are 6ND"):
        contest((noisy, replace(noisy, cost=Counted((1e9,), (1.1,)))), 1e20)


@pytest.mark.parametrize("form", [Parametric(Projection()), OfBoth(), OfFlops(), IsoFlops()])
def test_a_fit_on_disk_is_the_fit(form: Any, tmp_path: Path) -> None:
    sizes = [(flops, PUBLISHED.best(flops)[0] * step) for flops in (1e18, 1e19, 1e20, 1e21) for step in (0.3, 0.6, 1.3, 2.5, 4)]
    members = [
        replace(ladder(sizes=[n], tokens=[flops / 6 / n], noise=0.003, seed=place)[0], name=str(place))
        for place, (flops, n) in enumerate(sizes)
    ]
    asked = replace(QUICK, form=form, resampling=Subsamples(20), held_out=("3",))
    found = fits(*members, asked=asked)
    write_fits(found, tmp_path / "fit.json")
    assert read_fits(tmp_path / "fit.json") == found
    assert json.loads((tmp_path / "fit.json").read_text())["fits"][0]["resampling"] == {"Subsamples": {"draws": 20, "share": 0.8}}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda found: "nothing", "holds no fit: `qkv scale fit TABLE --out FILE.json` writes one"),
        (lambda found: {"version": 1, "fits": []}, "holds no fit"),
        (lambda found: found | {"version": 2}, "written by another version of qkv"),
        (lambda found: found["fits"][0].pop("draws") and found, "is damaged: 'draws'"),
        (lambda found: found["fits"][0]["draws"].pop().clear() or found["fits"][0]["draws"].append([1.0]) or found, "is damaged"),
        (lambda found: found["fits"][0].update(law={"Line": {"E": 0.0, "scale": 1.0, "exponent": 1.0}}) or found, "is damaged"),
        (lambda found: found["fits"][0].update(law={"SixND": {}}) or found, r"is damaged: law is SixND\(...\)"),
        (lambda found: found["fits"][0].update(law={"Lin": {}}) or found, "is damaged: unknown value 'Lin'"),
    ],
)
def test_a_damaged_fit_is_refused(spoil: Any, words: str, noisy: Fit, tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    write_fits([noisy], path)
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    with pytest.raises(QkvError, match=words):
        read_fits(path)


def test_what_is_no_file_is_refused(noisy: Fit, tmp_path: Path) -> None:
    with pytest.raises(QkvError, match="cannot be read"):
        read_fits(tmp_path / "fit.json")
    (tmp_path / "fit.json").write_text("parameters,tokens,loss\n")
    with pytest.raises(QkvError, match="it is not JSON"):
        read_fits(tmp_path / "fit.json")
    with pytest.raises(QkvError, match="cannot be written"):
        write_fits([noisy], tmp_path / "nowhere" / "fit.json")
