"""What the tests of studies share: ladders whose law is known."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qkv.spec.law import Coupled, Surface
from qkv.study.table import Member, Table

PUBLISHED = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
SIZES, TOKENS = np.geomspace(1e7, 3e9, 6).tolist(), np.geomspace(1e9, 1e11, 5).tolist()


def ladder(
    law: Surface | Coupled = PUBLISHED,
    sizes: Sequence[float] = SIZES,
    tokens: Sequence[float] = TOKENS,
    noise: float = 0.0,
    seed: int = 1,
    architecture: str = "",
) -> list[Member]:
    """A member for each size and number of tokens, whose losses follow a law, but for noise on their logarithms."""
    draw = np.random.default_rng(seed)
    return [
        Member(
            f"{architecture or 'member'} {number}",
            n,
            None,
            d,
            law.loss(n, d) * float(np.exp(draw.normal(0, noise))),
            None,
            architecture,
        )
        for number, (n, d) in enumerate(product(sizes, tokens))
    ]


def table(*members: Member) -> Table:
    """A table that was not read from a file."""
    return Table(members)


Written = Callable[..., Path]


def write(path: Path, header: str, rows: Sequence[Sequence[Any]]) -> Path:
    """A CSV of some columns."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write members into a CSV, and give back its path."""

    def wrote(members: Sequence[Member], columns: str = "name,parameters,tokens,loss,architecture") -> Path:
        rows = [[getattr(member, name) for name in columns.split(",")] for member in members]
        return write(tmp_path / "made.csv", columns, rows)

    return wrote
