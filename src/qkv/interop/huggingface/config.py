"""A model folder's `config.json`, read by us before anything else is: what it asks for that we do not do is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qkv.error import QkvError

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
CODE = ("auto_map", "trust_remote_code")  # by these a folder asks that Python files beside it be run

Plain = dict[str, Any]


def read_config(folder: Path) -> Plain:
    """What the folder says of its model. Raises QkvError where it says nothing, or asks for code to be run."""
    path = folder / CONFIG
    if not path.is_file():
        raise QkvError(
            f"there is no {CONFIG} in {folder}: the download is not whole, or this is not a model's folder; name the one that "
            f"holds {CONFIG} and the weights"
        )
    for name in (CONFIG, TOKENIZER):
        asked = [key for key in CODE if read_json(folder / name).get(key)]
        if asked:
            raise QkvError(
                f"{folder / name} asks by {asked[0]!r} for Python code out of the folder to be run, which qkv never does: only "
                f"models that transformers itself knows can be imported"
            )
    return read_json(path)


def read_json(path: Path) -> Plain:
    """A file of one JSON object; an empty one where there is no file. Raises QkvError for anything else."""
    if not path.is_file():
        return {}
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise QkvError(f"{path} cannot be read ({error}): download it again") from None
    if not isinstance(plain, dict):
        raise QkvError(f"{path} should hold one JSON object, not {type(plain).__name__}: download it again")
    return plain


def write_json(path: Path, plain: Plain) -> None:
    """Write one JSON object."""
    path.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
