"""`qkv compare`, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Ask, Runs, Text, refused

LARGE = 2**30
SMALL = (
    "--tokenizer characters --batch-tokens 300 --device cpu --precision fp32 --threads 1 --set width=16 --set *.hidden=32".split()
)


def test_a_person_compares_two_translators(ask: Ask, text: Text, tmp_path: Path) -> None:
    """Each in a process of its own; the table is what stands in the folder, and going on has nothing left to do."""
    out = tmp_path / "out"
    models = ("transformer-tiny; encoder.depth=1; decoder.depth=1", "universal-tiny; encoder.steps=1; decoder.steps=1")
    _ = bytearray(LARGE)  # what we had ourselves is no memory of a member
    answer = ask("compare", *models, *text.options, *SMALL, "--flops", "5e7", "--out", out)
    assert answer.code == 0, answer.err
    assert all(2**26 < json.loads(path.read_text())["peak_memory"] < LARGE for path in out.glob("members/*/member.json"))
    assert answer.out == (out / "comparison.md").read_text()
    head, _, *rows = answer.out.splitlines()
    assert head.startswith("| model ") and "| BLEU | " in " ".join(head.split()) and "sentences/s" in head
    assert [row.split("|")[1].strip() for row in rows] == list(models)
    assert "2 of 2, universal-tiny; encoder.steps=1; decoder.steps=1, seed 1: validation loss" in answer.err
    again = ask("compare", "--out", out, "--resume", "--json")
    assert again.code == 0 and again.out == (out / "comparison.json").read_text()
    assert [row["model"] for row in json.loads(again.out)["table"]] == list(models)
    assert "2 of 2 members are finished" in again.err
    refused(ask("compare", *models, *text.options, *SMALL, "--flops", "5e7", "--out", out), "holds a comparison already")
    other = ask("compare", *models, *text.options, *SMALL, "--flops", "6e7", "--out", out, "--resume")
    refused(other, "share.number: 50000000.0 before, 60000000.0 now")


@pytest.mark.usefixtures("inline")
def test_a_recipe_and_a_model_on_its_text(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    recipe = runs.language / "run.toml"
    answer = ask("compare", "--recipe", recipe, "--steps", 2, "--seeds", "1,2", "--out", tmp_path / "a", "--threads", 1)
    assert answer.code == 0, answer.err
    given = ["--text", runs.text, "--valid-text", runs.valid, "--documents", "lines", *SMALL]
    small = ("--set", "decoder.depth=1", "--longest", "40", "--seeds", "1", "--tokens", "600", "--out", tmp_path / "b")
    answer = ask("compare", "gpt-tiny", "--recipe", recipe, *given, *small)
    assert answer.code == 0, answer.err
    assert [line.split("|")[1].strip() for line in answer.out.splitlines()[2:]] == ["gpt-tiny", "run"]


def test_a_recipe_is_compared_on_other_text_where_its_own_is_not_there(
    ask: Ask, text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QKV_DATA", raising=False)
    how = ["compare", "--recipe", "multi30k-en-de-tiny", "--vocabulary", 60, "--batch-tokens", 99]
    how += ["--steps", 1, "--seeds", 1, "--threads", 1]
    refused(ask(*how, "--out", tmp_path / "none"), "multi30k", "not set in the environment")
    answer = ask(*how, *text.training, "--out", tmp_path / "given")
    assert answer.code == 0, answer.err


def test_what_is_no_comparison_is_refused(ask: Ask, text: Text, runs: Runs, tmp_path: Path) -> None:
    def compare(*arguments: object) -> object:
        return ask("compare", *arguments, "--out", tmp_path / "out")

    pairs, lines = text.options, ["--text", runs.text]
    refused(compare(*pairs, "--steps", 2), "name at least one model")
    refused(compare("transformer-tiny", *pairs), "how long the members are trained", "--steps, --tokens, --flops and --minutes")
    refused(compare("transformer-tiny", *pairs, "--steps", 2, "--flops", "1e9"), "have one budget")
    refused(compare("transformer-tinny", *pairs, "--steps", 2), "unknown model 'transformer-tinny'", "'transformer-tiny'")
    refused(compare("transformer-tiny", "--steps", 2), "no training text")
    refused(compare("transformer-tiny", *pairs, *lines, "--steps", 2), "not both")
    refused(
        compare("bert-tiny", *pairs, "--steps", 2), "bert-tiny is of the shape EncoderOnly, and Translate needs EncoderDecoder"
    )
    refused(compare("gpt-tiny", *pairs, "--steps", 2), "DecoderOnly", "EncoderDecoder")
    refused(compare("transformer-tiny", *lines, "--steps", 2), "EncoderDecoder", "Generate needs DecoderOnly")
    refused(compare("gpt-tiny", *lines, "--steps", 2, "--seeds", "1,one"), "--seeds is a list of whole numbers")
    refused(compare("gpt-tiny", "gpt-tiny", *lines, "--steps", 2), "gpt-tiny stands there twice")
    refused(compare("gpt-tiny", *lines, "--steps", 2, "--set", "seed=3"), "decides on the seed")
    refused(compare("gpt-tiny; schedule.peak=-1", *lines, "--steps", 2), "not negative")
    refused(compare("gpt-tiny", *lines, "--flops", 5), "are less than a step of gpt-tiny")
    masked = compare("--recipe", runs.masked / "run.toml", "--steps", 2)
    refused(masked, "studies are of translators and of language models", "MaskedWords")
    refused(compare("--recipe", runs.classifier / "run.toml", "--steps", 2), "begin with random values", "run begins with")
    refused(ask("compare", "--out", tmp_path / "none", "--resume"), "there is no comparison in")
    assert not list((tmp_path / "out").glob("members/*"))
