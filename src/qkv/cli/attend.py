"""`qkv attend`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from qkv.error import QkvError


def attend(
    queries: Annotated[Path, typer.Option(help="A .npy of T queries in rows, as wide as the keys.")],
    out: Annotated[Path, typer.Option(help="The .npy to write: what each query receives.")],
    keys: Annotated[Path | None, typer.Option(help="A .npy of keys in rows.")] = None,
    values: Annotated[Path | None, typer.Option(help="A .npy of as many values in rows.")] = None,
    database: Annotated[
        Path | None, typer.Option(help="Instead of these, a .safetensors with a tensor of each, `keys` and `values`.")
    ] = None,
    score: Annotated[str, typer.Option(help="How strongly a query matches a key, such as 'Gaussian(width=2)'.")] = "ScaledDot()",
    rows: Annotated[int, typer.Option(help="Keys that are read at a time; 0 is as many as a processor's cache likes.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves it to PyTorch.")] = 0,
) -> None:
    """Ask a database of keys and values, of any size.

    What each query receives is all of the values, weighted by how well their keys match it: exact, and in constant memory.
    """
    import numpy as np
    import torch

    from qkv import device
    from qkv.attention.database import Arrays, Tensors, attend_over, mapped
    from qkv.spec import plain
    from qkv.spec.score import Score, learns

    device.prepare(threads)
    if (database is None) == (keys is None) or (keys is None) != (values is None):
        raise QkvError("give --keys and --values, or --database with both in one file")
    if rows < 0:
        raise QkvError(f"--rows is a number of keys, or 0, not {rows}")
    asked = torch.from_numpy(mapped(queries))
    how = plain.parse(score)
    if not isinstance(how, Score):
        raise QkvError(f"--score is a score such as ScaledDot() or Gaussian(width=2), not {score!r}")
    if names := learns(how, 1, asked.shape[1]):
        raise QkvError(
            f"{how} has a {', '.join(names)} to learn, and nobody who learned it: give a score that has nothing to learn"
        )
    held = Tensors(database, rows=rows) if database else Arrays(keys or "", values or "", rows)
    with _bar(len(held)) as told:
        attended = attend_over(asked, held, how, told=told)
    try:
        with out.open("wb") as file:
            np.save(file, attended.numpy())
    except OSError as error:
        raise QkvError(f"{out} cannot be written: {error.strerror}") from None
    print(f"{len(asked):,} queries asked {len(held):,} keys: {out}")


@contextmanager
def _bar(keys: int) -> Iterator[Callable[[int], None]]:
    """How many keys have been seen, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("keys"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=keys)
        yield lambda seen: bar.update(task, completed=seen)
