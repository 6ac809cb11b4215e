"""qkv: the transformer family, to train, to use and to look into."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# nothing is imported before it is used: `qkv --help` must not wait for torch
_PLACES = {"load": "qkv.decode.engine", "build": "qkv.model.transformer", "QkvError": "qkv.error"}

__all__ = ["QkvError", "build", "load"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("qkv")
    if name not in _PLACES:
        raise AttributeError(f"module 'qkv' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
