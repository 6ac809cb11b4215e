"""`qkv translate`, `evaluate` and `score`: lines in, lines out, and what becomes of lines that are none."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import CALL, TINY, WORDS, Answer, Ask, Text, Trained, asked, sentences, write

import qkv
from qkv.decode import translate as decoding
from qkv.decode.rule import Beam, Certain
from qkv.decode.translate import Translator

LENGTHS = Beam.__init__.__defaults__
LINES = ["ka lo mi", "", "pe ra", "   ", "su ti vo ze ka"]
INPUT = "".join(f"{line}\n" for line in LINES).encode()


def refused(answer: Answer, *words: str, code: int = 2) -> None:
    assert answer.code == code, answer
    last = answer.err.splitlines()[-1]
    assert last.startswith("qkv: ") and all(word in last for word in words), answer.err


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that has learned nothing writes to the greatest length: let that be small."""
    monkeypatch.setattr(Beam.__init__, "__defaults__", (4, 0.6, 3, *(LENGTHS or ())[3:]))


@pytest.fixture(scope="module")
def translator(trained: Trained) -> Translator:
    return qkv.load(trained.folder, device="cpu", precision="fp32")


def test_lines_in_are_lines_out(ask: Ask, trained: Trained, translator: Translator) -> None:
    answer = ask("translate", trained.folder, stdin=INPUT)
    assert (answer.code, answer.err) == (0, "")
    expected = [best[0].text for best in translator.translate(LINES)]
    assert answer.out.splitlines() == expected
    assert expected[0] and expected[1] == expected[3] == "", "an empty line stays an empty line"


def test_a_file_a_dash_and_nothing_are_the_same_lines(ask: Ask, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(INPUT)
    (tmp_path / "lines.gz").write_bytes(gzip.compress(INPUT))
    (tmp_path / "no-end").write_bytes(INPUT.rstrip(b"\n"))
    calls = [ask("translate", trained.folder, *file, stdin=INPUT) for file in ([], ["-"])]
    calls += [ask("translate", trained.folder, tmp_path / name) for name in ("lines", "lines.gz", "no-end")]
    assert len({call.out for call in calls}) == 1 and calls[0].out.count("\n") == len(LINES)


def test_no_lines_in_are_no_lines_out(ask: Ask, trained: Trained) -> None:
    assert ask("translate", trained.folder, stdin=b"") == Answer(0, "", "")


def test_batches_and_chunks_do_not_change_the_translations(
    ask: Ask, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = write(tmp_path / "lines", [*sentences(5, 9), "", *sentences(1, 10)])
    plain = ask("translate", trained.folder, lines)
    monkeypatch.setattr("qkv.cli.use.CHUNK", 4)
    assert ask("translate", trained.folder, lines, "--batch-tokens", 1).out == plain.out


def test_a_line_that_is_no_text_is_named(ask: Ask, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"ka\nlo \xe4\n")
    refused(ask("translate", trained.folder, tmp_path / "latin"), "line 2 of", "latin", "not UTF-8")
    refused(ask("translate", trained.folder, stdin=b"ka\nlo \xe4\n"), "line 2 of standard input", "not UTF-8")
    refused(ask("translate", trained.folder, stdin=b"ka\n\0\n"), "line 2 of standard input", "NUL")
    refused(ask("translate", trained.folder, tmp_path / "none"), "there is no file")


def test_a_line_ends_at_a_line_feed_and_nowhere_else(ask: Ask, trained: Trained) -> None:
    """Else the lines after it would stand beside the wrong ones."""
    raw = "ka lo\r\nmi\u2028nu\npe\x0cra\nsu\rti\n\ufeff\n".encode()
    assert ask("translate", trained.folder, stdin=raw).out.count("\n") == 5


def test_a_line_too_long_is_counted_and_left_empty(ask: Ask, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LONGEST", 8)
    answer = ask("translate", trained.folder, stdin=b"ka lo\n\nka lo mi nu pe\nsu ti\n")
    assert answer.code == 0
    out = answer.out.splitlines()
    assert len(out) == 4 and out[0] and out[3] and out[2] == ""
    (said,) = answer.err.splitlines()
    assert said.startswith("qkv: 1 line") and "longer than 8 tokens" in said and "line 3" in said


def test_spaces_around_a_line_do_not_make_it_too_long(ask: Ask, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LONGEST", 8)
    answer = ask("translate", trained.folder, stdin=b"     ka lo     \n")
    assert answer == ask("translate", trained.folder, stdin=b"ka lo\n")
    assert answer.err == "" and answer.out.strip()


@pytest.mark.parametrize(
    "megabyte", [b"ka lo " * 180_000, b"k" * 1_050_000, "ü".encode() * 525_000], ids=["words", "word", "strange"]
)
def test_a_line_of_a_megabyte_is_left_empty(ask: Ask, trained: Trained, megabyte: bytes) -> None:
    answer = ask("translate", trained.folder, stdin=b"ka\n" + megabyte + b"\nlo\n")
    assert answer.code == 0
    assert [bool(line) for line in answer.out.splitlines()] == [True, False, True]
    assert "line 2" in answer.err


def test_n_best_are_numbered_scored_and_in_order(ask: Ask, trained: Trained) -> None:
    answer = ask("translate", trained.folder, "--n-best", 3, stdin=INPUT)
    rows = [line.split("\t") for line in answer.out.splitlines()]
    assert [row[0] for row in rows] == [*"111", "2", *"333", "4", *"555"]
    for number in "135":
        scores = [float(score) for place, score, _ in rows if place == number]
        assert scores == sorted(scores, reverse=True)
        assert len({text for place, _, text in rows if place == number}) == 3
    best = ask("translate", trained.folder, stdin=INPUT).out.splitlines()
    assert [next(row[2] for row in rows if row[0] == str(i)) for i in range(1, 6)] == best


@pytest.mark.parametrize("options", [["--n-best", 5], ["--n-best", 0], ["--beam", 1, "--n-best", 2]], ids=str)
def test_more_translations_than_hypotheses_are_refused(ask: Ask, trained: Trained, options: list[object]) -> None:
    refused(ask("translate", trained.folder, *options, stdin=INPUT), "--n-best")


@pytest.mark.parametrize(
    ("options", "rule"),
    [(["--prune", 0.01], {"prune": 0.01}), (["--thorough", "--prune", 0.01], {"prune": 0.01, "stop": Certain()})],
    ids=["pruned", "thorough and pruned"],
)
def test_a_search_takes_its_options(
    ask: Ask, trained: Trained, translator: Translator, tmp_path: Path, options: list[object], rule: dict[str, Any]
) -> None:
    """`translate` and `evaluate` search by one rule; where little is kept, hypotheses differ from those of the whole beam."""
    lines = sentences(8, 10)
    expected = translator.translate(lines, Beam(**rule), count=4)
    answer = ask("translate", trained.folder, write(tmp_path / "lines", lines), *options, "--n-best", 4)
    assert [row.split("\t")[2] for row in answer.out.splitlines()] == [each.text for best in expected for each in best]
    assert expected != translator.translate(lines, Beam(), count=4)
    write(tmp_path / "target", lines)
    pair = ("--source", tmp_path / "lines", "--target", tmp_path / "target", "--output", tmp_path / "found")
    assert ask("evaluate", trained.folder, *pair, *options).code == 0
    assert (tmp_path / "found").read_text().splitlines() == [best[0].text for best in expected]
    refused(ask("translate", trained.folder, "--prune", -1, stdin=INPUT), "by a positive number of nats, not by -1")


def test_a_beam_of_nothing_is_refused(ask: Ask, trained: Trained) -> None:
    refused(ask("translate", trained.folder, "--beam", 0, stdin=INPUT), "a beam holds at least 1 hypothesis, not 0")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "fp16"], "did you mean 'bf16'"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--threads", "-2"], "--threads"),
    ],
)
def test_a_wrong_option_is_refused(ask: Ask, trained: Trained, options: list[str], words: str) -> None:
    refused(ask("translate", trained.folder, *options, stdin=INPUT), words)


def test_json_is_a_line_for_each_translation(ask: Ask, trained: Trained) -> None:
    plain = ask("translate", trained.folder, "--scores", stdin=INPUT).out.splitlines()
    rows = [json.loads(line) for line in ask("translate", trained.folder, "--json", stdin=INPUT).out.splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 5]
    assert [f"{row['score']:.6f}\t{row['text']}" for row in rows] == plain
    assert {type(row["finished"]) for row in rows} == {bool}


def test_output_takes_what_would_go_to_standard_output(ask: Ask, trained: Trained, tmp_path: Path) -> None:
    plain = ask("translate", trained.folder, stdin=INPUT)
    answer = ask("translate", trained.folder, "--output", tmp_path / "out", stdin=INPUT)
    assert answer == Answer(0, "", "")
    assert (tmp_path / "out").read_text() == plain.out
    refused(ask("translate", trained.folder, "--output", tmp_path, stdin=INPUT), f"{tmp_path} cannot be written")


def test_output_on_a_full_disk_ends_with_1(ask: Ask, trained: Trained) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    refused(ask("translate", trained.folder, "--output", "/dev/full", stdin=INPUT), "No space left on device", code=1)


def test_bf16_translates_too(ask: Ask, trained: Trained) -> None:
    answer = ask("translate", trained.folder, "--precision", "bf16", stdin=INPUT)
    assert answer.code == 0 and answer.out.count("\n") == len(LINES)


def test_a_reader_who_leaves_early_ends_it_quietly(
    trained: Trained, tmp_path: Path, python: tuple[list[str], dict[str, str]]
) -> None:
    start, environment = python
    lines = write(tmp_path / "lines", ["ka"] * 3 + [""] * 200_000)
    call = [*start, CALL, "translate", str(trained.folder), str(lines), "--device", "cpu", "--threads", "1"]
    with subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().endswith(b"\n")
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


# A folder that is none


def test_a_folder_that_is_none_is_named(ask: Ask, tmp_path: Path) -> None:
    refused(ask("translate", tmp_path / "none", stdin=INPUT), f"there is no run folder {tmp_path / 'none'}")
    refused(ask("translate", tmp_path, stdin=INPUT), f"{tmp_path} is no run folder", "model.json")


@pytest.fixture
def broken(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the run to break."""
    return shutil.copytree(trained.folder, tmp_path / "broken")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.json", b"{", "model.json cannot be read"),
        ("model.json", b'{"Transformer": {}}', "unknown value 'Transformer'"),
        ("model.json", b'{"ReLU": {}}', "describes no model"),
        ("model.json", b"\xff", "model.json cannot be read"),
        ("tokenizer.json", b"{}", "is not a tokenizer"),
        ("tokenizer.json", None, "there is no tokenizer"),
        ("model.safetensors", b"\x00" * 20, "model.safetensors cannot be read"),
        ("model.safetensors", None, "model.safetensors is missing"),
    ],
)
def test_a_broken_folder_is_refused_by_the_name_of_the_file(
    ask: Ask, broken: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is None:
        (broken / name).unlink()
    else:
        (broken / name).write_bytes(content)
    refused(ask("translate", broken, stdin=INPUT), words)


def test_the_tokenizer_of_another_model_is_refused(ask: Ask, broken: Path, text: Text, tmp_path: Path) -> None:
    other = tmp_path / "other"
    options = (
        "--model transformer-tiny --tokenizer bytes --steps 1 --set encoder.depth=1 --set decoder.depth=1 --set width=16".split()
    )
    assert ask("train", "translate", *text.options, "--out", other, *options).code == 0
    shutil.copy(other / "tokenizer.json", broken / "tokenizer.json")
    refused(ask("translate", broken, stdin=INPUT), "entries, the model was trained with", "belongs to another model")
    shutil.copy(other / "model.safetensors", broken / "model.safetensors")
    shutil.copy(broken.parent / "other" / "tokenizer.json", broken / "tokenizer.json")
    model = json.loads((broken / "model.json").read_text())
    model["EncoderDecoder"]["vocabulary"]["Joint"]["size"] = json.loads((other / "model.json").read_text())["EncoderDecoder"][
        "vocabulary"
    ]["Joint"]["size"]
    model["EncoderDecoder"]["encoder"]["Stack"]["depth"] = 2
    (broken / "model.json").write_text(json.dumps(model))
    refused(ask("translate", broken, stdin=INPUT), "does not fit its model.json", "encoder")


def test_a_foreign_tokenizer_is_refused(ask: Ask, broken: Path) -> None:
    import tokenizers

    foreign = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    foreign.save(str(broken / "tokenizer.json"))
    refused(ask("translate", broken, stdin=INPUT), "a foreign tokenizer")


# Scores


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned where a sentence ends, since its sentences have one word of two letters."""
    folder = tmp_path_factory.mktemp("taught")
    sides = [write(folder / name, [case(word) for word in WORDS * 4]) for name, case in (("a", str.lower), ("b", str.upper))]
    learning = ["--set", "schedule=Cosine(peak=0.02, warmup=5)", "--set", "checkpoints=Checkpoints(60, 1, Exactly(1))"]
    given = ["--source", sides[0], "--target", sides[1]]
    assert asked("train", "translate", *given, "--out", folder / "run", *TINY, "--steps", 60, *learning).code == 0
    return folder / "run"


def test_score_is_what_translate_says(ask: Ask, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Beam.__init__, "__defaults__", LENGTHS)
    sources = write(tmp_path / "sources", [*WORDS, "ka lo"])
    rows = [json.loads(line) for line in ask("translate", taught, sources, "--json").out.splitlines()]
    written = write(tmp_path / "written", [row["text"] for row in rows])
    scores = json.loads(ask("score", taught, "--source", sources, "--target", written, "--json").out)
    # a hypothesis that was cut off has no end symbol, whose probability `score` counts
    compared = [(found, row["score"]) for row, found in zip(rows, scores, strict=True) if row["finished"]]
    assert compared, "nothing was finished: the test compares nothing"
    assert [found for found, _ in compared] == pytest.approx([said for _, said in compared], abs=1e-4)


def test_score_is_one_number_a_line(ask: Ask, trained: Trained, text: Text, translator: Translator) -> None:
    given = ["--source", text.valid_source, "--target", text.valid_target]
    answer = ask("score", trained.folder, *given, "--length-penalty", 0)
    pairs = [path.read_text().splitlines() for path in (text.valid_source, text.valid_target)]
    expected = translator.score(*pairs, length_penalty=0.0)
    assert [float(line) for line in answer.out.splitlines()] == pytest.approx(expected, abs=1e-5)
    assert json.loads(ask("score", trained.folder, *given, "--length-penalty", 0, "--json").out) == pytest.approx(
        expected, abs=1e-5
    )


def test_evaluate_prints_scores_with_their_signatures(ask: Ask, trained: Trained, text: Text, tmp_path: Path) -> None:
    given = ["--source", text.valid_source, "--target", text.valid_target]
    answer = ask("evaluate", trained.folder, *given, "--output", tmp_path / "out")
    assert answer.code == 0
    bleu, chrf = answer.out.splitlines()
    assert bleu.startswith("BLEU ") and "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" in bleu
    assert chrf.startswith("chrF ") and "nrefs:1" in chrf
    assert (tmp_path / "out").read_text() == ask("translate", trained.folder, text.valid_source).out
    found = json.loads(ask("evaluate", trained.folder, *given, "--json", "--tokenise", "none").out)
    assert [score["name"] for score in found] == ["BLEU", "chrF"]
    assert "tok:none" in found[0]["signature"] and f"chrF {found[1]['value']:.2f} " in chrf


def test_evaluate_of_perfect_translations_is_100(ask: Ask, trained: Trained, text: Text, tmp_path: Path) -> None:
    ask("translate", trained.folder, text.valid_source, "--output", tmp_path / "own")
    answer = ask("evaluate", trained.folder, "--source", text.valid_source, "--target", tmp_path / "own")
    assert answer.out.splitlines()[1].startswith("chrF 100.00")


@pytest.mark.parametrize("verb", ["evaluate", "score"])
def test_sides_of_different_length_are_refused(ask: Ask, trained: Trained, text: Text, tmp_path: Path, verb: str) -> None:
    shorter = write(tmp_path / "shorter", ["ka"] * 5)
    refused(ask(verb, trained.folder, "--source", text.valid_source, "--target", shorter), "has 8 lines", "has 5")


def test_an_unknown_tokenisation_is_refused_before_anything_is_translated(ask: Ask, tmp_path: Path) -> None:
    given = ["--source", tmp_path / "none", "--target", tmp_path / "none"]
    refused(ask("evaluate", tmp_path, *given, "--tokenise", "13b"), "did you mean '13a'")
