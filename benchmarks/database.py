"""Attention over ten million keys and values on disk: how fast, beside merely reading them, and beside their products alone.

    python benchmarks/database.py --folder FOLDER            makes two files of 2.56 GB there, once; about 6 GB of disk

All in one process and in turns, files warm: reading every chunk into one buffer; one query; the products of 64 queries with every
chunk of keys and of values, and nothing else; 64 queries. Then the largest anonymous memory while queries are answered, and the
difference of the answers from the same in double precision.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import Results
from torch import Tensor

import qkv
from qkv import device
from qkv.attention.database import Arrays

WIDTH, MADE_AT_ONCE = 64, 2**17


def make(folder: Path, count: int) -> Arrays:
    """The files, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / f"{name}-{count}.npy" for name in ("keys", "values")]
    generator = torch.Generator().manual_seed(0)
    for name in names:
        if name.is_file():
            continue
        aside = name.with_suffix(".part")
        array = np.lib.format.open_memmap(aside, "w+", np.float32, (count, WIDTH))
        for start in range(0, count, MADE_AT_ONCE):
            rows = min(MADE_AT_ONCE, count - start)
            array[start : start + rows] = torch.randn(rows, WIDTH, generator=generator).numpy()
        array.flush()
        aside.rename(name)
    return Arrays(*names)


def read(database: Arrays) -> None:
    """Every chunk into one buffer."""
    buffer = torch.empty(database.rows, WIDTH)
    for chunk in database:
        for each in chunk:
            buffer[: len(each)].copy_(each)


def products(database: Arrays, q: Tensor) -> None:
    """Of queries with keys, and of weights, whatever they are, with values."""
    scores, attended = torch.empty(len(q), database.rows), torch.empty(len(q), WIDTH)
    for keys, values in database:
        mine = scores[:, : len(keys)]
        torch.mm(q, keys.t(), out=mine)
        torch.mm(mine, values, out=attended)


class Anonymous:
    """The most anonymous memory of this process while something is done, in bytes."""

    def __enter__(self) -> Anonymous:
        self.most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *what: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
            self.most = max(self.most, next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024)


def exact(database: Arrays, q: Tensor) -> Tensor:
    """The answers in double precision, without a join: scores of all keys stand in memory."""
    scores = torch.cat([q.double() @ keys.double().t() for keys, _ in database], 1) / WIDTH**0.5
    weights, attended, at = scores.softmax(1), torch.zeros(len(q), WIDTH, dtype=torch.float64), 0
    for _, values in database:
        attended += weights[:, at : at + len(values)] @ values.double()
        at += len(values)
    return attended


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def contest(database: Arrays, rounds: int) -> dict[str, Any]:
    """All in turns; medians, and the ratios pair by pair."""
    one, many = torch.randn(1, WIDTH), torch.randn(64, WIDTH)
    jobs: dict[str, Callable[[], object]] = {
        "read": lambda: read(database),
        "one query": lambda: qkv.attend_over(one, database),
        "products of 64": lambda: products(database, many),
        "64 queries": lambda: qkv.attend_over(many, database),
    }
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):  # the first one warms the files
        for name, job in jobs.items():
            took = seconds(job)
            if turn:
                found[name].append(took)
    shares = {
        mine: [a / b for a, b in zip(found[bound], found[mine], strict=True)]
        for mine, bound in (("one query", "read"), ("64 queries", "products of 64"))
    }
    with Anonymous() as memory:
        answers = qkv.attend_over(many, database)
        asked = many[:2].clone().requires_grad_()
        qkv.attend_over(asked, database).sum().backward()
    return {
        "seconds": {name: round(median(each), 3) for name, each in found.items()},
        "share of the rate of reading, one query": [round(f(shares["one query"]), 3) for f in (median, min, max)],
        "share of the rate of products, 64 queries": [round(f(shares["64 queries"]), 3) for f in (median, min, max)],
        "anonymous memory, MB": round(memory.most / 1e6),
        "largest difference from float64": float((answers[:2] - exact(database, many[:2])).abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/database.jsonl"))
    options = parser.parse_args()
    device.prepare(options.threads)
    database = make(options.folder, options.keys)
    what = {"keys": options.keys, "width": WIDTH, "rows at once": database.rows, "threads": options.threads}
    Results(options.results).measure(what, lambda: contest(database, options.rounds))


if __name__ == "__main__":
    main()
