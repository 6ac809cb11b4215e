"""A law of scale as the papers draw it: the members, a curve for each size, and the frontier with its band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

COLOURS = ("steelblue", "darkorange", "seagreen", "orchid", "dimgrey")  # of architectures
SIZES = "viridis"
FRONTIER = "crimson"


@dataclass(frozen=True)
class Dots:
    """The members: what each had of x (operations, or the one variable of the law), its loss and size, whether it was held out,
    and whether the law passes it over, since another was better for what it had."""

    x: np.ndarray
    loss: np.ndarray
    size: np.ndarray
    held_out: np.ndarray
    passed: np.ndarray


@dataclass(frozen=True)
class Band:
    """A line, and between what it lies."""

    x: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Curve:
    """What the law says of all models of one size, or of one budget: of `shade` is its colour."""

    shade: float
    x: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class Contours:
    """The loss of every size (rows) for every budget (columns)."""

    x: np.ndarray
    size: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Scaling:
    """What there is to be drawn of one architecture. `loss` is the frontier's, or the law's of one variable; `best` the size on
    the frontier; `parabolas` are the profiles of budgets, with their lowest points; `ahead` is how much less loss it has than
    the first architecture."""

    name: str
    dots: Dots
    loss: Band
    curves: tuple[Curve, ...] = ()
    best: Band | None = None
    ahead: Band | None = None
    contours: Contours | None = None
    parabolas: tuple[Curve, ...] = ()
    bottoms: tuple[tuple[float, float, float], ...] = ()  # budget, size, loss


@dataclass(frozen=True)
class Axis:
    """What stands at the axes: of the variable, and of sizes."""

    x: str
    size: str
    share: float


@dataclass(frozen=True)
class Mark:
    """A model that is predicted, drawn as a star: of its architecture `place`."""

    place: int
    x: float
    loss: float
    size: float | None


def draw(found: Sequence[Scaling], axis: Axis, marks: Sequence[Mark], title: str, path: Path) -> None:
    """Save the picture: of one architecture its law, of several their frontiers, and how far each is ahead of the first."""
    one = len(found) == 1
    wide = not one or found[0].best is not None
    figure, axes = plt.subplots(1, 2 if wide else 1, figsize=(12.5 if wide else 7, 5), layout="constrained", squeeze=False)
    figure.suptitle(title, fontsize=11)
    if not one:
        _frontiers(axes[0, 0], found, axis, marks)
        _ahead(axes[0, 1], found, axis)
    elif found[0].parabolas:
        _profiles(figure, axes[0, 0], found[0], axis)
        _sizes(axes[0, 1], found[0], axis, marks)
    else:
        _curves(figure, axes[0, 0], found[0], axis, marks)
        if wide:
            _sizes(axes[0, 1], found[0], axis, marks)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _curves(figure: Figure, panel: Axes, found: Scaling, axis: Axis, marks: Sequence[Mark]) -> None:
    """The loss against the variable: a curve for each size, the members, the frontier."""
    shades = _shades(found.dots.size)
    for curve in found.curves:
        panel.plot(curve.x, curve.value, color=_shade(shades, curve), lw=1, alpha=0.8, zorder=2)
    several = bool(found.curves)
    _band(
        panel, found.loss, FRONTIER if several else COLOURS[0], f"{'frontier' if several else 'law'}, {axis.share:.0%} interval"
    )
    _dots(panel, found.dots, shades.to_rgba(found.dots.size) if several else COLOURS[0])
    _stars(panel, [(mark.x, mark.loss) for mark in marks])
    _loss_axes(panel, axis, [found], marks)
    panel.legend(fontsize=8, loc="upper right")
    if several:
        _shade_bar(figure, panel, shades, axis.size)


def _sizes(panel: Axes, found: Scaling, axis: Axis, marks: Sequence[Mark]) -> None:
    """Sizes against budgets: the loss as contours, the members, and the best size."""
    assert found.best is not None
    if found.contours is not None:
        levels = MaxNLocator(14).tick_values(float(found.dots.loss.min()) * 0.97, float(found.dots.loss.max()))
        lines = panel.contour(
            found.contours.x, found.contours.size, found.contours.loss, levels=levels, colors="grey", linewidths=0.7, alpha=0.7
        )
        panel.clabel(lines, fontsize=7, fmt="%.3g")
    _band(panel, found.best, FRONTIER, f"best size, {axis.share:.0%} interval")
    if found.contours is not None:
        dots = found.dots
        panel.scatter(dots.x[~dots.held_out], dots.size[~dots.held_out], s=16, color=COLOURS[0], zorder=4, label="members")
        if dots.held_out.any():
            panel.scatter(
                dots.x[dots.held_out],
                dots.size[dots.held_out],
                s=26,
                facecolor="white",
                edgecolor=COLOURS[0],
                zorder=4,
                label="held out",
            )
    if found.bottoms:
        budgets, sizes, _ = zip(*found.bottoms, strict=True)
        panel.scatter(budgets, sizes, s=26, color=COLOURS[0], zorder=4, label="lowest of each budget")
    _stars(panel, [(mark.x, mark.size) for mark in marks if mark.size is not None])
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(found.best.x[0], found.best.x[-1])
    shown = np.concatenate([found.dots.size, found.best.value])
    panel.set_ylim(shown.min() / 2, shown.max() * 2)
    _labels(panel, axis.x, axis.size)
    panel.legend(fontsize=8, loc="upper left")


def _profiles(figure: Figure, panel: Axes, found: Scaling, axis: Axis) -> None:
    """The loss against the size, a parabola for each budget."""
    shades = _shades(np.array([curve.shade for curve in found.parabolas]))
    for curve in found.parabolas:
        panel.plot(curve.x, curve.value, color=_shade(shades, curve), lw=1.2)
    panel.scatter(found.dots.size, found.dots.loss, s=16, c=shades.to_rgba(found.dots.x), zorder=3)
    panel.scatter(
        *([bottom[place] for bottom in found.bottoms] for place in (1, 2)),
        marker="D",
        s=26,
        color=FRONTIER,
        zorder=4,
        label="lowest",
    )
    panel.set_xscale("log")
    _labels(panel, axis.size, "loss, nats per token")
    panel.legend(fontsize=8, loc="upper right")
    _shade_bar(figure, panel, shades, axis.x)


def _frontiers(panel: Axes, found: Sequence[Scaling], axis: Axis, marks: Sequence[Mark]) -> None:
    """The members and the frontier of each architecture."""
    for scaling, colour in zip(found, _colours(found), strict=True):
        _band(panel, scaling.loss, colour, f"{scaling.name}, {axis.share:.0%} interval")
        _dots(panel, scaling.dots, colour, label=False)
    _stars(panel, [(mark.x, mark.loss) for mark in marks], [_colours(found)[mark.place] for mark in marks])
    _loss_axes(panel, axis, found, marks)
    panel.legend(fontsize=8, loc="upper right")


def _ahead(panel: Axes, found: Sequence[Scaling], axis: Axis) -> None:
    """How much less loss each architecture has than the first, on the frontier."""
    first, *others = found
    panel.axhline(0, color=_colours(found)[0], lw=1.4, label=first.name)
    for scaling, colour in zip(others, _colours(found)[1:], strict=True):
        assert scaling.ahead is not None
        _band(panel, scaling.ahead, colour, f"{scaling.name}, {axis.share:.0%} of paired samples")
    panel.set_xscale("log")
    panel.set_xlim(first.loss.x[0], first.loss.x[-1])
    _labels(panel, axis.x, f"loss below that of {first.name}, nats per token")
    panel.legend(fontsize=8, loc="best")


def _band(panel: Axes, band: Band, colour: str, label: str) -> None:
    panel.fill_between(band.x, band.low, band.high, color=colour, alpha=0.18, lw=0, zorder=1)
    panel.plot(band.x, band.value, color=colour, lw=1.8, zorder=3, label=label)


def _dots(panel: Axes, dots: Dots, colours: Any, label: bool = True) -> None:
    """Members filled, those held out as rings, those passed over faint."""
    for held, passed, name in (
        (False, False, "fitted"),
        (True, False, "held out"),
        (False, True, "not the best"),
        (True, True, None),
    ):
        some = (dots.held_out == held) & (dots.passed == passed)
        if some.any():
            own = colours if isinstance(colours, str) else colours[some]
            panel.scatter(
                *(dots.x[some], dots.loss[some]),
                s=30 if held else 22,
                facecolor="white" if held else own,
                edgecolor=own,
                linewidth=1.3,
                alpha=0.3 if passed else 1.0,
                zorder=4,
                label=name if label else None,
            )


def _stars(panel: Axes, places: Sequence[tuple[float, float]], colours: Sequence[str] | str = "gold") -> None:
    if places:
        panel.scatter(
            *zip(*places, strict=True), marker="*", s=190, c=colours, edgecolor="black", lw=0.8, zorder=6, label="predicted"
        )


def _loss_axes(panel: Axes, axis: Axis, found: Sequence[Scaling], marks: Sequence[Mark]) -> None:
    losses = np.concatenate(
        [*(each.dots.loss for each in found), *(each.loss.value for each in found), [mark.loss for mark in marks]]
    )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(found[0].loss.x[0], found[0].loss.x[-1])
    panel.set_ylim(losses.min() / 1.03, losses.max() * 1.03)
    panel.yaxis.set_major_locator(
        LogLocator(10, subs=(1, 1.5, 2, 3, 4, 5, 7)) if losses.max() > 3 * losses.min() else MaxNLocator(7)
    )
    panel.yaxis.set_major_formatter(ScalarFormatter())
    panel.yaxis.set_minor_formatter(NullFormatter())
    _labels(panel, axis.x, "loss, nats per token")


def _labels(panel: Axes, x: str, y: str) -> None:
    panel.set_xlabel(x, fontsize=9)
    panel.set_ylabel(y, fontsize=9)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.2)
    panel.xaxis.set_major_formatter(LogFormatterSciNotation())


def _shades(values: np.ndarray) -> ScalarMappable:
    """A colour for every size, or budget."""
    low, high = float(values.min()), float(values.max())
    return ScalarMappable(LogNorm(low / 1.01, high * 1.01), plt.get_cmap(SIZES))


def _shade_bar(figure: Figure, panel: Axes, shades: ScalarMappable, label: str) -> None:
    bar = figure.colorbar(shades, ax=panel, pad=0.01, aspect=40)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _shade(shades: ScalarMappable, curve: Curve) -> Any:
    return shades.to_rgba(np.array([curve.shade]))[0]


def _colours(found: Sequence[Scaling]) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(len(found))]
