"""Learning to execute: the Transformer and the Universal Transformer tell what programs print, and remember digits.

python benchmarks/execution.py              six worlds, a seed each; goes on where it stopped
python benchmarks/execution.py --table      the table of what is measured so far

All are trained by their recipes: ten steps of the Transformer for eight of the other, which take longer. What is asked in the
test is as long as what was learned from, and is drawn by another seed.
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
from qkv.spec.world import AddProgram, Control, Copy, Double, Drawn, Program, Reverse, World
from qkv.train.measure import answers
from qkv.train.run_folder import read_run

RECIPES = {"Transformer": "execution-transformer", "Universal": "execution-universal"}
WORLDS: dict[str, World] = {
    "copy": Copy(55),
    "double": Double(55),
    "reverse": Reverse(55),
    "program": Program(),
    "control": Control(),
    "addition": AddProgram(),
}
QUESTIONS, SEED = 1000, 3  # asked in the test; the seed of those to learn from is 1
PAPER = {
    "Transformer": ((0.98, 0.63), (0.94, 0.55), (0.81, 0.26), (0.71, 0.29), (0.93, 0.66), (1.0, 1.0)),
    "Universal": ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (0.89, 0.63), (1.0, 1.0), (1.0, 1.0)),
}


def tested(world: World, folder: Path) -> dict[str, Any]:
    """How many characters and answers are right, in shares."""
    characters, sequences, _ = answers(
        Translator(finished(folder, device="cpu", precision="fp32")), Drawn(world, QUESTIONS, SEED), 8192
    )
    return {"characters": characters["value"] / 100, "sequences": sequences["value"] / 100}


def made(recipe: str, world: World, seed: int) -> dict[str, Any]:
    """Train one model, and test it."""
    base = read_run(Path("recipes") / f"{recipe}.toml")
    assert isinstance(base.train, Drawn)
    return trained(replace(base, seed=seed, train=replace(base.train, world=world)), partial(tested, world))


def table(rows: list[dict[str, Any]]) -> str:
    """Characters and answers that are right, ours and the paper's, of the seed that validates best."""
    lines = ["| world | " + " | ".join(f"{name} | the paper's" for name in RECIPES) + " |", "|---" * (1 + 2 * len(RECIPES)) + "|"]
    for place, world in enumerate(WORLDS):
        cells = []
        for name in RECIPES:
            seeds = [row["result"] for row in rows if row["what"]["model"] == name and row["what"]["world"] == world]
            best = min(seeds, key=lambda each: each["valid"]["loss"], default=None)
            cells.append(f"**{best['characters']:.3f}** / **{best['sequences']:.3f}**" if best else "")
            cells.append(" / ".join(f"{share:.2f}" for share in PAPER[name][place]))
        lines.append(f"| {world} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, "execution.jsonl", [1])
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--models", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    options = parser.parse_args()
    trials: list[Trial] = [
        ({"world": world, "model": name, "seed": seed}, made, (RECIPES[name], WORLDS[world], seed))
        for seed, world, name in product(options.seeds, options.worlds, options.models)
    ]
    contest(options, trials, table)


if __name__ == "__main__":
    main()
