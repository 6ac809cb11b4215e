"""The attention of a text, or of a pair of sentences, as one page to look around in: a single file that needs nothing else."""

from __future__ import annotations

import base64
import json
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qkv.look.heads import Kind

STEPS = 255  # of a weight, on the page


def entropy(weights: Float[Tensor, "T S"]) -> float:
    """The mean entropy of the weights of queries that see something, in bits."""
    seeing = weights[weights.sum(1) > 0]
    return float(torch.special.entr(seeing).sum(1).mean() / np.log(2)) if len(seeing) else 0.0


def distance(weights: Float[Tensor, "T S"]) -> float:
    """How far queries look on the average, in tokens, where they ask the text that they stand in."""
    away = (torch.arange(len(weights))[:, None] - torch.arange(weights.shape[1])).abs()
    return float((weights * away).sum(1).mean())


def write(found: list[Kind], title: str, path: Path) -> None:
    """Write the page. Weights are rounded to 1/255."""
    planes, start = list[bytes](), 0
    kinds: list[dict[str, Any]] = []
    for kind in found:
        levels: list[dict[str, Any]] = []
        itself = kind.queries is kind.keys
        for number, weights in zip(kind.numbers, kind.levels, strict=True):
            heads = [
                {"entropy": round(entropy(each), 3), "distance": round(distance(each), 3) if itself else None} for each in weights
            ]
            levels.append({"number": number, "start": start, "heads": heads})
            planes.append((weights * STEPS).round().to(torch.uint8).numpy().tobytes())
            start += len(planes[-1])
        described = {"title": kind.title, "level": kind.level, "queries": kind.queries, "keys": kind.keys, "levels": levels}
        kinds.append(described)
    packed = base64.b64encode(zlib.compress(b"".join(planes), 9)).decode()
    data = json.dumps({"title": title, "kinds": kinds, "weights": packed}, ensure_ascii=False).replace("<", "\\u003c")
    page = files("qkv.look").joinpath("page.html").read_text(encoding="utf-8")
    path.write_text(page.replace("/*DATA*/", data), encoding="utf-8")


def arrays(found: list[Kind], path: Path) -> None:
    """Write the weights of each level as an array (H, T, S), named as in `decoder.1`, and the pieces that ask and are asked."""
    held: dict[str, Any] = {}
    for kind in found:
        name = kind.title.partition(":")[0] if kind.queries is kind.keys else "memory"
        held |= {f"{name}.queries": np.array(kind.queries), f"{name}.keys": np.array(kind.keys)}
        held |= {f"{name}.{number}": each.numpy() for number, each in zip(kind.numbers, kind.levels, strict=True)}
    with path.open("wb") as file:
        np.savez_compressed(file, **held)
