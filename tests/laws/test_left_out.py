"""Rows that a step leaves out are missed by nobody: those that go on get what they would have got."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qkv.attention.sight import Padded, Plain
from qkv.model.state import State

CLOSE = {"rtol": 0, "atol": 1e-12}
LEFT = (3, 3, 2, 2, 1)  # rows that are computed, step by step: who is left out does not come back


def fewer_and_fewer(step: Callable[[Tensor], Tensor], state: State, ids: Tensor, whole: Tensor) -> None:
    """The last of the rows go on; their order changes on the way."""
    alive = torch.arange(4)
    for place, left in enumerate(LEFT):
        alive = alive[-left:]
        state.leave(alive, 4)
        torch.testing.assert_close(step(ids[alive, place]), whole[alive, place], **CLOSE)
    rows = torch.tensor([3, 3, 3, 3])
    state.reorder(rows)
    state.leave(None, 4)
    last = torch.cat([ids[rows, : len(LEFT)], ids[:, len(LEFT) :]], 1)
    torch.testing.assert_close(step(last[:, len(LEFT)])[3], whole[3, len(LEFT)], **CLOSE)


@torch.no_grad()
def test_texts(writer) -> None:
    state = State()
    fewer_and_fewer(writer.model.stepper(Plain(), state), state, writer.ids, writer.model.decode(writer.ids, Plain()))


@torch.no_grad()
def test_targets(world) -> None:
    state = State()
    memory = world.model.encode(world.source, Padded(world.lengths))
    step = world.model.stepper(memory, state)
    assert len(world.target) == 4 and world.target.shape[1] > len(LEFT)
    fewer_and_fewer(step, state, world.target, world.model.decode(world.target, memory))
