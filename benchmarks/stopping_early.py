"""How much of the time of all steps it takes where positions halt by themselves and stay.

A random `universal-base`, with halting probabilities that differ from position to position: its encoder in full passes, its
decoder a token at a time for the hypotheses of a beam.

python benchmarks/stopping_early.py
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import Results
from torch import Tensor

from qkv import device
from qkv.attention.sight import Plain
from qkv.model.context import Memory
from qkv.model.recurrence import Recurrence
from qkv.model.state import State
from qkv.model.trace import Trace
from qkv.model.transformer import EncoderDecoder, build, pack
from qkv.papers.universal import universal_base
from qkv.spec.halt import Halt, Itself, Stays
from qkv.spec.model import Joint
from qkv.spec.part import Recurrence as RecurrenceSpec

SENTENCES = {"encoder": 32, "decoder": 48}  # of fewer hypotheses the weights would take longer to read than to multiply by
BEAM = {"encoder": 1, "decoder": 4}  # hypotheses of a sentence
LENGTH, TOKENS = 32, 12  # tokens of a source, tokens that are said
SHARES = (1.0, 0.75, 0.5, 0.35, 0.2)  # of all steps, about; what is reported was counted
SPREAD = 3.0  # how far the halting logits of positions lie apart


def halting(steps: int) -> EncoderDecoder:
    """A model that has learned nothing, whose positions may halt."""
    described = universal_base(Joint(8000))
    rule = Halt(halted=Stays(), reads=Itself())
    sides = {}
    for name in ("encoder", "decoder"):
        depth = getattr(described, name)
        assert isinstance(depth, RecurrenceSpec)
        sides[name] = replace(depth, steps=steps, halt=rule)
    model = build(replace(described, **sides)).eval()
    for recurrence in (model.encoder, model.decoder):
        assert isinstance(recurrence, Recurrence) and recurrence.halting is not None
        torch.nn.init.normal_(recurrence.halting.weight, std=SPREAD * described.width**-0.5)
    pack(model)
    return model


class Work:
    """One side of a model at work on the same random input."""

    def __init__(self, model: EncoderDecoder, side: str) -> None:
        self.model, self.side = model, side
        generator = torch.Generator().manual_seed(1)
        self.source = torch.randint(4, 8000, (SENTENCES[side], LENGTH), generator=generator)
        self.target = torch.randint(4, 8000, (SENTENCES[side] * BEAM[side], TOKENS), generator=generator)
        self.memory = Memory(torch.randn(SENTENCES[side], LENGTH, model.spec.width, generator=generator), Plain())
        depth = getattr(model, side)
        assert isinstance(depth, Recurrence)
        self.recurrence, self.most = depth, depth.spec.steps

    def set(self, bias: float) -> None:
        """How ready positions are to halt."""
        assert self.recurrence.halting is not None
        torch.nn.init.constant_(self.recurrence.halting.bias, bias)

    @torch.inference_mode()
    def steps(self) -> float:
        """The mean number of steps of a position."""
        trace = Trace(lambda path: False)
        self._pass(trace)
        return trace.pondered[(self.side,)].steps.mean().item()

    @torch.inference_mode()
    def seconds(self) -> float:
        start = time.perf_counter()
        if self.side == "encoder":
            self._pass(None)
        else:
            step = self.model.stepper(self.memory, State())
            for place in range(TOKENS):
                step(self.target[:, place])
        return time.perf_counter() - start

    def _pass(self, trace: Trace | None) -> Tensor:
        if self.side == "encoder":
            return self.model.encode(self.source, Plain(), trace=trace).vectors
        return self.model.decode(self.target, self.memory, trace=trace)

    def bias_for(self, share: float) -> float:
        """The bias at which positions make about this share of all steps: found by halving."""
        low, high = -40.0, 20.0
        for _ in range(18):
            middle = (low + high) / 2
            self.set(middle)
            low, high = (middle, high) if self.steps() > share * self.most else (low, middle)
        return high


def contest(model: EncoderDecoder, side: str, share: float, rounds: int) -> dict[str, Any]:
    """The time of some share of the steps and that of all of them, in turns."""
    work = Work(model, side)
    biases = {"all": -40.0, "some": work.bias_for(share) if share < 1 else -40.0}
    found: dict[str, list[float]] = {name: [] for name in biases}
    work.set(biases["some"])
    made = work.steps()
    for turn in range(rounds + 1):
        for name, bias in biases.items():
            work.set(bias)
            seconds = work.seconds()
            if turn:  # the first warms up
                found[name].append(seconds)
    ratios = [some / every for some, every in zip(found["some"], found["all"], strict=True)]
    allowed = 1.25 * made / work.most + 0.05
    return {
        "mean_steps": round(made, 3),
        "of": work.most,
        "share": round(made / work.most, 3),
        "time": round(median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "allowed": round(allowed, 3),
        "milliseconds": {name: round(1000 * median(times), 1) for name, times in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/stopping_early.jsonl"))
    options = parser.parse_args()
    device.prepare(options.threads)
    results, model = Results(options.results), halting(options.steps)
    for side, job in (("encoder", "encoder, full passes"), ("decoder", "decoder, a token at a time")):
        for share in SHARES:
            what = {
                "job": job,
                "sentences": SENTENCES[side],
                "beam": BEAM[side],
                "steps": options.steps,
                "share": share,
                "threads": options.threads,
            }
            results.measure(what, partial(contest, model, side, share, options.rounds))


if __name__ == "__main__":
    main()
