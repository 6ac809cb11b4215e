"""A step of decoding of the Evolved Transformer beside one of a Transformer of equal parameters.

python benchmarks/evolved_speed.py

Base size, random weights, V = 33288, one sentence of 24 tokens at a time, beam 4, 24 tokens forced, fp32. Both in one process and
in turns.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import Results

from qkv import device
from qkv.data.symbols import OURS, SPECIALS
from qkv.decode.rule import Beam
from qkv.decode.translate import search_all
from qkv.model.transformer import EncoderDecoder, build, pack
from qkv.papers.evolved import evolved
from qkv.papers.transformer import transformer
from qkv.spec.count import parameters
from qkv.spec.model import Joint
from qkv.spec.part import PreNorm

VOCABULARY, TOKENS, SENTENCES = Joint(33288), 24, 4


def equal() -> Any:
    """A Transformer with norms before its sublayers, whose feed-forwards are so wide that it has as many parameters."""
    wanted = parameters(evolved(VOCABULARY))
    made = {hidden: transformer(VOCABULARY, hidden=hidden, norm=PreNorm()) for hidden in range(2048, 2561, 16)}
    return min(made.values(), key=lambda spec: abs(parameters(spec) - wanted))


def ready(spec: Any) -> EncoderDecoder:
    """The module of a model, laid out for use."""
    model = build(spec, 1).eval()
    pack(model)
    return model


@torch.inference_mode()
def once(model: EncoderDecoder) -> float:
    """Milliseconds of a step."""
    generator = torch.Generator().manual_seed(0)
    sources = [torch.randint(len(SPECIALS), VOCABULARY.target, (TOKENS,), generator=generator).tolist() for _ in range(SENTENCES)]
    rule = Beam(4, 0.6, least=TOKENS, most=TOKENS)
    start = time.perf_counter()
    for source in sources:
        for found in search_all(model, [source], OURS, rule, 1, 2**31):
            assert len(found[0][0].tokens) == TOKENS
    return 1000 * (time.perf_counter() - start) / (SENTENCES * TOKENS)


def contest(rounds: int) -> dict[str, Any]:
    """Both in turns."""
    specs = {"evolved": evolved(VOCABULARY), "transformer": equal()}
    models, times = {name: ready(spec) for name, spec in specs.items()}, {name: list[float]() for name in specs}
    for turn in range(rounds + 1):
        for name, model in models.items():
            taken = once(model)
            if turn:
                times[name].append(taken)
    ratios = [a / b for a, b in zip(times["evolved"], times["transformer"], strict=True)]
    return {
        **{f"{name}_parameters": parameters(spec) for name, spec in specs.items()},
        **{f"{name}_ms": round(median(found), 2) for name, found in times.items()},
        "ratio": round(median(ratios), 3),
        "ratio_least": round(min(ratios), 3),
        "ratio_most": round(max(ratios), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/evolved_speed.jsonl"))
    options = parser.parse_args()
    device.prepare(options.threads)
    results = Results(options.results)
    results.measure({"decoding": "base"}, lambda: contest(options.rounds))


if __name__ == "__main__":
    main()
