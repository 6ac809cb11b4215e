"""A ladder on WikiText-2: at least 6 sizes over more than a hundredfold in parameters, the largest at least three times the next
and held out, for the law that the others follow to predict its loss.

    python benchmarks/ladder.py --data $QKV_DATA --out runs/ladder --threads 1 --plan    what it will train, and about how long
    python benchmarks/ladder.py --data $QKV_DATA --out runs/ladder --threads 1           two hours; goes on where it stopped
    python benchmarks/ladder.py --data $QKV_DATA --out runs/tried --flops 1e13 --span 12 --sizes 3 --tokens 5e4,1e5

A decoder of merges of bytes, every size on the same numbers of tokens, validated on the beginning of the validation text. The
table is OUT/ladder/ladder.csv. Batches are small: in few steps a large model learns no more than a small one. The smallest model
is 24 wide: one of 16 lies off the law of all others.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from qkv import device
from qkv.papers.catalogue import entry
from qkv.spec.data import AtMost, Texts, Tokenizer
from qkv.spec.objective import Generate
from qkv.spec.run import Batching, Run
from qkv.spec.study import Apart, Contender, Counts, Ladder, Operations
from qkv.study.ladder import NAME, climb, plan_of, prepared, table
from qkv.study.plan import Plan

MODEL = "gpt-tiny"
JUDGED = 150_000  # characters of the validation text
ENTRIES, LONGEST, BATCH = 512, 128, 512
CHANGES = (
    "*.dropout=0.0",  # the text is read less than twice
    "*.rotate=Rotary()",  # with learned places, models stay on a plateau for a thousand steps and more
    "embedding.position=NoPosition()",
)
HELD = 3.0  # times the parameters of the next: the size that is held out


class Aloud:
    """A Watch that prints what it is told, but not every step."""

    def say(self, line: str) -> None:
        print(line, flush=True)

    def step(self, step: int, steps: int, loss: float, tokens_per_second: float, seconds_left: float) -> None:
        pass


def ladder(data: Path, out: Path, options: argparse.Namespace) -> Ladder:
    """What is trained."""
    out.mkdir(parents=True, exist_ok=True)
    judged = out / "valid.txt"
    judged.write_text((data / "wikitext2" / "valid.txt").read_text(encoding="utf-8")[:JUDGED], encoding="utf-8")
    text, valid = (Texts((str(path.absolute()),)) for path in (data / "wikitext2" / "train.txt.gz", judged))
    how: dict[str, Any] = vars(entry(MODEL).practice) | {"longest": LONGEST, "batching": Batching(BATCH)}
    run = Run(MODEL, text, valid, Generate(), tokenizer=Tokenizer("bytes", AtMost(ENTRIES)), **how)
    run = replace(run, changes=CHANGES, precision=options.precision)
    counts = Counts(tuple(float(each) for each in options.tokens.split(",")))
    budget, largest = Operations(options.flops), Apart(options.apart)
    return Ladder((Contender(MODEL, run),), budget, options.sizes, options.span, counts, largest=largest)


def show(plan: Plan) -> None:
    """Print the plan, and refuse one whose largest size is no test of a law."""
    for row in table(plan):
        print(f"{row['name']:<28} {row['flops']:.3g} FLOPs, {row['epochs']:.2f} epochs, about {row['seconds']:.0f} s")
    counts = sorted({row["parameters"] for row in table(plan)})
    apart = counts[-1] / counts[-2]
    print(f"{len(counts)} sizes, {counts[-1] / counts[0]:.0f}-fold; the largest has {apart:.2f} times the next")
    print(f"{plan.operations:.3g} FLOPs, about {plan.whole / 60:.0f} minutes", flush=True)
    if apart < HELD:
        raise SystemExit(
            f"the largest size is to have at least {HELD:g} times the parameters of the next: ask for a larger --apart"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("QKV_DATA", ".")))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flops", type=float, default=4.75e14)
    parser.add_argument("--sizes", type=int, default=6)
    parser.add_argument("--span", type=float, default=120.0)
    parser.add_argument("--apart", type=float, default=3.1)
    parser.add_argument("--tokens", default="2e6,4e6,8e6")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--plan", action="store_true")
    options = parser.parse_args()
    device.prepare(options.threads)
    wanted = ladder(options.data, options.out, options)
    if options.plan:
        show(plan_of(wanted, prepared(wanted, Aloud())))
        return
    folder = options.out / "ladder"
    climb(wanted, folder, Aloud(), show, resume=(folder / NAME).is_file(), threads=options.threads)
    print(f"qkv scale fit {folder} --hold-out largest")


if __name__ == "__main__":
    main()
