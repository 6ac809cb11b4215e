"""What pondering costs, and how long positions ponder (Graves 2016, equation 14; Dehghani et al. 2018, appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qkv.attention.sight import Padded
from qkv.data.batch import Given
from qkv.model.trace import Trace
from qkv.spec.halt import Halt
from qkv.spec.model import Model, sides
from qkv.spec.part import Recurrence
from qkv.train.task import Example

FEW = 0.05  # steps after the first, on average, with which halting still counts as collapsed


def rules(spec: Model) -> dict[str, Halt]:
    """The rules by which positions halt, by the side of the model that has one."""
    found = {name: depth.halt for name, depth in sides(spec).items() if isinstance(depth, Recurrence)}
    return {name: halt for name, halt in found.items() if isinstance(halt, Halt)}


def tracing(spec: Model) -> Trace | None:
    """A trace of ponder times alone, where positions halt."""
    return Trace(lambda path: False) if rules(spec) else None


def positions(spec: Model, batches: Sequence[Example]) -> dict[str, int | Tensor]:
    """How many positions of some batches hold a token, on every side that ponders."""
    return {name: sum(count(batch.sides[name]) for batch in batches) for name in rules(spec)}


def cost(spec: Model, trace: Trace, batch: Example, totals: dict[str, int | Tensor]) -> Float[Tensor, ""] | float:
    """What the ponder times of a batch add to the loss of a step over `totals` positions: the share of the batch in the mean of
    (steps + remainder), times what the rule asks for it. The remainder alone has a gradient."""
    total: Float[Tensor, ""] | float = 0.0
    for name, halt in rules(spec).items():
        pondered = trace.pondered[(name,)]
        times = (pondered.steps + pondered.remainder)[present(batch.sides[name])]
        total = total + halt.cost * times.sum() / totals[name]
    return total


def count(given: Given) -> int | Tensor:
    """How many positions hold a token."""
    return given.ids.shape[:2].numel() if given.lengths is None else given.lengths.sum()


def present(given: Given) -> Bool[Tensor, "B T"]:
    """Which positions hold a token."""
    if given.lengths is None:
        return torch.ones(given.ids.shape[:2], dtype=torch.bool, device=given.ids.device)
    return Padded(given.lengths).present(0, given.ids.shape[1])


class Tally:
    """Ponder times over many batches."""

    def __init__(self, spec: Model) -> None:
        self._spec = spec
        self._found: dict[str, list[Tensor]] = {name: [] for name in rules(spec)}

    def trace(self) -> Trace | None:
        """For the next batch; None where nobody ponders."""
        return tracing(self._spec)

    def add(self, trace: Trace | None, batch: Example) -> None:
        """Take note of the ponder times of a batch."""
        if trace is not None:
            for name, found in self._found.items():
                found.append(trace.pondered[(name,)].steps[present(batch.sides[name])].cpu())

    def fields(self) -> dict[str, Any]:
        """For each side that ponders the mean number of steps, its standard deviation, and the least and the most: nothing where
        nobody does."""
        told = {}
        for name, found in self._found.items():
            steps = torch.cat(found).double()
            told[name] = {
                "mean": steps.mean().item(),
                "spread": steps.std(correction=0).item(),
                "least": int(steps.min()),
                "most": int(steps.max()),
            }
        return {"ponder": told} if told else {}


def collapsed(spec: Model, fields: dict[str, Any]) -> list[str]:
    """A warning for each side nearly all of whose positions halt at the first step, or none of them before the last."""
    warnings = []
    for name, told in fields.get("ponder", {}).items():
        depth = sides(spec)[name]
        assert isinstance(depth, Recurrence)
        if told["mean"] < 1 + FEW and depth.steps > 1:
            who, where = "nearly all" if told["most"] > 1 else "all", "first"
            remedy = f"a lower {name}.halt.bias or {name}.halt.cost, or --from a run that makes all steps, may let them go on"
        elif told["least"] == depth.steps > 1:
            who, where = "all", "last"
            remedy = f"a higher {name}.halt.bias or {name}.halt.cost lets them stop before it"
        else:
            continue
        warnings.append(f"warning: halting has collapsed: {who} positions of the {name} stop at the {where} step; {remedy}")
    return warnings


def said(fields: dict[str, Any]) -> list[str]:
    """Ponder times in words, side by side."""
    told = fields.get("ponder", {})
    return [f"{name} ponders {each['mean']:.2f} ± {each['spread']:.2f} steps" for name, each in told.items()]
