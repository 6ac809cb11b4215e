"""Learning rates by step."""

from __future__ import annotations

import math

from qkv.spec.run import Cosine, Noam, Schedule


def learning_rate(schedule: Schedule, step: int, steps: int, width: int) -> float:
    """The rate of a step, counted from 1, in a run of `steps` steps of a model of some width."""
    match schedule:
        case Noam(warmup=warmup, factor=factor):
            return factor * width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        case Cosine(peak=peak, warmup=warmup, last=last):
            if step < warmup:
                return peak * step / warmup
            done = min(1.0, (step - warmup) / max(1, steps - warmup))
            return peak * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * done)))
