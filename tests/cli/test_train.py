"""`qkv train`: what it says of the text it is given, what it refuses, and with which exit code."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.cli.conftest import CALL, TINY, Answer, Ask, Text, Trained, sentences, write

from qkv.spec.data import Files, HeldOut
from qkv.spec.run import Batching, Cosine, Noam
from qkv.train.run_folder import read_run


def train(ask: Ask, out: Path, *options: object) -> Answer:
    return ask("train", "translate", "--out", out, *TINY, *options)


def refused(answer: Answer, *words: str, code: int = 2) -> None:
    """The law of this file: one line that says what is wrong, on standard error, and no traceback."""
    assert answer.code == code, answer
    assert answer.out == ""
    last = answer.err.splitlines()[-1]
    assert last.startswith("qkv: "), answer.err
    assert all(word in last for word in words), last


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    """A source and a target file of 20 lines to alter."""
    lines = sentences(20, 5)
    return write(tmp_path / "own.a", lines), write(tmp_path / "own.b", [line.upper() for line in lines])


def files(own: tuple[Path, Path]) -> list[str]:
    return ["--source", str(own[0]), "--target", str(own[1])]


# Text that is wrong


def test_files_of_different_length_are_refused_with_both_counts(ask: Ask, own: tuple[Path, Path], tmp_path: Path) -> None:
    write(own[1], sentences(17, 5))
    refused(train(ask, tmp_path / "run", *files(own)), "own.a has 20 lines", "own.b has 17")


def test_a_refused_text_leaves_the_folder_free_for_the_next_try(
    ask: Ask, own: tuple[Path, Path], tmp_path: Path, text: Text
) -> None:
    write(own[1], sentences(17, 5))
    refused(train(ask, tmp_path / "run", *files(own)))
    assert train(ask, tmp_path / "run", *text.options, "--steps", 1).code == 0


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", ["is empty"]),
        (b"ka lo\nmi \xff nu\n" + b"ka\n" * 18, ["line 2", "not UTF-8", "0xff"]),
        (b"ka\n" * 3 + b"k\0a\n" + b"ka\n" * 16, ["line 4", "NUL"]),
        ("ka lo\n".encode("utf-16") * 20, ["own.a", "UTF-8"]),
        (gzip.compress(b"ka lo\n" * 20), ["gzip", ".gz"]),
        (b"\n" * 20, ["nothing is left of the training text", "20 have an empty side"]),
    ],
    ids=["empty", "latin", "nul", "utf-16", "gzip", "blank"],
)
def test_text_that_is_none_is_refused_by_file_and_line(
    ask: Ask, own: tuple[Path, Path], tmp_path: Path, raw: bytes, words: list[str]
) -> None:
    own[0].write_bytes(raw)
    refused(train(ask, tmp_path / "run", *files(own)), *words)


def test_a_file_that_is_not_there_is_named(ask: Ask, own: tuple[Path, Path], tmp_path: Path) -> None:
    own[1].unlink()
    refused(train(ask, tmp_path / "run", *files(own)), f"there is no file {own[1]}")
    refused(train(ask, tmp_path / "run", "--source", own[0], "--target", tmp_path), f"{tmp_path} is a folder")


def test_source_and_target_must_be_two_files(ask: Ask, own: tuple[Path, Path], tmp_path: Path) -> None:
    refused(train(ask, tmp_path / "run", "--source", own[0], "--target", own[0]), "the same file")
    (tmp_path / "link").symlink_to(own[0])
    refused(train(ask, tmp_path / "run", "--source", own[0], "--target", tmp_path / "link"), "the same file")


def test_empty_lines_leave_out_their_pair_and_are_counted(ask: Ask, own: tuple[Path, Path], tmp_path: Path, text: Text) -> None:
    lines = own[0].read_text().splitlines()
    write(own[0], [*lines[:3], "", "  ", *lines[5:]])
    answer = train(ask, tmp_path / "run", *files(own), *text.options[4:], "--steps", 1)
    assert answer.code == 0
    assert "18 of 20 pairs kept" in answer.err and "a side is empty: 2 pairs (number 4, 5)" in answer.err


@pytest.mark.parametrize("longest", [20, 10_000])
def test_long_lines_leave_out_their_pair_and_are_counted(
    ask: Ask, own: tuple[Path, Path], tmp_path: Path, text: Text, longest: int
) -> None:
    lines = own[0].read_text().splitlines()
    write(own[0], [*lines[:-1], "ka lo " * 180_000])  # more than a megabyte
    answer = train(ask, tmp_path / "run", *files(own), *text.options[4:], "--steps", 1, "--longest", longest)
    assert answer.code == 0, answer.err
    left = [
        line for line in answer.err.splitlines() if f"training text: left out, because a side is longer than {longest}" in line
    ]
    assert len(left) == 1 and "1 pair (number 20)" in left[0]


def test_training_text_in_the_validation_text_is_a_warning_with_a_count(ask: Ask, own: tuple[Path, Path], tmp_path: Path) -> None:
    valid = [write(tmp_path / f"valid{i}", path.read_text().splitlines()[:5]) for i, path in enumerate(own)]
    answer = train(ask, tmp_path / "run", *files(own), "--valid-source", valid[0], "--valid-target", valid[1], "--steps", 1)
    assert answer.code == 0
    assert "warning: also in the validation text: 5 pairs of the training text" in answer.err


def test_without_validation_text_one_percent_is_held_out_and_that_is_said(ask: Ask, text: Text, tmp_path: Path) -> None:
    answer = train(ask, tmp_path / "run", *text.training, "--steps", 1)
    assert answer.code == 0
    (said,) = [line for line in answer.err.splitlines() if "no validation text was given" in line]
    assert "held out" in said and ": 1 " in said


def test_a_vocabulary_larger_than_the_text_supports_is_refused(ask: Ask, text: Text, tmp_path: Path) -> None:
    refused(
        train(ask, tmp_path / "run", *text.options, "--tokenizer", "bpe", "--vocabulary", 5000),
        "exactly 5000 entries is too large",
        "supports only",
    )


@pytest.mark.parametrize("size", [0, -3, 5])
def test_a_vocabulary_too_small_is_refused(ask: Ask, text: Text, tmp_path: Path, size: int) -> None:
    refused(train(ask, tmp_path / "run", *text.options, "--vocabulary", size), "at least")


# Pairs


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    """The rows in the format that the file's name says."""
    if ".jsonl" in path.name:
        content = "".join(json.dumps({"en": s, "de": t, "id": i}) + "\n" for i, (s, t) in enumerate(rows))
    else:
        content = "".join(f"{s}\t{i}\t{t}\n" for i, (s, t) in enumerate([("en", "de"), *rows]))
    raw = content.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("name", ["p.tsv", "p.tsv.gz", "p.jsonl", "p.jsonl.gz"])
def test_pairs_are_the_same_text_as_two_files(ask: Ask, text: Text, trained: Trained, tmp_path: Path, name: str) -> None:
    rows = list(zip(text.source.read_text().splitlines(), text.target.read_text().splitlines(), strict=True))
    given = ["--pairs", table(tmp_path / name, rows), "--fields", "en,de", *text.options[4:]]
    assert train(ask, tmp_path / "run", *given).code == 0
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "run", trained.folder)]
    assert weights[0] == weights[1]


def test_pairs_need_their_fields(ask: Ask, text: Text, tmp_path: Path) -> None:
    pairs = table(tmp_path / "p.tsv", [("ka lo", "KA LO")] * 5)
    for fields in ([], ["--fields", "en"], ["--fields", "en,de,id"], ["--fields", ",de"]):
        refused(train(ask, tmp_path / "run", "--pairs", pairs, *fields), "--pairs needs --fields SOURCE,TARGET")
    refused(train(ask, tmp_path / "run", "--pairs", pairs, "--fields", "en,dee"), "'dee'", "did you mean 'de'")
    both = ["--pairs", pairs, "--fields", "en,de", *text.training]
    refused(train(ask, tmp_path / "run", *both), "not both")
    other = write(tmp_path / "p.csv", ["a,b"])
    refused(train(ask, tmp_path / "run", "--pairs", other, "--fields", "en,de"), "p.csv", ".tsv")


# Options that are wrong


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "transformer-tinny"], ["unknown model 'transformer-tinny'", "did you mean 'transformer-tiny'"]),
        (["--tokenizer", "bep"], ["unknown kind of tokenizer 'bep'", "did you mean 'bpe'"]),
        (["--precision", "bf61"], ["unknown precision 'bf61'", "did you mean 'bf16'"]),
        (["--device", "cdua"], ["unknown device 'cdua'", "did you mean 'cuda'"]),
        (["--recipe", "no-such"], ["unknown recipe 'no-such'"]),
        (["--recipe", "no-such.toml"], ["there is no recipe no-such.toml"]),
        (["--set", "widht=8"], ["'widht'", "did you mean 'width'"]),
        (["--set", "encoder.blocks.0.nrom=PreNorm()"], ["did you mean 'norm'"]),
        (["--set", "encoder.blocks.7.dropout=0.1"], ["'7' is not one of the places 0 to 0"]),
        (["--set", "schedule.warmpu=3"], ["did you mean 'warmup'"]),
        (["--set", "schedule=Noamm()"], ["unknown value 'Noamm'", "did you mean 'Noam'"]),
        (["--set", "schedule=Noam(warmpu=3)"], ["unknown field of Noam 'warmpu'"]),
        (["--set", "schedule=3"], ["schedule", "3 cannot take its place"]),
        (["--set", "width"], ["place=value"]),
        (["--set", "width=18"], ["a width of 18 cannot be shared by 4 heads"]),
        (["--set", "smoothing=1.5"], ["label smoothing"]),
        (["--set", "evaluation.tokenise=13b"], ["did you mean '13a'"]),
        (["--batch-tokens", "0"], ["Batching.tokens must be more than 0"]),
        (["--accumulate", "0"], ["Batching.accumulate must be more than 0"]),
        (["--longest", "0"], ["at least one token"]),
        (["--seed", "-1"], ["a seed is not negative: -1"]),
        (["--threads", "-1"], ["--threads"]),
        (["--steps", "0"], ["Steps.number must be more than 0"]),
        (["--epochs", "3"], ["one of --steps, --epochs and --minutes"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_wrong_option_is_refused(ask: Ask, text: Text, tmp_path: Path, options: list[str], words: list[str]) -> None:
    refused(train(ask, tmp_path / "run", *text.options, *options), *words)
    assert not (tmp_path / "run" / "run.toml").exists() or "tokenise" in options[1]


@pytest.mark.parametrize(
    "call",
    [["--nonsense"], ["--steps", "many"], ["train"], ["train", "translate"], ["nonsense"]],
    ids=lambda call: " ".join(call),
)
def test_a_wrong_call_ends_with_2_and_a_hint(ask: Ask, call: list[str]) -> None:
    answer = ask(*(call if call[0] in ("train", "nonsense") else ["train", "translate", "--out", "x", *call]))
    assert answer.code == 2
    assert "Traceback" not in answer.err and "Usage: " in answer.err


def test_training_needs_text(ask: Ask, text: Text, tmp_path: Path) -> None:
    refused(train(ask, tmp_path / "run"), "no training text")
    refused(train(ask, tmp_path / "run", "--source", text.source), "a source file was given, but no target file")
    refused(train(ask, tmp_path / "run", "--target", text.target), "a target file was given, but no source file")
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_cannot_be_is_named(ask: Ask, text: Text, tmp_path: Path) -> None:
    file = write(tmp_path / "file", ["something"])
    refused(train(ask, file / "run", *text.options), f"{file / 'run'} cannot be written to")
    write(tmp_path / "thesis.tex", [])
    refused(train(ask, tmp_path, *text.options), "is not empty and holds no run")


# What is asked for is what is done


def test_set_reaches_the_run_and_the_model(ask: Ask, text: Text, tmp_path: Path) -> None:
    changes = [
        "--set",
        "schedule=Cosine(peak=0.01, warmup=2)",
        "--set",
        "optimiser.beta2=0.99",
        "--set",
        "encoder.blocks.0.norm=PostNorm()",
    ]
    assert train(ask, tmp_path, *text.options, *changes, "--steps", 2, "--set", "seed=7").code == 0
    run = read_run(tmp_path / "run.toml")
    assert (run.schedule.__class__.__name__, run.optimiser.beta2, run.seed) == ("Cosine", 0.99, 7)
    assert "encoder.blocks.0.norm=PostNorm()" in run.changes
    model = json.loads((tmp_path / "model.json").read_text())["EncoderDecoder"]
    norms = [model[side]["Stack"]["blocks"][0]["Block"]["norm"] for side in ("encoder", "decoder")]
    assert [next(iter(norm)) for norm in norms] == ["PostNorm", "PreNorm"]


def test_a_model_is_trained_as_its_kind_is_unless_one_says_otherwise(ask: Ask, text: Text, tmp_path: Path) -> None:
    given = [*text.options, "--steps", 1, "--batch-tokens", 99]
    assert train(ask, tmp_path / "tiny", *given).code == 0
    small = ["--set", "encoder.depth=1", "--set", "decoder.depth=1", "--set", "width=8"]
    assert train(ask, tmp_path / "base", *given, *small, "--model", "transformer-base").code == 0
    tiny, base = (read_run(tmp_path / name / "run.toml") for name in ("tiny", "base"))
    assert (tiny.schedule, base.schedule) == (Cosine(peak=0.003, warmup=500), Noam(4000))
    assert tiny.batching == base.batching == Batching(99)


def test_options_go_before_a_recipe(ask: Ask, text: Text, trained: Trained, tmp_path: Path) -> None:
    recipe = ["--recipe", trained.folder / "run.toml"]
    assert ask("train", "translate", "--out", tmp_path / "same", *recipe).code == 0
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == (trained.folder / "model.safetensors").read_bytes()
    assert ask("train", "translate", "--out", tmp_path / "other", *recipe, "--steps", 2, "--separate").code == 0
    run = read_run(tmp_path / "other" / "run.toml")
    assert run.budget.number == 2 and not run.tokenizer.joint
    assert run.changes == read_run(trained.folder / "run.toml").changes


def test_a_recipe_may_be_taken_for_other_text_where_its_own_is_not_there(
    ask: Ask, text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QKV_DATA", raising=False)
    how = ["train", "translate", "--recipe", "multi30k-en-de-tiny", "--steps", 1, "--batch-tokens", 99, "--vocabulary", 60]
    how += ["--set", "evaluation.sentences=2", "--set", "encoder.depth=1", "--set", "decoder.depth=1"]
    valid = text.options[len(text.training) :]
    assert ask(*how, *text.training, "--out", tmp_path / "held").code == 0
    assert read_run(tmp_path / "held" / "run.toml").valid == HeldOut()
    assert ask(*how, *text.options, "--out", tmp_path / "given").code == 0
    assert read_run(tmp_path / "given" / "run.toml").valid == Files((str(text.valid_source),), (str(text.valid_target),))
    refused(ask(*how, *valid, "--out", tmp_path / "none"), "multi30k", "not set in the environment")


def test_run_toml_means_the_same_from_any_folder(
    ask: Ask, own: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(ask, Path("run"), "--source", own[0].name, "--target", own[1].name, "--steps", 1).code == 0
    assert read_run(tmp_path / "run" / "run.toml").train.source == (str(own[0]),)  # type: ignore[union-attr]


def test_tensorboard_may_be_asked_for(ask: Ask, text: Text, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    answer = train(ask, tmp_path / "run", *text.options, "--steps", 3, "--tensorboard")
    assert answer.code == 0, answer.err
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_what_training_says_goes_to_standard_error(trained: Trained) -> None:
    assert trained.said.out == ""
    assert "vocabulary: " in trained.said.err and "done: all 6 steps are made" in trained.said.err
    assert "\x1b" not in trained.said.err, "no colours where there is no terminal"


# Going on


def test_a_second_training_into_a_folder_needs_resume(ask: Ask, text: Text, trained: Trained) -> None:
    refused(train(ask, trained.folder, *text.options), "holds a run already", "--resume")


def test_resume_needs_nothing_but_the_folder(ask: Ask, trained: Trained) -> None:
    answer = ask("train", "translate", "--out", trained.folder, "--resume")
    assert answer.code == 0 and "this run is finished" in answer.err


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--seed", "2"], "seed: 1 before, 2 now"),
        (["--steps", "7"], "budget.number: 6 before, 7 now"),
        (["--batch-tokens", "64"], "batching.tokens: 300 before, 64 now"),
        (["--set", "width=32"], "changes: "),
        (["--model", "transformer-base"], "model: "),
        (["--set", "schedule.warmup=5"], "schedule.warmup: 500 before, 5 now"),
    ],
)
def test_resume_refuses_another_option_by_its_name(ask: Ask, trained: Trained, options: list[str], name: str) -> None:
    refused(ask("train", "translate", "--out", trained.folder, "--resume", *options), "begun with other options", name)


def test_a_loss_that_is_not_a_number_ends_with_1(ask: Ask, text: Text, tmp_path: Path) -> None:
    blown = ["--set", "schedule=Cosine(peak=1e38, warmup=1)"]
    refused(train(ask, tmp_path / "run", *text.options, *blown), "the loss of step 2 is not a number", "batch", code=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_saves_says_how_to_go_on_and_ends_with_its_number(
    ask: Ask, text: Text, trained: Trained, tmp_path: Path, python: tuple[list[str], dict[str, str]], number: signal.Signals
) -> None:
    start, environment = python
    out = tmp_path / "run"
    call = ["train", "translate", "--out", str(out), *text.options, *TINY, "--steps", "100000", "--threads", "1"]
    with subprocess.Popen(
        [*start, CALL, *call], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "validation loss" in line:
                os.kill(process.pid, number)
                break
        said += process.stderr.read()
    assert process.returncode == 128 + number, said
    assert f"go on with `qkv train translate --out {out} --resume`" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert ask("verify", out).code == 0
