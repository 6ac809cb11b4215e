"""What a model knows of where tokens stand: the vectors that are added to them, and what attention makes of distances."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from jaxtyping import Float
from torch import Tensor

from qkv.attention.sight import Plain
from qkv.error import QkvError
from qkv.model.position import Places, RelativeBias, Turn, shift
from qkv.spec.part import Attention, Recurrence, Stack, key_width
from qkv.spec.position import ALiBi, Coordinates, NoPosition, Position, Rotary, Sinusoid, Trained

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

SHOWN = 6  # channels as curves


@dataclass(frozen=True, eq=False)
class Vectors:
    """A vector for each place."""

    spec: Position
    vectors: Float[Tensor, "L D"]

    def shift(self, distance: int) -> Float[Tensor, "D D"]:
        """The one linear map M with vectors[i + distance] = vectors[i] M for every i. Raises QkvError where there is none."""
        if not isinstance(self.spec, Sinusoid):
            raise QkvError(f"the vectors of {self.spec} were learned place by place: no one map shifts them")
        return shift(self.spec, distance, self.vectors.shape[1])

    def error(self, distance: int) -> float:
        """How far, at most, the shifted vectors are from those of the places that they are shifted to."""
        return (self.vectors[:-distance] @ self.shift(distance) - self.vectors[distance:]).abs().max().item()


@dataclass(frozen=True, eq=False)
class Distances:
    """What attention makes of a distance, key minus query, in every head: what is added to a score, or the score of two equal
    vectors that are turned."""

    title: str
    ahead: list[int]
    of_heads: Float[Tensor, "H distances"]


def vectors(spec: Position, length: int, width: int, trained: Tensor | None = None) -> Vectors:
    """The vectors of the first places, of learned ones from what a run has learned. Raises QkvError where there are none."""
    if isinstance(spec, NoPosition):
        raise QkvError("no vectors are added for places")
    if isinstance(spec, Trained) and trained is None:
        raise QkvError(f"the vectors of {spec} are learned: name a run that learned them")
    if isinstance(spec, Trained):
        length = min(length, spec.longest)
    like = torch.empty(0, width, dtype=torch.float64)
    found = Places(spec, width)(None if trained is None else trained.double(), like, Plain(), 0, length)
    assert found is not None
    return Vectors(spec, found.detach())


def by_distance(attention: Attention, width: int, most: int, relative: RelativeBias | None = None) -> Distances | None:
    """What attention makes of distances up to so many; None where it makes nothing of them."""
    ahead = list(range(-most, most + 1))
    if relative is not None:
        row = relative(most, 1, 2 * most + 1)[0, :, 0].detach()
        return Distances("relative bias, added to scores", ahead, row)
    if isinstance(attention.bias, ALiBi):
        away = torch.tensor(ahead, dtype=torch.float64).abs()
        found = -torch.tensor(attention.bias.of(attention.heads), dtype=torch.float64)[:, None] * away
        return Distances("ALiBi, added to scores", ahead, found)
    if isinstance(attention.rotate, Rotary):
        wide = key_width(attention, width)
        turned = Turn(attention.rotate, wide)(torch.ones(1, 1, 2 * most + 1, wide, dtype=torch.float64), 0)[0, 0]
        return Distances("rotary: equal vectors of ones, turned", ahead, (turned @ turned[most])[None] / wide)
    return None


def position_of(embedding: Position, depth: Stack | Recurrence) -> Position:
    """Where a model adds vectors for places: to its embeddings, or at each step of a recurrence."""
    signal = depth.signal if isinstance(depth, Recurrence) else None
    return signal.place if isinstance(signal, Coordinates) else embedding


def draw(added: Vectors | None, distances: list[Distances], distance: int, title: str, path: Path) -> list[str]:
    """Save the picture; what it says, in words. Raises QkvError where there is nothing to draw."""
    if added is None and not distances:
        raise QkvError(f"{title} knows nothing of where tokens stand")
    panels = (0 if added is None else 3) + len(distances)
    figure, axes = plt.subplots(1, panels, figsize=(4.4 * panels, 4), layout="constrained", squeeze=False)
    figure.suptitle(title, fontsize=11, wrap=True)
    row, said = list(axes[0]), list[str]()
    if added is not None:
        said = _added(row[:3], added, distance)
        row = row[3:]
    for axis, each in zip(row, distances, strict=True):
        for head in each.of_heads.float().numpy():
            axis.plot(each.ahead, head, lw=1)
        axis.set_title(each.title, fontsize=9)
        axis.set_xlabel("place of the key minus that of the query; a line for each head", fontsize=8)
        axis.grid(alpha=0.2)
        said.append(f"{each.title}; heads: {len(each.of_heads)}")
    for axis in axes[0]:
        axis.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return said


def _added(axes: list[Axes], added: Vectors, distance: int) -> list[str]:
    table, alike, curves = axes
    length, width = added.vectors.shape
    shown = added.vectors.float()
    most = shown.abs().max().item()
    table.imshow(shown.t().numpy(), aspect="auto", cmap="RdBu", vmin=-most, vmax=most, interpolation="nearest")
    table.set_title(f"{added.spec}: a vector for each place", fontsize=9)
    table.set_xlabel("place", fontsize=8)
    table.set_ylabel("channel", fontsize=8)
    alike.imshow((shown @ shown.t()).numpy(), cmap="viridis", interpolation="nearest")
    alike.set_title("dot products of any two", fontsize=9)
    alike.set_xlabel("place", fontsize=8)
    said = [f"{added.spec}: {length} places, {width} channels"]
    moves = isinstance(added.spec, Sinusoid) and not width % 2 and length > distance
    after = (added.vectors[:-distance] @ added.shift(distance)).float() if moves else None
    for number, channel in enumerate(torch.linspace(0, width // 2, SHOWN).long().tolist()):
        curves.plot(shown[:, channel].numpy() + 2.5 * most * number, lw=1, color=f"C{number}")
        if after is not None:
            places = range(distance, length)
            curves.plot(places, after[:, channel].numpy() + 2.5 * most * number, ".", ms=4, color=f"C{number}")
    curves.set_yticks([])
    curves.set_xlabel("place", fontsize=8)
    curves.set_title("some channels", fontsize=9)
    if after is not None:
        curves.set_title(f"some channels; dots: {distance} places before, by one linear map", fontsize=9)
        said.append(f"one linear map shifts any place by {distance}: off by {added.error(distance):.1e} at most")
    return said
