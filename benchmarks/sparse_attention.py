"""Sparse attention against PyTorch's fused dense causal attention, forward and backward; how its time grows; what it holds.

python benchmarks/sparse_attention.py

8 heads of 64, batch 1. Both sides in one process and in turns; every row is written as soon as it is measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import Results, summary
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from qkv import device
from qkv.attention.attend import attend, choose
from qkv.attention.call import Call
from qkv.spec.pattern import Causal, Local, Pattern, PerHead, SameBlock, Stride, Summary

HEADS, WIDTH = 8, 64
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
STEPS = {4096: 64, 12288: 128, 16384: 128, 65536: 256}  # the stride or block for texts of a length
CONTESTS = [
    ("strided, half of the heads for each set", 4096),
    ("strided, half of the heads for each set", 12288),
    ("strided, merged", 12288),
    ("fixed, merged", 12288),
]


def pattern(name: str, length: int) -> Pattern:
    """A pattern of the paper for texts of a length."""
    step = STEPS[length]
    match name:
        case "strided, merged":
            return Causal() & (Local(step) | Stride(step))
        case "fixed, merged":
            return Causal() & (SameBlock(step) | Summary(step, 32))
        case _:
            return Causal() & PerHead(Local(step), Stride(step))


class Side:
    """One way to attend, forth and back, to the same random queries, keys and values."""

    def __init__(self, length: int, dtype: torch.dtype, how: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (1, length, HEADS, WIDTH)
        self.qkv = [torch.randn(shape, generator=generator).to(dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
        self.upstream = torch.randn(shape, generator=generator).to(dtype).transpose(1, 2)
        self.how = how

    def once(self) -> float:
        """Seconds."""
        start = time.perf_counter()
        torch.autograd.grad(self.how(*self.qkv), self.qkv, self.upstream)
        return time.perf_counter() - start


def sparse(found: Pattern) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """By qkv, which chooses a backend."""
    return lambda q, k, v: attend(Call(q, k, v, found))


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """By PyTorch's fused kernel."""
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def contest(name: str, length: int, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Both sides in turns, after one turn to warm up; in each turn a side has a call that does not count, so that none finds a
    processor's cache as the other has left it."""
    found = pattern(name, length)
    ours, theirs = Side(length, dtype, sparse(found)), Side(length, dtype, dense)
    who = choose(Call(*ours.qkv, found)).backend.name
    seconds: dict[str, list[float]] = {"qkv": [], "fused": []}
    for turn in range(rounds + 1):
        for side, work in (("qkv", ours), ("fused", theirs)):
            work.once()
            taken = work.once()
            if turn:
                seconds[side].append(taken)
    speeds = {side: [1 / taken for taken in found] for side, found in seconds.items()}
    said = {f"{side}_ms": round(1000 * median(found), 1) for side, found in seconds.items()}
    return {"backend": who, **said, **{k: v for k, v in summary(speeds, "qkv", "fused").items() if k.startswith("ratio")}}


def growth(name: str, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """The time of four times the text, both in turns."""
    short, long = 16384, 65536
    sides = {length: Side(length, dtype, sparse(pattern(name, length))) for length in (short, long)}
    seconds: dict[int, list[float]] = {short: [], long: []}
    for turn in range(rounds + 1):
        for length, side in sides.items():
            taken = side.once()
            if turn:
                seconds[length].append(taken)
    ratios = [b / a for a, b in zip(seconds[short], seconds[long], strict=True)]
    return {
        **{f"{length}_ms": round(1000 * median(found), 1) for length, found in seconds.items()},
        "growth": round(median(ratios), 2),
        "growth_least": round(min(ratios), 2),
        "growth_most": round(max(ratios), 2),
    }


HELD = """
import re, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from sparse_attention import PRECISIONS, Side, dense, pattern, sparse
from qkv import device

def mib(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

device.prepare(0)
name, length = {name!r}, {length}
side = Side(length, PRECISIONS[{precision!r}], dense if name == "dense" else sparse(pattern(name, length)))
side.once()  # lays the pattern out, and lets the allocator have what it needs
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
side.once()
print(mib("VmHWM"))
"""


def held(name: str, length: int, precision: str) -> dict[str, Any]:
    """The most memory that a process holds which attends forth and back, all of it, in MiB."""
    script = HELD.format(folder=str(Path(__file__).parent), length=length, precision=precision, name=name)
    return {"peak_mib": int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precisions", nargs="*", default=["fp32", "bf16"], choices=list(PRECISIONS))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/sparse_attention.jsonl"))
    options = parser.parse_args()
    device.prepare(0)
    results = Results(options.results)
    for precision in options.precisions:
        dtype = PRECISIONS[precision]
        for name, length in CONTESTS:
            what = {"contest": name, "length": length, "precision": precision}
            results.measure(what, lambda n=name, at=length, d=dtype: contest(n, at, d, options.rounds))
        for name in ("strided, merged", "fixed, merged"):
            results.measure({"growth": name, "precision": precision}, lambda n=name, d=dtype: growth(n, d, options.rounds))
        for name in ("strided, merged", "fixed, merged"):
            what = {"held": name, "length": 65536, "precision": precision}
            results.measure(what, lambda n=name, p=precision: held(n, 65536, p))


if __name__ == "__main__":
    main()
