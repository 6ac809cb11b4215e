"""Who sees whom in a pattern or in every block of a model, and how many hops connect any two positions, as one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from qkv.attention.fold import terms
from qkv.error import QkvError
from qkv.spec.part import Depth, own_attention
from qkv.spec.pattern import Pattern, PerHead, Single, by_head, periods

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

LONGEST = 4096  # positions: more cannot be told apart in a picture
SETS = ("white", "steelblue", "darkorange", "seagreen", "orchid")
COLUMNS, PANEL = 4, 3.6  # panels beside each other, and inches of each


@dataclass(frozen=True)
class Level:
    """The patterns of a block: how many heads have which."""

    heads: tuple[tuple[int, Single], ...]

    def allows(self, length: int) -> Bool[Tensor, "T T"]:
        """Who sees whom in some head."""
        i, j = torch.arange(length)[:, None], torch.arange(length)[None]
        found = torch.zeros(length, length, dtype=torch.bool)
        for _, pattern in self.heads:
            found |= pattern.allows(i, j)
        return found


@dataclass(frozen=True)
class Sight:
    """What there is to see of some blocks, each of whose positions goes on beside what attention adds to it.

    Position i knows of position j after h hops if h blocks, from the lowest, suffice to carry something from j to i.
    """

    levels: tuple[Level, ...]
    length: int

    @cached_property
    def pairs(self) -> Bool[Tensor, "T T"]:
        """The pairs that are to be connected: all where some head looks ahead, otherwise none whose key lies after its query."""
        ahead = any(pattern.ahead for level in self.levels for _, pattern in level.heads)
        every = torch.ones(self.length, self.length, dtype=torch.bool)
        return every if ahead else every.tril()

    @cached_property
    def hops(self) -> Int[Tensor, "T T"]:
        """The fewest hops that connect a query with a key: 0 where they are one, -1 where none do."""
        known = torch.eye(self.length, dtype=torch.bool)
        hops = torch.full((self.length, self.length), -1).masked_fill_(known, 0)
        seen = {level: level.allows(self.length).float() for level in set(self.levels)}
        for number, level in enumerate(self.levels, 1):
            carried = (seen[level] @ known.float()) > 0.5
            hops.masked_fill_(carried & ~known, number)
            known |= carried
            if bool(known[self.pairs].all()):
                break
        return hops

    def says(self) -> list[str]:
        """The picture in words."""
        counts = [level.allows(self.length).sum().item() / self.length for level in dict.fromkeys(self.levels)]
        lines = [
            f"of {self.length} positions each sees {_span(counts)} on average; dense, {self.pairs.sum().item() / self.length:.1f}"
        ]
        hops = self.hops[self.pairs]
        never = int((hops < 0).sum())
        most, mean = int(hops.max()), hops[hops > 0].double().mean().item() if (hops > 0).any() else 0.0
        lines.append(
            f"two positions that are connected are at most {most} {'hop' if most == 1 else 'hops'} apart, {mean:.2f} on average"
        )
        if never:
            lines.append(f"{never:,} of {len(hops):,} pairs are not connected by {len(self.levels)} blocks")
        return lines


def sight(found: Pattern | Depth, length: int | None) -> Sight:
    """What a pattern by itself shows, met again and again; or the blocks of a stack. Without a length, four times the longest
    period. Raises QkvError where there is nothing to see."""
    parts = [] if isinstance(found, Pattern) else [(each.heads, each.pattern) for each in own_attention(found)]
    if isinstance(found, Pattern):
        parts = [(len(found.patterns) if isinstance(found, PerHead) else 1, found)]
    if not parts:
        raise QkvError("no block has attention of its own: there is no pattern to look at")
    longest = max(max(periods(pattern), default=1) for _, pattern in parts)
    length = length or min(LONGEST, max(32, 4 * longest))
    if not longest <= length <= LONGEST:
        raise QkvError(f"{length} positions are not enough for a stride or block of {longest}, or more than {LONGEST}")
    levels = tuple(Level(by_head(pattern, heads)) for heads, pattern in parts)
    return Sight(levels * length if isinstance(found, Pattern) else levels, length)


def draw(found: Sight, title: str, path: Path) -> None:
    """Save the picture: a panel for the heads of each kind, where every joined set has a colour, and one for the hops."""
    kinds = list(dict.fromkeys(found.levels))
    panels = [(level, place) for level in kinds for place in range(len(level.heads))]
    columns = min(COLUMNS, len(panels) + 1)
    rows = -(-(len(panels) + 1) // columns)
    figure = plt.figure(figsize=(PANEL * columns, PANEL * rows + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=11, wrap=True)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (level, place) in zip(axes, panels, strict=False):
        _sets(axis, level.heads[place][1], found.length)
        axis.set_title(_whose(found, level, place), fontsize=8)
    _hops(axes[len(panels)], found)
    for axis in axes[len(panels) + 1 :]:
        axis.axis("off")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _whose(found: Sight, level: Level, place: int) -> str:
    """The heads and blocks that a panel is about, in words."""
    pieces = []
    if len(level.heads) > 1:
        first = 1 + sum(count for count, _ in level.heads[:place])
        last = first + level.heads[place][0] - 1
        pieces.append(f"head {first}" if first == last else f"heads {first} to {last}")
    if len(set(found.levels)) > 1:
        pieces.append("blocks " + ", ".join(str(at) for at, each in enumerate(found.levels, 1) if each == level))
    return " of ".join(pieces) or "who sees whom"


def _sets(axis: Axes, pattern: Single, length: int) -> None:
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    colours = pattern.allows(i, j).long()
    for number, term in reversed(list(enumerate(terms(pattern) or (), 1))):
        colours.masked_fill_(term.allows(i, j), min(number, len(SETS) - 1))
    axis.imshow(colours.numpy(), cmap=ListedColormap(SETS), vmin=0, vmax=len(SETS) - 1, interpolation="nearest")
    axis.set_xlabel(str(pattern), fontsize=6, wrap=True)
    axis.set_ylabel("query", fontsize=7)
    axis.tick_params(labelsize=6)


def _hops(axis: Axes, found: Sight) -> None:
    hops = found.hops.clone()
    most = int(hops.max())
    shown = hops.masked_fill(hops < 0, most + 1).masked_fill(~found.pairs, most + 2)
    shades: list[Any] = [plt.get_cmap("viridis_r")(0.08 + 0.84 * each / max(most, 1)) for each in range(most + 1)]
    colours = [*shades, "crimson", "white"]
    axis.imshow(shown.numpy(), cmap=ListedColormap(colours), vmin=0, vmax=most + 2, interpolation="nearest")
    axis.set_title("hops between any two positions", fontsize=8)
    axis.set_xlabel("key", fontsize=7)
    axis.set_ylabel("query", fontsize=7)
    axis.tick_params(labelsize=6)
    named: list[tuple[str, Any]] = [(str(each), shades[each]) for each in range(most + 1)]
    if bool((hops[found.pairs] < 0).any()):
        named.append(("never", "crimson"))
    if most <= 12:
        axis.legend([Patch(color=shade) for _, shade in named], [name for name, _ in named], fontsize=6, loc="upper right")


def _span(values: list[float]) -> str:
    least, most = min(values), max(values)
    return f"{least:.1f}" if math.isclose(least, most, abs_tol=0.05) else f"{least:.1f} to {most:.1f}"
