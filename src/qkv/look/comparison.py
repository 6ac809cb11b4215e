"""How several models learned: their validation loss over steps, operations and seconds, beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

PANELS = ("steps", "FLOPs", "seconds")
MARKERS = "os^DvPX*"


@dataclass(frozen=True)
class Curve:
    """One training of a model: steps, operations and seconds at each validation loss."""

    model: str
    points: tuple[tuple[int, float, float, float], ...]


def draw(curves: Sequence[Curve], title: str, path: Path) -> None:
    """Save the picture: a panel for each thing that is spent, a colour for each model, a line for each of its trainings."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), sharey=True, layout="constrained")
    figure.suptitle(title, fontsize=11)
    models = list(dict.fromkeys(curve.model for curve in curves))
    colours = plt.get_cmap("tab10" if len(models) <= 10 else "tab20")
    for spent, (axis, name) in enumerate(zip(axes, PANELS, strict=True)):
        labelled = set[str]()
        for curve in curves:
            number = models.index(curve.model)
            axis.plot(
                [point[spent] for point in curve.points],
                [point[3] for point in curve.points],
                color=colours(number % colours.N),
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                linewidth=1.3,
                alpha=0.85,
                label=None if curve.model in labelled else curve.model,
            )
            labelled.add(curve.model)
        axis.set_xlabel(name, fontsize=10)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(EngFormatter(sep="") if name == "FLOPs" else "{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel("validation loss, nats per token", fontsize=10)
    if curves:
        axes[0].legend(fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
