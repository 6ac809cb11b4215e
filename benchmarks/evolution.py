"""A search for an architecture, and what it is worth: with hurdles, without them, and by chance, at equal steps; then the best
children, trained anew beside what the search began with.

    python benchmarks/evolution.py --text $QKV_DATA/tinyshakespeare/input.txt --out searches     goes on where it stopped
    python benchmarks/evolution.py --table                                      the tables of what is measured so far
    python benchmarks/evolution.py --picture evolution.png                      fitness by steps spent, of all searches

Children learn from nine tenths of the text and are judged on the beginning of the rest; what is trained anew is tested on what
is left, which no search has seen. The recipe is shakespeare-evolution.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from measure import Results
from trials import Trial, held, trained

from qkv import device
from qkv.evolve.evolve import State, evolve
from qkv.evolve.record import BEST, NAME, Child
from qkv.spec.data import Texts
from qkv.spec.run import Evaluation, Run
from qkv.spec.search import AtRandom, Between, Hurdles, NoHurdles, Search
from qkv.train.run_folder import read_run

SHARE, JUDGED = 0.9, 32_000  # of the text to learn from; characters to judge children by
STAGES, PER_HURDLE = (150, 150, 300), 50
BUDGET = 45_000  # steps of all children of a search together
SEEDS = (1, 2, 3)
START = "the model that it began with"
KINDS: dict[str, dict[str, Any]] = {
    "hurdles": {"training": Hurdles(STAGES, PER_HURDLE)},
    "no hurdles": {"training": NoHurdles(sum(STAGES))},
    "by chance": {"training": NoHurdles(sum(STAGES)), "selection": AtRandom()},
}


class Noted:
    """A Watch that keeps how the best fitness rose, and says how it goes now and then."""

    def __init__(self, steps: int) -> None:
        self.steps, self.curve, self.children = steps, list[tuple[int, float]](), list[Child]()

    def say(self, line: str) -> None:
        print(line, flush=True)

    def show(self, state: State, child: Child) -> None:
        self.children.append(child)
        whole = [each.fitness for each in self.children if each.steps == self.steps and each.fitness is not None]
        best = round(max(whole), 4) if whole else None
        if best is not None and (not self.curve or best > self.curve[-1][1]):
            self.curve.append((state.steps, best))
        if len(self.children) % 10 == 0:
            best = self.curve[-1][1] if self.curve else None
            print(
                f"{state.children} children, {state.failed} failed, {state.steps:,} steps, {state.seconds:.0f} s, best {best}",
                flush=True,
            )


def parts(text: str, out: Path) -> dict[str, str]:
    """The three parts of the text, as files."""
    whole = Path(text).read_text(encoding="utf-8")
    cut = int(SHARE * len(whole))
    found = {"train": whole[:cut], "judged": whole[cut : cut + JUDGED], "test": whole[cut + JUDGED :]}
    out.mkdir(parents=True, exist_ok=True)
    for name, part in found.items():
        (out / f"{name}.txt").write_text(part, encoding="utf-8")
    return {name: str(out / f"{name}.txt") for name in found}


def start(files: dict[str, str], valid: str) -> Run:
    """What the search begins with, and how everything is trained."""
    base = read_run(Path("recipes/shakespeare-evolution.toml"))
    return replace(base, train=Texts((files["train"],)), valid=Texts((files[valid],)))


def searched(kind: str, seed: int, run: Run, folder: Path, workers: int) -> dict[str, Any]:
    """One search; its best child is written beside its records. A share of machinery is known only if it was not interrupted."""
    run = replace(run, evaluation=Evaluation(run.evaluation.every, 0))
    search = Search(
        run, parameters=Between(185_000, 215_000), children=10_000, steps=BUDGET, minutes=3.0, seed=seed, **KINDS[kind]
    )
    watch, began, resume = Noted(search.longest), time.monotonic(), (folder / NAME).exists()
    best = evolve(search, folder, watch, workers=workers, resume=resume)
    seconds = time.monotonic() - began
    found: dict[str, Any] = {"fitness": round(best.fitness or 0.0, 4), "child": best.number, "parameters": best.parameters}
    if resume:
        return found | {"resumed": True}
    children = watch.children
    return found | {
        "children": len(children),
        "failed": sum(bool(child.failure) for child in children),
        "stages": [sum(len(child.stages) == stage for child in children) for stage in range(1, len(STAGES) + 1)],
        "steps": sum(child.steps for child in children),
        "minutes": round(seconds / 60, 1),
        "machinery": round(1 - sum(child.seconds for child in children) / (workers * seconds), 4),
        "workers": workers,
        "first": round(next(child.fitness or 0.0 for child in children if child.number == 0), 4),
        "curve": watch.curve,
    }


def anew(model: str, run: Run, seed: int) -> dict[str, Any]:
    """A model trained for all steps of the recipe, from scratch."""
    run = replace(run, seed=seed) if model == START else replace(run, seed=seed, model=model, changes=())
    return trained(run, lambda folder: {}, ("loss", "perplexity"))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """What the searches reached, and what their best are worth."""
    lines = [
        "| search | seed | children | after each stage | steps | minutes | machinery | best fitness | seed's own |",
        "|" + "---|" * 9,
    ]
    for row in (row for row in rows if "search" in row["what"]):
        what, result = row["what"], row["result"]
        names = ("children", "stages", "steps", "minutes", "machinery", "fitness", "first")
        lines.append(f"| {what['search']} | {what['seed']} | " + " | ".join(str(result.get(name, "")) for name in names) + " |")
    lines += ["", "| trained anew | test loss | spread | each seed |", "|---|---|---|---|"]
    models = dict.fromkeys(row["what"]["model"] for row in rows if "model" in row["what"])
    for model in models:
        losses = [row["result"]["valid"]["loss"] for row in rows if row["what"].get("model") == model]
        each = ", ".join(f"{loss:.4f}" for loss in losses)
        lines.append(f"| {model} | **{mean(losses):.4f}** | {pstdev(losses):.4f} | {each} |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The best fitness after all steps of training, by the steps that a search has spent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    colours = dict(zip(KINDS, ("darkorange", "steelblue", "dimgrey"), strict=True))
    for row in (row for row in rows if "curve" in row["result"]):
        kind, seed = row["what"]["search"], row["what"]["seed"]
        steps, fitness = zip(*row["result"]["curve"], strict=True)
        end = (BUDGET, fitness[-1])
        label = kind if seed == SEEDS[0] else None
        axis.step([*steps, end[0]], [*fitness, end[1]], where="post", color=colours[kind], label=label, lw=1.4)
    axis.set_xlabel("steps of training, of all children together", fontsize=9)
    axis.set_ylabel(f"best fitness after {sum(STAGES)} steps", fontsize=9)
    axis.legend(fontsize=9)
    axis.grid(alpha=0.2)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default=f"{os.environ.get('QKV_DATA', '.')}/tinyshakespeare/input.txt")
    parser.add_argument("--out", type=Path, default=Path("searches"))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/evolution.jsonl"))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    results = Results(options.results, same=())
    if options.table:
        print(table(results.rows()))
        return
    if options.picture:
        draw(results.rows(), options.picture)
        return
    device.prepare(1)
    files = parts(options.text, options.out / "text")
    for seed, kind in product(options.seeds, options.kinds):
        folder = options.out / f"{kind.replace(' ', '-')}-{seed}"
        results.measure(
            {"search": kind, "seed": seed}, partial(searched, kind, seed, start(files, "judged"), folder, options.workers)
        )
        models = {START: START, f"best of {kind}, {seed}": str(folder / BEST)}
        trials: list[Trial] = [
            ({"model": name, "seed": each}, anew, (model, start(files, "test"), each))
            for name, model in models.items()
            for each in SEEDS
        ]
        held(results, trials, options.workers)


if __name__ == "__main__":
    main()
