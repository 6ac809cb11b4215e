"""`qkv scale fit` and `qkv scale predict`, as a person types them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.cli.conftest import Ask, refused
from tests.study.laddered import PUBLISHED, Written, ladder, written

from qkv.spec.law import Surface

__all__ = ["written"]
FAST = ["--law", "Parametric(Projection())", "--bootstrap", 20]


def two() -> list[Any]:
    other = Surface(1.69, 200.0, 410.7, 0.34, 0.28)
    return ladder(noise=0.002, architecture="gpt") + ladder(other, noise=0.002, seed=2, architecture="universal")


def colours(path: Path) -> int:
    """How many colours a picture has."""
    return len(Image.open(path).convert("RGB").getcolors(1 << 24) or [])


def test_from_a_table_to_a_size(ask: Ask, written: Written, tmp_path: Path) -> None:
    """Two commands: what fits, and what follows."""
    file = written(ladder(noise=0.005), "name,parameters,tokens,loss")
    out, picture = tmp_path / "law.json", tmp_path / "law.png"
    said = ask("scale", "fit", file, *FAST, "--hold-out", "largest", "--out", out, "--picture", picture)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "30 members, 5 of them held out"
    assert lines[1] == "  10M to 3B parameters with embeddings, 1B to 100B tokens; FLOPs are 6ND"
    assert "by variable projection" in lines[2] and "80% interval" in lines[3]
    numbers = {line.split()[0]: line.split()[1:] for line in lines[4:11]}
    assert list(numbers) == ["E", "A", "B", "alpha", "beta", "a", "b"]
    for value, _, low, to, high in ([numbers[name][0], "", *numbers[name][1:4]] for name in ("alpha", "beta")):
        assert to == "to" and float(low) < float(value) < float(high)
    assert any(line.startswith("  held out:  R^2 of log loss") and "largest error" in line for line in lines)
    assert lines[-2:] == [str(out), str(picture)] and colours(picture) > 50
    answer = ask("scale", "predict", out, "--flops", "5.76e23")
    assert answer.code == 0 and "parameters" in answer.out and "80% interval" in answer.out and "caution:" in answer.out
    answer = ask("scale", "predict", out, "--parameters", "70B", "--tokens", "1.4T", "--json")
    (found,) = json.loads(answer.out)["predictions"]
    assert found["loss"]["value"] == pytest.approx(PUBLISHED.loss(70e9, 1.4e12), rel=0.05)
    assert found["loss"]["low"] <= found["loss"]["value"] <= found["loss"]["high"]
    assert found["parameters"]["value"] == 70e9 and found["flops"]["value"] == pytest.approx(5.88e23)
    answer = ask("scale", "predict", out, "--loss", "2.1")
    assert answer.code == 0 and "FLOPs" in answer.out and "2.1000" in answer.out


def test_json_says_all_of_it(ask: Ask, written: Written) -> None:
    file = written(ladder(), "name,parameters,tokens,loss")
    said = ask("scale", "fit", file, *FAST, "--hold-out", "member 0", "--hold-out", "member 1", "--json", "--interval", 0.5)
    (found,) = json.loads(said.out)
    assert found["law"]["Surface"]["alpha"] == pytest.approx(0.34, abs=1e-4)
    assert found["intervals"]["beta"] == pytest.approx([0.28, 0.28], abs=1e-4)
    assert found["held_out"] == ["member 0", "member 1"] and len(found["fitted"]) == 28 and found["share"] == 0.5
    assert found["goodness"]["r_squared"] == pytest.approx(1) and found["doubts"] == []


def test_two_architectures_and_which_one_wins(ask: Ask, written: Written, tmp_path: Path) -> None:
    out = tmp_path / "law.json"
    said = ask("scale", "fit", written(two()), *FAST, "--out", out)
    assert said.code == 0 and said.out.startswith("gpt: 30 members") and "\nuniversal: 30 members" in said.out
    answer = ask("scale", "predict", out, "--flops", "1e21", "--out", tmp_path / "won.png")
    assert answer.out.startswith("gpt:\n") and "universal wins by 0." in answer.out
    assert "winner of the paired samples: gpt in 0%, universal in 100%" in answer.out
    found = json.loads(ask("scale", "predict", out, "--flops", "1e21", "--json").out)
    assert found["contest"]["winner"] == "universal" and found["contest"]["shares"] == {"gpt": 0.0, "universal": 1.0}
    assert found["contest"]["ahead"]["low"] > 0 and len(found["predictions"]) == 2
    assert colours(tmp_path / "won.png") > 50


@pytest.mark.parametrize(
    ("law", "formula"),
    [
        ("OfParameters", "L(N) = E + (scale / N)^exponent, by regression on logarithms"),
        ("OfTokens(Floor(1.0))", "L(D) = E + (scale / D)^exponent, by regression on logarithms"),
        ("OfFlops(FittedFloor())", "L(C) = E + (scale / C)^exponent, by Huber terms on log loss"),
        ("OfBoth", "L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D, by Huber terms on log loss"),
    ],
)
def test_other_laws(law: str, formula: str, ask: Ask, written: Written, tmp_path: Path) -> None:
    said = ask("scale", "fit", written(ladder()), "--law", law, "--bootstrap", 20, "--picture", tmp_path / "law.png")
    assert said.code == 0, said.err
    assert f"  {formula}" in said.out.splitlines() and colours(tmp_path / "law.png") > 50


def test_profiles_and_the_papers_samples(ask: Ask, written: Written, tmp_path: Path) -> None:
    members = []
    for flops in (1e18, 1e19, 1e20, 1e21):
        for step in (0.25, 0.5, 1, 2, 4):
            n = PUBLISHED.best(flops)[0] * step
            members += ladder(sizes=[n], tokens=[flops / 6 / n])
    file, out = written(members, "parameters,tokens,loss"), tmp_path / "law.json"
    said = ask(
        "scale",
        "fit",
        file,
        "--law",
        "IsoFlops",
        "--bootstrap",
        "Subsamples(20, 0.8)",
        "--out",
        out,
    )
    assert said.code == 0, said.err
    assert "the best N is n C^a" in said.out and "0.4516" in said.out
    answer = ask("scale", "predict", out, "--flops", "1e22", "--out", tmp_path / "b.png")
    assert answer.code == 0 and colours(tmp_path / "b.png") > 50
    refused(ask("scale", "predict", out, "--parameters", "1B", "--tokens", "1B"), "the best loss of a budget alone")


def test_kaplans_convention(ask: Ask, tmp_path: Path) -> None:
    rows = [f"{0.5 * (each.parameters or 0)},{each.tokens},{each.loss},{each.parameters}" for each in ladder()]
    file, out = tmp_path / "t.csv", tmp_path / "law.json"
    file.write_text("\n".join(["parameters_without_embeddings,tokens,loss,parameters", *rows]) + "\n")
    said = ask("scale", "fit", file, *FAST, "--convention", "WithoutEmbeddings", "--out", out)
    assert "5M to 1.5B parameters without embeddings" in said.out
    here = ask("scale", "predict", out, "--parameters-without-embeddings", "5M", "--tokens", "1B")
    assert here.code == 0 and here.out == ask("scale", "predict", out, "--parameters", "10M", "--tokens", "1B").out
    refused(ask("scale", "predict", out, "--parameters", "11M", "--tokens", "1B"), "but the fit counts them without embeddings")


def test_a_failed_member_is_said(ask: Ask, tmp_path: Path) -> None:
    rows = [f"{each.name},{each.parameters},{each.tokens},{each.loss}," for each in ladder()]
    (tmp_path / "ladder.csv").write_text("\n".join(["name,parameters,tokens,loss,failure", *rows, "wide,1e9,1e9,,it diverged"]))
    said = ask("scale", "fit", tmp_path, *FAST)
    assert said.code == 0 and said.out.splitlines()[:2] == ["wide failed and is left out", "30 members, 0 of them held out"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--law", "Parametric(Hubert())"], "unknown value 'Hubert': did you mean 'Huber'"),
        (["--law", "Gelu"], "unknown value 'Gelu'"),
        (
            ["--law", "GELU()"],
            "--law is one of Parametric(...), OfBoth(...), OfParameters(...), OfTokens(...), OfFlops(...), IsoFlops(...), such",
        ),
        (["--convention", "SixND"], "--convention is one of WithEmbeddings(...), WithoutEmbeddings(...)"),
        (["--convention", "WithoutEmbeddings"], "has no column 'parameters_without_embeddings'"),
        (["--bootstrap", "5"], "Resamples.draws must be a whole number of at least 20, not 5"),
        (["--bootstrap", "many"], "unknown value 'many'"),
        (["--interval", "80"], "such as 0.8, not 80"),
        (["--seed", "-1"], "a seed is not negative"),
        (["--hold-out", "nobody"], "unknown member 'nobody'"),
        (["--out", "law.txt"], "--out is a .json, not 'law.txt'"),
        (["--picture", "law.json"], "--picture is a .png, not 'law.json'"),
    ],
)
def test_a_wrong_call_is_answered_in_words(options: list[str], words: str, ask: Ask, written: Written) -> None:
    refused(ask("scale", "fit", written(ladder(), "name,parameters,tokens,loss"), *options), words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give --parameters and --tokens, or --flops, or --loss; or --out alone"),
        (["--flops", "1e20", "--loss", "2"], "give --parameters and --tokens, or --flops, or --loss"),
        (["--parameters", "1e9", "--parameters-without-embeddings", "1e9"], "give --parameters and --tokens"),
        (["--parameters", "1e9"], "gives the loss of --parameters and --tokens: give both"),
        (["--flops", "much"], "--flops is a number of more than 0, such as 70M or 7e7, not 'much'"),
        (["--tokens", "0", "--parameters", "1e9"], "--tokens is a number of more than 0"),
        (["--loss", "1.5"], "the law falls to its floor of 1.69 and no further"),
        (["--flops", "1e20", "--out", "a.pdf"], "--out is a .png"),
    ],
)
def test_a_wrong_question_is_answered_in_words(
    options: list[str], words: str, ask: Ask, written: Written, tmp_path: Path
) -> None:
    out = tmp_path / "law.json"
    assert ask("scale", "fit", written(ladder(), "name,parameters,tokens,loss"), *FAST, "--out", out).code == 0
    refused(ask("scale", "predict", out, *options), words)


def test_a_picture_of_the_fit_alone(ask: Ask, written: Written, tmp_path: Path) -> None:
    out = tmp_path / "law.json"
    assert ask("scale", "fit", written(ladder(noise=0.01)), *FAST, "--out", out).code == 0
    said = ask("scale", "predict", out, "--out", tmp_path / "law.png")
    assert said.out == f"{tmp_path / 'law.png'}\n" and colours(tmp_path / "law.png") > 50


def test_without_scipy_the_way_to_it_is_said(ask: Ask, written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    refused(ask("scale", "fit", written(ladder())), "pip install 'qkv[scale]'")
