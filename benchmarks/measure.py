"""What the benchmarks share: turns, medians, the machine, and results that are written as soon as they are known."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

BF16 = ("avx512_bf16", "amx_bf16")  # what may make products in bf16 quick
SAME = ("processor", "instructions", "bf16")


def machine() -> dict[str, Any]:
    """What a number means nothing without."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    name, flags = (
        next((value.strip() for key, _, value in lines if key.strip() == wanted), "") for wanted in ("model name", "flags")
    )
    return {
        "processor": name or platform.processor(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bf16": [flag for flag in BF16 if flag in flags.split()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


class Worker:
    """One side of a contest, in a process of its own: two libraries in one process would each keep threads waiting in the
    other's way.

    `make(*arguments)` runs in that process and gives back a function from a job to the work done by it (any picklable pair of
    work and result).
    """

    def __init__(self, make: Callable[..., Callable[[Any], tuple[float, Any]]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, arguments), daemon=True)
        self._process.start()

    def do(self, job: Any) -> tuple[float, Any]:
        """Work per second, and what came of it."""
        self._connection.send(job)
        answer = self._connection.recv()
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _serve(connection: Any, make: Callable[..., Callable[[Any], tuple[float, Any]]], arguments: tuple[Any, ...]) -> None:
    try:
        work_on = make(*arguments)
        while True:
            job = connection.recv()
            start = time.perf_counter()
            work, result = work_on(job)
            connection.send((work / (time.perf_counter() - start), result))
    except EOFError:
        pass
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        raise


def in_turns(sides: dict[str, tuple[Worker, Any]], rounds: int) -> dict[str, list[float]]:
    """Every side does its job once to warm up, then all of them in turns, `rounds` times; work per second."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, (worker, job) in sides.items():
            speed, _ = worker.do(job)
            if number:
                speeds[name].append(speed)
    return speeds


def summary(speeds: dict[str, list[float]], ours: str, theirs: str) -> dict[str, Any]:
    """Medians, and the ratio pair by pair: the machine is noisy, neighbours in time are not."""
    ratios = [a / b for a, b in zip(speeds[ours], speeds[theirs], strict=True)]
    return {
        **{name: round(statistics.median(values), 2) for name, values in speeds.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_least": round(min(ratios), 3),
        "ratio_most": round(max(ratios), 3),
    }


class Results:
    """A JSONL file of results; what stands in it is not measured again on a machine of the same kind. Kinds differ in `same`: in
    nothing, where it does not matter on which machine a number came about."""

    def __init__(self, path: Path, same: tuple[str, ...] = SAME) -> None:
        self.path, self._same = path, same
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.is_file() else []
        self._rows = {self._key(row["what"], row["machine"]): row for row in map(json.loads, lines)}

    def measure(self, what: dict[str, Any], how: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result for `what`, measured now unless it was measured before; printed and written at once."""
        if not self.known(what):
            self.write(what, how())
        row = self._rows[self._key(what, machine())]
        print(json.dumps(row), flush=True)
        return row["result"]

    def known(self, what: dict[str, Any]) -> bool:
        """Whether it was measured before."""
        return self._key(what, machine()) in self._rows

    def write(self, what: dict[str, Any], result: dict[str, Any]) -> None:
        """Add a result."""
        row = {"what": what, "result": result, "machine": machine()}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._rows[self._key(what, row["machine"])] = row

    def rows(self) -> list[dict[str, Any]]:
        """All results."""
        return list(self._rows.values())

    def _key(self, what: dict[str, Any], where: dict[str, Any]) -> str:
        return json.dumps([what, [where.get(name) for name in self._same]], sort_keys=True)
