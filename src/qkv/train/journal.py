"""`journal.jsonl`: a line for each thing worth knowing later, written at once."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qkv.error import QkvError, QkvFailure

Mirror = Callable[[str, dict[str, Any]], None]


class Journal:
    """Lines of JSON that are on disk as soon as they are written."""

    def __init__(self, path: Path, mirror: Mirror | None = None) -> None:
        self._file = path.open("ab")
        self._mirror = mirror

    def write(self, kind: str, **fields: Any) -> None:
        """Add a line."""
        try:
            self._file.write(json.dumps({"kind": kind, **fields}).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise QkvFailure(
                f"{self._file.name} could not be written: {error.strerror}; the checkpoints before it are kept"
            ) from None
        if self._mirror is not None:
            self._mirror(kind, fields)

    @property
    def length(self) -> int:
        """Bytes so far."""
        return os.fstat(self._file.fileno()).st_size

    def cut(self, length: int) -> None:
        """Forget what was written after so many bytes: those steps will be made again."""
        self._file.truncate(length)
        self._file.seek(0, os.SEEK_END)

    def sync(self) -> None:
        """Make sure of the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written was said when it was
            self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """All lines; one that was cut off by a crash is left out."""
    if not path.is_file():
        raise QkvError(f"{path} is missing: nothing was trained in this folder yet")
    lines = []
    for line in path.read_bytes().split(b"\n"):
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines
