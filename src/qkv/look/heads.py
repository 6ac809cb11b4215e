"""The attention of a pair of sentences, in every head, as one picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from qkv.attention.sight import Plain
from qkv.decode.translate import Translator
from qkv.error import QkvError
from qkv.model.trace import Trace
from qkv.spec.part import MemoryAttention

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

PANEL = 0.16  # inches a token
NAMES = {"encoder": "encoder: source to source", "memory": "decoder: target to source", "decoder": "decoder: target to target"}


@torch.inference_mode()
def weights(translator: Translator, source: str, target: str) -> tuple[dict[str, list[Tensor]], list[str], list[str]]:
    """The attention weights, (H, T, S) for every level, of the three kinds of attention, with the source's and the target's
    pieces."""
    read = translator.source.symbols.read(translator.source.encode([source])[0])
    written = [*translator.target.symbols.opening, *translator.target.encode([target])[0]]
    if len(read) == 1:
        raise QkvError("there is nothing to look at in an empty sentence")
    trace = Trace()
    memory = translator.model.encode(torch.tensor([read]), Plain(), trace=trace)
    translator.model.decode(torch.tensor([written]), memory, trace=trace)
    found: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    for path, weight in trace.weights.items():
        side, level, place = path[0], int(path[1]), int(path[2])
        stack = translator.model.spec.encoder if side == "encoder" else translator.model.spec.decoder
        to_memory = isinstance(stack.tiled()[level].sublayers[place], MemoryAttention)
        found["memory" if to_memory else side].append(weight[0].float())
    return found, translator.source.pieces(read), translator.target.pieces(written)


def draw(translator: Translator, source: str, target: str, path: Path) -> None:
    """Save the picture: a row for every level, a column for every head; dark is where a head looks."""
    found, read, written = weights(translator, source, target)
    kinds = [kind for kind in NAMES if found[kind]]
    heads = max(level.shape[0] for kind in kinds for level in found[kind])
    rows = sum(len(found[kind]) for kind in kinds)
    side = max(1.5, PANEL * max(len(read), len(written)))
    figure = plt.figure(figsize=(side * heads + 1.2, side * rows + 0.5 * len(kinds) + 1.2), layout="constrained")
    figure.suptitle(f"{source}\n{target}", fontsize=11)
    parts = figure.subfigures(len(kinds), 1, height_ratios=[len(found[kind]) for kind in kinds], squeeze=False)[:, 0]
    for part, kind in zip(parts, kinds, strict=True):
        keys, queries = (read if kind != "decoder" else written), (read if kind == "encoder" else written)
        part.suptitle(NAMES[kind], fontsize=10)
        axes = part.subplots(len(found[kind]), heads, squeeze=False)
        for level, weight in enumerate(found[kind]):
            for head in range(heads):
                _panel(
                    axes[level, head],
                    weight[head] if head < len(weight) else None,
                    (queries, keys),
                    level == len(found[kind]) - 1,
                    head == 0,
                )
                if level == 0:
                    axes[level, head].set_title(f"head {head + 1}", fontsize=8)
            axes[level, 0].set_ylabel(f"block {level + 1}", fontsize=8)
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
