"""`qkv --help`, `models`, `verify`, `doctor`, `look` and `export`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Answer, Ask, Runs, Trained, write

import qkv
from qkv.cli.main import app
from qkv.decode.translate import Translation, Translator
from qkv.look.heads import kinds
from qkv.papers.catalogue import CATALOGUE

VERBS = "train translate generate fill embed classify evaluate score look models verify doctor import export demo".split()


def refused(answer: Answer, *words: str, code: int = 2) -> None:
    assert answer.code == code, answer
    last = answer.err.splitlines()[-1]
    assert last.startswith("qkv: ") and all(word in last for word in words), answer.err


def test_help_lists_every_verb_and_does_not_wait_for_torch(python: tuple[list[str], dict[str, str]]) -> None:
    start, environment = python
    script = """
import sys
from qkv.cli.main import main
sys.argv = ["qkv", "--help"]
try:
    main()
finally:
    slow = {"torch", "numpy", "matplotlib", "sacrebleu", "tokenizers"} & set(sys.modules)
    print("imported:", sorted(slow), file=sys.stderr)
"""
    done = subprocess.run([*start, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == "imported: []\n"
    listed = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert set(VERBS) <= set(listed)


def test_every_verb_explains_itself(ask: Ask) -> None:
    groups = {"train": "translate", "look": "heads"}
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    for verb in [[name] for name in names] + [[*pair] for pair in groups.items()]:
        answer = ask(*verb, "--help")
        assert answer.code == 0 and "Usage: " in answer.out, verb
        assert len(answer.out.splitlines()[2].strip()) > 20, "the first thing said is what it does"


def test_models_are_counted_from_their_descriptions(ask: Ask) -> None:
    answer = ask("models")
    rows = {line.split()[0]: line for line in answer.out.splitlines()[1:]}
    assert rows.keys() == CATALOGUE.keys()
    assert " 63.05M " in rows["transformer-base"] and "Vaswani et al. 2017" in rows["transformer-base"]
    found = {row["model"]: row for row in json.loads(ask("models", "--json").out)}
    assert found.keys() == CATALOGUE.keys()
    smaller = {row["model"]: row for row in json.loads(ask("models", "--json", "--vocabulary", 1000).out)}
    assert found["transformer-base"]["parameters"] - smaller["transformer-base"]["parameters"] == 36000 * 512
    longer = {row["model"]: row for row in json.loads(ask("models", "--json", "--length", 64).out)}
    assert longer["transformer-base"]["cache_bytes"] == 2 * found["transformer-base"]["cache_bytes"]
    refused(ask("models", "--vocabulary", 3), "four special symbols")


def test_doctor_says_what_this_machine_is(ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    monkeypatch.setenv("QKV_CACHE", str(tmp_path / "elsewhere"))
    facts = json.loads(ask("doctor", "--json").out)
    assert facts["torch"] == torch.__version__
    assert str(tmp_path / "elsewhere") in facts.values()
    assert not (tmp_path / "elsewhere").exists(), "to look is not to touch"
    lines = ask("doctor").out.splitlines()
    assert len(lines) == len(facts) and all(any(line.startswith(name) for line in lines) for name in facts)


# verify


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the run to damage."""
    return shutil.copytree(trained.folder, tmp_path / "copied")


def test_verify_finds_a_sound_run_sound(ask: Ask, trained: Trained) -> None:
    answer = ask("verify", trained.folder)
    assert answer.code == 0 and answer.err == ""
    assert [name in answer.out for name in ("step-00000003", "step-00000006", "the final model")] == [True] * 3


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/step-00000003/model.safetensors",
        "checkpoints/step-00000006/moments.safetensors",
        "checkpoints/step-00000006/progress.json",
        "model.safetensors",
        "model.json",
        "run.toml",
        "tokenizer.json",
    ],
)
@pytest.mark.parametrize("damage", ["altered", "cut short", "gone"])
def test_verify_finds_any_damage(ask: Ask, copied: Path, name: str, damage: str) -> None:
    path = copied / name
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if damage == "cut short" else whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    answer = ask("verify", copied)
    refused(answer, f"damaged parts of {copied}: 1", code=1)
    said = [line for line in answer.out.splitlines() if path.name in line]
    assert len(said) == 1 and str(path.parent) in said[0]


def test_verify_needs_something_to_look_at(ask: Ask, tmp_path: Path) -> None:
    refused(ask("verify", tmp_path), "no checkpoint and no finished model")
    refused(ask("verify", tmp_path / "none"), "there is no run folder")


def test_verify_says_that_a_run_is_not_finished(ask: Ask, copied: Path) -> None:
    for name in ("manifest.json", "model.safetensors"):
        (copied / name).unlink()
    answer = ask("verify", copied)
    assert answer.code == 0 and "not finished yet" in answer.out


def test_resume_says_which_checkpoints_are_damaged(ask: Ask, copied: Path) -> None:
    (copied / "manifest.json").unlink()
    for path in (copied / "checkpoints").iterdir():
        (path / "model.safetensors").write_bytes(b"")
    refused(
        ask("train", "translate", "--out", copied, "--resume"), "no checkpoint can be trusted", "step-00000003", "step-00000006"
    )


# look


def test_look_heads_draws_a_picture(ask: Ask, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Translator, "translate", lambda self, lines: [[Translation("KA", 0.0)] for _ in lines])
    answer = ask("look", "heads", copied, "ka lo", "KA LO")
    assert answer.code == 0, answer.err
    assert answer.out == f"{copied / 'heads.png'}\n"
    assert (copied / "heads.png").read_bytes().startswith(b"\x89PNG")
    answer = ask("look", "heads", copied, "k", "--out", tmp_path / "other.png")
    assert answer.code == 0 and (tmp_path / "other.png").read_bytes().startswith(b"\x89PNG")


def test_look_heads_at_some_levels_and_as_arrays(ask: Ask, copied: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "heads.npz", ("encoder", "memory", "decoder")
    assert ask("look", "heads", copied, "ka lo", "KA LO", "--out", out).out == f"{out}\n"
    found = kinds(qkv.load(copied, device="cpu"), "ka lo", "KA LO")
    with np.load(out) as arrays:
        assert arrays["memory.keys"].tolist() == arrays["encoder.queries"].tolist() == found[0].keys
        assert arrays["memory.queries"].tolist() == arrays["decoder.keys"].tolist() == found[2].queries
        for name, kind in zip(names, found, strict=True):
            for number, weights in zip(kind.numbers, kind.levels, strict=True):
                assert np.array_equal(arrays[f"{name}.{number}"], weights.numpy())
    last = found[0].numbers[-1]
    assert ask("look", "heads", copied, "ka lo", "KA LO", "--levels", str(last), "--out", out).code == 0
    with np.load(out) as arrays:
        assert {name for name in arrays.files if name[-1].isdigit()} == {f"{name}.{last}" for name in names}
    refused(ask("look", "heads", copied, "ka", "KA", "--levels", "9"), "and no 9")
    refused(ask("look", "heads", copied, "ka", "KA", "--levels", "first"), "--levels are numbers such as 1,6")
    refused(ask("look", "heads", copied, "ka", "KA", "--out", tmp_path / "heads.pdf"), "--out is a .png, .html, .npz")


def test_look_heads_shows_a_model_with_one_side_the_text_alone(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    for number, (run, text) in enumerate([(runs.language, "ka lo"), (runs.masked, "ka <mask>"), (runs.classifier, "ka lo")]):
        path = tmp_path / f"{number}.png"
        answer = ask("look", "heads", run, text, "--out", path)
        assert (answer.code, answer.out) == (0, f"{path}\n"), answer.err
        assert path.read_bytes().startswith(b"\x89PNG")
    refused(ask("look", "heads", runs.language, "ka lo", "KA"), "no translator", "leave out 'KA'")
    refused(ask("look", "heads", runs.language, ""), "an empty text")


def test_one_side_has_one_kind_of_attention(runs: Runs) -> None:
    (decoder,) = kinds(qkv.load(runs.language, device="cpu"), "ka lo")
    assert decoder.keys == decoder.queries == ["<s>", *"ka", decoder.keys[3], *"lo"]
    assert all(weight.shape[1:] == (6, 6) and (weight.triu(1) == 0).all() for weight in decoder.levels)
    (encoder,) = kinds(qkv.load(runs.masked, device="cpu"), "ka <mask>")
    assert (encoder.keys[0], encoder.keys[-2], encoder.keys[-1]) == ("<s>", "<mask>", "</s>")
    assert all((weight > 0).all() for weight in encoder.levels)


def test_look_heads_at_nothing_is_refused(ask: Ask, trained: Trained) -> None:
    refused(ask("look", "heads", trained.folder, "  ", "KA"), "an empty sentence")


def test_a_picture_that_cannot_be_written_ends_with_1(ask: Ask, trained: Trained, tmp_path: Path) -> None:
    refused(ask("look", "heads", trained.folder, "ka", "KA", "--out", tmp_path / "none" / "heads.png"), "none/heads.png", code=1)


# export


def test_export_refuses_a_folder_with_something_in_it(ask: Ask, trained: Trained, tmp_path: Path) -> None:
    write(tmp_path / "thesis.tex", ["years of work"])
    refused(ask("export", trained.folder, tmp_path), f"{tmp_path} is not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_export_to_an_unknown_engine_is_refused(ask: Ask, trained: Trained, tmp_path: Path) -> None:
    refused(ask("export", trained.folder, tmp_path / "out", "--to", "ctranslate"), "did you mean 'ctranslate2'")
    assert not (tmp_path / "out").exists()


def test_export_measures_that_both_engines_say_the_same(ask: Ask, trained: Trained, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    answer = ask("export", trained.folder, tmp_path / "out")
    assert answer.code == 0, answer.err
    said = answer.out.splitlines()[-1]
    assert said.startswith("largest difference") and float(said.split()[-1]) < 1e-3


def test_the_package_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "qkv", "models", "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)[0]["model"] == "transformer-tiny"
