"""How queries ask, on Multi30k: a Transformer with each score and choice, and the recurrent models before it, after equal steps.

python benchmarks/scores.py             perplexity of the validation text and BLEU, each model trained by one thread
python benchmarks/scores.py --time      seconds a training step takes: all models in turns, on quiet cores
python benchmarks/scores.py --table     the table of what is measured so far

All are trained by the recipe multi30k-scores; only the model differs. Rows are written as they are measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import Results
from quality import score
from trials import Trial, held, trained

from qkv import device
from qkv.data.cache import default_cache
from qkv.decode.rule import Beam
from qkv.model.dropout import Noise
from qkv.model.trace import Trace
from qkv.model.transformer import build
from qkv.spec.run import Run
from qkv.train import choices
from qkv.train.loss import Smoothing
from qkv.train.optimiser import optimiser
from qkv.train.run import describe
from qkv.train.run_folder import read_run
from qkv.train.tasks import task_of

MEMORY = "decoder.blocks.0.sublayers.1.choice"
LOCAL = "decoder.blocks.1.nodes.1.left.layer.choice"
RECIPE = Path("recipes/multi30k-scores.toml")
MODELS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{
        f"Transformer, {each}": ("transformer-tiny", (f"*.score={each}",))
        for each in (
            *("ScaledDot()", "Dot()", "General()", "ContentBased(8, true)", "Additive()", "Location(160)"),
            *("Gaussian(4, true)", "Triangular(16, true)", "Boxcar(8)", "Constant()"),
        )
    },
    **{f"Transformer, {each}": ("transformer-tiny", (f"*.choice={each}",)) for each in ("Best(4)", "StraightThrough()")},
    **{
        f"Transformer, source by {each}": ("transformer-tiny", (f"{MEMORY}={each}",))
        for each in ("LocalMonotonic(10)", "LocalPredictive(10)", "StraightThrough()", "Sampled()")
    },
    "Bahdanau": ("bahdanau-tiny", ()),
    **{f"Luong, {each}": ("luong-tiny", (f"*.score={each}",)) for each in ("Dot()", "General()", "Location(160)")},
    "Luong, Additive()": ("luong-tiny", ("*.score=Additive()", "*.maps=Projected()")),
    **{
        f"Luong, General(), {each}": ("luong-tiny", (f"{LOCAL}={each}",))
        for each in ("LocalMonotonic(10)", "LocalPredictive(10)")
    },
}
ROUNDS, STEPS = 5, 4  # turns of a contest, and training steps of a turn


def run_of(name: str) -> Run:
    """What is trained."""
    base = read_run(RECIPE)
    model, changes = MODELS[name]
    return replace(base, model=model, changes=(*changes, *base.changes))


def made(name: str, source: str, target: str) -> dict[str, Any]:
    """Train one model, and translate the test text with it."""
    test = partial(score, source=source, target=target, rule=Beam(4, 0.6), tokenise="none")
    return trained(run_of(name), test, ("perplexity",))


def stepping(name: str) -> tuple[Callable[[], float], int]:
    """Training steps of a model on the first batches of the text, which give the seconds of one, and its parameters."""
    run = run_of(name)
    task = task_of(run, None, default_cache())
    model = build(describe(run, task.report.vocabularies))
    where, adam, step, planned = device.pick("cpu", "auto"), optimiser(run.optimiser, model), 0, task.plan(0)
    batches = [task.batch(planned, each, 0) for each in range(STEPS)]

    def work() -> float:
        nonlocal step
        start = time.perf_counter()
        for batch in batches:
            step += 1
            trace = Trace(lambda path: False) if choices.draws(model.spec) else None
            with torch.autocast("cpu", where.precision, enabled=where.precision != torch.float32):
                smoothed, _ = task.losses(model, batch, Smoothing(run.smoothing), Noise(1, step), where.precision, trace)
            loss = smoothed / batch.tokens
            (loss if trace is None else loss + choices.cost(trace, batch, batch.tokens)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            adam.zero_grad(set_to_none=True)
        return (time.perf_counter() - start) / STEPS

    return work, sum(each.numel() for each in model.parameters())


def timed(results: Results, threads: int) -> None:
    """Seconds of a step: all models in turns, the first turn only to warm up."""
    device.prepare(threads)
    models = {name: stepping(name) for name in MODELS}
    seconds: dict[str, list[float]] = {name: [] for name in MODELS}
    for number in range(ROUNDS + 1):
        for name, (work, _) in models.items():
            found = work()
            if number:
                seconds[name].append(found)
    for name, found in seconds.items():
        result = {"seconds": round(statistics.median(found), 4), "least": round(min(found), 4), "most": round(max(found), 4)}
        results.write({"model": name, "seconds of a step, threads": threads}, {**result, "parameters": models[name][1]})


def table(rows: list[dict[str, Any]]) -> str:
    """A row for each model."""
    lines = ["| model | parameters | validation perplexity | BLEU | seconds a step |", "|---|---|---|---|---|"]
    for name in MODELS:
        mine = [row for row in rows if row["what"]["model"] == name]
        learned = next((row["result"] for row in mine if "BLEU" in row["result"]), None)
        step = next((row["result"] for row in mine if "parameters" in row["result"]), None)
        if learned:
            size, seconds = (f"{step['parameters'] / 1e6:.2f}M", f"{step['seconds']:.3f}") if step else ("", "")
            lines.append(f"| {name} | {size} | {learned['valid']['perplexity']:.2f} | {learned['BLEU']:.2f} | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    test = Path(os.environ.get("QKV_DATA", ".")) / "multi30k/tok/test_2016_flickr.lc.norm.tok"
    parser.add_argument("--source", default=f"{test}.en")
    parser.add_argument("--target", default=f"{test}.de")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=2, help="of --time")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/scores.jsonl"))
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    results = Results(options.results, same=())
    if options.table:
        print(table(results.rows()))
    elif options.time:
        timed(results, options.threads)
    else:
        trials: list[Trial] = [({"model": name}, made, (name, options.source, options.target)) for name in options.models]
        held(results, trials, options.processes)


if __name__ == "__main__":
    main()
