"""The attention of a text, or of a pair of sentences, in every head, as one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
from jaxtyping import Float
from torch import Tensor

from qkv.decode.generate import Writer
from qkv.decode.read import Reader
from qkv.decode.seen import seen_of
from qkv.decode.translate import Translator
from qkv.spec.model import sides
from qkv.spec.part import MemoryAttention, Recurrence

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

PANEL = 0.16  # inches a token


@dataclass(frozen=True, eq=False)
class Kind:
    """Attention of one kind: the weights of its levels, from the lowest, and the pieces that ask and that are asked."""

    title: str
    levels: list[Float[Tensor, "H T S"]]
    queries: list[str]
    keys: list[str]
    level: str  # what a level is: a block of a stack, or a step of a recurrence


def kinds(model: Translator | Writer | Reader, text: str, target: str | None = None) -> list[Kind]:
    """All attention there is while a model reads a text, and writes the target if it is a translator.

    Raises QkvError where there is nothing to look at.
    """
    seen, depths = seen_of(model, text, target), sides(model.model.spec)
    level = {side: "step" if isinstance(depth, Recurrence) else "block" for side, depth in depths.items()}
    sources, targets = (seen.pieces.get(side, []) for side in ("encoder", "decoder"))
    alone = len(seen.pieces) == 1
    encoder = Kind(f"encoder: {'text to text' if alone else 'source to source'}", [], sources, sources, level.get("encoder", ""))
    to_memory = Kind("decoder: target to source", [], targets, sources, level.get("decoder", ""))
    decoder = Kind(f"decoder: {'text to text' if alone else 'target to target'}", [], targets, targets, level.get("decoder", ""))
    for path, weight in seen.trace.weights.items():
        side, number, place = path[0], int(path[1]), int(path[2])
        kind = encoder if side == "encoder" else decoder
        if isinstance(depths[side].tiled()[number].sublayers[place], MemoryAttention):
            kind = to_memory
        kind.levels.append(weight[0].float())
    return [kind for kind in (encoder, to_memory, decoder) if kind.levels]


def draw(model: Translator | Writer | Reader, text: str, target: str | None, path: Path) -> None:
    """Save the picture: a row for every level, a column for every head; dark is where a head looks."""
    found = kinds(model, text, target)
    heads = max(level.shape[0] for kind in found for level in kind.levels)
    rows = sum(len(kind.levels) for kind in found)
    side = max(1.5, PANEL * max(len(pieces) for kind in found for pieces in (kind.queries, kind.keys)))
    figure = plt.figure(figsize=(side * heads + 1.2, side * rows + 0.5 * len(found) + 1.2), layout="constrained")
    figure.suptitle(text if target is None else f"{text}\n{target}", fontsize=11)
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
            axes[level, 0].set_ylabel(f"{kind.level} {level + 1}", fontsize=8)
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
