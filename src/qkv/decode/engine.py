"""Any finished run as something one can use: what it can do follows from its shape."""

from __future__ import annotations

from pathlib import Path

from qkv.decode.generate import Writer
from qkv.decode.load import finished
from qkv.decode.read import Reader
from qkv.decode.translate import Translator
from qkv.model.transformer import DecoderOnly, EncoderDecoder
from qkv.store import Stored


def load(run: Path | str, *, device: str = "auto", precision: str = "auto") -> Translator | Writer | Reader:
    """A translator for an encoder-decoder, a writer for a decoder, a reader for an encoder.

    `auto` computes in fp32 on a CPU, and in bf16 on a GPU that has it; `int8` is for CPUs.
    """
    return usable(finished(run, device=device, precision=precision))


def usable(stored: Stored) -> Translator | Writer | Reader:
    """What a finished model becomes."""
    match stored.model:
        case EncoderDecoder():
            return Translator(stored)
        case DecoderOnly():
            return Writer(stored)
        case _:
            return Reader(stored)
