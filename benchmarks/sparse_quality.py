"""Sparse attention beside dense: bits per byte of text and per dimension of pictures, after equally many steps.

python benchmarks/sparse_quality.py              two seeds each; goes on where it stopped
python benchmarks/sparse_quality.py --table      the table of what is measured so far

Every model is trained by its recipe and measured on the part of the data that is held out; only the patterns differ.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from trials import Trial, arguments, contest, trained

from qkv.train.run_folder import read_run


def slots(block: int, count: int) -> str:
    """The fixed pattern with a slot of its own for each of four heads."""
    return "Causal() & PerHead(" + ", ".join(f"SameBlock({block}) | Summary({block}, {count}, {slot})" for slot in range(4)) + ")"


DATA: dict[str, tuple[str, str, dict[str, str]]] = {
    "enwik8, first 4.15 MB": (
        "enwik8-fixed",
        "bits_per_byte",
        {
            "dense": "Causal()",
            "fixed, l = 128, c = 32": slots(128, 32),
            "fixed, l = 32, c = 8": slots(32, 8),
            "strided, l = 32": "Causal() & (Local(32) | Stride(32))",
        },
    ),
    "MNIST, test pictures": (
        "digits-strided",
        "bits_per_dimension",
        {
            "dense": "Causal()",
            "fixed, l = 28, c = 4": "Causal() & (SameBlock(28) | Summary(28, 4))",
            "strided, l = 28": "Causal() & (Local(28) | Stride(28))",
        },
    ),
}


def made(recipe: str, measured: str, pattern: str, seed: int) -> dict[str, Any]:
    """Train one model; its bits on the part that is held out."""
    base = read_run(Path("recipes") / f"{recipe}.toml")
    run = replace(base, seed=seed, changes=(*base.changes, f"*.pattern={pattern}"))
    return trained(run, lambda folder: {}, (measured,))


def table(rows: list[dict[str, Any]]) -> str:
    """The mean over the seeds, and every seed."""
    lines = ["| data | measured | pattern | mean | each seed |", "|---|---|---|---|---|"]
    for data, (_, measured, patterns) in DATA.items():
        for name in patterns:
            mine = [
                row["result"]["valid"][measured] for row in rows if row["what"]["data"] == data and row["what"]["pattern"] == name
            ]
            if mine:
                each = ", ".join(f"{bits:.3f}" for bits in sorted(mine))
                lines.append(f"| {data} | {measured.replace('_', ' ')} | {name} | **{mean(mine):.3f}** | {each} |")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, "sparse_quality.jsonl", [1, 2])
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    options = parser.parse_args()
    trials: list[Trial] = [
        ({"data": data, "pattern": name, "seed": seed}, made, (*DATA[data][:2], DATA[data][2][name], seed))
        for data, seed in product(options.data, options.seeds)
        for name in DATA[data][2]
    ]
    contest(options, trials, table)


if __name__ == "__main__":
    main()
