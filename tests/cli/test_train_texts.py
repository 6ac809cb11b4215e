"""`qkv train generate`, `fill`, `denoise` and `classify`: the loss falls, a run goes on and is trained again to the byte, one run
starts from another, and text that is none is refused in words."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Answer, Ask, Runs, Text, Trained, asked, refused, sentences, write

from qkv.look import curves
from qkv.papers.catalogue import entry
from qkv.spec import plain
from qkv.spec.model import Classifier
from qkv.spec.objective import Infill
from qkv.spec.run import Batching, From
from qkv.store import load, load_weights
from qkv.train import loop as loops
from qkv.train.journal import read
from qkv.train.run_folder import read_run

# what any run may say, and what only one may that starts from nothing
TUNED = """
--batch-tokens 200 --device cpu --precision fp32 --steps 10 --set evaluation=Evaluation(100,0)
--set checkpoints=Checkpoints(4,2,Exactly(2)) --set schedule=Cosine(peak=0.02,warmup=2)
""".split()
QUICK = [*TUNED, *"--tokenizer characters --longest 24 --set width=16 --set *.depth=1".split()]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs."""
    monkeypatch.setattr(curves, "draw", lambda journal, path, title: path.write_bytes(b"a picture"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Text and a table, to train on and to validate on; nobody alters them."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for name, number, seed in (("", 70, 3), ("valid-", 9, 4)):
        lines = sentences(number, seed)
        found[f"{name}text"] = write(folder / f"{name}text.txt", lines)
        rows = [f"{line}\t{'with' if 'ka' in line else 'without'}" for line in lines]
        found[f"{name}table"] = write(folder / f"{name}table.tsv", ["text\tlabel", *rows])
    return found


VERBS = {
    "generate": ["generate"],
    "generate lines": ["generate", "--documents", "lines"],
    "fill": ["fill"],
    "denoise": ["denoise"],
    "denoise infill": ["denoise", "--noise", "infill"],
    "classify": ["classify"],
}
every = pytest.mark.parametrize("name", VERBS)


def call(name: str, files: dict[str, Path]) -> list[object]:
    """A verb with its text."""
    kind = "table" if name == "classify" else "text"
    return ["train", *VERBS[name], f"--{kind}", files[kind], f"--valid-{kind}", files[f"valid-{kind}"]]


@pytest.fixture(scope="module")
def whole(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Answer]]:
    """A run of a verb that was never interrupted, and what was said; each is trained once."""
    made: dict[str, tuple[Path, Answer]] = {}

    def of(name: str) -> tuple[Path, Answer]:
        if name not in made:
            out = tmp_path_factory.mktemp("whole") / "run"
            said = asked(*call(name, files), "--out", out, *QUICK)
            assert said.code == 0, said.err
            made[name] = out, said
        return made[name]

    return of


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# What a run comes to


@pytest.mark.parametrize("name", ["generate", "fill", "denoise", "denoise infill", "classify"])
def test_the_loss_falls(ask: Ask, files: dict[str, Path], tmp_path: Path, name: str) -> None:
    longer = ["--steps", 40, "--set", "evaluation=Evaluation(20,0)", "--set", "*.dropout=0.0"]
    answer = ask(*call(name, files), "--out", tmp_path / "run", *QUICK, *longer)
    assert answer.code == 0, answer.err
    lines = read(tmp_path / "run" / "journal.jsonl")
    steps, checks = ([line["loss"] for line in lines if line["kind"] == kind] for kind in ("step", "evaluation"))
    assert steps[-1] < 0.95 * steps[0] and checks[-1] < checks[0]
    (final,) = [line for line in lines if line["kind"] == "final"]
    names = {
        "generate": {"bits_per_byte", "perplexity"},
        "fill": {"accuracy", "perplexity"},
        "classify": {"accuracy", "macro_f1"},
    }
    assert names.get(name, {"perplexity"}) <= final.keys() and final["loss"] < checks[0]


@every
def test_what_is_said_is_what_was_done(whole, name: str) -> None:
    _, said = whole(name)
    assert said.out == "" and "\x1b" not in said.err and "warning" not in said.err.replace("warning: the run has", "")
    what = {"generate": "1 document,", "classify": "70 texts (without"}.get(name, "70 documents,")
    assert f"training {'table' if name == 'classify' else 'text'}: {what}" in said.err
    assert "done: all 10 steps are made" in said.err
    verb = {"denoise": "train translate --from", "denoise infill": "train translate --from", "generate lines": "generate"}
    assert f"`qkv {verb.get(name, name)} " in said.err.splitlines()[-1]


@every
def test_run_toml_trains_the_same_model_again(ask: Ask, whole, tmp_path: Path, name: str) -> None:
    folder, _ = whole(name)
    answer = ask("train", VERBS[name][0], "--recipe", folder / "run.toml", "--out", tmp_path / "again")
    assert answer.code == 0, answer.err
    assert weights(tmp_path / "again") == weights(folder)
    assert (tmp_path / "again" / "run.toml").read_text() == (folder / "run.toml").read_text()
    other = ask("train", VERBS[name][0], "--recipe", folder / "run.toml", "--out", tmp_path / "other", "--seed", 2)
    assert other.code == 0 and weights(tmp_path / "other") != weights(folder)


def at_step(monkeypatch: pytest.MonkeyPatch, when: int, action: Callable[[], None]) -> None:
    """Do something once, just as a step begins."""
    true, done = loops.learning_rate, []

    def rate(schedule, step: int, steps: int, width: int) -> float:
        if step == when and not done:
            done.append(step)
            action()
        return true(schedule, step, steps, width)

    monkeypatch.setattr(loops, "learning_rate", rate)


class Crash(Exception):
    """What no code of ours knows."""


def crash() -> None:
    raise Crash


@every
def test_a_run_that_was_killed_in_an_epoch_goes_on_to_the_same_bytes(
    ask: Ask, files: dict[str, Path], whole, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = whole(name)
    out, verb = tmp_path / "run", VERBS[name][0]
    at_step(monkeypatch, 7, crash)
    with pytest.raises(Crash):
        ask(*call(name, files), "--out", out, *QUICK)
    monkeypatch.undo()
    monkeypatch.setattr(curves, "draw", lambda journal, path, title: None)
    at_step(monkeypatch, 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stopped = ask("train", verb, "--out", out, "--resume")
    assert stopped.code == 128 + signal.SIGTERM and "going on from step 4" in stopped.err
    assert f"go on with `qkv train {verb} --out {out} --resume`" in stopped.err.splitlines()[-1]
    went_on = ask("train", verb, "--out", out, "--resume")
    assert went_on.code == 0 and "going on from step 9" in went_on.err, went_on.err
    assert weights(out) == weights(folder)
    finished = ask("train", verb, "--out", out, "--resume")
    assert finished.code == 0 and "this run is finished" in finished.err


@pytest.mark.parametrize("objective", ["Delete(0.2)", "Rotate()", "Spans(0.3,2.0)"])
def test_other_noises_are_set_and_gone_on_with(ask: Ask, files: dict[str, Path], tmp_path: Path, objective: str) -> None:
    answer = ask(*call("denoise", files), "--out", tmp_path / "run", *QUICK, "--steps", 2, "--set", f"objective={objective}")
    assert answer.code == 0, answer.err
    assert read_run(tmp_path / "run" / "run.toml").objective == plain.parse(objective)
    assert ask("train", "denoise", "--out", tmp_path / "run", "--resume").code == 0
    again = ask("train", "denoise", "--recipe", tmp_path / "run" / "run.toml", "--out", tmp_path / "again")
    assert again.code == 0 and weights(tmp_path / "again") == weights(tmp_path / "run")


def test_a_recipe_of_another_verb_or_noise_is_refused(ask: Ask, whole, tmp_path: Path) -> None:
    for name, verb, words in (
        ("generate", ["fill"], "trains Generate, which `qkv train fill` does not"),
        ("classify", ["denoise"], "trains Classify, which `qkv train denoise` does not"),
        ("denoise infill", ["denoise", "--noise", "spans"], "trains Infill, which"),
        ("denoise", ["translate"], "trains Spans, which `qkv train translate` does not"),
    ):
        recipe = whole(name)[0] / "run.toml"
        refused(ask("train", *verb, "--recipe", recipe, "--out", tmp_path / "run"), words)
        refused(ask("train", *verb, "--out", recipe.parent, "--resume"), words)


def test_a_run_keeps_its_text_and_its_options(ask: Ask, files: dict[str, Path], whole, tmp_path: Path) -> None:
    folder, _ = whole("fill")
    for options, words in (
        (["--text", files["valid-text"]], "begun with other options: train.files: "),
        (["--documents", "paragraphs", "--text", files["text"]], "train.documents"),
        (["--set", "objective.share=0.3"], "objective.share: 0.15 before, 0.3 now"),
        (["--longest", 30], "longest: 24 before, 30 now"),
    ):
        refused(ask("train", "fill", "--out", folder, "--resume", *options), words)
    own = write(tmp_path / "own.txt", sentences(30, 1))
    for verb, option in (("generate", "--text"), ("fill", "--text")):
        out = tmp_path / verb
        assert ask("train", verb, option, own, "--out", out, *QUICK, "--steps", 4).code == 0
        (out / "manifest.json").unlink()
        write(own, sentences(30, 2))
        refused(ask("train", verb, "--out", out, "--resume"), "the training text is not what", "was begun with")
        write(own, sentences(30, 1))


def test_a_model_is_trained_as_its_kind_is_unless_one_says_otherwise(ask: Ask, files: dict[str, Path], tmp_path: Path) -> None:
    for name, model in (("generate", "gpt-tiny"), ("fill", "bert-tiny"), ("denoise", "t5-tiny"), ("denoise infill", "bart-tiny")):
        small = ["--steps", 1, "--batch-tokens", 99, "--set", "width=16", "--set", "*.depth=1", "--longest", 16]
        assert ask(*call(name, files), "--out", tmp_path / name, *small).code == 0
        run = read_run(tmp_path / name / "run.toml")
        assert run.model == model and run.batching == Batching(99)
        assert run.tokenizer.kind == ("bytes" if name == "generate" else "bpe")
        known = entry(model).practice
        assert (run.schedule, run.optimiser, run.clip) == (known.schedule, known.optimiser, known.clip)


# One run from another


def unmoved(ask: Ask, donor: Path, out: Path, *options: object) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What a run has, and what it had it from, after a step that moves nothing."""
    still = ["--set", "schedule=Cosine(peak=0.0,warmup=1)", "--steps", 1, "--batch-tokens", 200]
    answer = ask("train", *options, "--from", donor, "--out", out, *still, "--device", "cpu", "--precision", "fp32")
    assert answer.code == 0, answer.err
    assert read_run(out / "run.toml").start == From(str(donor))
    for side in ("source", "target"):
        assert getattr(load(out), side).fingerprint == getattr(load(donor), side).fingerprint, "tokenizers come with it"
    return load_weights(out / "model.safetensors"), load_weights(donor / "model.safetensors")


def test_a_generator_goes_on_from_a_generator(ask: Ask, files: dict[str, Path], runs: Runs, tmp_path: Path) -> None:
    own, donor = unmoved(ask, runs.language, tmp_path / "run", "generate", "--text", files["text"])
    assert own.keys() == donor.keys() and all(torch.equal(own[name], donor[name]) for name in own)
    run = read_run(tmp_path / "run" / "run.toml")
    assert run.longest == 40 and run.model == "gpt-tiny", "what it knows, it keeps"


def test_a_classifier_begins_with_the_encoder_of_a_masked_model(
    ask: Ask, files: dict[str, Path], runs: Runs, tmp_path: Path
) -> None:
    own, donor = unmoved(ask, runs.masked, tmp_path / "run", "classify", "--table", files["table"])
    shared = {name for name in own if name.partition(".")[0] in ("source", "encoder")}
    assert shared == {name for name in donor if name.partition(".")[0] in ("source", "encoder")}
    assert all(torch.equal(own[name], donor[name]) for name in shared)
    assert own.keys() - shared == {f"{part}.{name}" for part in ("pooler", "labels") for name in ("weight", "bias")}
    model = load(tmp_path / "run").model
    assert isinstance(model.spec, Classifier) and model.spec.labels == ("with", "without")


def test_a_classifier_begins_with_the_encoder_of_a_translator(
    ask: Ask, files: dict[str, Path], trained: Trained, tmp_path: Path
) -> None:
    own, donor = unmoved(ask, trained.folder, tmp_path / "run", "classify", "--table", files["table"])
    # tied to the target's, the table of the source bears its name
    assert torch.equal(own["source.weight"], donor["target.weight"] if "target.weight" in donor else donor["source.weight"])
    names = [name for name in own if name.startswith("encoder.")]
    assert len(names) > 5 and all(torch.equal(own[name], donor[name]) for name in names)


def test_a_classifier_goes_on_from_a_classifier_of_the_same_labels(
    ask: Ask, files: dict[str, Path], runs: Runs, tmp_path: Path
) -> None:
    own, donor = unmoved(ask, runs.classifier, tmp_path / "run", "classify", "--table", files["table"])
    assert own.keys() == donor.keys() and all(torch.equal(own[name], donor[name]) for name in own)
    other = write(tmp_path / "t.tsv", ["text\tlabel", "ka lo\tyes", "mi nu\tno", "pe\tno"])
    words = ["knows the labels ('with', 'without'), and the table has ('no', 'yes')"]
    refused(ask("train", "classify", "--table", other, "--from", runs.classifier, "--out", tmp_path / "other"), *words)
    assert not (tmp_path / "other" / "run.toml").exists()


@pytest.mark.parametrize("name", ["denoise", "denoise infill"])
def test_a_translator_begins_with_all_of_a_denoiser(ask: Ask, text: Text, whole, tmp_path: Path, name: str) -> None:
    donor_folder, _ = whole(name)
    own, donor = unmoved(ask, donor_folder, tmp_path / "run", "translate", *text.options)
    assert own.keys() == donor.keys() and all(torch.equal(own[name], donor[name]) for name in own)
    answer = ask("translate", tmp_path / "run", text.valid_source)
    assert answer.code == 0 and len(answer.out.splitlines()) == 8


def test_a_run_from_another_goes_on_and_is_trained_again_to_the_byte(
    ask: Ask, files: dict[str, Path], runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["train", "classify", "--table", files["table"], "--from", runs.masked, *TUNED]
    assert ask(*given, "--out", tmp_path / "whole").code == 0
    at_step(monkeypatch, 7, crash)
    with pytest.raises(Crash):
        ask(*given, "--out", tmp_path / "run")
    assert ask("train", "classify", "--out", tmp_path / "run", "--resume").code == 0
    assert ask("train", "classify", "--recipe", tmp_path / "whole" / "run.toml", "--out", tmp_path / "again").code == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole") == weights(tmp_path / "again")


def test_a_recipe_may_start_from_another_run(ask: Ask, files: dict[str, Path], runs: Runs, whole, tmp_path: Path) -> None:
    recipe = ["--recipe", whole("generate lines")[0] / "run.toml", "--set", "*.dropout=0.0", "--steps", 1]
    assert ask("train", "generate", *recipe, "--from", runs.language, "--out", tmp_path / "run").code == 0
    run = read_run(tmp_path / "run" / "run.toml")
    assert run.start == From(str(runs.language))
    assert load(tmp_path / "run").source.fingerprint == load(runs.language).source.fingerprint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "width=32"], ["has the shape", "in the model to start from", "is wanted"]),
        (["--set", "decoder.depth=2"], ["the model to start from has no decoder.blocks.1"]),
        (["--tokenizer", "bytes"], ["--from brings its own model and tokenizers: leave out"]),
        (["--vocabulary", "300"], ["--from brings its own model and tokenizers: leave out"]),
        (["--model", "gpt-tiny"], ["--from brings its own model and tokenizers: leave out"]),
        (["--longest", "41"], ["knows 40 places, and texts of 41 tokens need 41", "--longest 40"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_a_run_that_does_not_fit_is_refused_before_anything_is_written(
    ask: Ask, files: dict[str, Path], runs: Runs, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    given = ["train", "generate", "--text", files["text"], "--from", runs.language, "--out", tmp_path / "run"]
    refused(ask(*given, *TUNED, *options), *words)
    assert ask(*given, *TUNED, "--steps", 1).code == 0, "the folder is free for the next try"


def test_a_run_of_another_shape_is_refused(ask: Ask, text: Text, files: dict[str, Path], runs: Runs, tmp_path: Path) -> None:
    for verb, donor, words in (
        (
            ["generate", "--text", files["text"]],
            runs.masked,
            "bert-tiny is of the shape EncoderOnly, and Generate needs DecoderOnly",
        ),
        (["fill", "--text", files["text"]], runs.language, "DecoderOnly, and MaskedWords needs EncoderOnly"),
        (["denoise", "--text", files["text"]], runs.masked, "EncoderOnly, and Spans needs EncoderDecoder"),
        (["classify", "--table", files["table"]], runs.language, "a model of the shape DecoderOnly has none"),
        (["translate", *text.options], runs.language, "DecoderOnly, and Translate needs EncoderDecoder"),
        (["translate", *text.options], runs.classifier, "Classifier, and Translate needs EncoderDecoder"),
    ):
        refused(ask("train", *verb, "--from", donor, "--out", tmp_path / "run"), words)
        assert not (tmp_path / "run").exists()


def test_a_translator_that_never_met_a_mask_is_no_start_for_a_denoiser(
    ask: Ask, files: dict[str, Path], trained: Trained, tmp_path: Path
) -> None:
    given = ["train", "denoise", "--text", files["text"], "--from", trained.folder, "--out", tmp_path / "run"]
    refused(ask(*given), "sentinels", "the vocabulary has 0")
    refused(ask(*given, "--noise", "infill"), "Infill() writes masks, and the tokenizer has none")
    assert not (tmp_path / "run" / "run.toml").exists()


def test_a_run_that_is_not_there_or_not_finished_is_refused(ask: Ask, files: dict[str, Path], runs: Runs, tmp_path: Path) -> None:
    given = ["train", "generate", "--text", files["text"], "--out", tmp_path / "run"]
    refused(ask(*given, "--from", tmp_path / "nowhere"), "nowhere is no run folder: there is no model.json in it")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("model.json", "run.toml", "tokenizer.json"):
        (unfinished / name).write_bytes((runs.language / name).read_bytes())
    refused(ask(*given, "--from", unfinished), "model.safetensors is missing: has the training of this run finished?")
    assert not (tmp_path / "run" / "run.toml").exists()


# Text that is wrong

TEXTS = pytest.mark.parametrize("verb", ["generate", "fill", "denoise"])


@TEXTS
@pytest.mark.parametrize("place", ["--text", "--valid-text"])
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", ["own.txt is empty"]),
        (b"ka lo\nmi \xff nu\n" + b"ka\n" * 18, ["line 2 of", "own.txt", "not UTF-8", "0xff"]),
        (b"ka\n" * 3 + b"k\0a\n" + b"ka\n" * 16, ["line 4 of", "own.txt", "NUL"]),
        ("ka lo\n".encode("utf-16") * 20, ["own.txt", "UTF-8"]),
        (gzip.compress(b"ka lo\n" * 20), ["own.txt is compressed by gzip but not named so", ".gz"]),
    ],
    ids=["empty", "latin", "nul", "utf-16", "gzip"],
)
def test_text_that_is_none_is_refused_by_file_and_line(
    ask: Ask, files: dict[str, Path], tmp_path: Path, verb: str, place: str, raw: bytes, words: list[str]
) -> None:
    (tmp_path / "own.txt").write_bytes(raw)
    given = {"--text": files["text"], "--valid-text": files["valid-text"]} | {place: tmp_path / "own.txt"}
    options = [each for pair in given.items() for each in pair]
    refused(ask("train", verb, *options, "--out", tmp_path / "run", *QUICK), *words)
    assert not (tmp_path / "run" / "run.toml").exists()


@TEXTS
def test_blank_text_is_refused(ask: Ask, files: dict[str, Path], tmp_path: Path, verb: str) -> None:
    blank = write(tmp_path / "blank.txt", [""] * 20)
    answer = ask("train", verb, "--text", blank, "--documents", "lines", "--out", tmp_path / "run", *QUICK)
    refused(answer, "blank.txt is empty: expected text")


@TEXTS
def test_files_that_are_not_there_and_too_little_text_are_named(ask: Ask, tmp_path: Path, verb: str) -> None:
    out = ["--out", tmp_path / "run", *QUICK]
    refused(ask("train", verb, "--text", tmp_path / "nowhere", *out), f"there is no file {tmp_path / 'nowhere'}")
    refused(ask("train", verb, "--text", tmp_path, *out), f"{tmp_path} is a folder")
    refused(ask("train", verb, "--text", write(tmp_path / "one.txt", ["ka lo"]), *out), "none can be held out")
    refused(ask("train", verb, *out), "no training text: give --text")
    words = ["unknown kind of document 'line'", "did you mean 'lines'"]
    refused(ask("train", verb, "--text", tmp_path / "one.txt", "--documents", "line", *out), *words)


def test_a_tokenizer_that_loses_line_ends_is_refused_with_what_to_do(ask: Ask, files: dict[str, Path], tmp_path: Path) -> None:
    answer = ask("train", "generate", "--text", files["text"], "--out", tmp_path / "run", *QUICK, "--tokenizer", "bpe")
    refused(answer, "bpe cannot: use --tokenizer bytes or characters, or take every line for a document by --documents lines")


@pytest.mark.parametrize(("verb", "kind"), [("fill", "text"), ("denoise", "text"), ("classify", "table")])
def test_training_text_in_the_validation_text_is_a_warning_with_a_count(
    ask: Ask, files: dict[str, Path], tmp_path: Path, verb: str, kind: str
) -> None:
    lines = files[kind].read_text().splitlines()
    first = 1 if kind == "table" else 0
    valid = write(tmp_path / f"valid{files[kind].suffix}", [*lines[:first], *lines[first : first + 5], *lines[first : first + 2]])
    given = [f"--{kind}", files[kind], f"--valid-{kind}", valid]
    answer = ask("train", verb, *given, "--out", tmp_path / "run", *QUICK, "--steps", 1)
    assert answer.code == 0, answer.err
    shared = sum(line in lines[first : first + 5] for line in lines[first:])
    what = f"{shared} documents of the training text" if kind == "text" else f"{shared} texts of the training table"
    assert f"warning: also in the validation {kind}: {what}" in answer.err


def test_compressed_text_and_several_files_are_the_same_text(ask: Ask, files: dict[str, Path], whole, tmp_path: Path) -> None:
    lines = files["text"].read_text().splitlines()
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\r\n".join(lines[:30]).encode()))
    second = write(tmp_path / "b.txt", ["", *lines[30:], "", ""])
    given = ["--text", tmp_path / "a.txt.gz", "--text", second, "--valid-text", files["valid-text"]]
    assert ask("train", "fill", *given, "--out", tmp_path / "run", *QUICK).code == 0
    assert weights(tmp_path / "run") == weights(whole("fill")[0])


def test_wrong_noises_and_their_numbers_are_refused(ask: Ask, files: dict[str, Path], tmp_path: Path) -> None:
    given = [*call("denoise", files), "--out", tmp_path / "run", *QUICK]
    refused(ask(*given, "--noise", "spam"), "unknown noise 'spam'", "did you mean 'spans'")
    refused(ask(*given, "--set", "objective.share=1.5"), "Spans.share must lie between 0 and 1")
    refused(ask(*given, "--set", "objective=Infill()"), "Infill() writes masks", "say --noise infill")
    refused(ask(*given, "--set", "objective=MaskedWords()"), "EncoderDecoder, and MaskedWords needs EncoderOnly")
    run = ask(*given, "--noise", "infill", "--set", "objective=Infill(0.5,2.0,false)", "--steps", 1)
    assert run.code == 0 and read_run(tmp_path / "run" / "run.toml").objective == Infill(0.5, 2.0, False)


# Tables that are wrong


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["text\tlabel", "ka\tyes", "lo\tno", "mi\tperhaps\tnot"], ["line 4 of", "own.tsv has 3 columns, but the header has 2"]),
        (["text\tlabel", "ka\tyes", "lo", "mi\tno"], ["line 3 of", "own.tsv has 1 column(s), but field 'label' is column 2"]),
        (["text\tlabel", "ka\tyes", " \tno", "mi\tno"], ["row 2 of", "has an empty 'text'"]),
        (["text\tlabels", "ka\tyes"], ["'label'", "did you mean 'labels'"]),
        (["text\tlabel", "ka\tyes", "lo\tyes"], ["all texts of", "have the label 'yes': expected at least two"]),
        (["text\tlabel"], ["own.tsv is empty"]),
        ([], ["own.tsv is empty"]),
    ],
    ids=["too many", "too few", "no text", "no column", "one label", "no rows", "nothing"],
)
def test_a_table_that_is_none_is_refused_by_its_row(ask: Ask, tmp_path: Path, rows: list[str], words: list[str]) -> None:
    own = write(tmp_path / "own.tsv", rows)
    refused(ask("train", "classify", "--table", own, "--out", tmp_path / "run", *QUICK), *words)
    assert not (tmp_path / "run" / "run.toml").exists()


def test_a_label_to_validate_on_that_no_text_was_trained_with_is_refused(
    ask: Ask, files: dict[str, Path], tmp_path: Path
) -> None:
    valid = write(tmp_path / "valid.tsv", ["text\tlabel", "ka\twith", "lo\twithuot"])
    given = ["--table", files["table"], "--valid-table", valid]
    answer = ask("train", "classify", *given, "--out", tmp_path / "run", *QUICK)
    refused(answer, "label in row 2 of", "valid.tsv, which no training text has: 'withuot'", "did you mean 'without'")


def test_columns_are_named_or_numbered(ask: Ask, files: dict[str, Path], whole, tmp_path: Path) -> None:
    lines = [line.split("\t") for line in files["table"].read_text().splitlines()]
    turned = write(tmp_path / "turned.tsv", [f"{label}\t{text}" for text, label in lines[1:]])
    objects = write(tmp_path / "t.jsonl", [json.dumps({"said": text, "is": label}) for text, label in lines[1:]])
    for number, (given, fields) in enumerate(((turned, "2,1"), (objects, "said,is"))):
        valid = ["--valid-table", tmp_path / f"v{number}{given.suffix}"]
        rows = [line.split("\t") for line in files["valid-table"].read_text().splitlines()[1:]]
        as_object = given is objects
        made = [json.dumps({"said": text, "is": label}) if as_object else f"{label}\t{text}" for text, label in rows]
        write(valid[1], made)  # type: ignore[arg-type]
        out = tmp_path / f"run{number}"
        assert ask("train", "classify", "--table", given, *valid, "--fields", fields, "--out", out, *QUICK).code == 0
        assert weights(out) == weights(whole("classify")[0])
    refused(ask("train", "classify", "--table", turned, "--fields", "1", "--out", tmp_path / "x"), "--fields is TEXT,LABEL")
    refused(ask("train", "classify", "--out", tmp_path / "x"), "no training text: give --table")


def test_long_texts_lose_their_end_and_how_many_did_is_said(ask: Ask, files: dict[str, Path], tmp_path: Path) -> None:
    answer = ask(*call("classify", files), "--out", tmp_path / "run", *QUICK, "--longest", 10, "--steps", 1)
    assert answer.code == 0, answer.err
    lines = [line.split("\t")[0] for line in files["table"].read_text().splitlines()[1:]]
    assert f"; {sum(len(line) > 10 for line in lines)} were longer than the model takes, and lost their end" in answer.err


@pytest.mark.parametrize("name", ["generate", "fill", "denoise infill", "classify"])
def test_a_vocabulary_too_large_or_too_small_is_refused(ask: Ask, files: dict[str, Path], tmp_path: Path, name: str) -> None:
    given = [*call(name, files), "--out", tmp_path / "run", *QUICK]
    refused(ask(*given, "--vocabulary", 5000), "exactly 5000 entries is too large", "supports only")
    refused(ask(*given, "--vocabulary", 5), "at least")
