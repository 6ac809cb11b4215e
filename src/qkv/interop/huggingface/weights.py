"""The tensors of a model folder, in one file or in many, and never by way of code."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from qkv.error import QkvError
from qkv.interop.huggingface.config import read_json

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"

Weights = dict[str, Tensor]


def read_weights(folder: Path) -> tuple[Weights, list[str]]:
    """Every tensor of the folder by name, and what is to be said of how they were read. Raises QkvError where some are missing
    or damaged."""
    for name, read, notes in ((SAFE, _safe, []), (PICKLED, _pickled, [_SAID])):
        if (folder / f"{name}.index.json").is_file():
            return _sharded(folder, name, read), notes
        if (folder / name).is_file():
            return read(folder / name), notes
    raise QkvError(
        f"there are no weights in {folder}: neither {SAFE} (or {SAFE}.index.json with its shards) nor {PICKLED}; the download is "
        f"not whole, or the weights are for another framework"
    )


_SAID = (
    f"the weights are a pickle ({PICKLED}); they were read by PyTorch's weights-only loader, which runs none of the code in it"
)


def _sharded(folder: Path, name: str, read: Callable[[Path], Weights]) -> Weights:
    index = folder / f"{name}.index.json"
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise QkvError(f"{index} names no shards: download it again")
    found: Weights = {}
    for shard in sorted(set(map(str, places.values()))):
        if Path(shard).name != shard:
            raise QkvError(f"{index} names {shard!r}, which is not the plain name of a file beside it")
        if not (folder / shard).is_file():
            raise QkvError(f"{index.name} names {shard}, which is not in {folder}: the download is not whole")
        found |= read(folder / shard)
    lost = sorted(places.keys() - found.keys())
    if lost:
        raise QkvError(f"{index.name} says that {lost[0]!r} is in {places[lost[0]]}, but it is not: download {folder} again")
    return found


def _safe(path: Path) -> Weights:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise QkvError(f"{path} cannot be read ({error}): it was cut short or altered; download it again") from None


def _pickled(path: Path) -> Weights:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise QkvError(
            f"{path} holds more than tensors, which could run code, and is not read ({str(error).splitlines()[0]}): ask for the "
            f"model as {SAFE}"
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        raise QkvError(f"{path} cannot be read ({error}): it was cut short or altered; download it again") from None
    if not isinstance(found, dict) or not all(isinstance(each, Tensor) for each in found.values()):
        raise QkvError(f"{path} should hold tensors by name, and holds something else")
    return found
