"""A model folder from Hugging Face as a model of ours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from qkv.error import QkvError
from qkv.interop.huggingface.architecture import Architecture
from qkv.interop.huggingface.config import GENERATION, read_config, read_json
from qkv.interop.huggingface.kinds import named
from qkv.interop.huggingface.names import brought_in
from qkv.interop.huggingface.settings import Settings
from qkv.interop.huggingface.tokenizer import tokenizers_of
from qkv.interop.huggingface.weights import read_weights
from qkv.model.transformer import AnyModel, build
from qkv.store import Stored, put_weights, save_spec, save_tokenizers, save_weights, weights_of


@dataclass(frozen=True)
class Imported:
    """A model, what it was called, where it came from, and what is to be said of how it was read; `tokenized` says whether the
    folder had a tokenizer."""

    stored: Stored
    architecture: Architecture
    folder: Path
    tokenized: bool
    notes: tuple[str, ...]


def bring(folder: Path) -> Imported:
    """The model of a folder, ready to use. Raises QkvError for what is not whole, not known, or would run code."""
    config = read_config(folder)
    architecture = named(config, folder)
    settings = Settings(config, architecture.usual, folder)
    weights, notes = read_weights(folder)
    model, more = _model(architecture, settings, weights)
    said = replace(settings, said=config | read_json(folder / GENERATION))
    found = tokenizers_of(folder, said, architecture, model.spec)
    return Imported(
        Stored(model, found.source, found.target), architecture, folder, found.tokenized, (*notes, *more, *found.notes)
    )


def save(imported: Imported, out: Path) -> None:
    """Write a run folder that can be used and trained on: its tokenizers, its description, and at last its weights."""
    save_tokenizers(out, imported.stored.source, imported.stored.target)
    save_spec(out, imported.stored.model.spec)
    aside = out / ".writing-model.safetensors"
    save_weights(aside, weights_of(imported.stored.model))
    aside.rename(out / "model.safetensors")


def _model(architecture: Architecture, settings: Settings, weights: dict[str, torch.Tensor]) -> tuple[AnyModel, list[str]]:
    """The module, and what is to be said of the tensors."""
    folder = settings.where
    theirs = architecture.settled(weights)
    try:
        spec = architecture.described(settings, theirs)
        model = build(spec)
    except QkvError as error:
        raise QkvError(f"{folder}: {error}" if str(folder) not in str(error) else str(error)) from None
    pairs = architecture.pairs(spec)
    put_weights(model, brought_in(pairs, theirs, weights_of(model), folder), folder)
    notes = []
    other = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in theirs.values()} - {"float32"})
    if any(name.startswith(("float", "bfloat")) for name in other):
        notes.append(f"the weights are kept as {' and '.join(n for n in other if 'float' in n)} there, and as float32 here")
    left = architecture.left_over(theirs, pairs)
    if left:
        notes.append(f"{len(left)} tensors have no part in this model and are left out, such as {left[0]!r}")
    return model.eval(), notes
