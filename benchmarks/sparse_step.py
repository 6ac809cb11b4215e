"""A whole training step of the paper's network for enwik8: sparse attention beside dense, and a step over 65,536 bytes.

python benchmarks/sparse_step.py

With the share s of attention in a dense step and the speed-up a of attention alone, a step can be 1/(1 - s + s/a) times as fast
at most. Every side is measured in both precisions, and its best counts. The network has fewer blocks than the paper's thirty,
which all take equally long.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import Results
from torch import Tensor

from qkv import device
from qkv.attention.sight import Plain
from qkv.model import attention
from qkv.model.dropout import Noise
from qkv.model.transformer import DecoderOnly, build, recompute
from qkv.papers.sparse import fixed, sparse_enwik8, strided
from qkv.spec.model import Joint
from qkv.spec.part import Attention, Block, Stack
from qkv.spec.pattern import Causal, Pattern
from qkv.spec.position import Factorised

LENGTH, ENTRIES = 12288, 260
PATTERNS: dict[str, Pattern] = {"dense": Causal(), "fixed": fixed(128, 32, slots=4), "strided": strided(128)}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def network(pattern: Pattern, depth: int, places: tuple[int, int]) -> DecoderOnly:
    """The network of `sparse-enwik8` with another pattern, depth and number of places."""
    spec = sparse_enwik8(Joint(ENTRIES))
    (block,) = spec.decoder.blocks
    parts = (replace(s, pattern=pattern) if isinstance(s, Attention) else s for s in block.sublayers)
    stack = Stack(Block(*parts, norm=block.norm, dropout=block.dropout), depth=depth)
    return build(replace(spec, decoder=stack, embedding=replace(spec.embedding, position=Factorised(places))))


class Clock:
    """Attention that says how long it takes: on the way there, and on the way back."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._attend = attention.attend

    def __call__(self, call: Any) -> Tensor:
        qkv = [getattr(call, name).detach().requires_grad_() for name in ("q", "k", "v")]
        start = time.perf_counter()
        with torch.enable_grad():
            found = self._attend(replace(call, **dict(zip(("q", "k", "v"), qkv, strict=True))))
        torch.autograd.grad(found, qkv, torch.ones_like(found))
        self.seconds += time.perf_counter() - start
        return self._attend(call)


class Trainer:
    """A network and a batch of one text."""

    def __init__(self, pattern: Pattern, depth: int, precision: str, length: int = LENGTH, places: tuple[int, int] = (96, 128)):
        self.model, self.dtype = network(pattern, depth, places), PRECISIONS[precision]
        self.ids = torch.randint(4, ENTRIES, (1, length + 1), generator=torch.Generator().manual_seed(0))
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def step(self, number: int = 1) -> float:
        """Seconds of a step: there, back and the optimiser."""
        start = time.perf_counter()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            logits = self.model(self.ids[:, :-1], Plain(), Noise(1, number))
        torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), self.ids[:, 1:].flatten()).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return time.perf_counter() - start

    def attending(self) -> float:
        """Seconds that the attention of a step takes, there and back, each block measured by itself."""
        clock = Clock()
        attention.attend = clock
        try:
            self.step()
        finally:
            attention.attend = clock._attend
        return clock.seconds


def contest(depth: int, rounds: int) -> dict[str, Any]:
    """All sides in both precisions, in turns."""
    trainers = {(name, how): Trainer(pattern, depth, how) for name, pattern in PATTERNS.items() for how in PRECISIONS}
    steps: dict[tuple[str, str], list[float]] = {key: [] for key in trainers}
    alone: dict[tuple[str, str], list[float]] = {key: [] for key in trainers}
    for turn in range(rounds + 1):
        for key, trainer in trainers.items():
            step, attending = trainer.step(turn), trainer.attending()
            if turn:
                steps[key].append(step)
                alone[key].append(attending)
    seconds = {key: median(found) for key, found in steps.items()}
    attended = {key: median(found) for key, found in alone.items()}
    best = {name: min(PRECISIONS, key=lambda how, n=name: seconds[n, how]) for name in PATTERNS}
    dense = "dense", best["dense"]
    share = attended[dense] / seconds[dense]
    found: dict[str, Any] = {"share": round(share, 3)}
    for name in PATTERNS:
        key = name, best[name]
        found[name] = {"precision": best[name], "step": round(seconds[key], 2), "attention": round(attended[key], 2)}
        if name != "dense":
            faster, bound = seconds[dense] / seconds[key], 1 / (1 - share + share * attended[key] / attended[dense])
            found[name] |= {
                "attention_ratio": round(attended[dense] / attended[key], 2),
                "ratio": round(faster, 2),
                "bound": round(bound, 2),
                "of_bound": round(faster / bound, 3),
            }
    return found


LONG = """
import sys
sys.path.insert(0, {folder!r})
from sparse_step import long
print(long({depth}, {length}))
"""


def long(depth: int, length: int) -> str:
    """One step over a long text, its blocks computed anew on the way back; seconds, and the most memory that was held, in GiB."""
    device.prepare(0)
    side = round(length**0.5)
    trainer = Trainer(strided(side), depth, "bf16", length, (side, side))
    recompute(trainer.model)
    seconds = trainer.step()
    return f"{seconds:.1f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--long-depth", type=int, default=30)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/sparse_step.jsonl"))
    options = parser.parse_args()
    device.prepare(0)
    results = Results(options.results)
    results.measure({"step": LENGTH, "depth": options.depth}, lambda: contest(options.depth, options.rounds))

    def far() -> dict[str, Any]:
        script = LONG.format(folder=str(Path(__file__).parent), depth=options.long_depth, length=65536)
        said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
        return {"seconds": float(said[0]), "gib": float(said[1])}

    results.measure({"long": 65536, "depth": options.long_depth}, far)


if __name__ == "__main__":
    main()
