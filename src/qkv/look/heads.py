"""The attention of a text, or of a pair of sentences, in every head, as one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from jaxtyping import Float
from torch import Tensor

from qkv.attention.sight import Plain
from qkv.decode.generate import Writer
from qkv.decode.read import Reader
from qkv.decode.translate import Translator
from qkv.error import QkvError
from qkv.model.trace import Trace
from qkv.spec.part import MemoryAttention

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


@torch.inference_mode()
def kinds(model: Translator | Writer | Reader, text: str, target: str | None = None) -> list[Kind]:
    """All attention there is while a model reads a text, and writes the target if it is a translator.

    Raises QkvError where there is nothing to look at.
    """
    if isinstance(model, Translator):
        if target is None:
            raise QkvError("a translator's attention is that of two sentences: give a target, too")
        return _of_pair(model, text, target)
    if not text:
        raise QkvError("there is nothing to look at in an empty text")
    ids, trace = model.given(text), Trace()
    if isinstance(model, Writer):
        title = "decoder: text to text"
        model.model.decode(torch.tensor([ids]), Plain(), trace=trace)
    else:
        title = "encoder: text to text"
        model.model.encode(torch.tensor([ids]), Plain(), trace=trace)
    pieces = model.tokenizer.pieces(ids)
    return [Kind(title, [weight[0].float() for weight in trace.weights.values()], pieces, pieces)]


def _of_pair(translator: Translator, source: str, target: str) -> list[Kind]:
    """Attention of the three kinds."""
    read = translator.source.symbols.read(translator.source.encode([source])[0])
    written = [*translator.target.symbols.opening, *translator.target.encode([target])[0]]
    if len(read) == 1:
        raise QkvError("there is nothing to look at in an empty sentence")
    trace = Trace()
    memory = translator.model.encode(torch.tensor([read]), Plain(), trace=trace)
    translator.model.decode(torch.tensor([written]), memory, trace=trace)
    sources, targets = translator.source.pieces(read), translator.target.pieces(written)
    encoder = Kind("encoder: source to source", [], sources, sources)
    to_memory = Kind("decoder: target to source", [], targets, sources)
    decoder = Kind("decoder: target to target", [], targets, targets)
    for path, weight in trace.weights.items():
        side, level, place = path[0], int(path[1]), int(path[2])
        stack = translator.model.spec.encoder if side == "encoder" else translator.model.spec.decoder
        kind = encoder if side == "encoder" else decoder
        if isinstance(stack.tiled()[level].sublayers[place], MemoryAttention):
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
