"""Algorithmic worlds: the Transformer and the Universal Transformer, learned at up to 40 characters, tested at up to 400.

python benchmarks/algorithms.py              three worlds, three seeds each; goes on where it stopped
python benchmarks/algorithms.py --offsets    the same where places have random offsets, as in the paper, but no gaps
python benchmarks/algorithms.py --table      the table of what is measured so far; also with --offsets

All are trained by their recipes, with places that begin anywhere and lie apart, and with wrong tokens to go on from; addition,
which is learned last, for two and a half times their steps. A step of the Transformer takes nine tenths of the time of the
others', and its recipe makes five for their four. Of the seeds, the one that does best on held-out questions of the length of the
training is reported, with the range over all.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from trials import Trial, arguments, contest, trained

from qkv.decode.load import finished
from qkv.decode.translate import Translator
from qkv.spec.objective import Translate
from qkv.spec.run import Steps
from qkv.spec.world import Addition, Copy, Drawn, Reverse, World
from qkv.train.measure import answers
from qkv.train.run_folder import read_run

RECIPES = {
    "Transformer": "algorithms-transformer",
    "Universal": "algorithms-universal",
    "Transformer, convolved": "algorithms-convolved",
}
WORLDS: dict[str, type[Copy] | type[Reverse] | type[Addition]] = {"copy": Copy, "reverse": Reverse, "addition": Addition}
LONGER = {"addition": 2.5}  # worlds that are learned for so many times the steps of the recipe
SHORT, LONG = 40, 400
QUESTIONS = {SHORT: 1000, LONG: 500}
SEED = 3  # of the questions; those to learn from have 1
PAPER = {
    ("Transformer", "copy"): (0.53, 0.03),
    ("Transformer", "reverse"): (0.13, 0.06),
    ("Transformer", "addition"): (0.07, 0.0),
    ("Universal", "copy"): (0.91, 0.35),
    ("Universal", "reverse"): (0.96, 0.46),
    ("Universal", "addition"): (0.34, 0.02),
}


def tested(world: type[Copy] | type[Reverse] | type[Addition], folder: Path) -> dict[str, Any]:
    """How many characters and answers are right at both lengths, and how many tokens after the truth, in shares."""
    translator = Translator(finished(folder, device="cpu", precision="fp32"))
    found = {}
    for length in (SHORT, LONG):
        told = answers(translator, Drawn(world(length), QUESTIONS[length], SEED), 8192)
        found[str(length)] = dict(zip(("characters", "sequences", "forced"), (each["value"] / 100 for each in told), strict=True))
    return found


def made(recipe: str, world: str, offsets: bool, seed: int) -> dict[str, Any]:
    """Train one model, with nothing but random offsets if so, and test it."""
    kind: World = WORLDS[world](SHORT)
    base = read_run(Path("recipes") / f"{recipe}.toml")
    assert isinstance(base.train, Drawn) and isinstance(base.budget, Steps)
    budget = Steps(round(base.budget.number * LONGER.get(world, 1)))
    run = replace(base, seed=seed, train=replace(base.train, world=kind), budget=budget)
    if offsets:
        run = replace(run, spread=False, objective=Translate())
    return trained(run, partial(tested, WORLDS[world]))


def table(rows: list[dict[str, Any]]) -> str:
    """Tokens, characters and answers right, of the seed that validates best, with the range; the paper's beside them."""
    lines = [
        f"| world | model | seeds | at {SHORT}, characters / answers | at {LONG}, tokens after the truth | "
        "characters / answers | the paper's |",
        "|---|---|---|---|---|---|---|",
    ]
    for world, name in product(WORLDS, RECIPES):
        seeds = [row["result"] for row in rows if row["what"]["model"] == name and row["what"]["world"] == world]
        if not seeds:
            continue
        best = min(seeds, key=lambda each: each["valid"]["loss"])
        short, long = best[str(SHORT)], best[str(LONG)]
        cells = []
        for what in ("forced", "characters", "sequences"):
            found = sorted(each[str(LONG)][what] for each in seeds)
            cells.append(f"**{long[what]:.3f}**" + (f" ({found[0]:.3f} to {found[-1]:.3f})" if len(seeds) > 1 else ""))
        forced, characters, sequences = cells
        paper = " / ".join(f"{each:.2f}" for each in PAPER[name, world]) if (name, world) in PAPER else ""
        lines.append(
            f"| {world} | {name} | {len(seeds)} | {short['characters']:.3f} / {short['sequences']:.3f} | {forced} | "
            f"{characters} / {sequences} | {paper} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, "algorithms.jsonl", [1, 2, 3])
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--models", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--offsets", action="store_true", help="random offsets alone, without gaps between places and slips")
    options = parser.parse_args()
    trials: list[Trial] = [
        (
            {"world": world, "model": name, "offsets": options.offsets, "seed": seed},
            made,
            (RECIPES[name], world, options.offsets, seed),
        )
        for seed, world, name in product(options.seeds, options.worlds, options.models)
    ]
    contest(options, trials, table, lambda what: what["offsets"] == options.offsets)


if __name__ == "__main__":
    main()
