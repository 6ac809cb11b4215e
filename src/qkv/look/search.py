"""All children of a search: their fitness against the steps that they were trained for, with the hurdles; and the best one's
forebears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@dataclass(frozen=True)
class Dot:
    """A child: its number, its parent's, its fitness after so many steps at each stage, and the hurdles of its time."""

    number: int
    parent: int | None
    stages: tuple[tuple[int, float], ...]
    hurdles: tuple[float, ...]


def lineage(children: Sequence[Dot], number: int) -> list[int]:
    """The child and its forebears, back to what the search began with."""
    parents = {child.number: child.parent for child in children}
    found, at = [number], parents[number]
    while at is not None:
        found.append(at)
        at = parents.get(at)
    return found


def draw(children: Sequence[Dot], best: int, title: str, path: Path) -> None:
    """Save the picture: on the left the fitness of each child, stage by stage, and the hurdles at the steps after which they
    stand; on the right the fitness of each child by its number, and of the best so far."""
    figure, (stages, numbers) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    lived = [child for child in children if child.stages]
    forebears = set(lineage(children, best))
    for child in lived:
        steps, fitness = zip(*child.stages, strict=True)
        kin = child.number in forebears
        stages.plot(
            steps,
            fitness,
            color="darkorange" if kin else "steelblue",
            alpha=1.0 if kin else 0.35,
            marker=".",
            lw=1.4 if kin else 0.7,
            zorder=2 if kin else 1,
        )
    ends = sorted({step for child in lived for step, _ in child.stages})
    hurdles = max((child.hurdles for child in children), key=len, default=())
    for step, hurdle in zip(ends, hurdles, strict=False):
        stages.plot([step - 0.04 * ends[-1], step + 0.04 * ends[-1]], [hurdle, hurdle], color="crimson", lw=2.5, zorder=3)
    stages.set_xlabel("steps of training; red: hurdles; orange: the best and its forebears", fontsize=9)
    stages.set_ylabel("fitness (negative log perplexity)", fontsize=9)
    found = [(child.number, child.stages[-1][1]) for child in lived]
    numbers.scatter(*zip(*found, strict=True), s=14, color="steelblue", alpha=0.6)
    kin = [(number, fitness) for number, fitness in found if number in forebears]
    numbers.scatter(*zip(*kin, strict=True), s=26, color="darkorange", zorder=3)
    leading: list[float] = []
    for _, fitness in found:
        leading.append(max(fitness, leading[-1] if leading else fitness))
    numbers.step([number for number, _ in found], leading, color="crimson", lw=1, where="post")
    numbers.set_xlabel("child; the line: the best so far", fontsize=9)
    for axis in (stages, numbers):
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.2)
        low = sorted(fitness for _, fitness in found)[len(found) // 20]
        axis.set_ylim(bottom=low - 0.05 * (max(leading) - low) - 1e-3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
