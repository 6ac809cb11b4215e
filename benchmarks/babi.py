"""bAbI, one model for each task: the Transformer as it commonly begins, the Transformer and the Universal Transformer whose
attention begins by likeness, and the latter with halting.

python benchmarks/babi.py --data $QKV_DATA/babi/en                  all tasks, three seeds each; goes on where it stopped
python benchmarks/babi.py --data $QKV_DATA/babi/en --table          the table of what is measured so far

The Transformer as it commonly begins makes 6000 steps, as many minutes as 4000 with halting take; the others make 4000 as well.
In task 3, where it matters what somebody did before something else, one of two heads that begin by likeness looks back alone, to
what is near before what is far; the Transformer as it commonly begins is tried with such heads as well.

Each model is trained by its recipe on nine tenths of the stories of a task; of the seeds, the one that does best on the tenth
that is held out is tested. A task is failed where more than 5% of the answers are wrong (Weston et al. 2015).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from trials import Trial, arguments, contest, trained

from qkv.data.labels import read_rows
from qkv.decode.load import finished
from qkv.decode.read import Reader
from qkv.decode.seen import ponder
from qkv.error import QkvError
from qkv.spec.data import Stories
from qkv.train.measure import labels
from qkv.train.ponder import rules
from qkv.train.run_folder import read_run

RECIPES = {
    "Transformer, plain": "babi-plain",
    "Transformer, plain, looking back": "babi-plain",
    "Transformer": "babi-transformer",
    "Universal": "babi-universal",
    "Universal, halting": "babi-halting",
}
NEAREST = (3,)  # the tasks in which heads look back
LOOKING_BACK = {
    "Transformer, plain, looking back": ("*.pattern=PerHead(Full(), Causal() & Others())", "*.bias=ALiBi((0.0, 0.0, 0.5, 0.5))"),
    **dict.fromkeys(
        ("Transformer", "Universal", "Universal, halting"),
        ("*.pattern=PerHead(Others(), Causal() & Others())", "*.bias=ALiBi((0.0, 0.5))", "initial.heads=2"),
    ),
}
PAPER = {  # average error and failed tasks, the best of ten seeds (Dehghani et al. 2018, section 3.1)
    "en": {"Transformer, plain": (21.8, 5), "Universal": (5.31, 5), "Universal, halting": (4.55, 3)},
    "en-10k": {"Transformer, plain": (15.2, 10), "Universal": (0.23, 0), "Universal, halting": (0.21, 0)},
}
TASKS, SEEDS = range(1, 21), (1, 2, 3)
FAILED = 5.0  # per cent of wrong answers, above which a task is failed
PONDERED = 200  # test questions whose ponder times are measured


def file_of(data: Path, task: int, part: str) -> str:
    """The file of a task."""
    found = sorted(data.glob(f"qa{task}_*_{part}.txt*"))
    if not found:
        raise QkvError(f"{data} has no file for task {task}, {part}: name a folder of bAbI such as en")
    return str(found[0])


def tested(test: Stories, folder: Path) -> dict[str, Any]:
    """The answers that are right, in per cent, and the ponder times of all sentences of some stories."""
    reader = Reader(finished(folder, device="cpu", precision="fp32"))
    found: dict[str, Any] = {"test": labels(reader, test, None)[0]["value"]}
    if rules(reader.model.spec):
        texts = [text for text, _ in read_rows(test)][:PONDERED]
        steps = [step for text in texts for step in ponder(reader, text)[0].steps]
        found |= {"ponder": round(mean(steps), 3), "ponder_spread": round(pstdev(steps), 3)}
    return found


def made(model: str, data: Path, task: int, seed: int) -> dict[str, Any]:
    """Train one model, and test it."""
    base = read_run(Path("recipes") / f"{RECIPES[model]}.toml", ("train",))
    changes = (*base.changes, *(LOOKING_BACK.get(model, ()) if task in NEAREST else ()))
    run = replace(base, seed=seed, train=Stories((file_of(data, task, "train"),)), changes=changes)
    return trained(run, partial(tested, Stories((file_of(data, task, "test"),))))


def table(data: str, rows: list[dict[str, Any]]) -> str:
    """Errors of every task at the seed that validates best, with the range over the seeds; averages and failed tasks, of the
    models that were trained for all, and the paper's."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["what"]["model"], row["what"]["task"]), []).append(row["result"])
    names = [name for name in RECIPES if any(model == name for model, _ in found)]
    tasks = sorted({task for _, task in found})
    lines = ["| task | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    best: dict[tuple[str, int], float] = {}
    for task in tasks:
        cells = []
        for name in names:
            seeds = found.get((name, task), [])
            if not seeds:
                cells.append("")
                continue
            chosen = max(seeds, key=lambda each: (each["valid"]["accuracy"], -each["valid"]["loss"]))
            errors = sorted(100 - each["test"] for each in seeds)
            best[name, task] = 100 - chosen["test"]
            details = [f"{errors[0]:.1f} to {errors[-1]:.1f}"] if len(seeds) > 1 else []
            details += [f"{chosen['ponder']:.1f} ± {chosen['ponder_spread']:.1f} steps"] if "ponder" in chosen else []
            cells.append(f"{best[name, task]:.1f}" + (f" ({'; '.join(details)})" if details else ""))
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    told = []
    for name in names:
        errors = [best[name, task] for task in tasks if (name, task) in best]
        whole = len(errors) == len(tasks)
        told.append(f"**{mean(errors):.2f}** ({sum(error > FAILED for error in errors)})" if whole else "")
    lines.append(f"| average error (failed), {len(tasks)} tasks | " + " | ".join(told) + " |")
    paper = [f"{PAPER[data][name][0]} ({PAPER[data][name][1]})" if name in PAPER[data] else "" for name in names]
    return "\n".join([*lines, "| the paper's, 20 tasks | " + " | ".join(paper) + " |"])


def main() -> None:
    parser = arguments(__doc__, "babi.jsonl", SEEDS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", type=int, nargs="*", default=list(TASKS))
    parser.add_argument("--models", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    options = parser.parse_args()
    trials: list[Trial] = [
        (
            {"data": options.data.name, "task": task, "model": name, "seed": seed},
            made,
            (name, options.data, task, seed),
        )
        for seed, task, name in product(options.seeds, options.tasks, options.models)
        if task in NEAREST or not name.endswith("looking back")
    ]
    contest(options, trials, partial(table, options.data.name), lambda what: what["data"] == options.data.name)


if __name__ == "__main__":
    main()
