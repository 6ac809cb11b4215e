"""Finished models, laid out for use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from qkv import device as machine
from qkv.error import QkvError, unknown
from qkv.model.transformer import AnyModel, Classifier, DecoderOnly, EncoderDecoder, EncoderOnly, pack, quantise
from qkv.spec.run import PRECISIONS
from qkv.store import Stored, load

INT8 = "int8"
SHAPES: dict[type, tuple[str, str]] = {
    EncoderDecoder: ("a translator", "`qkv translate`"),
    DecoderOnly: ("a language model", "`qkv generate`"),
    EncoderOnly: ("a masked model", "`qkv fill` or `qkv embed`"),
    Classifier: ("a classifier", "`qkv classify`"),
}


def finished(run: Path | str, *, device: str = "auto", precision: str = "auto") -> Stored:
    """The finished model of a run folder. `auto` computes in fp32 on a CPU, and in bf16 on a GPU that has it; `int8` keeps the
    weights of linear maps in eight bits, on a CPU. Raises QkvError for names that nobody knows."""
    if precision not in (*PRECISIONS, INT8):
        raise unknown("precision", precision, (*PRECISIONS, INT8))
    if precision == INT8:
        if machine.pick(device, "fp32").device.type != "cpu" and device != "auto":
            raise QkvError("int8 is for CPUs: leave out --device cuda, or take another --precision")
        stored = load(run, "cpu")
        quantise(stored.model)
        return stored
    where = machine.pick(device, "fp32" if precision == "auto" and not torch.cuda.is_available() else precision)
    stored = load(run, where.device)
    model = stored.model.to(where.precision)
    pack(model)
    return replace(stored, model=model)


def misused(model: AnyModel, lack: str) -> QkvError:
    """The error for a model that is asked for what its shape cannot do."""
    shape, verb = SHAPES[type(model)]
    return QkvError(f"the run is {shape}, which {lack}: use {verb}")
