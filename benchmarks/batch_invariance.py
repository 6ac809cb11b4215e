"""Does a sentence's translation depend on its neighbours in the batch? Alone, in batches, and in shuffled batches, in fp32.

    python benchmarks/batch_invariance.py --run RUN --source F

Kernels add in another order for another batch size, so that two hypotheses of almost equal score may change places. Every
difference is counted, and
the scores of the two candidates are compared: a near-tie is one whose scores differ by less than 1e-5 of themselves.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from measure import Results

from qkv import device
from qkv.data.text import read_lines
from qkv.decode.rule import Beam
from qkv.decode.translate import Translation, Translator, load

NEAR = 1e-5


def differences(one: list[Translation], other: list[Translation]) -> dict[str, Any]:
    """How many translations differ, how many of these are near-ties, and the largest difference of scores."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a.text != b.text]
    gaps = [abs(a.score - b.score) for a, b in pairs]
    drift = max((abs(a.score - b.score) for a, b in zip(one, other, strict=True) if a.text == b.text), default=0.0)
    return {
        "sentences": len(one),
        "different": len(pairs),
        "near_ties": sum(gap <= NEAR for gap in gaps),
        "largest_gap_where_different": max(gaps, default=0.0),
        "largest_gap_where_equal": drift,
    }


def translate(translator: Translator, lines: list[str], batch_tokens: int) -> list[Translation]:
    """The best translation of each line."""
    return [best[0] for best in translator.translate(lines, Beam(), batch_tokens=batch_tokens)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/batch_invariance.jsonl"))
    options = parser.parse_args()
    device.prepare()
    results = Results(options.results)
    translator = load(options.run, device="cpu", precision="fp32")
    lines = list(read_lines(options.source))[:1000]
    order = random.Random(0).sample(range(len(lines)), len(lines))
    alone: list[Translation] = []

    def against(batch_tokens: int, shuffled: bool) -> dict[str, Any]:
        alone.extend([] if alone else translate(translator, lines, 1))
        if not shuffled:
            return differences(alone, translate(translator, lines, batch_tokens))
        # random neighbours: chunks of shuffled lines, each translated by itself
        found: dict[int, Translation] = {}
        for start in range(0, len(order), 50):
            places = order[start : start + 50]
            found |= dict(zip(places, translate(translator, [lines[i] for i in places], batch_tokens), strict=True))
        return differences(alone, [found[i] for i in range(len(lines))])

    for batch_tokens, shuffled in ((4096, False), (16384, False), (4096, True)):
        what = {
            "run": options.run.name,
            "alone against": "shuffled batches" if shuffled else "batches",
            "batch_tokens": batch_tokens,
        }
        results.measure(what, lambda size=batch_tokens, mixed=shuffled: against(size, mixed))


if __name__ == "__main__":
    main()
