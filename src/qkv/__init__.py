"""qkv: the transformer family, to train, to use and to look into."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# nothing is imported before it is used: `qkv --help` must not wait for torch
_PLACES = {
    "attend": "qkv.attention.query",
    "attend_over": "qkv.attention.database",
    "build": "qkv.model.transformer",
    "load": "qkv.decode.engine",
    "QkvError": "qkv.error",
}

__all__ = ["QkvError", "attend", "attend_over", "build", "load"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("qkv")
    if name not in _PLACES:
        raise AttributeError(f"module 'qkv' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
