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


def pattern(
    what: Annotated[str, typer.Argument(help="A run folder, a named model, or a pattern: 'Causal() & (Local(8) | Stride(8))'.")],
    length: Annotated[int | None, typer.Option(help="Positions; without it four times the longest stride or block.")] = None,
    side: Annotated[str | None, typer.Option(help="encoder or decoder, of a model that has both.")] = None,
    out: Annotated[Path | None, typer.Option(help="The picture; without it RUN/pattern.png, or pattern.png here.")] = None,
) -> None:
    """Who sees whom in every head, and how many hops connect any two positions: one picture, and what it comes to in words."""
    from qkv.look import pattern as picture

    found = picture.sight(_depth(what, side), length)
    path = out or (Path(what) if Path(what).is_dir() else Path()) / "pattern.png"
    picture.draw(found, what, path)
    for line in (*found.says(), path):
        print(line)


def cell(
    what: Annotated[str, typer.Argument(help="A run folder, a named model or a file of one, of cells: evolved-base.")],
    side: Annotated[str | None, typer.Option(help="encoder or decoder; without it both.")] = None,
    out: Annotated[Path | None, typer.Option(help="The picture; without it RUN/cell.png, or cell.png here.")] = None,
) -> None:
    """What a cell does: its nodes from the top, their branches beside each other, and how wide each result is."""
    from qkv.error import QkvError
    from qkv.look import cell as picture
    from qkv.spec.cell import Cell

    spec = _spec(what)
    if spec is None:
        raise QkvError(f"{what!r} is no run folder and no named model: `qkv models` lists them")
    depths = _sides(what, spec, side)
    cells = {
        f"{name}, {number} of {len(depth.blocks)}" if len(depth.blocks) > 1 else f"{name}, {len(depth.tiled())} times": block
        for name, depth in depths.items()
        for number, block in enumerate(depth.blocks, 1)
        if isinstance(block, Cell)
    }
    if not cells:
        raise QkvError(f"{what} has no cells, but blocks of sublayers in a row: nothing to draw")
    path = out or (Path(what) if Path(what).is_dir() else Path()) / "cell.png"
    picture.draw(cells, spec.width, what, path)
    print(path)


def search(
    folder: Annotated[Path, typer.Argument(help="The folder of a search.")],
    out: Annotated[Path | None, typer.Option(help="The picture; without it FOLDER/search.png.")] = None,
) -> None:
    """All children of a search, with the hurdles, as one picture; and in words, how the best one came to be."""
    from qkv.error import QkvError
    from qkv.evolve.genome import differences
    from qkv.evolve.record import Records, fittest, read_search
    from qkv.look import search as picture

    records = Records(folder, read_search(folder), resume=True)
    children = sorted(records, key=lambda child: child.number)
    records.close()
    best = fittest(children)
    if best is None:
        raise QkvError(f"no child of {folder} has lived so far: there is nothing to draw")
    dots = [picture.Dot(each.number, each.parent, () if each.failure else each.stages, each.hurdles) for each in children]
    path = out or folder / "search.png"
    picture.draw(dots, best.number, f"{folder}: {len(children)} children", path)
    known = {child.number: child for child in children}
    for number in picture.lineage(dots, best.number):
        child = known[number]
        print(f"child {number}: fitness {child.fitness:.4f} after {child.steps} steps, {child.parameters:,} parameters")
        for line in differences(known[child.parent].model, child.model) if child.parent is not None else ():
            print(f"  {line}")
    print(path)


def _spec(what: str) -> Any:
    """What a run, a named model or a file of one is; None where there is no such thing."""
    from qkv.papers.catalogue import CATALOGUE, named
    from qkv.spec.model import Joint
    from qkv.store import load_spec

    if Path(what).is_dir():
        return load_spec(Path(what))
    return named(what, Joint(37000)) if what in CATALOGUE or Path(what).suffix == ".json" else None


def _sides(what: str, spec: Any, side: str | None) -> dict[str, Any]:
    """The sides of a model, or the one that is wanted."""
    from qkv.error import QkvError
    from qkv.spec.model import sides

    found = sides(spec)
    if side is not None and side not in found:
        raise QkvError(f"{what} has no {side!r}, but: {', '.join(found)}")
    return found if side is None else {side: found[side]}


def _depth(what: str, side: str | None) -> Any:
    """The blocks of a run or a named model, or a pattern."""
    from qkv.error import QkvError
    from qkv.spec.pattern import Pattern
    from qkv.spec.plain import parse

    spec = _spec(what)
    if spec is None:
        try:
            pattern = parse(what)
        except QkvError as error:
            raise QkvError(f"{what!r} is no run folder, no named model and no pattern: {error}") from error
        if not isinstance(pattern, Pattern):
            raise QkvError(f"{what!r} is no pattern, such as 'Causal() & (Local(8) | Stride(8))'")
        if side is not None:
            raise QkvError("a pattern by itself has no sides: leave out --side")
        return pattern
    return list(_sides(what, spec, side).values())[-1]


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
