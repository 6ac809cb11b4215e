"""How long each word of a sentence is pondered, as a picture under the words."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from qkv.decode.seen import Pondered

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

WORD = 0.42  # inches a piece


def draw(found: list[Pondered], title: str, path: Path) -> None:
    """Save the picture: for every side of the model its pieces, and under each a bar as deep as the steps it took."""
    width = max(4.0, WORD * max(len(each.pieces) for each in found) + 1.0)
    figure = plt.figure(figsize=(width, 2.6 * len(found) + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=11, wrap=True)
    axes = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axis, pondered in zip(axes, found, strict=True):
        _panel(axis, pondered)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Axes, pondered: Pondered) -> None:
    places = range(len(pondered.pieces))
    mean = sum(pondered.steps) / len(pondered.steps)
    axis.set_title(f"{pondered.side}: {mean:.1f} steps on average, at most {pondered.most}", fontsize=9, loc="left")
    axis.bar(places, pondered.steps, width=0.7, color="steelblue")
    for place, steps in zip(places, pondered.steps, strict=True):
        axis.text(place, steps - 0.1, str(steps), ha="center", va="bottom", color="white", fontsize=8)
    axis.axhline(pondered.most, color="lightgrey", linewidth=0.8, zorder=0)
    axis.set_ylim(pondered.most + 0.2, 0)  # downwards: the words stand above
    axis.set_yticks(range(pondered.most + 1))
    axis.set_ylabel("steps", fontsize=8)
    axis.set_xticks(places, pondered.pieces, rotation=45, ha="left", fontsize=8)
    axis.xaxis.tick_top()
    axis.tick_params(length=0, labelsize=8)
    for spine in axis.spines.values():
        spine.set_visible(False)
