"""`qkv scale run`, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Ask, Runs, Text, refused

SMALL = "--tokenizer characters --batch-tokens 128 --longest 16 --device cpu --precision fp32 --threads 1".split()
LADDER = "--sizes 2 --span 3 --tokens-per-parameter 0.3".split()


@pytest.mark.usefixtures("inline")
def test_a_person_climbs_a_ladder(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    """The plan alone leaves nothing behind; then it is shown, trained and written down; and there is nothing to go on with."""
    given = ["--text", runs.text, "--documents", "lines", *SMALL, *LADDER, "--budget", "1.2e8"]
    plan = ask("scale", "run", tmp_path / "out", *given, "--plan")
    assert plan.code == 0 and not (tmp_path / "out").exists(), plan.err
    *table, last = plan.out.splitlines()
    assert table[0].startswith("| member ") and "6ND" in table[0] and len(table) == 4 and last.startswith("2 members, ")
    assert "one after the other on this machine" in last
    rows = json.loads(ask("scale", "run", tmp_path / "out", *given, "--plan", "--json").out)
    assert [row["name"] for row in rows] == [line.split("|")[1].strip() for line in table[2:]]
    answer = ask("scale", "run", tmp_path / "out", *given)
    assert answer.code == 0, answer.err
    assert answer.err.index("2 members, ") < answer.err.index("1 of 2, gpt-tiny-")
    assert answer.out.splitlines()[-1] == str(tmp_path / "out" / "ladder.csv")
    again = ask("scale", "run", tmp_path / "out", "--resume")
    assert again.out == answer.out and "2 of 2 members are finished" in again.err
    seconds = json.loads((tmp_path / "out" / "ladder.json").read_text())["seconds"]
    assert 0 < seconds["members"] <= seconds["whole"]


def test_what_is_no_ladder_is_refused(ask: Ask, runs: Runs, text: Text, tmp_path: Path) -> None:
    out, lines = tmp_path / "out", ["--text", runs.text]
    for budget in ([], ["--budget", "1e9", "--minutes", 1]):
        refused(ask("scale", "run", out, *lines, *budget), "either --budget", "or --minutes")
    whole = ("--budget", "1e9")
    refused(ask("scale", "run", out, *whole), "no training text")
    refused(ask("scale", "run", out, *lines, *text.options, *whole), "not both")
    refused(ask("scale", "run", out, *lines, *whole, "--model", "gpt-tinny"), "unknown model", "did you mean 'gpt-tiny'")
    refused(ask("scale", "run", out, *lines, *whole, "--model", "bert-tiny"), "EncoderOnly", "Generate needs DecoderOnly")
    refused(ask("scale", "run", out, *lines, *whole, "--sizes", 1), "a ladder has at least 2 sizes")
    refused(
        ask("scale", "run", out, *lines, *whole, "--tokens-per-parameter", "5,x"), "--tokens-per-parameter is a list of numbers"
    )
    refused(ask("scale", "run", out, *lines, "--budget", 5), "the smallest ladder takes")
    refused(ask("scale", "run", out, *lines, *whole, "--set", "budget=Steps(3)"), "decides on the budget")
    refused(ask("scale", "run", tmp_path / "none", "--resume"), "there is no ladder in")
    refused(ask("scale", "run", out, "--resume", "--plan"), "leave out --resume")
    refused(ask("scale", "run", out, *lines, *whole, "--tokens", "1e5", "--tokens-per-parameter", "5"), "not both")
    assert not list(out.glob("members/*"))
