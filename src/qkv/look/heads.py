"""The attention of a text, or of a pair of sentences, in every head: what there is of it, and as one picture."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from jaxtyping import Float
from torch import Tensor

from qkv.decode.generate import Writer
from qkv.decode.read import Reader
from qkv.decode.seen import seen_of
from qkv.decode.translate import Translator
from qkv.error import QkvError
from qkv.model.state import Path as Place
from qkv.model.transformer import POINTER
from qkv.spec.model import Pointing, sides
from qkv.spec.part import MemoryAttention, Recurrence, Recurrent

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

PANEL = 0.16  # inches a token


@dataclass(frozen=True, eq=False)
class Kind:
    """Attention of one kind: the weights of its levels, from the lowest, with their numbers, counted from 1, and the pieces that
    ask and that are asked."""

    title: str
    levels: list[Float[Tensor, "_ T S"]]
    queries: list[str]
    keys: list[str]
    level: str  # what a level is: a block of a stack, or a step of a recurrence
    numbers: list[int] = field(default_factory=list)


def kinds(model: Translator | Writer | Reader, text: str, target: str | None = None, levels: Collection[int] = ()) -> list[Kind]:
    """All attention there is while a model reads a text, and writes the target if it is a translator; or that of some levels
    alone, counted from 1, and then of no others is it computed.

    Raises QkvError where there is nothing to look at, and for levels that there are not.
    """
    depths = sides(model.model.spec)
    points = isinstance(getattr(model.model.spec, "output", None), Pointing)
    deepest = max(len(depth.tiled()) + (points and side == "decoder") for side, depth in depths.items())

    def number(path: Place) -> int:
        """The level of a place, from 1; who points does so above all blocks."""
        return len(depths[path[0]].tiled()) + 1 if path[1] == POINTER else int(path[1]) + 1

    if wrong := [level for level in levels if not 1 <= level <= deepest]:
        raise QkvError(f"there are levels 1 to {deepest}, and no {wrong[0]}")
    seen = seen_of(model, text, target, lambda path: not levels or number(path) in levels)
    level = {side: "step" if isinstance(depth, Recurrence) else "block" for side, depth in depths.items()}
    sources, targets = (seen.pieces.get(side, []) for side in ("encoder", "decoder"))
    alone = len(seen.pieces) == 1
    encoder = Kind(f"encoder: {'text to text' if alone else 'source to source'}", [], sources, sources, level.get("encoder", ""))
    to_memory = Kind("decoder: target to source", [], targets, sources, level.get("decoder", ""))
    decoder = Kind(f"decoder: {'text to text' if alone else 'target to target'}", [], targets, targets, level.get("decoder", ""))
    for path, weight in seen.trace.weights.items():
        kind = encoder if path[0] == "encoder" else decoder
        if path[1] == POINTER or isinstance(
            depths[path[0]].tiled()[number(path) - 1].sublayers[int(path[2])], MemoryAttention | Recurrent
        ):
            kind = to_memory
        kind.levels.append(weight[0].float())
        kind.numbers.append(number(path))
    return [kind for kind in (encoder, to_memory, decoder) if kind.levels]


def draw(found: list[Kind], title: str, path: Path) -> None:
    """Save the picture: a row for every level, a column for every head; dark is where a head looks."""
    heads = max(level.shape[0] for kind in found for level in kind.levels)
    rows = sum(len(kind.levels) for kind in found)
    side = max(1.5, PANEL * max(len(pieces) for kind in found for pieces in (kind.queries, kind.keys)))
    figure = plt.figure(figsize=(side * heads + 1.2, side * rows + 0.5 * len(found) + 1.2), layout="constrained")
    figure.suptitle(title, fontsize=11, wrap=True)
    parts = figure.subfigures(len(found), 1, height_ratios=[len(kind.levels) for kind in found], squeeze=False)[:, 0]
    for part, kind in zip(parts, found, strict=True):
        part.suptitle(kind.title, fontsize=10)
        axes = part.subplots(len(kind.levels), heads, squeeze=False)
        for level, weight in enumerate(kind.levels):
            for head in range(heads):
                _panel(
                    axes[level, head],
                    weight[head] if head < len(weight) else None,
                    (kind.queries, kind.keys),
                    level == len(kind.levels) - 1,
                    head == 0,
                )
                if level == 0:
                    axes[level, head].set_title(f"head {head + 1}", fontsize=8)
            axes[level, 0].set_ylabel(f"{kind.level} {kind.numbers[level]}", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Axes, weight: Tensor | None, labels: tuple[list[str], list[str]], bottom: bool, left: bool) -> None:
    queries, keys = labels
    if weight is None:
        axis.axis("off")
        return
    axis.imshow(weight.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(keys)), keys if bottom else [], rotation=90, fontsize=6)
    axis.set_yticks(range(len(queries)), queries if left else [], fontsize=6)
    axis.tick_params(length=0)
