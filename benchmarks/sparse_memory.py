"""What decoding remembers: the numbers that a block keeps of a text, by its pattern.

python benchmarks/sparse_memory.py

A block of the paper's network for enwik8 in fp32 reads a text at once but for its last 512 bytes, and these one by one; then its
slots are counted, with the room that they have for further tokens.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from measure import Results
from sparse_step import ENTRIES, network

from qkv import device
from qkv.attention.sight import Plain
from qkv.model.state import State
from qkv.papers.sparse import fixed, strided
from qkv.spec.pattern import Causal, Local, Pattern

PATTERNS: dict[str, Pattern] = {
    "dense": Causal(),
    "local": Causal() & Local(128),
    "fixed": fixed(128, 32, slots=4),
    "strided": strided(128),
}
ONE_BY_ONE = 512


def held(found: Any) -> int:
    """The bytes of all tensors in some object, each once."""
    storages: dict[int, int] = {}
    waiting, known = [found], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in known:
            continue
        known.add(id(each))
        if isinstance(each, torch.Tensor):
            storages[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
        elif type(each).__module__.startswith("qkv.model.state"):
            waiting += vars(each).values()
    return sum(storages.values())


@torch.inference_mode()
def remembered(pattern: Pattern, length: int) -> dict[str, Any]:
    """What is held after a text of a length."""
    model = network(pattern, 1, (96, 128)).eval()
    ids = torch.randint(4, ENTRIES, (1, length), generator=torch.Generator().manual_seed(0))
    state = State()
    model.decode(ids[:, :-ONE_BY_ONE], Plain(), state)
    step = model.stepper(Plain(), state)
    for place in range(length - ONE_BY_ONE, length):
        step(ids[:, place])
    return {"kib": held(state) // 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="*", default=[1024, 4096, 12288])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/sparse_memory.jsonl"))
    options = parser.parse_args()
    device.prepare(0)
    results = Results(options.results)
    for name, pattern in PATTERNS.items():
        for length in options.lengths:
            results.measure({"pattern": name, "length": length}, lambda p=pattern, n=length: remembered(p, n))


if __name__ == "__main__":
    main()
