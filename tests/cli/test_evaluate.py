"""`qkv evaluate` and `qkv score` of every shape: the numbers, how they agree, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Ask, Runs, Text, Trained, refused, write

import qkv
from qkv.decode.read import Reader
from qkv.decode.rule import Beam

LINES = ("--documents", "lines")


def measured(ask: Ask, run: Path, *options: object) -> dict[str, dict[str, Any]]:
    """What is said in JSON, by name."""
    answer = ask("evaluate", run, *options, "--json")
    assert (answer.code, answer.err) == (0, ""), answer
    return {each["name"]: each for each in json.loads(answer.out)}


def scores(ask: Ask, run: Path, *options: object) -> list[float]:
    answer = ask("score", run, *options, "--json")
    assert (answer.code, answer.err) == (0, ""), answer
    return json.loads(answer.out)


# Language models


def test_evaluate_and_score_agree(ask: Ask, runs: Runs) -> None:
    """The sum of what the lines score, their ends among it, is what the perplexities and the bits are made of."""
    found, lines = measured(ask, runs.language, "--text", runs.valid, *LINES), runs.valid.read_text().splitlines()
    nats = -sum(scores(ask, runs.language, "--text", runs.valid))
    assert found["bits per byte"]["value"] == pytest.approx(nats / math.log(2) / sum(len(line) + 1 for line in lines), rel=1e-5)
    assert found["perplexity per token"]["value"] == pytest.approx(
        math.exp(nats / sum(len(line) + 1 for line in lines)), rel=1e-5
    )
    words = sum(len(line.split()) + 1 for line in lines)
    assert found["perplexity per word"]["value"] == pytest.approx(math.exp(nats / words), rel=1e-4)
    assert f"words:{words}|context:40|stride:20" in found["bits per byte"]["signature"]


def test_evaluate_is_what_training_said_of_its_validation_text(ask: Ask, runs: Runs) -> None:
    """But for lines that were cut where a row of the training ended."""
    journal = [json.loads(line) for line in (runs.language / "journal.jsonl").read_text().splitlines()]
    said = [line for line in journal if "bits_per_byte" in line][-1]
    found = measured(ask, runs.language, "--text", runs.valid, *LINES)
    assert found["bits per byte"]["value"] == pytest.approx(said["bits_per_byte"], rel=0.02)
    assert found["perplexity per token"]["value"] == pytest.approx(said["perplexity"], rel=0.04)


def test_what_is_printed_is_what_json_says(ask: Ask, runs: Runs) -> None:
    answer = ask("evaluate", runs.language, "--text", runs.valid)
    found = measured(ask, runs.language, "--text", runs.valid)
    assert answer.out.splitlines() == [
        f"{name} {each['value']:.{each.get('digits', 2)}f}   {each['signature']}" for name, each in found.items()
    ]
    assert answer.out.splitlines()[2].startswith("bits per byte ") and "." in answer.out


def test_context_and_stride(ask: Ask, runs: Runs) -> None:
    given = ["--text", runs.valid, "--context", 10]
    near, far = (measured(ask, runs.language, *given, "--stride", stride)["bits per byte"] for stride in (1, 10))
    assert "context:10|stride:1" in near["signature"] and near["value"] != pytest.approx(far["value"], rel=1e-4)
    assert measured(ask, runs.language, *given, "--batch-tokens", 10)["bits per byte"]["value"] == pytest.approx(
        measured(ask, runs.language, *given)["bits per byte"]["value"], rel=1e-6
    )
    refused(ask("evaluate", runs.language, "--text", runs.valid, "--context", 41), "more than the 40 places that the model knows")
    refused(ask("evaluate", runs.language, *given, "--stride", 11), "a stride of 11 does not fit into a context of 10")
    refused(ask("evaluate", runs.language, *given, "--documents", "pages"), "unknown kind of document 'pages'")


def test_int8_is_told_beside_fp32_with_the_change(
    ask: Ask, runs: Runs, trained: Trained, text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Beam.__init__, "__defaults__", (1, 0.6, 3, *(Beam.__init__.__defaults__ or ())[3:]))
    given: dict[Path, list[object]] = {
        runs.language: ["--text", runs.valid, *LINES],
        runs.masked: ["--text", runs.valid, *LINES],
        runs.classifier: ["--table", runs.table],
        trained.folder: ["--source", text.valid_source, "--target", text.valid_target, "--beam", 1],
    }
    for run, options in given.items():
        exact = measured(ask, run, *options, "--precision", "fp32")
        rounded = measured(ask, run, *options, "--precision", "int8")
        printed = ask("evaluate", run, *options, "--precision", "int8").out.splitlines()
        for (name, each), line in zip(rounded.items(), printed, strict=True):
            before = exact[name]["value"]
            assert each["fp32"] == pytest.approx(before)
            digits = each.get("digits", 2)
            assert line.startswith(f"{name} {each['value']:.{digits}f} ")
            if not before:  # as the BLEU of what has not learned
                assert each["change_in_percent"] is None and line.endswith(f"(fp32: {before:.{digits}f})")
                continue
            assert each["change_in_percent"] == pytest.approx(100 * (each["value"] / before - 1), abs=1e-6)
            assert line.endswith(f"(fp32: {before:.{digits}f}, which int8 changes by {each['change_in_percent']:+.2f}%)")
            if "perplexity" in name or "bits" in name:
                assert each["value"] != before and each["change_in_percent"] < 1, "at most 1% worse"


# Masked models


def test_a_masked_model_is_told_at_masked_words_and_scores_by_each_word_masked(ask: Ask, runs: Runs) -> None:
    found = measured(ask, runs.masked, "--text", runs.valid, *LINES)
    assert list(found) == ["perplexity at masked words", "accuracy at masked words"]
    assert found["perplexity at masked words"]["value"] > 1 and "context:40" in found["perplexity at masked words"]["signature"]
    assert measured(ask, runs.masked, "--text", runs.valid, *LINES) == found, "always the same words"
    lines = [*runs.valid.read_text().splitlines()[:4], ""]
    reader = qkv.load(runs.masked, device="cpu", precision="fp32")
    assert isinstance(reader, Reader)
    answer = ask("score", runs.masked, "--text", "-", stdin="".join(f"{line}\n" for line in lines).encode())
    assert [float(line) for line in answer.out.splitlines()] == pytest.approx(reader.score(lines), abs=1e-4)
    assert answer.out.splitlines()[-1] == "0.000000", "nothing is surely nothing"


# Classifiers


def test_a_classifier_is_told_by_its_table(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    rows = [line.split("\t") for line in runs.table.read_text().splitlines()[1:]]
    told = ask("classify", runs.classifier, stdin="".join(f"{text}\n" for text, _ in rows).encode()).out.splitlines()
    pairs = [(label, line.split("\t")[0]) for (_, label), line in zip(rows, told, strict=True)]
    found = measured(ask, runs.classifier, "--table", runs.table, "--picture", tmp_path / "p.png")
    assert found["accuracy"]["value"] == pytest.approx(100 * sum(a == b for a, b in pairs) / len(pairs))

    def f1(label: str) -> float:
        right = sum(a == b == label for a, b in pairs)
        return 2 * right / sum((a == label) + (b == label) for a, b in pairs)

    assert found["macro F1"]["value"] == pytest.approx((f1("with") + f1("without")) / 2)
    assert found["accuracy"]["signature"] == "percent|texts:80|cut:0|labels:2"
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_columns_are_named_and_long_texts_are_counted(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    rows = [{"what": "ka lo", "kind": "with", "id": 1}, {"what": "lo mi " * 60, "kind": "without", "id": 2}]
    table = write(tmp_path / "t.jsonl", [json.dumps(row) for row in rows])
    found = measured(ask, runs.classifier, "--table", table, "--fields", "what,kind")
    assert "texts:2|cut:1|" in found["macro F1"]["signature"]


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (["text\tlabel", "ka\twith", "lo\twithuot"], [], ["label in row 2 of", "run does not know: 'withuot'", "'without'"]),
        (["text\tlable", "ka\twith"], [], ["'label'", "did you mean 'lable'"]),
        (["text\tlabel", "ka\twith"], ["--fields", "text"], ["--fields is TEXT,LABEL"]),
        (["text\tlabel", "ka\twith", "lo\t"], [], ["row 2 of", "empty 'label'"]),
        (["text\tlabel", "\twith"], [], ["row 1 of", "empty 'text'"]),
        (["text\tlabel"], [], ["t.tsv"]),
        ([], [], ["t.tsv", "empty"]),
    ],
    ids=["unseen label", "missing column", "one column", "no label", "no text", "no rows", "no lines"],
)
def test_a_table_that_does_not_fit_is_refused(
    ask: Ask, runs: Runs, tmp_path: Path, rows: list[str], options: list[str], words: list[str]
) -> None:
    refused(ask("evaluate", runs.classifier, "--table", write(tmp_path / "t.tsv", rows), *options), *words)


# Shapes and options that do not go together


def test_each_shape_says_what_it_is_to_be_given(ask: Ask, runs: Runs, trained: Trained, text: Text) -> None:
    given: dict[str, list[object]] = {
        "--source and --target": ["--source", text.valid_source, "--target", text.valid_target],
        "--text": ["--text", runs.valid],
        "--table": ["--table", runs.table],
    }
    folders = {
        "a translator": (trained.folder, "--source and --target"),
        "a language model": (runs.language, "--text"),
        "a masked model": (runs.masked, "--text"),
        "a classifier": (runs.classifier, "--table"),
    }
    for shape, (folder, fitting) in folders.items():
        for name, options in given.items():
            if name != fitting:
                refused(ask("evaluate", folder, *options), f"is {shape}: give {fitting}")
    for wrong in ([], ["--source", text.valid_source], ["--text", runs.valid, "--table", runs.table]):
        refused(ask("evaluate", runs.language, *wrong), "give --source and --target or --world for a translator, --text for")


def test_score_says_what_it_is_to_be_given(ask: Ask, runs: Runs, trained: Trained, text: Text) -> None:
    pair = ["--source", text.valid_source, "--target", text.valid_target]
    refused(ask("score", runs.language, *pair), "is no translator: give --text")
    refused(ask("score", trained.folder, "--text", runs.valid), "is a translator: give --source and --target")
    refused(ask("score", runs.classifier, "--text", runs.valid), "a classifier", "use `qkv classify`")
    for wrong in ([], pair[:2], [*pair, "--text", runs.valid]):
        refused(ask("score", runs.language, *wrong), "give --source and --target for a translator, or --text")


def test_score_reads_standard_input_and_gives_a_number_a_line(ask: Ask, runs: Runs) -> None:
    raw = runs.valid.read_bytes()
    answer = ask("score", runs.language, "--text", "-", stdin=raw + b"\n")
    found = [float(line) for line in answer.out.splitlines()]
    assert answer.code == 0 and len(found) == raw.count(b"\n") + 1 and max(found) < 0
    assert found[:-1] == pytest.approx(scores(ask, runs.language, "--text", runs.valid), abs=1e-5)
    assert ask("score", runs.language, "--text", "-", stdin=b"").out == ""
    rounded = scores(ask, runs.language, "--text", runs.valid, "--precision", "int8")
    assert rounded != found[:-1] and rounded == pytest.approx(found[:-1], abs=0.5)


# Grammar, and last words

SIDES = (["mi nu", "ra su"], ["pe nu", "su ra"])


def test_a_language_model_is_asked_for_grammar_and_last_words(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    good, bad = SIDES
    rows = ["template\tcase\tgrammatical\tungrammatical", "one\ta\tka lo\tka ze"]
    rows += [f"two\tb\t{one}\t{other}" for one, other in zip(good, bad, strict=True)]
    found = measured(ask, runs.language, "--minimal-pairs", write(tmp_path / "pairs.tsv", rows))
    assert list(found) == ["one", "two", "mean of the templates"]
    assert found["mean of the templates"]["value"] == pytest.approx((found["one"]["value"] + found["two"]["value"]) / 2)
    scores = [json.loads(ask("score", runs.language, "--text", write(tmp_path / "t", lines), "--json").out) for lines in SIDES]
    assert found["two"]["value"] == 50 * sum(one > other for one, other in zip(*scores, strict=True))
    passages = write(tmp_path / "p.jsonl", [json.dumps({"text": text}) for text in ("ka lo mi", "nu pe ra su")])
    found = measured(ask, runs.language, "--last-words", passages)
    assert list(found) == ["last words said", "perplexity of last words"]
    assert found["perplexity of last words"]["value"] > 1
    refused(ask("evaluate", runs.language, "--last-words", write(tmp_path / "b.jsonl", ["ka"])), "line 1 of", "is not JSON")
    refused(ask("evaluate", runs.classifier, "--last-words", passages), "a classifier: give --table or --stories")
