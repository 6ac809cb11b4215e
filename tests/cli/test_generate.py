"""`qkv generate`: prompts in, texts out, as a person types it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import CALL, Answer, Ask, Runs, Trained, refused, sentences, write

import qkv
from qkv.decode.beam import write_on
from qkv.decode.generate import Greedy, Sample, Writer
from qkv.decode.likelihood import Window, surprises
from qkv.decode.rule import Beam
from qkv.decode.sample import Allow, NoRepeat, Repetition, Rule, Temperature, TopK, TopP

SHORT = ("--length", 12)


@pytest.fixture(scope="module")
def writer(runs: Runs) -> Writer:
    return qkv.load(runs.language, device="cpu", precision="fp32")


def lines(answer: Answer) -> list[str]:
    """What was printed, where nothing went wrong and nothing had to be said."""
    assert (answer.code, answer.err) == (0, ""), answer
    return answer.out.splitlines()


def test_a_prompt_is_printed_with_what_follows(ask: Ask, runs: Runs, writer: Writer) -> None:
    for seed in (0, 5):
        (expected,) = writer.generate(["k"], Sample(seed), length=12)[0]
        assert expected.text
        assert lines(ask("generate", runs.language, "k", *SHORT, "--seed", seed)) == ["k" + expected.text]
        assert lines(ask("generate", runs.language, "k", *SHORT, "--seed", seed, "--only-new")) == [expected.text]
    (nothing,) = writer.generate([""], Sample(0), length=12)[0]
    assert lines(ask("generate", runs.language, *SHORT)) == [nothing.text]


def test_prompts_come_from_a_file_or_from_standard_input_one_a_line(ask: Ask, runs: Runs, writer: Writer, tmp_path: Path) -> None:
    prompts = ["ka lo", "", "pe ra su ti", "z"]
    expected = [p + found[0].text for p, found in zip(prompts, writer.generate(prompts, Greedy(), length=12), strict=True)]
    file = write(tmp_path / "prompts", prompts)
    assert lines(ask("generate", runs.language, "--prompts", file, *SHORT, "--greedy")) == expected
    for dash in (["-"], ["--prompts", "-"]):
        assert lines(ask("generate", runs.language, *dash, *SHORT, "--greedy", stdin=file.read_bytes())) == expected
    refused(ask("generate", runs.language, "-", stdin=b""), "standard input holds no prompts: expected one a line")
    refused(ask("generate", runs.language, "ka", "--prompts", file), "one prompt, or a file of them by --prompts, not both")
    refused(ask("generate", runs.language, "--prompts", tmp_path / "none"), "there is no file")
    refused(ask("generate", runs.language, "-", stdin=b"ka\n\xff\n"), "line 2 of standard input is not UTF-8")


def test_json_is_a_line_for_each_continuation(ask: Ask, runs: Runs) -> None:
    given = ["generate", runs.language, "-", *SHORT, "--count", 2, "--only-new"]
    plain = lines(ask(*given, stdin=b"ka\nlo mi\n"))
    rows = [json.loads(line) for line in lines(ask(*given, "--json", stdin=b"ka\nlo mi\n"))]
    assert [row["prompt"] for row in rows] == [1, 1, 2, 2]
    assert [row["text"] for row in rows] == plain and len(set(plain)) > 2
    assert all(row["tokens"] == len(row["text"]) for row in rows), "characters are its tokens"
    assert all(row["finished"] == (row["tokens"] < 12) for row in rows)


def test_output_takes_what_would_go_to_standard_output(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    for more in ([], ["--stream"]):
        plain = ask("generate", runs.language, "ka", *SHORT, *more)
        assert ask("generate", runs.language, "ka", *SHORT, *more, "--output", tmp_path / "out") == Answer(0, "", "")
        assert (tmp_path / "out").read_text() == plain.out
    refused(ask("generate", runs.language, "ka", "--output", tmp_path), f"{tmp_path} cannot be written")


def test_a_stream_is_the_same_text(ask: Ask, runs: Runs) -> None:
    for more in ([], ["--greedy"], ["--seed", 3, "--stop", "lo"], ["--only-new"]):
        assert ask("generate", runs.language, "ka ", *SHORT, *more, "--stream").out == (
            ask("generate", runs.language, "ka ", *SHORT, *more).out
        )
    for more in (["--count", 2], ["--beam", 2], ["--json"], ["--contrastive", 0.5], ["--draft", runs.draft]):
        refused(ask("generate", runs.language, "ka", "--stream", *more), "--stream shows one text")
    refused(ask("generate", runs.language, "-", "--stream", stdin=b"ka\nlo\n"), "--stream shows one text")


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        (["--temperature", 2.5], [Temperature(2.5)]),
        (["--top-k", 3], [TopK(3)]),
        (["--top-p", 0.5, "--temperature", 1.5], [Temperature(1.5), TopP(0.5)]),
        (["--no-repeat", 3, "--repetition-penalty", 1.4], [Repetition(1.4), NoRepeat(3)]),
    ],
    ids=str,
)
def test_options_are_the_rules_of_that_name(
    ask: Ask, runs: Runs, writer: Writer, options: list[object], rules: list[Rule]
) -> None:
    (expected,) = writer.generate(["k"], Sample(8), rules, length=20)[0]
    assert lines(ask("generate", runs.language, "k", "--length", 20, "--seed", 8, *options)) == ["k" + expected.text]
    (free,) = writer.generate(["k"], Sample(8), length=20)[0]
    assert free.text != expected.text, "or the option may do nothing"


def test_what_is_allowed_and_banned_is_given_as_text(ask: Ask, runs: Runs, writer: Writer) -> None:
    given = ["generate", runs.language, "--length", 20]
    (allowed,) = lines(ask(*given, "--allow", "kalo", "--allow", " "))
    assert set(allowed) <= set("kalo ")
    tokens = sorted({*writer.tokenizer.encode(["kalo "])[0], writer.symbols.end})
    assert allowed == writer.generate([""], Sample(0), [Allow(tuple(tokens))], length=20)[0][0].text
    (banned,) = lines(ask(*given, "--ban", "aeiou"))
    assert banned and allowed and not set(banned) & set("aeiou")


def test_a_stop_string_ends_the_text(ask: Ask, runs: Runs) -> None:
    (whole,) = lines(ask("generate", runs.language, "ka", "--length", 30, "--greedy", "--only-new"))
    stop = whole[2:4]
    found = lines(ask("generate", runs.language, "ka", "--length", 30, "--greedy", "--only-new", "--stop", "XX", "--stop", stop))
    assert found == [whole[: whole.find(stop)]]
    refused(ask("generate", runs.language, "ka", "--stop", ""), "a stop string has at least 1 character")


def test_beams_groups_contrast_and_drafts(ask: Ask, runs: Runs, writer: Writer) -> None:
    given = ["generate", runs.language, *SHORT]
    found = lines(ask(*given, "--beam", 3, "--count", 3, "--length-penalty", 0))
    ids = writer.given("")
    expected = write_on(writer.model, [ids], writer.symbols, Beam(3, 0.0, most=12), 3)[0]
    assert found == [writer.tokenizer.decode_after(ids, each.tokens) for each in expected] and len(set(found)) == 3
    assert len(lines(ask(*given, "--beam", 2))) == 1
    groups = lines(ask(*given, "--beam", 2, "--groups", 3, "--diversity", 30))
    assert len(groups) == 3 and len(set(groups)) > 1, "one of each group, unless --count says fewer"
    assert lines(ask(*given, "--beam", 2, "--groups", 3, "--diversity", 30, "--count", 2)) == groups[:2]
    greedy = lines(ask(*given, "--greedy"))
    assert lines(ask(*given, "--contrastive", 0)) == greedy, "a penalty of 0 is no reason to draw"
    assert lines(ask(*given, "--contrastive", 0.9, "--top-k", 1)) == greedy
    assert lines(ask(*given, "--contrastive", 0.9, "--top-k", 8)) != greedy
    assert lines(ask(*given, "--draft", runs.draft, "--top-k", 1)) == greedy
    assert len(lines(ask(*given, "--draft", runs.draft, "--count", 2, "--ahead", 2))) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--greedy", "--beam", "2"], ["--greedy and --beam are different ways"]),
        (["--contrastive", "0", "--beam", "2"], ["--beam and --contrastive are different ways"]),
        (["--groups", "2"], ["--groups are groups of beams: give --beam, too"]),
        (["--beam", "0"], ["a beam holds at least 1 hypothesis, not 0"]),
        (["--beam", "2", "--count", "3"], ["Beam comes to 2 continuations of a prompt, not to 3"]),
        (["--greedy", "--count", "2"], ["Greedy comes to 1 continuation"]),
        (["--count", "0"], ["at least 1 continuation, not 0"]),
        (["--length", "0"], ["at least 1 token, not 0"]),
        (["--temperature", "0"], ["a temperature is above 0", "greedily"]),
        (["--top-k", "0"], ["at least 1 of the most likely tokens"]),
        (["--contrastive", "0.5", "--top-k", "0"], ["contrastive search compares at least 1 token"]),
        (["--top-p", "1.5"], ["the mass of a nucleus is above 0 and at most 1, not 1.5"]),
        (["--seed", "-1"], ["a seed is a whole number from 0"]),
        (["--precision", "int4"], ["unknown precision 'int4'", "did you mean 'int8'"]),
        (["--device", "gpu"], ["unknown device 'gpu'"]),
        (["--precision", "int8", "--device", "gpu"], ["unknown device 'gpu'"]),
        (["--threads", "-2"], ["--threads"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_wrong_option_is_refused(ask: Ask, runs: Runs, options: list[str], words: list[str]) -> None:
    refused(ask("generate", runs.language, "ka", *options), *words)


def test_an_option_that_nobody_knows_ends_with_2_and_a_hint(ask: Ask, runs: Runs) -> None:
    answer = ask("generate", runs.language, "ka", "--temprature", 2)
    assert answer.code == 2 and "No such option" in answer.err and "--temperature" in answer.err


def test_a_draft_with_another_tokenizer_or_shape_is_refused(ask: Ask, runs: Runs, trained: Trained, tmp_path: Path) -> None:
    refused(ask("generate", runs.language, "ka", "--draft", trained.folder), "another tokenizer than the run")
    refused(ask("generate", runs.language, "ka", "--draft", tmp_path), "is no run folder")


def test_a_prompt_longer_than_the_context_is_refused_with_what_to_do(ask: Ask, runs: Runs) -> None:
    answer = ask("generate", runs.language, "-", stdin=b"ka\n" + b"ka lo " * 10 + b"\n")
    refused(answer, "a prompt of 61 tokens leaves no room in the 40 places", "shorten it to fewer than 40")
    answer = ask("generate", runs.language, "ka lo mi nu pe", "--length", 60)
    assert answer.code == 0 and len(answer.out) <= 41
    assert answer.err == "qkv: the model knows 40 places: the longest prompt leaves room for 25 tokens, not 60\n"


def test_a_long_prompt_beside_a_short_one_is_written_on_from(ask: Ask, runs: Runs) -> None:
    prompts = ["ka lo mi nu pe ra su ti vo ze ka lo", "ka"]
    together = ask("generate", runs.language, "-", "--greedy", stdin="\n".join(prompts).encode())
    alone = [ask("generate", runs.language, prompt, "--greedy").out for prompt in prompts]
    assert together.code == 0 and together.out == "".join(alone)


def test_int8_says_once_what_it_costs(ask: Ask, runs: Runs, writer: Writer, tmp_path: Path) -> None:
    answer = ask("generate", runs.language, "-", *SHORT, "--precision", "int8", stdin=b"ka\nlo\n")
    assert answer.code == 0 and answer.out.count("\n") == 2
    (said,) = answer.err.splitlines()
    assert said.startswith("qkv: int8 changes the perplexity by ") and "tokens of the run's own text" in said
    change = float(said.removeprefix("qkv: int8 changes the perplexity by ").partition("%")[0])
    assert abs(change) <= 1
    lines = [writer.given(line) for line in runs.valid.read_text().splitlines()]
    nats = [surprises(writer.model, ids[1:], writer.symbols, Window(40, 20))[:-1] for ids in lines]
    fp32 = math.exp(torch.cat(nats).mean())
    assert f"from {fp32:.3f} to " in said and f"over {sum(len(ids) - 1 for ids in lines)} tokens" in said
    moved = shutil.copytree(runs.language, tmp_path / "run")
    recipe = moved / "run.toml"
    recipe.write_text(recipe.read_text().replace(str(runs.valid), str(tmp_path / "gone.txt")))
    for gone in (lambda: None, recipe.unlink):
        gone()
        answer = ask("generate", moved, "ka", *SHORT, "--precision", "int8")
        assert answer.code == 0 and answer.out.startswith("ka")
        assert "nobody knows what int8 costs: `qkv evaluate --text F --precision int8` measures it" in answer.err


def test_bf16_writes_too(ask: Ask, runs: Runs) -> None:
    assert len(lines(ask("generate", runs.language, "-", *SHORT, "--precision", "bf16", stdin=b"ka\nlo\n"))) == 2


@pytest.mark.parametrize(
    ("run", "words"), [("masked", "a masked model"), ("classifier", "a classifier"), ("translator", "a translator")]
)
def test_a_run_of_another_shape_is_refused_with_the_verb_that_fits(
    ask: Ask, runs: Runs, trained: Trained, run: str, words: str
) -> None:
    folder = trained.folder if run == "translator" else getattr(runs, run)
    verb = {"masked": "`qkv fill`", "classifier": "`qkv classify`", "translator": "`qkv translate`"}[run]
    refused(ask("generate", folder, "ka"), words, "does not write on from a prompt", verb)
    refused(ask("translate", runs.language, stdin=b"ka\n"), "a language model, which does not translate", "`qkv generate`")


def test_a_reader_who_leaves_early_ends_it_quietly(runs: Runs, tmp_path: Path, python: tuple[list[str], dict[str, str]]) -> None:
    start, environment = python
    file = write(tmp_path / "prompts", sentences(3000, 3))
    call = [*start, CALL, "generate", str(runs.language), "--prompts", str(file), "--length", "1", "--threads", "1"]
    with subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().endswith(b"\n")
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")
