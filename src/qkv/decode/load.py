"""Finished models, laid out for use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from qkv import device as machine
from qkv.model.transformer import pack, quantise
from qkv.store import Stored, load

INT8 = "int8"


def finished(run: Path | str, *, device: str = "auto", precision: str = "auto") -> Stored:
    """The finished model of a run folder. `auto` computes in fp32 on a CPU, and in bf16 on a GPU that has it; `int8` keeps the
    weights of linear maps in eight bits, on a CPU."""
    if precision == INT8:
        stored = load(run, "cpu")
        quantise(stored.model)
        return stored
    where = machine.pick(device, "fp32" if precision == "auto" and not torch.cuda.is_available() else precision)
    stored = load(run, where.device)
    model = stored.model.to(where.precision)
    pack(model)
    return replace(stored, model=model)
