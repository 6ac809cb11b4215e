"""The curves of a run, from its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(journal: list[dict[str, Any]], path: Path, title: str) -> None:
    """Training and validation loss over steps, the learning rate beside them, and BLEU below if it was measured."""
    steps = [line for line in journal if line["kind"] == "step"]
    checks = [line for line in journal if line["kind"] == "evaluation"]
    scored = [line for line in checks if line.get("bleu") is not None]
    figure, axes = plt.subplots(
        2 if scored else 1, 1, figsize=(8, 7 if scored else 4.5), sharex=True, squeeze=False, layout="constrained"
    )
    loss = axes[0, 0]
    loss.plot(
        [s["step"] for s in steps], [s["loss"] for s in steps], color="#7aa6d8", linewidth=1, label="training (with dropout)"
    )
    loss.plot(
        [c["step"] for c in checks], [c["loss"] for c in checks], color="#c2452d", marker="o", markersize=3, label="validation"
    )
    loss.set_ylabel("loss, nats per token")
    loss.set_title(title)
    rate = loss.twinx()
    rate.plot([s["step"] for s in steps], [s["rate"] for s in steps], color="#bbbbbb", linewidth=1, linestyle=":")
    rate.set_ylabel("learning rate (dotted)", color="#888888")
    rate.set_ylim(bottom=0)
    loss.legend(loc="upper right")
    loss.set_zorder(1)
    loss.patch.set_visible(False)
    if scored:
        below = axes[1, 0]
        below.plot([c["step"] for c in scored], [c["bleu"] for c in scored], color="#2d7d46", marker="o", markersize=3)
        below.set_ylabel("validation BLEU, greedy")
        below.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("step")
    figure.savefig(path, dpi=130)
    plt.close(figure)
