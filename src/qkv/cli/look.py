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
    levels: Annotated[str | None, typer.Option(help="Some blocks or steps alone, counted from 1: 1,6.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A .png, a .html to look around in, or a .npz with the weights; without it RUN/heads.png."),
    ] = None,
) -> None:
    """The attention of a text, or of a sentence pair, in every head of every block: a picture, a page, or arrays."""
    from qkv.error import QkvError
    from qkv.look import heads as picture
    from qkv.look import page

    path = out or run / "heads.png"
    ways = {".png": picture.draw, ".html": page.write, ".npz": lambda found, title, path: page.arrays(found, path)}
    if path.suffix not in ways:
        raise QkvError(f"--out is a {', '.join(ways)}, not {path.name!r}")
    try:
        wanted = [int(each) for each in levels.split(",")] if levels else []
    except ValueError:
        raise QkvError(f"--levels are numbers such as 1,6, not {levels!r}") from None
    model, text, target = _opened(run, text, target)
    found = picture.kinds(model, text, target, wanted)
    ways[path.suffix](found, text if target is None else f"{text}\n{target}", path)
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


def positions(
    what: Annotated[str, typer.Argument(help="A run folder, a named model, or what says places: 'Sinusoid()'.")],
    length: Annotated[int, typer.Option(help="Places that are shown.")] = 100,
    width: Annotated[int, typer.Option(help="Channels, of places by themselves.")] = 128,
    shift: Annotated[int, typer.Option(help="Places by which one linear map shifts all encodings.")] = 10,
    side: Annotated[str | None, typer.Option(help="encoder or decoder, of a model that has both.")] = None,
    out: Annotated[Path | None, typer.Option(help="The picture; without it RUN/positions.png, or positions.png here.")] = None,
) -> None:
    """What is known of where tokens stand: vectors that are added to them, and what attention makes of distances; one picture."""
    from qkv.error import QkvError
    from qkv.look import positions as picture
    from qkv.spec.plain import parse
    from qkv.spec.position import Position

    if min(length, width, shift) < 1:
        raise QkvError(f"--length {length}, --width {width} and --shift {shift} must be at least 1")
    spec = _spec(what)
    if spec is None:
        place = parse(what)
        if not isinstance(place, Position):
            raise QkvError(f"{what!r} is no run folder, no named model and says no places, as Sinusoid() does")
        added, distances = picture.vectors(place, length, width), []
    else:
        name, depth = list(_sides(what, spec, side).items())[-1]
        added, distances = _positions(what, spec, name, depth, length)
    path = out or (Path(what) if Path(what).is_dir() else Path()) / "positions.png"
    for line in (*picture.draw(added, distances, shift, what, path), path):
        print(line)


def _positions(what: str, spec: Any, side: str, depth: Any, length: int) -> tuple[Any, list[Any]]:
    """The vectors of places that a model adds on one of its sides, and what its attention makes of distances there."""
    from qkv.decode.load import finished
    from qkv.error import QkvError
    from qkv.look import positions as picture
    from qkv.model.position import RelativeBias
    from qkv.spec.part import Attention
    from qkv.spec.position import NoPosition, Relative

    model = finished(Path(what), device="cpu").model if Path(what).is_dir() else None
    place, relative, trained = picture.position_of(spec.embedding.position, depth), None, None
    if model is not None:
        table, module = (getattr(model, name) for name in ({"encoder": "source", "decoder": "target"}[side], side))
        relative = module.bias if isinstance(getattr(module, "bias", None), RelativeBias) else None
        trained = module.signal.places if place is not spec.embedding.position else table.places
    elif isinstance(getattr(depth, "bias", None), Relative):
        raise QkvError(f"the bias of {what} is learned: name a run that learned it")
    added = None if isinstance(place, NoPosition) else picture.vectors(place, length, spec.width, trained)
    asking = dict.fromkeys(s for block in depth.tiled() for s in block.sublayers if isinstance(s, Attention))
    found = (picture.by_distance(each, spec.width, length // 2, relative) for each in asking)
    return added, [each for each in found if each is not None]


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
        f"{name}, {number} of {len(depth.blocks)}" if len(depth.blocks) > 1 else f"{name}{_times(len(depth.tiled()))}": block
        for name, depth in depths.items()
        for number, block in enumerate(depth.blocks, 1)
        if isinstance(block, Cell)
    }
    if not cells:
        raise QkvError(f"{what} has no cells, but blocks of sublayers in a row: nothing to draw")
    path = out or (Path(what) if Path(what).is_dir() else Path()) / "cell.png"
    picture.draw(cells, spec.width, what, path)
    print(path)


def _times(number: int) -> str:
    return f", {number} times" if number > 1 else ""


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
