"""What contests between trained models share: every model of every kind trained by a thread of its own, each row written as it is
measured."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from measure import Results

from qkv import device
from qkv.spec.run import Run
from qkv.train.loop import Silent
from qkv.train.run import train

Trial = tuple[dict[str, Any], Callable[..., dict[str, Any]], tuple[Any, ...]]
"""What is measured, how, and with which arguments; all of it can be sent to another process."""


MEASURED = ("loss", "accuracy", "characters", "sequences")


def trained(run: Run, test: Callable[[Path], dict[str, Any]], measured: tuple[str, ...] = MEASURED) -> dict[str, Any]:
    """Train a run by one thread, and test it; the last measurement of its journal, the seconds, and what the test found."""
    device.prepare(1)
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name) / "run", time.monotonic()
        train(run, folder, Silent())
        seconds = round(time.monotonic() - start)
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        final = next(line for line in reversed(lines) if line["kind"] == "final")
        valid = {name: final[name] for name in measured if name in final}
        return {"valid": valid, "steps": final["step"], "seconds": seconds, **test(folder)}


def held(results: Results, trials: Iterable[Trial], processes: int) -> None:
    """Make the trials that were not made before, so many beside each other."""
    with ProcessPoolExecutor(processes) as pool:
        pending = {pool.submit(how, *arguments): what for what, how, arguments in trials if not results.known(what)}
        for future in as_completed(pending):
            results.write(pending[future], future.result())
            print(json.dumps([pending[future], future.result()]), flush=True)


def arguments(text: str | None, results: str, seeds: Iterable[int]) -> argparse.ArgumentParser:
    """What every contest may be told on the command line."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(seeds))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results") / results)
    parser.add_argument("--table", action="store_true")
    return parser


def contest(
    options: argparse.Namespace,
    trials: Iterable[Trial],
    table: Callable[[list[dict[str, Any]]], str],
    shown: Callable[[dict[str, Any]], bool] = lambda what: True,
) -> None:
    """Make the trials, or print the table of those made before that are shown."""
    results = Results(options.results, same=())
    if options.table:
        print(table([row for row in results.rows() if shown(row["what"])]))
        return
    held(results, trials, options.processes)
