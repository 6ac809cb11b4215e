"""An architecture of Hugging Face that we can read and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qkv.interop.huggingface.names import Pair
from qkv.interop.huggingface.settings import Settings
from qkv.spec.model import Model

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """What an architecture is called there, and the correspondence with our grammar, both ways.

    `classes` are the names that a config.json may give it, the first the one that we write; `auto` is the class of
    `transformers` that makes it. Tensors of the model without its head may lack the `prefix`. Of `shared` tensors a file needs
    to have one, under any of the names in a row; those whose names end in one of `spare` are no parameters. `copies` are what
    we write twice, by their names and those of the tensors they are copies of.
    """

    name: str
    model_type: str
    classes: tuple[str, ...]
    auto: str
    usual: Mapping[str, Any]
    described: Callable[[Settings, Weights], Model]
    configured: Callable[[Any], dict[str, Any]]
    pairs: Callable[[Any], list[Pair]]
    prefix: str = ""
    heads: tuple[str, ...] = ()
    shared: tuple[tuple[str, ...], ...] = ()
    spare: tuple[str, ...] = ()
    copies: Callable[[Any], Mapping[str, str]] = lambda spec: {}

    def settled(self, theirs: Weights) -> dict[str, Tensor]:
        """The tensors by the names that they have in a model with its head, those that may be left out put in."""
        found = {_modern(name): tensor for name, tensor in theirs.items()}
        if not any(name.startswith(self.prefix) for name in found):
            found = {name if name.startswith(self.heads) else self.prefix + name: tensor for name, tensor in found.items()}
        for names in self.shared:
            there = [name for name in names if name in found]
            if there and names[0] not in found:
                found[names[0]] = found[there[0]]
        return found

    def left_over(self, theirs: Weights, pairs: list[Pair]) -> list[str]:
        """The names of tensors that nothing of ours holds, and that are something."""
        known = {pair.theirs for pair in pairs} | {name for names in self.shared for name in names}
        return sorted(name for name in theirs if name not in known and not name.endswith(self.spare))


def _modern(name: str) -> str:
    """The names of norms as they have been for some years."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def apart(theirs: Weights, name: str, other: str) -> bool:
    """Whether a tensor is there, and is another than one that it is often tied to."""
    if name not in theirs:
        return False
    if other not in theirs or theirs[name].shape != theirs[other].shape:
        return True
    return not torch.equal(theirs[name], theirs[other])
