"""How well `qkv scale fit` finds a law that is known: losses are drawn from the published law of Hoffmann et al. 2022 with noise
on log loss, fitted, and each exponent's interval is asked whether the truth lies in it.

    python benchmarks/law.py             goes on where it stopped
    python benchmarks/law.py --table     the table of what is measured so far
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from measure import Results

from qkv.spec.law import Parametric, Projection, Resamples, Resampling, Subsamples, Surface
from qkv.study.law import Asked, fit
from qkv.study.table import Member, Table

TRUTH = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
SIZES, TOKENS, NOISE = np.geomspace(1e7, 3e9, 6), np.geomspace(1e9, 1e11, 5), 0.005
DRAWS, SHARE = 100, 0.8
FORMS = {"Huber terms": Parametric(), "variable projection": Parametric(Projection())}
SAMPLES: dict[str, Resampling] = {"n of n": Resamples(), "80%": Subsamples()}
EXPONENTS = ("alpha", "beta")


def drawn(seed: int) -> Table:
    """A ladder whose losses follow the law, but for noise."""
    draw = np.random.default_rng(seed)
    members = [
        Member(f"{size:.3g} on {tokens:.3g}", size, None, tokens, TRUTH.loss(size, tokens) * float(np.exp(draw.normal(0, NOISE))))
        for size, tokens in product(map(float, SIZES), map(float, TOKENS))
    ]
    return Table(tuple(members))


def measured(by: str, samples: str, seed: int) -> dict[str, Any]:
    """The exponents that are found in a draw, and their intervals."""
    start = time.perf_counter()
    (found,) = fit(drawn(seed), Asked(FORMS[by], resampling=SAMPLES[samples], share=SHARE, seed=seed))
    seconds = round(time.perf_counter() - start, 2)
    law: Any = found.law
    each = {name: [getattr(law, name), *found.interval(getattr(found.each, name))] for name in EXPONENTS}
    return {"E": round(law.E, 5), **{name: [round(value, 5) for value in row] for name, row in each.items()}, "seconds": seconds}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """For each method and exponent its mean, its spread over draws, how often its interval covers the truth, and how wide that
    is."""
    lines = ["| fitted by | samples | draws | exponent | truth | mean | spread | covered | width | seconds |", "|" + "---|" * 10]
    for by, samples, name in product(FORMS, SAMPLES, EXPONENTS):
        found = [row["result"] for row in rows if (row["what"]["by"], row["what"]["samples"]) == (by, samples)]
        if len(found) < 2:
            continue
        truth = getattr(TRUTH, name)
        values = [each[name][0] for each in found]
        covered = mean(each[name][1] <= truth <= each[name][2] for each in found)
        width = mean(each[name][2] - each[name][1] for each in found)
        seconds = mean(each["seconds"] for each in found)
        lines.append(
            f"| {by} | {samples} | {len(found)} | {name} | {truth} | **{mean(values):.4f}** | {stdev(values):.4f} | "
            f"**{covered:.0%}** | {width:.4f} | {seconds:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/law.jsonl"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    results = Results(options.results, same=())
    if not options.table:
        for by, samples, seed in product(FORMS, SAMPLES, range(1, options.draws + 1)):
            results.measure({"by": by, "samples": samples, "seed": seed}, partial(measured, by, samples, seed))
    print(table(results.rows()))


if __name__ == "__main__":
    main()
