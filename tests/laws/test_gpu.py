"""A GPU computes what the CPU computes. Skipped where PyTorch sees none."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from qkv.attention.sight import Late, Padded, Plain, Sight
from qkv.model.dropout import Noise
from qkv.model.state import State
from qkv.model.transformer import AnyModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CLOSE = {"rtol": 0, "atol": 1e-9}


def both(model: AnyModel, work: Callable[[AnyModel, torch.device], Tensor]) -> None:
    """What comes of some work, and every gradient of its sum of squares, are the same on the CPU and on the GPU."""
    found = []
    for name in ("cpu", "cuda"):
        device = torch.device(name)
        there = deepcopy(model).to(device)
        result = work(there, device)
        result.square().sum().backward()
        found.append(
            [result.detach().cpu(), *(parameter.grad.cpu() for parameter in there.parameters() if parameter.grad is not None)]
        )
    torch.testing.assert_close(found[1], found[0], **CLOSE)


def test_pairs(world) -> None:
    both(
        world.model,
        lambda model, device: model(world.source.to(device), Padded(world.lengths.to(device)), world.target.to(device)),
    )


def test_texts(writer) -> None:
    def sights(device: torch.device) -> list[Sight]:
        return [Plain(), Padded(writer.lengths.to(device)), Late(torch.tensor([0, 3, 8, 1], device=device))]

    for place in range(3):
        both(writer.model, lambda model, device, place=place: model(writer.ids.to(device), sights(device)[place]))


def test_readings(reader) -> None:
    both(reader.model, lambda model, device: model(reader.ids.to(device), Padded(reader.lengths.to(device))))


@torch.no_grad()
def test_steps(writer) -> None:
    model, ids = writer.model.cuda(), writer.ids.cuda()
    state = State()
    step = model.stepper(Plain(), state)
    stepped = torch.stack([step(ids[:, place]) for place in range(9)], 1)
    torch.testing.assert_close(stepped, model.decode(ids, Plain()), **CLOSE)


def test_noise_is_a_function_of_its_counter() -> None:
    x = torch.empty(300, 500, device="cuda")
    one, again, other = (Noise(1, step).mask(x, 0.25, ("a",)) for step in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert (one == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert one.mean().item() == pytest.approx(1, abs=0.01)
