"""Any bytes, as a person types it: `qkv train generate`, `qkv evaluate` and `qkv generate` of pictures, sounds and files."""

from __future__ import annotations

import gzip
import json
import math
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import Answer, Ask, Runs, asked, refused

from qkv.data.pictures import GAP
from qkv.data.sounds import linear, mu_law, read_sound
from qkv.data.tokenizer import Tokenizer
from qkv.look import curves
from qkv.spec.data import AsTheyAre, Bytes, Exactly, Pictures, Sounds
from qkv.train.journal import read
from qkv.train.run_folder import read_run

QUICK = """
--batch-tokens 256 --device cpu --precision fp32 --set width=16 --set *.depth=1 --set *.hidden=32
--set evaluation=Evaluation(500,0) --set checkpoints=Checkpoints(500,1,Exactly(1)) --set schedule=Cosine(peak=0.02,warmup=5)
""".split()
ANY = bytes(np.random.default_rng(7).integers(0, 256, 700, dtype=np.uint8))


@dataclass(frozen=True)
class Given:
    """Files, and runs that learned from them."""

    pictures: Path
    held: Path
    one: Path
    sounds: Path
    sound: Path
    file: Path
    painter: Path
    player: Path
    reader: Path


def crosses(number: int, seed: int) -> np.ndarray:
    """Pictures of 8 by 8 with a bright row and a bright column each."""
    random, found = np.random.default_rng(seed), np.zeros((number, 8, 8), np.uint8)
    for picture in found:
        row, column = random.integers(0, 8, 2)
        picture[row], picture[:, column] = 200, 100
    return found


def play(path: Path, number: int, rate: int = 500) -> Path:
    """A tone as a WAV of 16 bits, a little louder where the number is larger."""
    samples = np.sin(np.arange(600) * (0.2 + 0.05 * number)) * (0.3 + 0.1 * number)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def learn(*options: object) -> None:
    said = asked("train", "generate", *options, *QUICK)
    assert said.code == 0, said.err


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs."""
    monkeypatch.setattr(curves, "draw", lambda journal, path, title: path.write_bytes(b"a picture"))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """What nobody alters."""
    folder = tmp_path_factory.mktemp("bytes")
    np.save(folder / "train.npy", crosses(50, 1))
    np.save(folder / "valid.npy", crosses(6, 2))
    Image.fromarray(crosses(1, 3)[0]).save(folder / "one.png")
    (folder / "sounds").mkdir()
    for number in range(4):
        play(folder / "sounds" / f"{number}.wav", number)
    play(folder / "new.wav", 4)
    (folder / "any.bin.gz").write_bytes(gzip.compress(ANY * 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw", lambda journal, path, title: None)
        pictures = ["--images", folder / "train.npy", "--valid-images", folder / "valid.npy"]
        learn(*pictures, "--out", folder / "painter", "--steps", 60)
        sounds = ["--sounds", folder / "sounds", "--rate", 500, "--longest", 32]
        learn(*sounds, "--out", folder / "player", "--steps", 20)
        learn("--bytes", folder / "any.bin.gz", "--longest", 48, "--out", folder / "reader", "--steps", 20)
    names = "train.npy valid.npy one.png sounds new.wav any.bin.gz painter player reader".split()
    return Given(*(folder / name for name in names))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def last(folder: Path, kind: str = "final") -> dict[str, Any]:
    return [line for line in read(folder / "journal.jsonl") if line["kind"] == kind][-1]


def measured(ask: Ask, run: Path, *options: object) -> dict[str, Any]:
    answer = ask("evaluate", run, *options, "--json")
    assert (answer.code, answer.err) == (0, ""), answer
    (found,) = json.loads(answer.out)
    return found


def done(answer: Answer) -> None:
    assert answer == Answer(0, "", ""), answer


# What is trained


def test_a_run_says_what_its_bytes_mean(given: Given) -> None:
    painter, player, reader = (read_run(folder / "run.toml") for folder in (given.painter, given.player, given.reader))
    assert painter.train == Bytes((str(given.pictures),), Pictures(8, 8, 1)) and painter.longest == 64
    assert painter.valid == Bytes((str(given.held),), Pictures(8, 8, 1))
    assert player.train == Bytes((str(given.sounds),), Sounds(500)) and player.longest == 32
    assert reader.train == Bytes((str(given.file),), AsTheyAre())
    for run, folder in ((painter, given.painter), (player, given.player), (reader, given.reader)):
        assert (run.tokenizer.kind, run.tokenizer.vocabulary) == ("bytes", Exactly(260))
        assert Tokenizer.load(folder / "tokenizer.json").fingerprint == Tokenizer.of_bytes().fingerprint
    assert json.loads((given.painter / "model.json").read_text())["DecoderOnly"]["embedding"]["Embedding"]["position"] == {
        "Learned": {"longest": 64}
    }


def test_the_loss_falls_and_bits_are_told_by_byte_or_by_dimension(given: Given) -> None:
    final = last(given.painter)
    assert final["loss"] < 0.7 * math.log(256) and "bits_per_byte" not in final
    assert final["bits_per_dimension"] == pytest.approx(final["loss"] / math.log(2), rel=1e-9), "a prediction is a dimension"
    assert last(given.painter, "evaluation")["bits_per_dimension"] > 0
    final, size = last(given.player), 600
    assert final["bits_per_dimension"] == pytest.approx(final["loss"] * (size + 1) / size / math.log(2), rel=1e-9)
    final = last(given.reader)
    assert final["bits_per_byte"] == pytest.approx(final["loss"] / math.log(2), rel=1e-9), "the end is a byte, too"
    assert "bits_per_dimension" not in final


def test_a_run_is_trained_again_from_its_own_description_and_goes_on(ask: Ask, given: Given, tmp_path: Path) -> None:
    again = ask("train", "generate", "--recipe", given.painter / "run.toml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (given.painter / "model.safetensors").read_bytes()
    assert "there is nothing to go on with" in ask("train", "generate", "--out", tmp_path / "again", "--resume").err
    options = ["--images", given.pictures, "--from", given.painter, "--out", tmp_path / "more", "--steps", 2]
    more = ask("train", "generate", *options, "--device", "cpu", "--precision", "fp32")
    assert more.code == 0, more.err
    assert read_run(tmp_path / "more" / "run.toml").longest == 64


def test_what_does_not_go_together_is_refused(ask: Ask, given: Given, runs: Runs, tmp_path: Path) -> None:
    call = ["train", "generate", "--out", tmp_path / "run"]
    images = ["--images", given.pictures]
    refused(ask(*call, *images, "--sounds", given.sounds), "give one of --images and --sounds")
    refused(ask(*call, *images, "--text", runs.text), "are for text, which bytes are not: leave them out")
    refused(ask(*call, *images, "--vocabulary", 300), "are for text, which bytes are not")
    refused(ask(*call, *images, "--documents", "lines"), "are for text, which bytes are not")
    refused(ask(*call, *images, "--rate", 8000), "--rate is of --sounds")
    refused(
        ask(*call, *images, "--longest", 63), "8 pixels high and 8 wide in grey are 64 bytes each", "say --longest 64, not 63"
    )
    refused(ask(*call, *images, "--valid-text", runs.text), "are for text")
    refused(ask(*call, *images, "--valid-sounds", given.sounds, "--steps", 1), "validated on what has the same form")
    refused(ask(*call, *images, "--set", "tokenizer.kind=bpe"), "bytes are not cut into pieces")
    refused(ask(*call, "--sounds", given.sounds), "0.wav has 500 samples a second and 12000 are expected", "--rate 500")
    refused(ask(*call, "--bytes", tmp_path / "nowhere"), "there is no file")
    refused(ask(*call), "no training text: give --text, --bytes, --images or --sounds")
    refused(ask(*call, *images, "--from", runs.language, "--longest", 64), "places")
    assert not (tmp_path / "run" / "run.toml").exists()


# How good it is


def test_evaluate_is_what_training_said(ask: Ask, given: Given) -> None:
    found = measured(ask, given.painter, "--images", given.held)
    assert found["name"] == "bits per dimension" and found["signature"] == "pictures:6|bytes:384|context:64"
    assert found["value"] == pytest.approx(last(given.painter)["bits_per_dimension"], rel=1e-5)
    few = measured(ask, given.painter, "--images", given.held, "--batch-tokens", 64)
    assert few["value"] == pytest.approx(found["value"], rel=1e-6)


def test_a_document_longer_than_the_places_is_read_by_windows(ask: Ask, given: Given, tmp_path: Path) -> None:
    found = measured(ask, given.reader, "--bytes", given.file)
    assert found["name"] == "bits per byte" and found["signature"] == "documents:1|bytes:2801|context:48|stride:24"
    assert 5 < found["value"] < 9
    (tmp_path / "any.bin").write_bytes(ANY * 4)
    assert measured(ask, given.reader, "--bytes", tmp_path / "any.bin") == found, "compressed or not"
    near = measured(ask, given.reader, "--bytes", given.file, "--context", 8, "--stride", 1)
    assert near["signature"].endswith("context:8|stride:1") and near["value"] != found["value"]
    found = measured(ask, given.player, "--sounds", given.sounds)
    assert found["name"] == "bits per dimension" and found["signature"] == "documents:4|bytes:2400|context:32|stride:16"
    assert "bits per dimension" in ask("evaluate", given.player, "--sounds", given.sounds / "0.wav").out


def test_what_a_run_did_not_learn_from_is_refused(ask: Ask, given: Given, runs: Runs) -> None:
    refused(ask("evaluate", given.painter, "--sounds", given.sounds), "learned from Pictures", "give --images")
    refused(ask("evaluate", given.player, "--bytes", given.file), "learned from Sounds(rate=500): give --sounds")
    refused(ask("evaluate", given.painter, "--text", runs.text), "learned from Pictures", "give --images")
    refused(ask("evaluate", runs.language, "--bytes", given.file), "did not learn from bytes: give --text")
    refused(ask("evaluate", runs.masked, "--images", given.held), "is a masked model: give --text")
    refused(ask("evaluate", given.painter, "--images", given.held, "--context", 9), "a picture is read whole")
    refused(ask("evaluate", given.painter, "--images", given.held, "--bytes", given.file), "--bytes, --images or --sounds")


def test_int8_says_what_it_costs(ask: Ask, given: Given, tmp_path: Path) -> None:
    found = measured(ask, given.painter, "--images", given.held, "--precision", "int8")
    assert found["value"] == pytest.approx(found["fp32"], rel=0.05) and found["fp32"] != found["value"]
    for run, suffix in ((given.painter, ".png"), (given.player, ".wav")):
        answer = ask(
            "generate", run, "--out", tmp_path / f"a{suffix}", "--precision", "int8", *(["--length", 9] * (suffix != ".png"))
        )
        assert answer.code == 0 and "int8 changes the perplexity by" in answer.err, answer


# Pictures


def test_a_picture_is_written_and_many_stand_in_a_grid(ask: Ask, given: Given, tmp_path: Path) -> None:
    done(ask("generate", given.painter, "--out", tmp_path / "one.png"))
    assert pixels(tmp_path / "one.png").shape == (8, 8)
    done(ask("generate", given.painter, "--out", tmp_path / "five.png", "--count", 5))
    sheet = pixels(tmp_path / "five.png")
    assert sheet.shape == (2 * 8 + GAP, 3 * 8 + 2 * GAP)
    assert (sheet[:8, :8] == pixels(tmp_path / "one.png")).all(), "the first of many is the one alone"
    done(ask("generate", given.painter, "--out", tmp_path / "other.png", "--seed", 1))
    assert (pixels(tmp_path / "other.png") != pixels(tmp_path / "one.png")).any()


def test_sampling_options_reach_the_picture(ask: Ask, given: Given, tmp_path: Path) -> None:
    done(ask("generate", given.painter, "--out", tmp_path / "greedy.png", "--greedy"))
    for options in (["--top-k", 1], ["--temperature", "0.00001"], ["--top-p", "0.00001"]):
        done(ask("generate", given.painter, "--out", tmp_path / "cold.png", *options, "--seed", 4))
        assert (pixels(tmp_path / "cold.png") == pixels(tmp_path / "greedy.png")).all()


@pytest.mark.parametrize(("keep", "rows"), [([], 4), (["--keep", "0.25"], 2), (["--keep", "0.9"], 7)])
def test_the_top_that_is_kept_is_the_original_bit_for_bit(
    ask: Ask, given: Given, tmp_path: Path, keep: list[str], rows: int
) -> None:
    original = pixels(given.one)
    done(ask("generate", given.painter, "--complete", given.one, *keep, "--out", tmp_path / "c.png", "--count", 4))
    sheet, step = pixels(tmp_path / "c.png"), 8 + GAP
    corners = [(top, left) for top in (0, step) for left in (0, step)]
    found = [sheet[top : top + 8, left : left + 8] for top, left in corners]
    assert all((each[:rows] == original[:rows]).all() for each in found)
    assert len({each[rows:].tobytes() for each in found}) > 1, "each with dice of its own"


def test_pictures_are_refused_in_words(ask: Ask, given: Given, runs: Runs, tmp_path: Path) -> None:
    out, call = tmp_path / "p.png", ["generate", given.painter]
    refused(ask(*call), "writes pictures: say where by --out, as a name that ends in .png")
    refused(ask(*call, "--out", tmp_path / "p.jpg"), "as a name that ends in .png")
    refused(ask(*call, "--out", tmp_path / "nowhere" / "p.png"), "cannot be written: there is no folder")
    refused(ask(*call, "a prompt", "--stop", "x", "--out", out), "writes no text, and a prompt and --stop would be about some")
    refused(ask(*call, "--out", out, "--beam", 4), "and --beam would be")
    refused(ask(*call, "--out", out, "--length", 9), "leave out --length")
    refused(ask(*call, "--out", out, "--count", 0), "at least 1 picture is painted")
    refused(ask(*call, "--out", out, "--count", 2, "--greedy"), "--greedy, which always paints the same, just 1")
    refused(ask(*call, "--out", out, "--keep", "0.5"), "--keep is the share of --complete that is kept")
    complete = [*call, "--out", out, "--complete"]
    refused(ask(*complete, given.one, "--keep", "1"), "--keep 1.0 is 8 of the 8 rows: at least 1 is kept, and at least 1 painted")
    refused(ask(*complete, given.one, "--keep", "0"), "--keep is the share of --complete that is kept, above 0")
    refused(ask(*complete, given.held), "holds more than one picture")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "large.png")
    refused(ask(*complete, tmp_path / "large.png"), "large.png is 9 pixels high", "the pictures of this run are 8 pixels high")
    refused(ask("generate", runs.language, "--out", out), "did not learn from pictures or sounds: leave out --out")
    refused(ask("generate", runs.language, "--complete", given.one), "did not learn from pictures or sounds")
    assert not out.exists()


# Sounds


def frames(path: Path) -> tuple[Any, np.ndarray]:
    with wave.open(str(path)) as sound:
        return sound.getparams(), np.frombuffer(sound.readframes(sound.getnframes()), "<i2")


def test_a_sound_is_written_of_one_second_or_as_long_as_one_likes(ask: Ask, given: Given, tmp_path: Path) -> None:
    done(ask("generate", given.player, "--out", tmp_path / "s.wav", "--length", 150, "--top-k", 40))
    form, samples = frames(tmp_path / "s.wav")
    assert (form.framerate, form.nchannels, form.sampwidth) == (500, 1, 2) and 0 < len(samples) <= 150
    levels = mu_law(samples / 32768)
    assert (samples == np.clip(np.round(linear(levels) * 32768), -32768, 32767)).all(), "every sample is a level"
    done(ask("generate", given.player, "--out", tmp_path / "long.wav", "--greedy"))
    assert len(frames(tmp_path / "long.wav")[1]) == 500, "where the end is never the likeliest"


def test_a_sound_goes_on_from_another_bit_for_bit(ask: Ask, given: Given, tmp_path: Path) -> None:
    _, original = frames(given.sound)
    for keep, kept in (([], 600), (["--keep", "0.5"], 300), (["--keep", "0.01"], 6)):
        call = ["generate", given.player, "--complete", given.sound, *keep, "--length", 90, "--top-k", 5]
        done(ask(*call, "--out", tmp_path / "s.wav"))
        _, found = frames(tmp_path / "s.wav")
        assert (found[:kept] == original[:kept]).all() and kept < len(found) <= kept + 90
    assert len(read_sound(str(tmp_path / "s.wav"), 500)) == len(found)


def test_sounds_are_refused_in_words(ask: Ask, given: Given, tmp_path: Path) -> None:
    call = ["generate", given.player]
    refused(ask(*call), "writes sounds: say where by --out, as a name that ends in .wav")
    out = ["--out", tmp_path / "s.wav"]
    refused(ask(*call, *out, "--count", 2), "a WAV holds one sound: leave out --count")
    refused(
        ask(*call, *out, "--complete", play(tmp_path / "fast.wav", 1, 8000)), "has 8000 samples a second and 500 are expected"
    )
    refused(ask(*call, *out, "--length", 0), "at least 1 token")
    refused(ask(*call, *out, "--beam", 2), "--beam would be")


# Files as they are write text, as ever


def test_a_run_of_files_writes_on_as_text(ask: Ask, given: Given) -> None:
    answer = ask("generate", given.reader, "ab", "--length", 20)
    assert answer.code == 0 and answer.out.startswith("ab")
