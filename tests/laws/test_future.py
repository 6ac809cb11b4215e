"""The future cannot be seen, and the past can."""

from __future__ import annotations

import pytest
import torch

from qkv.spec.model import Pointing


def test_changing_the_future_changes_nothing_before_it(world) -> None:
    memory = world.model.encode(world.source, world.sight)
    before = world.model.decode(world.target, memory)
    for first in range(1, world.target.shape[1]):
        changed = world.target.clone()
        changed[:, first:] = (changed[:, first:] + 5) % world.spec.vocabulary.target
        after = world.model.decode(changed, memory)
        torch.testing.assert_close(after[:, :first], before[:, :first], rtol=0, atol=1e-13)
        assert ((after - before)[:, first:].abs().amax((0, 2)) > 1e-6).all(), "what lies behind a token must feel its change"


@pytest.mark.parametrize("place", [0, 3, 7])
def test_no_gradient_comes_from_the_future_and_some_from_all_the_past(world, place: int) -> None:
    embedded: list[torch.Tensor] = []
    memory = world.model.encode(world.source, world.sight)
    with_hook = world.model.target.register_forward_hook(lambda _, __, output: embedded.append(output))
    hidden = world.model.decode(world.target, memory)
    with_hook.remove()
    weight = torch.randn(hidden.shape[-1], dtype=hidden.dtype, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((hidden[:, place] @ weight).sum(), embedded)
    felt = gradient.abs().amax(-1)
    assert (felt[:, place + 1 :] == 0).all()
    several = world.lengths > 1 if isinstance(world.spec.output, Pointing) else world.lengths > 0  # at one token all point
    assert (felt[several, : place + 1] > 0).all()
