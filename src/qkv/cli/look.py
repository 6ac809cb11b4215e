"""`qkv look`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qkv.cli.console import warn


def heads(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    text: Annotated[str, typer.Argument(help="A text to read; a masked model's may hold <mask>.")],
    target: Annotated[
        str | None, typer.Argument(help="What a translator is to write; without it its own translation of the text.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The picture; without it RUN/heads.png.")] = None,
) -> None:
    """One picture of the attention of a text, or of a sentence pair, in every head of every block."""
    from qkv.decode.engine import load
    from qkv.decode.translate import Translator
    from qkv.error import QkvError
    from qkv.look import heads as picture

    model = load(run, device="cpu")
    path = out or run / "heads.png"
    if isinstance(model, Translator):
        text = text.strip()  # as when it is translated
        target = target if target is not None else model.translate([text])[0][0].text
        warn(f"{text!r} -> {target!r}")
    elif target is not None:
        raise QkvError(f"{run} is no translator, and looks at one text: leave out {target!r}")
    picture.draw(model, text, target, path)
    print(path)
