"""Cells as a person types it: `qkv look cell`, and models that a file describes."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from tests.cli.conftest import Ask, Runs, refused

from qkv.papers.catalogue import named
from qkv.spec import plain
from qkv.spec.model import Joint, Separate, TargetAndOutput
from qkv.store import load_spec

SHORT = "--steps 2 --device cpu --precision fp32 --set evaluation=Evaluation(500,0)".split()


def test_a_cell_is_drawn(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    sizes = []
    for what, side in (("evolved-base", ()), ("evolved-base", ("--side", "encoder")), ("universal-evolved-tiny", ())):
        path = tmp_path / "cell.png"
        answer = ask("look", "cell", what, *side, "--out", str(path))
        assert answer.out == f"{path}\n"
        picture = Image.open(path).convert("RGB")
        sizes.append(picture.size)
        assert {(0xCF, 0xE2, 0xF3), (0xFC, 0xE5, 0xCD), (0xD9, 0xEA, 0xD3)} <= {c for _, c in picture.getcolors(2**24) or []}
    assert ask("look", "cell", "bahdanau-tiny", "--out", str(tmp_path / "cell.png")).code == 0
    states = Image.open(tmp_path / "cell.png").convert("RGB")
    assert (0xEA, 0xD1, 0xDC) in {colour for _, colour in states.getcolors(2**24) or []}
    assert sizes[0][0] > 1.8 * sizes[1][0] and sizes[2] == sizes[0]
    refused(ask("look", "cell", str(runs.language)), "has no cells")
    refused(ask("look", "cell", "evolved-bose"), "no run folder and no named model")
    refused(ask("look", "cell", "evolved-gpt-tiny", "--side", "encoder"), "has no 'encoder', but: decoder")


def test_a_model_from_a_file_is_trained_and_used(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    """The description of one run is the model of another, with the vocabulary of its own text."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    small = ["--set", "width=16", "--set", "*.depth=1"]
    text = ["--text", str(runs.text)]
    assert ask("train", "generate", "--out", first, *text, "--model", "evolved-gpt-tiny", *small, *SHORT).code == 0
    file = first / "model.json"
    assert ask("train", "generate", "--out", second, *text, "--model", file, "--tokenizer", "characters", *SHORT).code == 0
    one, other = load_spec(first), load_spec(second)
    assert one.vocabulary != other.vocabulary and one == plain.change(other, f"vocabulary={one.vocabulary}")
    assert ask("generate", second, "a").code == 0
    answer = ask("train", "generate", "--recipe", second / "run.toml", "--out", third)
    assert answer.code == 0 and load_spec(third) == other


def test_a_file_that_ties_both_sides_is_for_two_vocabularies_too(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    file.write_text(json.dumps(plain.to_plain(named("evolved-tiny", Joint(50)))))
    assert named(str(file), Joint(70)) == named("evolved-tiny", Joint(70))
    apart = named(str(file), Separate(60, 70))
    assert apart == named("evolved-tiny", Separate(60, 70)) and apart.tie == TargetAndOutput()  # pyright: ignore


def test_a_file_that_describes_no_model_is_refused(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    train = ("train", "generate", "--out", str(tmp_path / "run"), "--text", str(runs.text), "--model", str(file))
    refused(ask(*train), "model.json cannot be read")
    file.write_text("{")
    refused(ask(*train), "model.json cannot be read")
    file.write_text('{"PreNorm": {}}')
    refused(ask(*train), "describes no encoder-decoder, no decoder and no encoder, but PreNorm")
    file.write_text('{"Cell": {"nodes": [], "width": 3}}')
    refused(ask(*train), "unknown field of Cell 'width'")
