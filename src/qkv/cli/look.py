"""`qkv look`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qkv.cli.console import warn


def heads(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    source: Annotated[str, typer.Argument(help="A sentence to read.")],
    target: Annotated[str | None, typer.Argument(help="A sentence to write; without it the model's own translation.")] = None,
    out: Annotated[Path | None, typer.Option(help="The picture; without it RUN/heads.png.")] = None,
) -> None:
    """One picture of the attention of a sentence pair, in every head of every block."""
    from qkv.decode.translate import load
    from qkv.look import heads as picture

    translator = load(run, device="cpu")
    source = source.strip()  # as when it is translated
    written = target if target is not None else translator.translate([source])[0][0].text
    path = out or run / "heads.png"
    picture.draw(translator, source, written, path)
    warn(f"{source!r} -> {written!r}")
    print(path)
