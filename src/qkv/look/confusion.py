"""Which labels a classifier takes for which, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NAMED = 40  # labels whose names can be read


def draw(table: np.ndarray, labels: Sequence[str], path: Path) -> None:
    """Save the picture of a table, (labels, labels): a row for each true label, a column for each told one, dark where a large
    share of the row is."""
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = max(3.0, 0.45 * min(len(labels), NAMED) + 1.5)
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xlabel("told")
    axis.set_ylabel("true")
    if len(labels) <= NAMED:
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8)
        axis.set_yticks(range(len(labels)), labels, fontsize=8)
        for row in range(len(labels)):
            for column in range(len(labels)):
                if table[row, column]:
                    colour = "white" if shares[row, column] > 0.6 else "black"
                    axis.text(column, row, f"{table[row, column]:,}", ha="center", va="center", fontsize=7, color=colour)
    figure.savefig(path, dpi=130)
    plt.close(figure)
