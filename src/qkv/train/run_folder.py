"""The folder of a run: who holds it, and what was asked for."""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import filelock
import tomli_w

from qkv.error import QkvError
from qkv.spec import plain
from qkv.spec.data import Form
from qkv.spec.run import Run

RECIPE = "run.toml"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder for this process alone. The system itself lets go of the lock when a process dies, however it dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise QkvError(f"{folder} is in use: another process is training in it") from None
    except OSError as error:
        raise QkvError(f"{folder} cannot be written to: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def write_run(folder: Path, run: Run) -> None:
    """Write `run.toml`: enough to train the same model again, from any folder."""
    with (folder / RECIPE).open("wb") as file:
        tomli_w.dump(plain.to_plain(run), file)


def read_run(path: Path, replaced: Collection[str] = ()) -> Run:
    """The run that a recipe or a `run.toml` describes; `$NAME` in file names is taken from the environment, but for the fields
    that the caller replaces."""
    try:
        with path.open("rb") as file:
            run = plain.from_plain(_expanded(tomllib.load(file), path, {f"Run.{name}" for name in replaced}))
    except FileNotFoundError:
        raise QkvError(f"there is no recipe {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise QkvError(f"{path} is no TOML file: {error}") from None
    if not isinstance(run, Run):
        raise QkvError(f"{path} describes no run")
    return run


def form_of(folder: Path) -> Form | None:
    """The form of the bytes that a run learned from; None where it learned from text, or nobody knows."""
    return read_run(folder / RECIPE).form if (folder / RECIPE).is_file() else None


def _expanded(value: Any, path: Path, spared: Collection[str], name: str = "") -> Any:
    match value:
        case _ if name in spared:
            return value
        case str() if value.startswith("$"):  # elsewhere it is part of somebody's file name
            expanded = os.path.expandvars(value)
            if "$" in expanded:
                raise QkvError(f"{path} names {value!r}, but that variable is not set in the environment")
            return expanded
        case list():
            return [_expanded(item, path, spared) for item in value]
        case dict():
            return {key: _expanded(item, path, spared, f"{name}.{key}" if name else key) for key, item in value.items()}
    return value


def differences(before: Any, after: Any, name: str = "") -> list[str]:
    """The places in which two runs differ, by name."""
    old, new = plain.to_plain(before), plain.to_plain(after)
    return _differences(old, new, name)


def _differences(old: Any, new: Any, name: str) -> list[str]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return [found for key in old for found in _differences(old[key], new[key], _joined(name, key))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and all(isinstance(each, dict) for each in old):
        pairs = enumerate(zip(old, new, strict=True))
        return [found for place, (one, other) in pairs for found in _differences(one, other, _joined(name, str(place)))]
    return [f"{name}: {old!r} before, {new!r} now"]


def _joined(name: str, key: str) -> str:
    """Fields make up a place's name; the names of values between them do not."""
    if key[:1].isupper():
        return name
    return f"{name}.{key}" if name else key
