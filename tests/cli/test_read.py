"""`qkv fill`, `qkv embed` and `qkv classify`, as a person types them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import CALL, Answer, Ask, Runs, Trained, refused, write

import qkv
from qkv.decode.read import Reader
from qkv.decode.translate import Translator
from qkv.spec.pooling import FirstToken
from qkv.store import Stored

LINES = ["ka lo mi", "", "pe ra", "   ", "su ti vo ze ka"]
INPUT = "".join(f"{line}\n" for line in LINES).encode()
CPU = {"device": "cpu", "precision": "fp32"}
BFLOAT, EIGHT = ["--precision", "bf16"], ["--precision", "int8"]


@pytest.fixture(scope="module")
def masked(runs: Runs) -> Reader:
    return qkv.load(runs.masked, **CPU)


@pytest.fixture(scope="module")
def classifier(runs: Runs) -> Reader:
    return qkv.load(runs.classifier, **CPU)


def lines(answer: Answer) -> list[str]:
    """What was printed, where nothing went wrong and nothing had to be said."""
    assert (answer.code, answer.err) == (0, ""), answer
    return answer.out.splitlines()


# Fill


def test_words_are_printed_with_their_probability_and_the_whole_text(ask: Ask, runs: Runs, masked: Reader) -> None:
    (expected,) = masked.fill("ka <mask> mi", 4)
    rows = [line.split(maxsplit=2) for line in lines(ask("fill", runs.masked, "ka <mask> mi", "--count", 4))]
    assert [(row[0], row[1], row[2]) for row in rows] == [(f"{e.probability:.4f}", e.word, e.text) for e in expected]
    assert len(lines(ask("fill", runs.masked, "ka <mask> mi"))) == 5


def test_several_masks_are_numbered(ask: Ask, runs: Runs) -> None:
    rows = lines(ask("fill", runs.masked, "<mask> lo <mask>", "--count", 2))
    assert [row.split()[0] for row in rows] == [*"1122"]
    assert rows[0].endswith("lo <mask>") and " <mask> lo" in rows[2]


def test_fill_in_json(ask: Ask, runs: Runs, masked: Reader) -> None:
    found = json.loads(ask("fill", runs.masked, "<mask> lo <mask>", "--count", 3, "--json").out)
    assert found == [[vars(each) for each in place] for place in masked.fill("<mask> lo <mask>", 3)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["ka lo"], ["nothing to fill in: write <mask> where a word is missing"]),
        (["ka <mask>", "--count", "0"], ["at least 1 word", "not 0"]),
        (["ka <mask>", "--count", "-1"], ["at least 1 word", "not -1"]),
        (["ka lo " * 30 + "<mask>"], ["longer than the 40 that the model has places for: cut what begins with 'ka lo"]),
        (["ka <mask>", "--precision", "fp8"], ["unknown precision 'fp8'"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_filled_is_refused(ask: Ask, runs: Runs, options: list[str], words: list[str]) -> None:
    refused(ask("fill", runs.masked, *options), *words)


def test_fill_of_a_run_of_another_shape_names_the_verb_that_fits(ask: Ask, runs: Runs, trained: Trained) -> None:
    refused(ask("fill", runs.language, "ka <mask>"), "a language model, which has no encoder: use `qkv generate`")
    refused(ask("fill", runs.classifier, "ka <mask>"), "a classifier, which does not say what may stand", "`qkv classify`")
    refused(ask("fill", trained.folder, "ka <mask>"), "a translator, which does not say what may stand", "`qkv translate`")


@pytest.mark.parametrize("options", [BFLOAT, EIGHT], ids=["bf16", "int8"])
def test_other_precisions_fill_and_embed_and_classify_nearly_the_same(ask: Ask, runs: Runs, options: list[str]) -> None:
    def numbers(*call: object) -> list[float]:
        return [float(line.split()[0]) for line in lines(ask(*call))]

    given = ["fill", runs.masked, "ka <mask> mi", "--count", 36]
    assert sorted(numbers(*given, *options)) == pytest.approx(sorted(numbers(*given)), abs=0.02)
    exact, rounded = (
        [json.loads(line)["vector"] for line in lines(ask("embed", runs.masked, *more, stdin=INPUT))] for more in ([], options)
    )
    assert np.array(exact) == pytest.approx(np.array(rounded), abs=0.2) and exact != rounded
    labels = [lines(ask("classify", runs.classifier, *more, stdin=INPUT)) for more in ([], options)]
    chances = [[float(line.split("\t")[1]) for line in each] for each in labels]
    assert chances[0] == pytest.approx(chances[1], abs=0.05)


# Embed


def test_a_vector_for_each_line_in_json_or_in_an_array(ask: Ask, runs: Runs, masked: Reader, tmp_path: Path) -> None:
    expected = masked.embed(LINES).numpy()
    (tmp_path / "lines").write_bytes(INPUT)
    for given in ([], ["-"], [tmp_path / "lines"]):
        rows = [json.loads(line) for line in lines(ask("embed", runs.masked, *given, stdin=INPUT))]
        assert [row["text"] for row in rows] == LINES
        assert np.array([row["vector"] for row in rows]) == pytest.approx(expected, abs=1e-6)
    for name in ("v.npy", "v.jsonl"):
        assert ask("embed", runs.masked, tmp_path / "lines", "--output", tmp_path / name) == Answer(0, "", "")
    assert np.load(tmp_path / "v.npy") == pytest.approx(expected, abs=1e-6)
    assert [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()] == rows


def test_chunks_and_pooling(ask: Ask, runs: Runs, masked: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qkv.cli.use.CHUNK", 2)
    given = ["embed", runs.masked, "--pooling", "first", "--output", tmp_path / "v.npy"]
    assert ask(*given, stdin=INPUT) == Answer(0, "", "")
    assert np.load(tmp_path / "v.npy") == pytest.approx(masked.embed(LINES, FirstToken()).numpy(), abs=1e-6)
    refused(ask("embed", runs.masked, "--pooling", "max", stdin=INPUT), "unknown pooling 'max'", "did you mean 'mean'?")


def test_the_encoders_of_a_translator_and_of_a_classifier_embed_too(ask: Ask, runs: Runs, trained: Trained) -> None:
    translator = qkv.load(trained.folder, **CPU)
    assert isinstance(translator, Translator)
    readers = {
        trained.folder: Reader(Stored(translator.model, translator.source, translator.target)),
        runs.classifier: qkv.load(runs.classifier, **CPU),
    }
    for folder, reader in readers.items():
        rows = [json.loads(line)["vector"] for line in lines(ask("embed", folder, stdin=INPUT))]
        assert np.array(rows) == pytest.approx(reader.embed(LINES).numpy(), abs=1e-6)
    refused(ask("embed", runs.language, stdin=INPUT), "a language model, which has no encoder: use `qkv generate`")


def test_no_text_and_a_text_too_long_and_a_file_that_cannot_be(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    assert ask("embed", runs.masked, stdin=b"") == Answer(0, "", "")
    refused(ask("embed", runs.masked, "--output", tmp_path / "v.npy", stdin=b""), "holds no text")
    refused(ask("embed", runs.masked, "--output", tmp_path / "no" / "v.npy", stdin=INPUT), "v.npy cannot be written")
    refused(ask("embed", runs.masked, "--output", tmp_path, stdin=INPUT), f"{tmp_path} cannot be written")
    refused(ask("embed", runs.masked, stdin=b"ka\n" + b"pe ra " * 40 + b"\n"), "cut what begins with 'pe ra")


def test_a_reader_who_leaves_early_ends_it_quietly(runs: Runs, tmp_path: Path, python: tuple[list[str], dict[str, str]]) -> None:
    start, environment = python
    file = write(tmp_path / "lines", ["ka lo"] * 800)
    call = [*start, CALL, "embed", str(runs.masked), str(file), "--threads", "1"]
    with subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().endswith(b"\n")
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


# Classify


def test_a_label_and_its_probability_for_each_line(ask: Ask, runs: Runs, classifier: Reader) -> None:
    expected = classifier.classify(LINES)
    assert lines(ask("classify", runs.classifier, stdin=INPUT)) == [
        f"{told[0].label}\t{told[0].probability:.4f}" for told in expected
    ]
    both = [line.split("\t") for line in lines(ask("classify", runs.classifier, "--count", 2, stdin=INPUT))]
    assert all({row[0], row[2]} == {"with", "without"} for row in both)
    assert all(float(row[1]) + float(row[3]) == pytest.approx(1, abs=2e-4) for row in both)
    rows = [json.loads(line) for line in lines(ask("classify", runs.classifier, "--count", 9, "--json", stdin=INPUT))]
    assert rows == [[vars(each) for each in told] for told in expected]


def test_output_and_no_lines(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    plain = ask("classify", runs.classifier, stdin=INPUT)
    assert ask("classify", runs.classifier, "--output", tmp_path / "out", stdin=INPUT) == Answer(0, "", "")
    assert (tmp_path / "out").read_text() == plain.out
    assert ask("classify", runs.classifier, stdin=b"") == Answer(0, "", "")
    refused(ask("classify", runs.classifier, "--count", 0, stdin=INPUT), "--count 0: a text is told at least 1 label")


def test_a_long_text_is_classified_by_its_beginning_and_that_is_said(
    ask: Ask, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qkv.cli.use.CHUNK", 2)
    long = b"lo mi " * 60
    answer = ask("classify", runs.classifier, stdin=b"ka\npe\nsu\n" + long + b"\nra\n")
    assert answer.code == 0 and answer.out.count("\n") == 5
    (said,) = answer.err.splitlines()
    assert said.startswith("qkv: 1 texts") and "longer than 40 tokens" in said and "line 4" in said
    cut = ask("classify", runs.classifier, stdin=long[:119] + b"\n")
    assert cut.err == "" and cut.out == answer.out.splitlines(keepends=True)[3]


def test_classify_of_a_run_without_labels_names_what_fits(ask: Ask, runs: Runs, trained: Trained) -> None:
    refused(ask("classify", runs.masked, stdin=INPUT), "knows no labels before `qkv train classify --from` it", "`qkv fill`")
    refused(ask("classify", trained.folder, stdin=INPUT), "a translator, which knows no labels", "`qkv translate`")
    refused(ask("classify", runs.language, stdin=INPUT), "a language model, which has no encoder", "`qkv generate`")


@pytest.mark.parametrize("verb", ["fill", "embed", "classify"])
def test_an_option_that_nobody_knows_ends_with_2_and_a_hint(ask: Ask, runs: Runs, verb: str) -> None:
    answer = ask(verb, runs.masked, *(["<mask>"] if verb == "fill" else []), "--coun", 2)
    assert answer.code == 2 and "No such option" in answer.err and "Traceback" not in answer.err
