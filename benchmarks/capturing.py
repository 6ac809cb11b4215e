"""What it costs to look: a forward pass that lets out the attention of one layer of twelve, beside one that lets out nothing.

python benchmarks/capturing.py

BERT-base and GPT-2 small with random weights, on random texts of 128 and 512 tokens, in turns in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import Results

from qkv import device
from qkv.attention.sight import Plain
from qkv.model.trace import Trace
from qkv.model.transformer import DecoderOnly, EncoderOnly, build, pack
from qkv.papers.catalogue import named
from qkv.spec.model import Joint

LAYER = "5"  # of 0 to 11


def passing(model: EncoderOnly | DecoderOnly, ids: torch.Tensor) -> Callable[[Trace | None], Any]:
    """A pass, with a trace or without."""
    if isinstance(model, EncoderOnly):
        return lambda trace: model.encode(ids, Plain(), trace=trace)
    return lambda trace: model.decode(ids, Plain(), trace=trace)


@torch.inference_mode()
def measured(name: str, length: int, texts: int, rounds: int) -> dict[str, Any]:
    """The seconds of both, and by how much a pass that captures takes longer, turn by turn."""
    model = build(named(name, Joint(30000))).eval()
    assert isinstance(model, EncoderOnly | DecoderOnly)
    pack(model)
    run = passing(model, torch.randint(4, 30000, (texts, length), generator=torch.Generator().manual_seed(1)))
    seconds: dict[str, list[float]] = {"bare": [], "captured": []}
    for number in range(rounds + 1):
        for kind, found in seconds.items():
            trace = Trace(lambda path: path[1] == LAYER) if kind == "captured" else None
            start = time.perf_counter()
            run(trace)
            took = time.perf_counter() - start
            if number:
                found.append(took)
            assert trace is None or len(trace.weights) == 1
    more = [captured / bare - 1 for bare, captured in zip(seconds["bare"], seconds["captured"], strict=True)]
    return {
        **{f"{kind}, ms": round(1000 * statistics.median(found), 1) for kind, found in seconds.items()},
        "more": round(statistics.median(more), 4),
        "more_least": round(min(more), 4),
        "more_most": round(max(more), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/capturing.jsonl"))
    options = parser.parse_args()
    device.prepare(options.threads)
    results = Results(options.results)
    for name in ("bert-base", "gpt2-small"):
        for length, texts in ((128, 8), (512, 1), (512, 4)):
            what = {"model": name, "tokens": length, "texts": texts, "threads": options.threads}
            results.measure(what, partial(measured, name, length, texts, options.rounds))


if __name__ == "__main__":
    main()
