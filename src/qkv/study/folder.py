"""The folder of a study: what was asked for, and where its members lie."""

from __future__ import annotations

import json
import re
import tomllib
from hashlib import blake2b
from pathlib import Path
from typing import Any

import tomli_w

from qkv.data.text import digest
from qkv.error import QkvError
from qkv.spec import plain
from qkv.spec.model import Model
from qkv.spec.run import Source
from qkv.spec.study import OnValidation, Unjudged
from qkv.train.run_folder import differences

MEMBERS, MODELS = "members", "models"


def agreed(folder: Path, name: str, study: Any, resume: bool) -> None:
    """See that a folder is empty, or that its study is the one that is asked for now. Raises QkvError with the places that
    differ."""
    path = folder / name
    if not path.is_file():
        if any(each.name != ".lock" for each in folder.iterdir()):
            raise QkvError(f"{folder} is not empty and holds no {path.stem}; give --out another folder")
    elif not resume:
        raise QkvError(f"{folder} holds a {path.stem} already; go on with it by --resume, or give --out another folder")
    elif changed := differences(read_study(folder, name), study):
        raise QkvError(
            f"{folder} was begun with other options: {'; '.join(changed)}. A {path.stem} that goes on keeps its options"
        )


def begin(folder: Path, name: str, study: Any, models: dict[Path, Model]) -> None:
    """Write down what is asked for, and the models that were made for it; nothing is written twice."""
    texts = {folder / name: tomli_w.dumps(plain.to_plain(study))}  # first: a folder that holds it can be gone on with
    texts |= {path: json.dumps(plain.to_plain(model), indent=2) + "\n" for path, model in models.items()}
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        if not path.is_file():
            path.write_text(text, encoding="utf-8")


def same_text(folder: Path, texts: dict[str, str], test: Source | OnValidation | Unjudged) -> None:
    """Write down what the text is, or see that it is what it was."""
    note = folder / "text.json"
    found = texts | ({} if isinstance(test, OnValidation | Unjudged) else {"test": _digest(test)})
    if not note.is_file():
        note.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    before = json.loads(note.read_text(encoding="utf-8"))
    changed = [name for name in found if before.get(name) != found[name]]
    if changed:
        raise QkvError(
            f"the {' and '.join(changed)} text is not what {folder} was begun with; a study that goes on keeps its text"
        )


def _digest(test: Source) -> str:
    names = [name for field in ("source", "target", "files") for name in getattr(test, field, ())]
    return blake2b(b"".join(digest(name) for name in names) or repr(test).encode(), digest_size=16).hexdigest()


def read_study(folder: Path, name: str) -> Any:
    """What was asked for. Raises QkvError where there is nothing, or nothing that can be read."""
    path = folder / name
    try:
        return plain.from_plain(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise QkvError(f"there is no {path.stem} in {folder} to go on with") from None
    except (OSError, ValueError) as error:
        raise QkvError(f"{path} cannot be read: {error}") from None


def put(path: Path, text: str) -> None:
    """Write a file so that it is whole at any time."""
    aside = path.with_name(f".writing-{path.name}")
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)


def place(folder: Path, name: str, seed: int) -> Path:
    """Where a member lies."""
    return folder / MEMBERS / f"{slug(name)}-{seed}"


def slug(name: str) -> str:
    """A name as that of a file."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
