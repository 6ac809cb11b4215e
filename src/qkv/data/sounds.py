"""Sounds as samples from -1 to 1, from WAV and to it, and as a byte a sample in mu-law (ITU-T G.711's curve, as WaveNet has it).

With m = 255, a sample x becomes F(x) = sign(x) ln(1 + m|x|) / ln(1 + m), and F, from -1 to 1, the nearest of 256 equal levels:
quiet sounds are told apart more finely than loud ones.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8

from qkv.data.pictures import in_folders
from qkv.data.text import opened
from qkv.error import QkvError

MU = 255
FULL = 1 << 15  # what stands for 1 in 16 bits

Samples = Float64[np.ndarray, " N"]


def mu_law(samples: Samples) -> UInt8[np.ndarray, " N"]:
    """A byte for each sample."""
    bent = np.sign(samples) * np.log1p(MU * np.abs(samples)) / np.log1p(MU)
    return np.floor((bent + 1) / 2 * MU + 0.5).astype(np.uint8)


def linear(levels: UInt8[np.ndarray, " N"]) -> Samples:
    """The sample in the middle of each level."""
    bent = 2 * levels.astype(np.float64) / MU - 1
    return np.sign(bent) * np.expm1(np.abs(bent) * np.log1p(MU)) / MU


def sound_files(files: Sequence[str]) -> Iterator[str]:
    """The files that are meant: a folder stands for the WAVs in it, by name."""
    return in_folders(files, ".wav")


def read_sound(path: str, rate: int) -> Samples:
    """The samples of a WAV, both channels mixed into one.

    Raises QkvError for a file that is none, is broken or empty, has another rate, or neither 8 nor 16 bits a sample.
    """
    with opened(path) as stream:
        try:
            with wave.open(stream, "rb") as sound:
                form, raw = sound.getparams(), sound.readframes(sound.getnframes())
        except (wave.Error, EOFError, RuntimeError) as error:  # the last for a size beyond the end
            raise QkvError(
                f"{path} is not a whole WAV in plain PCM ({str(error) or 'it ends early'}): convert it first"
            ) from None
    if form.sampwidth not in (1, 2):
        raise QkvError(f"{path} has {8 * form.sampwidth} bits a sample: expected 8 or 16; convert it first")
    if form.nchannels not in (1, 2):
        raise QkvError(f"{path} has {form.nchannels} channels: expected 1, or 2, which are mixed into 1; convert it first")
    if form.framerate != rate:
        raise QkvError(
            f"{path} has {form.framerate} samples a second and {rate} are expected; nothing is resampled: train with "
            f"--rate {form.framerate}, or convert the file"
        )
    if len(raw) < form.nframes * form.nchannels * form.sampwidth:
        raise QkvError(f"{path} ends before its {form.nframes:,} samples do: fetch or write it again")
    if not raw:
        raise QkvError(f"{path} is empty: expected at least one sample")
    # 8 bits are without a sign, with silence at 128
    numbers = np.frombuffer(raw, np.uint8) / 128 - 1 if form.sampwidth == 1 else np.frombuffer(raw, "<i2") / FULL
    return numbers.reshape(-1, form.nchannels).mean(1)


def write_sound(path: Path, samples: Samples, rate: int) -> None:
    """Write a WAV of one channel in 16 bits. Raises QkvError where that is not possible."""
    numbers = np.clip(np.round(samples * FULL), -FULL, FULL - 1).astype("<i2")
    try:
        with path.open("wb") as file, wave.open(file, "wb") as sound:
            sound.setparams((1, 2, rate, len(numbers), "NONE", "not compressed"))
            sound.writeframes(numbers.tobytes())
    except OSError as error:
        raise QkvError(f"{path} cannot be written: {error.strerror or error}") from None
