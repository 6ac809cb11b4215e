"""`qkv scale fit` and `qkv scale predict`: the power law of a ladder."""

from __future__ import annotations

import json as json_
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.error import QkvError

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def fit(
    tables: Annotated[
        list[Path],
        typer.Argument(help="The folder of a ladder, or a CSV with the columns parameters, tokens and loss; or several."),
    ],
    law: Annotated[
        str,
        typer.Option(
            help="What is fitted: 'Parametric()', 'Parametric(Projection())' or 'OfBoth()' for L(N, D); 'OfParameters()', "
            "'OfTokens()', 'OfFlops()' for one variable, and 'IsoFlops()' for profiles, each with 'FittedFloor()' or "
            "'Floor(1.7)' in brackets."
        ),
    ] = "Parametric()",
    convention: Annotated[
        str,
        typer.Option(help="What a parameter is: 'WithEmbeddings()' as for Chinchilla, 'WithoutEmbeddings()' as in Kaplan et al."),
    ] = "WithEmbeddings()",
    bootstrap: Annotated[
        str, typer.Option(help="How many samples of as many members are fitted, too; or the paper's 'Subsamples(100, 0.8)'.")
    ] = "400",
    interval: Annotated[float, typer.Option(help="The share of samples that lies within an interval.")] = 0.8,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(help="Members not to be fitted but predicted, by name, or `largest`; may be given several times."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides the samples.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the fit to this .json, for `qkv scale predict`.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the members, the law and its frontier in this .png.")] = None,
    json: Json = False,
) -> None:
    """Fit a law of scale to trained models: its numbers with intervals, how well it predicts, and what speaks against it.

    Every architecture gets a law of its own: those that a column `architecture` tells apart, or else each of several tables.
    """
    from qkv.spec.law import Convention, Form, Resamples, Resampling
    from qkv.study.law import Asked
    from qkv.study.law import fit as fit_all
    from qkv.study.picture import draw
    from qkv.study.record import write_fits
    from qkv.study.table import read_tables

    form = _value(law, Form, "--law", "Parametric()")
    counted = _value(convention, Convention, "--convention", "WithEmbeddings()")
    samples = Resamples(int(bootstrap)) if bootstrap.isdigit() else _value(bootstrap, Resampling, "--bootstrap", "400")
    asked = Asked(form, counted, samples, interval, tuple(hold_out or ()), seed)
    _suffix(out, ".json", "--out")
    _suffix(picture, ".png", "--picture")
    read = read_tables(tables, counted)
    fits = fit_all(read, asked)
    if out is not None:
        write_fits(fits, out)
    if picture is not None:
        draw(fits, (), ", ".join(map(str, tables)), picture)
    if json:
        print(json_.dumps([_fit_facts(each) for each in fits], indent=1))
        return
    for name in read.failed:
        print(f"{name} failed and is left out")
    for each in fits:
        _print_fit(each)
    for path in filter(None, (out, picture)):
        print(path)


def predict(
    fit: Annotated[Path, typer.Argument(help="What `qkv scale fit --out` wrote.")],
    parameters: Annotated[str | None, typer.Option(help="The size of a model, such as 70M or 7e7.")] = None,
    parameters_without_embeddings: Annotated[
        str | None, typer.Option(help="Instead, its size without the vocabulary and the places.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="The tokens that it learns from, such as 1.4B.")] = None,
    flops: Annotated[str | None, typer.Option(help="A budget: the best size and tokens for it are said.")] = None,
    loss: Annotated[str | None, typer.Option(help="A loss in nats per token: the budget that it takes is said.")] = None,
    out: Annotated[Path | None, typer.Option(help="Draw it in this .png.")] = None,
    json: Json = False,
) -> None:
    """What a law says of models that nobody trained, with intervals.

    Give --parameters and --tokens for a loss, or --flops, or --loss. Of several architectures --flops says which one wins, and
    how sure that is."""
    from qkv.spec.law import WithEmbeddings, WithoutEmbeddings
    from qkv.study import predict as ask
    from qkv.study.picture import draw
    from qkv.study.record import read_fits

    given = {"--parameters": parameters, "--parameters-without-embeddings": parameters_without_embeddings, "--tokens": tokens}
    given |= {"--flops": flops, "--loss": loss}
    amounts = {name: _amount(text, name) for name, text in given.items() if text is not None}
    sizes = [name for name in ("--parameters", "--parameters-without-embeddings") if name in amounts]
    ways = [name for name in ("--flops", "--loss") if name in amounts] + (["a model"] if sizes or "--tokens" in amounts else [])
    if len(sizes) > 1 or len(ways) > 1 or not (ways or out):
        raise QkvError("give --parameters and --tokens, or --flops, or --loss; or --out alone, for the picture of the fit")
    _suffix(out, ".png", "--out")
    fits = read_fits(fit)
    found: list[Any] = []
    for each in fits:
        if "--flops" in amounts:
            found.append(ask.of_budget(each, amounts["--flops"]))
        elif "--loss" in amounts:
            found.append(ask.of_loss(each, amounts["--loss"]))
        elif ways:
            counted = WithEmbeddings() if "--parameters" in sizes else WithoutEmbeddings()
            size = ask.size_in(each, amounts[sizes[0]], counted) if sizes else None
            found.append(ask.of_model(each, size, amounts.get("--tokens")))
    contest = ask.contest(fits, amounts["--flops"]) if "--flops" in amounts and len(fits) > 1 else None
    if out is not None:
        draw(fits, found, str(fit), out)
    if json:
        said = None if contest is None else vars(contest) | {"ahead": vars(contest.ahead)}
        print(json_.dumps({"predictions": [_facts(each) for each in found], "contest": said}, indent=1))
        return
    for each, prediction in zip(fits, found, strict=False):
        _print_prediction(each, prediction)
    if contest is not None:
        _print_contest(contest, fits)
    if out is not None:
        print(out)


def _value(text: str, kinds: Any, option: str, example: str) -> Any:
    """A value of some kind, from its text; brackets with nothing in them may be left out."""
    from typing import get_args

    from qkv.spec import plain

    found = plain.parse(text if "(" in text else f"{text}()")
    if not isinstance(found, kinds):
        known = ", ".join(f"{kind.__name__}(...)" for kind in get_args(kinds))
        raise QkvError(f"{option} is one of {known}, such as {example!r}, not {text!r}")
    return found


def _amount(text: str, option: str) -> float:
    """A number as people write it: 7e7, 70M, 70_000_000."""
    import math

    digits, unit = (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 1.0)
    try:
        value = float(digits) * unit
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise QkvError(f"{option} is a number of more than 0, such as 70M or 7e7, not {text!r}")
    return value


def _suffix(path: Path | None, wanted: str, option: str) -> None:
    if path is not None and path.suffix != wanted:
        raise QkvError(f"{option} is a {wanted}, not {path.name!r}")


def _short(value: float) -> str:
    """A number of parameters or tokens in three digits: 70.0M."""
    for unit, size in reversed(UNITS.items()):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}" if value < 999.5 * size or unit == "T" else f"{value / size:.0f}{unit}"
    return f"{value:.3g}"


def _scientific(value: float) -> str:
    """Operations: 5.76e23."""
    return f"{value:.3g}" if value < 1e4 else f"{value:.2e}".replace("e+", "e")


def _fit_facts(fit: Any) -> dict[str, Any]:
    """A fit, for JSON."""
    from qkv.study.record import as_plain

    whole = as_plain(fit)
    kept = ("architecture", "form", "convention", "cost", "law", "resampling", "share", "goodness", "held_out_goodness", "doubts")
    names = {"fitted": [each.name for each in fit.fitted], "held_out": [each.name for each in fit.held_out]}
    return (
        {name: whole[name] for name in kept} | {"intervals": {name: [low, high] for name, _, low, high in _numbers(fit)}} | names
    )


def _numbers(fit: Any) -> list[tuple[str, float, float, float]]:
    """The numbers of a law, and what follows from them, with their intervals."""
    from dataclasses import fields

    names = [field.name for field in fields(fit.law)] + [name for name in ("a", "b") if hasattr(type(fit.law), name)]
    return [(name, getattr(fit.law, name), *fit.interval(getattr(fit.each, name))) for name in dict.fromkeys(names)]


def _print_fit(fit: Any) -> None:
    from qkv.spec.law import Counted

    every = (*fit.fitted, *fit.held_out)
    sizes, tokens = [each.size(fit.convention) for each in every], [each.tokens for each in every]
    print(f"{fit.architecture + ': ' if fit.architecture else ''}{len(every)} members, {len(fit.held_out)} of them held out")
    print(
        f"  {_short(min(sizes))} to {_short(max(sizes))} parameters {fit.convention.words}, {_short(min(tokens))} to "
        f"{_short(max(tokens))} tokens; FLOPs {'as the table counted them' if isinstance(fit.cost, Counted) else 'are 6ND'}"
    )
    print(f"  {_formula(fit)}")
    print(f"  {'':<10} {'':>10}   {fit.share:.0%} interval")
    for name, value, low, high in _numbers(fit):
        if name == "E" and value == 0:
            continue
        meaning = MEANING.get((type(fit.law).__name__, name), "")
        print(f"  {name:<10} {value:>10.4g}   {low:.4g} to {high:.4g}{meaning and '   ' + meaning}")
    _print_goodness("fitted", fit.goodness)
    if fit.held_out_goodness is not None:
        _print_goodness("held out", fit.held_out_goodness)
    for doubt in fit.doubts:
        print(f"  doubt: {doubt}")


MEANING = {
    ("Surface", "E"): "nats, however large the model and long the training",
    ("Surface", "a"): "the best N grows as C^a, where C = 6ND",
    ("Surface", "b"): "the best D grows as C^b",
    ("Coupled", "a"): "the best N grows as C^a, where C = 6ND",
    ("Coupled", "b"): "the best D grows as C^b",
    ("Valley", "a"): "the best N is n C^a",
    ("Valley", "b"): "the best D is d C^b",
}


def _formula(fit: Any) -> str:
    """What is fitted, and how, in words."""
    from qkv.spec.law import FittedFloor, Huber, IsoFlops, OfBoth, OfFlops, OfParameters, OfTokens, Parametric

    if isinstance(fit.form, Parametric):
        how = "Huber terms on log loss" if isinstance(fit.form.by, Huber) else "variable projection"
        return f"L(N, D) = E + A / N^alpha + B / D^beta, by {how}"
    if isinstance(fit.form, OfBoth):
        return "L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D, by Huber terms on log loss"
    how = "Huber terms on log loss" if isinstance(fit.form.floor, FittedFloor) else "regression on logarithms"
    x = {OfParameters: "N", OfTokens: "D", OfFlops: "C", IsoFlops: "C"}[type(fit.form)]
    profiles = "the lowest points of IsoFLOP profiles; there " if isinstance(fit.form, IsoFlops) else ""
    return f"{profiles}L({x}) = E + (scale / {x})^exponent, by {how}"


def _print_goodness(name: str, found: Any) -> None:
    squared = "" if found.r_squared is None else f"R^2 of log loss {found.r_squared:.4f}, "
    print(f"  {name + ':':<10} {squared}largest error {found.error:.2%} ({found.worst})")


def _facts(prediction: Any) -> dict[str, Any]:
    """A prediction, for JSON."""
    estimates = {name: getattr(prediction, name) for name in ("parameters", "tokens", "flops", "loss")}
    plain = {name: each and {"value": each.value, "low": each.low, "high": each.high} for name, each in estimates.items()}
    return {"architecture": prediction.architecture, **plain, "cautions": list(prediction.cautions)}


def _print_prediction(fit: Any, found: Any) -> None:
    from qkv.spec.law import Counted

    if found.architecture:
        print(f"{found.architecture}:")
    rows = [("loss", found.loss, lambda value: f"{value:.4f}", "nats per token")]
    rows.append(("parameters", found.parameters, _short, fit.convention.words))
    rows.append(("tokens", found.tokens, _short, ""))
    rows.append(("FLOPs", found.flops, _scientific, "as the table counted them" if isinstance(fit.cost, Counted) else "6ND"))
    for name, each, said, meaning in rows:
        if each is not None:
            between = "" if each.low == each.high else f"   {said(each.low)} to {said(each.high)} ({fit.share:.0%} interval)"
            print(f"  {name:<10} {said(each.value):>8}{between}{meaning and '   ' + meaning}")
    if isinstance(fit.cost, Counted) and found.parameters is not None and found.tokens is not None:
        print(f"  {'6ND':<10} {_scientific(6 * found.parameters.value * found.tokens.value):>8}")
    for caution in found.cautions:
        print(f"  caution: {caution}")


def _print_contest(found: Any, fits: Sequence[Any]) -> None:
    shares = ", ".join(f"{name or 'the unnamed'} in {each:.0%}" for name, each in found.shares.items())
    ahead, sure = found.ahead, f"{fits[0].share:.0%} interval"
    print(f"{found.winner} wins by {ahead.value:.4f} nats per token   {ahead.low:.4f} to {ahead.high:.4f} ({sure})")
    print(f"  winner of the paired samples: {shares}")
