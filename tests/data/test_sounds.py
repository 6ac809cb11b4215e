"""Sounds: mu-law by its formula, and every WAV that is none refused by name."""

from __future__ import annotations

import gzip
import math
import random
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from qkv.data.sounds import FULL, linear, mu_law, read_sound, sound_files, write_sound
from qkv.error import QkvError


def wav(path: Path, frames: bytes, *, rate: int = 8000, width: int = 2, channels: int = 1) -> str:
    with wave.open(str(path), "wb") as sound:
        sound.setparams((channels, width, rate, 0, "NONE", "not compressed"))
        sound.writeframes(frames)
    return str(path)


def complaint(path: str, rate: int = 8000) -> str:
    with pytest.raises(QkvError) as caught:
        read_sound(path, rate)
    return str(caught.value)


# mu-law


def test_mu_law_is_its_formula() -> None:
    for sample in (-1.0, -0.5, -0.01, -0.0001, 0.0, 0.0001, 0.003, 0.25, 0.9, 1.0):
        bent = math.copysign(math.log(1 + 255 * abs(sample)) / math.log(256), sample)
        nearest = min(range(256), key=lambda level: abs(2 * level / 255 - 1 - bent) - level * 1e-9)
        assert mu_law(np.array([sample]))[0] == nearest
    for level in range(256):
        bent = 2 * level / 255 - 1
        expected = math.copysign((256 ** abs(bent) - 1) / 255, bent)
        assert linear(np.array([level], np.uint8))[0] == pytest.approx(expected, rel=1e-12)


def test_every_level_comes_back_also_through_a_file_of_16_bits(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8)
    assert (mu_law(linear(levels)) == levels).all()
    write_sound(tmp_path / "s.wav", linear(levels), 8000)
    assert (mu_law(read_sound(str(tmp_path / "s.wav"), 8000)) == levels).all()


def test_no_sample_is_further_from_its_level_than_half_a_step() -> None:
    samples = np.linspace(-1, 1, 5001)
    bent = np.sign(samples) * np.log1p(255 * np.abs(samples)) / math.log(256)
    assert np.abs(2.0 * mu_law(samples) / 255 - 1 - bent).max() <= 1 / 255 + 1e-12
    assert np.abs(linear(mu_law(samples)) - samples).max() < 0.025


# What is read


def test_16_bits_and_8_bits_are_read_as_what_they_stand_for(tmp_path: Path) -> None:
    numbers = np.array([-FULL, -1, 0, 1, 12345, FULL - 1], "<i2")
    assert (read_sound(wav(tmp_path / "a.wav", numbers.tobytes()), 8000) == numbers / FULL).all()
    raw = bytes([0, 1, 127, 128, 129, 255])
    expected = [-1.0, -127 / 128, -1 / 128, 0.0, 1 / 128, 127 / 128]
    assert read_sound(wav(tmp_path / "b.wav", raw, width=1), 8000).tolist() == expected


def test_both_channels_are_mixed_into_one(tmp_path: Path) -> None:
    left, right = np.array([1000, -500, 0], "<i2"), np.array([3000, 500, 7], "<i2")
    path = wav(tmp_path / "a.wav", np.stack([left, right], 1).tobytes(), channels=2)
    assert (read_sound(path, 8000) == (left / FULL + right / FULL) / 2).all()


def test_a_sound_that_is_written_is_read_again_bit_for_bit(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).integers(-FULL, FULL, 500).astype("<i2")
    path = wav(tmp_path / "a.wav", numbers.tobytes(), rate=12000)
    write_sound(tmp_path / "b.wav", read_sound(path, 12000), 12000)
    assert Path(path).read_bytes() == (tmp_path / "b.wav").read_bytes()
    write_sound(tmp_path / "loud.wav", np.array([1.0, -1.0, 3.0]), 8000)
    assert (read_sound(str(tmp_path / "loud.wav"), 8000) * FULL).tolist() == [FULL - 1, -FULL, FULL - 1]
    with pytest.raises(QkvError, match="cannot be written: No such file"):
        write_sound(tmp_path / "nowhere" / "a.wav", np.zeros(3), 8000)


def test_a_compressed_wav_is_the_same_and_a_folder_is_its_wavs(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", b"\1\2" * 50)
    (tmp_path / "c.wav.gz").write_bytes(gzip.compress(Path(path).read_bytes()))
    assert (read_sound(str(tmp_path / "c.wav.gz"), 8000) == read_sound(path, 8000)).all()
    wav(tmp_path / "B.WAV", b"\1\2")
    assert list(sound_files([str(tmp_path)])) == [str(tmp_path / "B.WAV"), path]


# What is refused


def test_another_rate_is_refused_with_what_to_do(tmp_path: Path) -> None:
    said = complaint(wav(tmp_path / "a.wav", b"\1\2" * 9, rate=44100), 12000)
    assert "a.wav has 44100 samples a second and 12000 are expected; nothing is resampled" in said
    assert "train with --rate 44100, or convert the file" in said


def test_other_widths_and_more_channels_are_refused(tmp_path: Path) -> None:
    assert "has 24 bits a sample: expected 8 or 16" in complaint(wav(tmp_path / "a.wav", b"\0" * 9, width=3))
    assert "has 32 bits a sample" in complaint(wav(tmp_path / "a.wav", b"\0" * 8, width=4))
    assert "has 6 channels: expected 1, or 2" in complaint(wav(tmp_path / "a.wav", b"\0" * 24, channels=6))


def test_broken_and_empty_files_are_refused(tmp_path: Path) -> None:
    whole = Path(wav(tmp_path / "a.wav", b"\1\2" * 100)).read_bytes()
    broken = tmp_path / "b.wav"
    for raw, words in (
        (whole[:-7], "ends before its 100 samples do"),
        (whole[:20], "is not a whole WAV in plain PCM"),
        (b"", "is not a whole WAV in plain PCM (it ends early)"),
        (b"ID3" + b"\0" * 99, "is not a whole WAV in plain PCM"),
        (whole[:20] + struct.pack("<H", 3) + whole[22:], "is not a whole WAV in plain PCM (unknown format: 3)"),
    ):
        broken.write_bytes(raw)
        said = complaint(str(broken))
        assert words in said and "b.wav" in said, said
    assert "is empty: expected at least one sample" in complaint(wav(tmp_path / "e.wav", b""))
    assert "there is no file" in complaint(str(tmp_path / "nowhere.wav"))


def test_whatever_became_of_a_file_is_read_or_said(tmp_path: Path) -> None:
    raw, draw, path = Path(wav(tmp_path / "a.wav", b"\1\2" * 50)).read_bytes(), random.Random(1), tmp_path / "b.wav"
    for number in range(len(raw) + 300):
        spoilt = bytearray(raw[: number if number < len(raw) else None])
        if number >= len(raw):
            spoilt[draw.randrange(44)] = draw.randrange(256)
        path.write_bytes(spoilt)
        try:
            read_sound(str(path), 8000)
        except QkvError as error:
            assert str(path) in str(error)
