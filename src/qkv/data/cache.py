"""What was prepared from a text, kept in a folder of its own and found again.

A folder is built beside the one wanted and renamed when it is whole, so that what a killed run leaves behind is never taken for a
corpus. The sizes of all its files are written down last, by which a folder that was damaged later is known.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qkv.error import QkvError

CONTENTS = "contents.json"


def default_cache() -> Path:
    """Where prepared text is kept: $QKV_CACHE, else $XDG_CACHE_HOME/qkv, else ~/.cache/qkv."""
    if named := os.environ.get("QKV_CACHE"):
        return Path(named)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "qkv"
    try:
        return Path.home() / ".cache" / "qkv"
    except RuntimeError:
        raise QkvError("this user has no home folder to keep prepared text in: name a folder in the variable QKV_CACHE") from None


def found_or_built(
    cache: Path, key: Callable[[], str], fill: Callable[[Path], dict[str, Any]]
) -> tuple[Path, dict[str, Any], bool]:
    """The folder of a key, the report that `fill` gave when it filled it, and whether it was there already.

    Raises QkvError where the cache cannot be written.
    """
    folder = Path(cache) / key()
    try:
        reused = _is_whole(folder)
        if not reused:
            _build(folder, fill)
        return folder, json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["report"], reused
    except OSError as error:  # reading the text has errors of its own
        raise QkvError(
            f"prepared text cannot be kept in {cache}: {error.strerror or error}; "
            f"make room there, or name another folder in the variable QKV_CACHE"
        ) from None


def _build(folder: Path, fill: Callable[[Path], dict[str, Any]]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    unfinished.mkdir()
    try:
        report = fill(unfinished)
        sizes = {path.name: path.stat().st_size for path in sorted(unfinished.iterdir())}
        text = json.dumps({"sizes": sizes, "report": report}, indent=1)
        (unfinished / CONTENTS).write_text(text, encoding="utf-8")
        _finish(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _finish(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        # Either another run was faster, and its work is as good as ours, or a damaged folder is in the way.
        if _is_whole(folder):
            shutil.rmtree(unfinished)
            return
        shutil.rmtree(folder)
        unfinished.rename(folder)


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False
