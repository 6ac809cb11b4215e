"""Quality: what a run scores on a test set, and what it scored on the way there.

    python benchmarks/quality.py --run RUN --source TEST.en --target TEST.de [--tokenise none]

Writes BLEU and chrF of the finished model (the average of its last checkpoints, beam 4, length penalty 0.6), and the run's
validation BLEU by minutes of training, from its journal. Train the run first, by its recipe: `qkv train translate --recipe
NAME --out RUN`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from measure import Results

from qkv import device
from qkv.data.text import read_lines
from qkv.decode.rule import Beam
from qkv.decode.translate import load
from qkv.train.evaluate import bleu, chrf
from qkv.train.journal import read


def score(run: Path, source: str, target: str, rule: Beam, tokenise: str) -> dict[str, Any]:
    """BLEU and chrF with their signatures, and how long the run trained."""
    translator = load(run, device="cpu", precision="fp32")
    sources, targets = list(read_lines(source)), list(read_lines(target))
    found = [best[0].text for best in translator.translate(sources, rule)]
    final = next(line for line in reversed(read(run / "journal.jsonl")) if line["kind"] == "final")
    results = [bleu(found, targets, tokenise), chrf(found, targets)]
    return {
        **{result.name: round(result.value, 2) for result in results},
        "signatures": [result.signature for result in results],
        "steps": final["step"],
        "minutes": round(final["seconds"] / 60, 1),
        "validation_perplexity": round(final["perplexity"], 3),
    }


def by_minutes(run: Path) -> dict[str, Any]:
    """Validation BLEU, greedy, over minutes of training."""
    lines = [line for line in read(run / "journal.jsonl") if line["kind"] == "evaluation" and "bleu" in line]
    return {"minutes_bleu": [(round(line["seconds"] / 60, 1), round(line["bleu"], 1)) for line in lines]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--tokenise", default="none")
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--length-penalty", type=float, default=0.6)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/quality.jsonl"))
    options = parser.parse_args()
    device.prepare()
    results = Results(options.results)
    how = {"beam": options.beam, "length_penalty": options.length_penalty}
    what = {"run": options.run.name, "test": Path(options.target).name, **how}
    rule = Beam(options.beam, options.length_penalty)
    results.measure(what, lambda: score(options.run, options.source, options.target, rule, options.tokenise))
    results.measure({"run": options.run.name, "curve": "validation BLEU by minutes"}, lambda: by_minutes(options.run))


if __name__ == "__main__":
    main()
