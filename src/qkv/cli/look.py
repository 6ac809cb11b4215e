"""`qkv look`."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.console import warn

Target = Annotated[str | None, typer.Argument(help="What a translator is to write; without it its own translation of the text.")]


def heads(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    text: Annotated[str, typer.Argument(help="A text to read; a masked model's may hold <mask>.")],
    target: Target = None,
    out: Annotated[Path | None, typer.Option(help="The picture; without it RUN/heads.png.")] = None,
) -> None:
    """One picture of the attention of a text, or of a sentence pair, in every head of every block."""
    from qkv.look import heads as picture

    model, text, target = _opened(run, text, target)
    path = out or run / "heads.png"
    picture.draw(model, text, target, path)
    print(path)


def ponder(
    run: Annotated[Path, typer.Argument(help="The run folder, of a model whose positions halt by themselves.")],
    text: Annotated[str, typer.Argument(help="A text to read.")],
    target: Target = None,
    out: Annotated[Path | None, typer.Option(help="The picture; without it RUN/ponder.png.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the steps of every piece instead of drawing them.")] = False,
) -> None:
    """How many steps each word takes before it halts: a picture under the words of a text, or of a sentence pair."""
    from qkv.decode import seen
    from qkv.look import ponder as picture

    model, text, target = _opened(run, text, target)
    found = seen.ponder(model, text, target)
    if json:
        print(json_.dumps([vars(each) for each in found], indent=1, ensure_ascii=False))
        return
    path = out or run / "ponder.png"
    picture.draw(found, text if target is None else f"{text}\n{target}", path)
    print(path)


def _opened(run: Path, text: str, target: str | None) -> tuple[Any, str, str | None]:
    """A run, the text that it is to look at, and what a translator makes of that where nobody says it."""
    from qkv.decode.engine import load
    from qkv.decode.translate import Translator
    from qkv.error import QkvError

    model = load(run, device="cpu")
    if isinstance(model, Translator):
        text = text.strip()  # as when it is translated
        target = target if target is not None else model.translate([text])[0][0].text
        warn(f"{text!r} -> {target!r}")
    elif target is not None:
        raise QkvError(f"{run} is no translator, and looks at one text: leave out {target!r}")
    return model, text, target
