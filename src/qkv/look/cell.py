"""A cell as a diagram: nodes from the top, branches beside each other, as in figure 3 of So et al. 2019."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import matplotlib

from qkv.spec.cell import (
    Add,
    AsInput,
    Branch,
    Cell,
    Convolution,
    Dead,
    Depthwise,
    Identity,
    Lightweight,
    Maximum,
    Multiply,
    NoActivation,
    Separable,
)
from qkv.spec.part import Attention, MemoryAttention, Recurrent
from qkv.spec.pattern import Full

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.text import Text

ROW, COLUMN = 1.5, 2.6  # inches of a node, and of a branch
COLOURS = {"attention": "#cfe2f3", "convolution": "#fce5cd", "map": "#d9ead3", "recurrent": "#ead1dc"}
LANES = 3
SIGNS = {Add: "+", Multiply: "×", Maximum: "max"}


def draw(cells: dict[str, Cell], width: int, title: str, path: Path) -> None:
    """Save the picture: the cells beside each other, with the widths that they have in a model of some width."""
    rows = max(len(cell.nodes) for cell in cells.values())
    figure = plt.figure(figsize=(2.6 * COLUMN * len(cells), ROW * (rows + 1) + 0.7), layout="constrained")
    figure.suptitle(title, fontsize=12)
    axes = figure.subplots(1, len(cells), squeeze=False)[0]
    for axis, (side, cell) in zip(axes, cells.items(), strict=True):
        axis.set_title(side, fontsize=10)
        _cell(axis, cell, width, rows)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _cell(axis: Axes, cell: Cell, width: int, rows: int) -> None:
    axis.set_xlim(-1.35, 1.35)
    axis.set_ylim(rows + 0.7, -0.35)
    axis.axis("off")
    widths = cell.widths(width)
    joints = [_box(axis, _joint(0), f"input, {width}", "white")]
    for number, node in enumerate(cell.nodes, 1):
        sign, loose = SIGNS.get(type(node.combine), "‖"), number in cell.loose
        words = f"{number}: {sign if len(node.alive) > 1 else ''} {widths[number]}"
        joints.append(_box(axis, _joint(number), words, "lightyellow" if loose else "white", "bold" if loose else "normal"))
    for number, node in enumerate(cell.nodes, 1):
        for branch, across in zip(node.branches, (-0.55, 0.55), strict=True):
            if not isinstance(branch.layer, Dead):
                _branch(axis, branch, across, number, joints)
        if node.shared:
            axis.text(0, number - 0.3, "one norm", ha="center", va="center", fontsize=6, color="grey")


def _box(axis: Axes, place: tuple[float, float], words: str, colour: str, weight: str = "normal") -> Text:
    around = {"boxstyle": "round,pad=0.35", "fc": colour, "ec": "grey"}
    return axis.text(*place, words, ha="center", va="center", fontsize=8, weight=weight, bbox=around)


def _joint(number: int) -> tuple[float, float]:
    """Where the result of a node stands; the input of the cell is that of node 0."""
    return 0.0, float(number) + (0.42 if number else 0.0)


def _branch(axis: Axes, branch: Branch, across: float, number: int, joints: list[Text]) -> None:
    """A box for what a branch does, and its arrows; where it does nothing, the arrow alone."""
    far = number - branch.input
    start, end = _joint(branch.input), _joint(number)
    bend = 0.0 if far == 1 else (0.28 if across < 0 else -0.28)
    arrow = {"arrowstyle": "-|>", "color": "grey", "lw": 0.9, "shrinkA": 1, "shrinkB": 1}
    if isinstance(branch.layer, Identity) and not branch.norm and isinstance(branch.activation, NoActivation):
        lane = (0.95 + 0.12 * (number % LANES)) * (1 if across > 0 else -1)  # lines of neighbours are told apart
        down = 0.06  # what leaves a node does so below what comes to it
        axis.plot([0, lane, lane], [start[1] + down, start[1] + down, end[1] - down], color="grey", lw=0.9, zorder=0)
        axis.annotate(
            "", xy=(end[0], end[1] - down), xytext=(lane, end[1] - down), arrowprops={**arrow, "shrinkA": 0, "shrinkB": 22}
        )
        return
    box = _box(axis, (across, float(number)), _words(branch), _colour(branch))
    for one, other, curve in ((joints[branch.input], box, bend), (box, joints[number], 0.0)):
        ends = {"patchA": one.get_bbox_patch(), "patchB": other.get_bbox_patch(), "connectionstyle": f"arc3,rad={curve}"}
        axis.annotate("", xy=other.get_position(), xytext=one.get_position(), arrowprops={**arrow, **ends}, zorder=0)


def _colour(branch: Branch) -> str:
    match branch.layer:
        case Attention() | MemoryAttention():
            return COLOURS["attention"]
        case Convolution() | Separable() | Depthwise() | Lightweight():
            return COLOURS["convolution"]
        case Recurrent():
            return COLOURS["recurrent"]
        case Identity():
            return "white"
        case _:
            return COLOURS["map"]


def _words(branch: Branch) -> str:
    """What a branch does, from the top."""
    match branch.layer:
        case Attention(heads=heads):
            layer = f"{heads} heads, itself"
        case MemoryAttention(heads=heads):
            layer = f"{heads} heads, source"
        case Convolution(reach=reach, rate=1):
            layer = f"conv {reach}x1"
        case Convolution(reach=reach, rate=rate):
            layer = f"conv {reach}x1, every {rate}"
        case Separable(reach=reach):
            layer = f"sep conv {reach}x1"
        case Depthwise(reach=reach):
            layer = f"depthwise {reach}x1"
        case Lightweight(reach=reach, shared=shared):
            layer = f"lightweight {reach}x1, by {shared}"
        case Recurrent(unit=unit, pattern=pattern, asks=asks):
            layer = type(unit).__name__ + (", both ways" if isinstance(pattern, Full) else "")
            layer += f"\nasks the source, {asks.heads} head{'s'[: asks.heads > 1]}" if isinstance(asks, MemoryAttention) else ""
        case other:
            layer = {"Dense": "dense", "Gate": "gated linear", "Identity": "identity"}[type(other).__name__]
    wide = "" if isinstance(branch.width, AsInput) else f"  {_multiple(branch.width)}"
    lines = ["norm"] * branch.norm + [layer + wide]
    return "\n".join(lines + ([] if isinstance(branch.activation, NoActivation) else [type(branch.activation).__name__]))


def _multiple(width: float) -> str:
    """A multiple of the model's width."""
    fraction = Fraction(width).limit_denominator(100)
    above = "d" if fraction.numerator == 1 else f"{fraction.numerator}d"
    return above if fraction.denominator == 1 else f"{above}/{fraction.denominator}"
