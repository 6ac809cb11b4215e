"""What came before the Transformer, by the same commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Ask, Text, asked
from tests.cli.test_inspect import refused

MODELS = {
    "Bahdanau": ["--model", "bahdanau-tiny"],
    "Luong": ["--model", "luong-tiny", "--set", "decoder.blocks.1.nodes.1.left.layer.choice=LocalPredictive(3)"],
}


@pytest.fixture(scope="module", params=MODELS)
def ancestor(request: pytest.FixtureRequest, text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained one."""
    out = tmp_path_factory.mktemp("ancestor") / "run"
    small = ["--set", "width=16", "--vocabulary", 70, "--device", "cpu", "--precision", "fp32", "--steps", 4]
    answer = asked(
        *("train", "translate", "--source", text.source, "--target", text.target, "--out", out),
        *(*MODELS[request.param], *small, "--batch-tokens", 200, "--set", "checkpoints=Checkpoints(2,2,Exactly(2))"),
    )
    assert answer.code == 0, answer.err
    return out


def test_it_translates_alone_as_in_company_and_reproduces_its_scores(ask: Ask, ancestor: Path, text: Text) -> None:
    lines = Path(text.source).read_text().splitlines()[:5]
    found = ask(
        "translate", ancestor, "--scores", "--precision", "fp32", stdin="\n".join(lines).encode() + b"\n"
    ).out.splitlines()
    assert len(found) == 5
    for line, expected in zip(lines, found, strict=True):
        alone = ask("translate", ancestor, "--scores", "--precision", "fp32", stdin=line.encode() + b"\n").out.strip("\n")
        assert alone.split("\t")[1:] == expected.split("\t")[1:]
        assert float(alone.split("\t")[0]) == pytest.approx(float(expected.split("\t")[0]), abs=1e-4)


def test_it_shows_where_it_looks(ask: Ask, ancestor: Path, text: Text, tmp_path: Path) -> None:
    line = Path(text.source).read_text().splitlines()[0]
    answer = ask("look", "heads", ancestor, line, "--out", tmp_path / "heads.npz")
    assert answer.code == 0, answer.err
    arrays = np.load(tmp_path / "heads.npz")
    (name,) = [each for each in arrays.files if arrays[each].ndim == 3]
    sums = arrays[name].sum(-1)
    assert sums.max() <= 1 + 1e-5
    assert sums.min() > 0


def test_no_other_engine_holds_it(ask: Ask, ancestor: Path, tmp_path: Path) -> None:
    refused(ask("export", ancestor, tmp_path / "out", "--to", "ctranslate2"), "CTranslate2 wants")
    assert "Recurrent" in json.dumps(json.loads((ancestor / "model.json").read_text()))


def test_a_pointer_network_says_words_of_its_question(ask: Ask, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = ["--set", "width=16", "--number", 300, "--device", "cpu", "--precision", "fp32", "--steps", 4, "--batch-tokens", 200]
    answer = ask("train", "translate", "--world", "ConvexHull(longest=6,side=5)", "--model", "pointer-tiny", "--out", out, *small)
    assert answer.code == 0, answer.err
    assert "of answers" in answer.err
    told = ask("translate", out, stdin=b"1,2 3,4 0,0 4,1\n").out.strip().split(" ")
    assert set(told) <= {"1,2", "3,4", "0,0", "4,1", ""}
    scores = json.loads(ask("evaluate", out, "--world", "ConvexHull(longest=6,side=5)", "--number", 20, "--json").out)
    assert [each["name"] for each in scores] == ["characters right", "answers right", "tokens right after the truth"]
    assert ask("look", "heads", out, "1,2 3,4 0,0", "--out", out / "heads.npz").code == 0
    arrays = np.load(out / "heads.npz")
    (weights,) = [arrays[each] for each in arrays.files if arrays[each].ndim == 3]
    assert np.allclose(weights.sum(-1), 1, atol=1e-5)
    refused(ask("export", out, tmp_path / "there", "--to", "ctranslate2"), "CTranslate2 wants")
