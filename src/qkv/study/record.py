"""Fits on disk: one JSON file, with the members and the draws, so that predictions and pictures need nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

from qkv.error import QkvError
from qkv.spec import plain
from qkv.spec.law import Convention, Cost, Form, Law, Resampling
from qkv.study.law import Fit, Goodness
from qkv.study.table import Member

VERSION = 1
SAID = {"form": Form, "convention": Convention, "cost": Cost, "law": Law, "resampling": Resampling}  # as values of the grammar


def write_fits(fits: Sequence[Fit], path: Path) -> None:
    """Write fits down. Raises QkvError where the file cannot be written."""
    text = json.dumps({"version": VERSION, "fits": [as_plain(fit) for fit in fits]}, indent=1) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise QkvError(f"{path} cannot be written: {error.strerror}") from None


def as_plain(fit: Fit) -> dict[str, Any]:
    """A fit as dictionaries, lists, numbers and strings."""
    values = {name: plain.to_plain(getattr(fit, name)) for name in SAID}
    return asdict(fit) | values


def read_fits(path: Path) -> tuple[Fit, ...]:
    """The fits in a file. Raises QkvError where it holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QkvError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise QkvError(f"{path} holds no fit: it is not JSON; `qkv scale fit TABLE --out FILE.json` writes one") from None
    if not isinstance(found, dict) or "fits" not in found:
        raise QkvError(f"{path} holds no fit: `qkv scale fit TABLE --out FILE.json` writes one")
    if found.get("version") != VERSION:
        raise QkvError(f"{path} was written by another version of qkv: fit the table again")
    try:
        fits = tuple(_fit(each) for each in found["fits"])
    except (KeyError, TypeError, ValueError, QkvError) as error:
        raise QkvError(f"{path} is damaged: {error}") from None
    if not fits:
        raise QkvError(f"{path} holds no fit")
    return fits


def _fit(found: dict[str, Any]) -> Fit:
    values = {name: plain.from_plain(found[name]) for name in SAID}
    for name, kinds in SAID.items():
        if type(values[name]) not in get_args(kinds):
            raise ValueError(f"{name} is {type(values[name]).__name__}(...)")
    numbers = fields(values["law"])
    draws = tuple(tuple(map(float, row)) for row in found["draws"])
    every = [tuple(getattr(values["law"], field.name) for field in numbers), *draws]
    if len(draws) < 2 or any(len(row) != len(numbers) or not all(math.isfinite(each) for each in row) for row in every):
        raise ValueError("the numbers of its law, or of its draws, are not as many as they should be, or no numbers")
    held = found["held_out_goodness"]
    return Fit(
        **values,
        draws=draws,
        architecture=str(found["architecture"]),
        share=float(found["share"]),
        fitted=tuple(Member(**each) for each in found["fitted"]),
        held_out=tuple(Member(**each) for each in found["held_out"]),
        goodness=Goodness(**found["goodness"]),
        held_out_goodness=None if held is None else Goodness(**held),
        doubts=tuple(map(str, found["doubts"])),
    )
