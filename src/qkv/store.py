"""A model on disk: `model.json` (its description), `model.safetensors` (tied tensors once) and its tokenizers, all of it
readable without pickle."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from qkv.data.tokenizer import Tokenizer
from qkv.error import QkvError, QkvFailure
from qkv.model.transformer import AnyModel, build
from qkv.spec import plain
from qkv.spec.model import Model as Spec

JOINT = "tokenizer.json"
SIDES = ("source-tokenizer.json", "target-tokenizer.json")


@dataclass(frozen=True)
class Stored:
    """A model with the tokenizers of its two sides (the same object twice where they share one, or there is one side)."""

    model: AnyModel
    source: Tokenizer
    target: Tokenizer


def weights_of(model: AnyModel) -> dict[str, Tensor]:
    """Every parameter by name, tied ones once under the first of their names."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def put_weights(model: AnyModel, weights: dict[str, Tensor], where: Path) -> None:
    """Copy weights into a model in place. Raises QkvError where names or shapes differ."""
    own = dict(model.named_parameters())
    if own.keys() != weights.keys():
        different = sorted(own.keys() ^ weights.keys())
        raise QkvError(f"{where} does not fit its model.json: {len(different)} tensors differ, the first is {different[0]!r}")
    for name, parameter in own.items():
        if parameter.shape != weights[name].shape:
            raise QkvError(
                f"{where}: {name} has the shape {tuple(weights[name].shape)}, its model.json says {tuple(parameter.shape)}"
            )
        parameter.data.copy_(weights[name])


def inherit(model: AnyModel, donor: AnyModel) -> None:
    """Copy into a model all that a donor has under the same name; what neither embedding nor stack is may be lacking, and so may
    the unit by which positions halt: who makes all steps may learn to halt.

    Tied matrices have a name on each side, so that the encoder of a translator is found by a classifier. Raises QkvError where
    shapes differ or an encoder, a decoder or an embedding has no donor.
    """
    given = donor.state_dict()
    for name, value in model.state_dict().items():
        if name not in given:
            side, _, part = name.partition(".")
            if side in ("source", "target", "encoder", "decoder") and not part.startswith("halting."):
                raise QkvError(f"the model to start from has no {name}")
            continue
        if given[name].shape != value.shape:
            raise QkvError(
                f"{name} has the shape {tuple(given[name].shape)} in the model to start from, and {tuple(value.shape)} is wanted"
            )
        value.copy_(given[name])


def save_spec(folder: Path, spec: Spec) -> None:
    """Write `model.json`."""
    (folder / "model.json").write_text(json.dumps(plain.to_plain(spec), indent=2) + "\n", encoding="utf-8")


def load_spec(folder: Path) -> Spec:
    """Read `model.json`."""
    path = folder / "model.json"
    if not path.is_file():
        raise QkvError(f"{folder} is no run folder: there is no model.json in it")
    try:
        spec = plain.from_plain(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise QkvError(f"{path} cannot be read: {error}") from None
    if not isinstance(spec, Spec):
        raise QkvError(f"{path} describes no model that this version knows")
    return spec


def save_tokenizers(folder: Path, source: Tokenizer, target: Tokenizer) -> None:
    """Write one tokenizer file, or one for each side."""
    if source is target:
        source.save(folder / JOINT)
    else:
        for name, tokenizer in zip(SIDES, (source, target), strict=True):
            tokenizer.save(folder / name)


def load_tokenizers(folder: Path, spec: Spec) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of both sides. Raises QkvError if they are missing, or are not those of the model."""
    if not (folder / SIDES[0]).is_file():
        source = target = Tokenizer.load(folder / JOINT)
    else:
        source, target = (Tokenizer.load(folder / name) for name in SIDES)
    for side, tokenizer, entries in (("source", source, spec.vocabulary.source), ("target", target, spec.vocabulary.target)):
        if tokenizer.size != entries:
            raise QkvError(
                f"{folder}: the {side} tokenizer has {tokenizer.size} entries, the model was trained with {entries}: it "
                f"belongs to another model"
            )
    return source, target


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write tensors; equal tensors give equal bytes (one metadata key, since several are written in random order).

    Raises QkvFailure if the disk refuses.
    """
    try:
        safetensors.torch.save_file(
            {name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata={"format": "qkv"}
        )
    except (safetensors.SafetensorError, OSError) as error:
        path.unlink(missing_ok=True)
        raise QkvFailure(f"{path} could not be written: {error}") from None
    with contextlib.suppress(OSError):  # of a file system without permissions, where there is nothing to mend
        path.chmod(0o666 & ~_umask())  # the library lets nobody but the owner read it


def _umask() -> int:
    """What this process takes away from the permissions of a new file; it can be read only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors. Raises QkvError if the file is missing, cut short or otherwise broken."""
    if not path.is_file():
        raise QkvError(f"{path} is missing: has the training of this run finished? `qkv train ... --resume` goes on with it")
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise QkvError(f"{path} cannot be read ({error}): it was cut short or altered; `qkv verify` checks a run") from None


def load(folder: Path | str, device: str | torch.device = "cpu") -> Stored:
    """The finished model of a run folder, ready to use."""
    folder = Path(folder)
    if not folder.is_dir():
        raise QkvError(f"there is no run folder {folder}")
    spec = load_spec(folder)
    source, target = load_tokenizers(folder, spec)
    model = build(spec)
    put_weights(model, load_weights(folder / "model.safetensors"), folder / "model.safetensors")
    return Stored(model.to(device).eval(), source, target)
