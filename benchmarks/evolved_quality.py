"""The Evolved Transformer beside the Transformer, on Multi30k: perplexity of the validation text and BLEU after equal steps.

python benchmarks/evolved_quality.py             three seeds each; goes on where it stopped
python benchmarks/evolved_quality.py --table     the table of what is measured so far

Both have width 128 and are trained by the recipe multi30k-evolved; only the model differs.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from quality import score
from trials import Trial, arguments, contest, trained

from qkv.decode.rule import Beam
from qkv.train.run_folder import read_run

MODELS = {"Evolved Transformer": ("evolved-tiny", ()), "Transformer": ("transformer-tiny", ("*.depth=6", "*.hidden=512"))}
SEEDS = (1, 2, 3)


def made(model: str, changes: tuple[str, ...], seed: int, source: str, target: str) -> dict[str, Any]:
    """Train one model, and translate the test text with it."""
    base = read_run(Path("recipes/multi30k-evolved.toml"))
    run = replace(base, model=model, changes=(*changes, *base.changes), seed=seed)
    test = partial(score, source=source, target=target, rule=Beam(4, 0.6), tokenise="none")
    return trained(run, test, ("perplexity",))


def table(rows: list[dict[str, Any]]) -> str:
    """The mean over the seeds, and every seed."""
    lines = ["| model | validation perplexity | each seed | BLEU | each seed |", "|---|---|---|---|---|"]
    for name in MODELS:
        mine = [row["result"] for row in rows if row["what"]["model"] == name]
        if mine:
            perplexity = [each["valid"]["perplexity"] for each in mine]
            bleu = [each["BLEU"] for each in mine]
            lines.append(
                f"| {name} | **{mean(perplexity):.2f}** | {', '.join(f'{one:.2f}' for one in perplexity)} "
                f"| **{mean(bleu):.2f}** | {', '.join(f'{one:.2f}' for one in bleu)} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, "evolved_quality.jsonl", SEEDS)
    test = Path(os.environ.get("QKV_DATA", ".")) / "multi30k/tok/test_2016_flickr.lc.norm.tok"
    parser.add_argument("--source", default=f"{test}.en")
    parser.add_argument("--target", default=f"{test}.de")
    options = parser.parse_args()
    trials: list[Trial] = [
        ({"model": name, "seed": seed}, made, (*MODELS[name], seed, options.source, options.target))
        for seed, name in product(options.seeds, MODELS)
    ]
    contest(options, trials, table)


if __name__ == "__main__":
    main()
