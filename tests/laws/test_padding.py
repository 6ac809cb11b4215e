"""Padding changes nothing, and neither does the order of a batch."""

from __future__ import annotations

import pytest
import torch

from qkv.attention.sight import Padded, Plain

CLOSE = {"rtol": 0, "atol": 1e-12}


@torch.no_grad()
def test_a_source_padded_with_junk_gives_what_it_gives_alone(world) -> None:
    together = world.model(world.source, world.sight, world.target)
    for sentence in range(len(world.source)):
        alone = world.model(*world.alone(sentence), world.target[sentence : sentence + 1])
        torch.testing.assert_close(together[sentence : sentence + 1], alone, **CLOSE)


@torch.no_grad()
def test_other_junk_and_more_of_it_change_nothing(world) -> None:
    together = world.model(world.source, world.sight, world.target)
    junk = torch.randint(0, world.spec.vocabulary.source, (4, 14), generator=torch.Generator().manual_seed(5))
    present = torch.arange(9) < world.lengths[:, None]
    junk[:, :9] = torch.where(present, world.source, junk[:, :9])
    torch.testing.assert_close(world.model(junk, world.sight, world.target), together, **CLOSE)


@torch.no_grad()
def test_junk_behind_a_target_changes_nothing_in_it(world) -> None:
    memory = world.model.encode(world.source, world.sight)
    junk = torch.randint(0, world.spec.vocabulary.target, (4, 5), generator=torch.Generator().manual_seed(6))
    padded = world.model.decode(torch.cat([world.target, junk], 1), memory)
    torch.testing.assert_close(padded[:, :8], world.model.decode(world.target, memory), **CLOSE)


@torch.no_grad()
def test_a_batch_that_is_called_plain_and_one_padded_by_nothing_are_the_same(world) -> None:
    plain = world.model(world.source, Plain(), world.target)
    torch.testing.assert_close(world.model(world.source, Padded(torch.full((4,), 9)), world.target), plain, **CLOSE)
    hidden = world.model(world.source, world.sight, world.target)
    assert (plain - hidden)[1:].abs().amax((1, 2)).min() > 1e-6, "the junk must matter where it is not called padding"


@torch.no_grad()
@pytest.mark.parametrize("order", [[1, 0, 2, 3], [2, 3, 1, 0], [2, 2, 0, 1]])
def test_permuting_the_batch_permutes_the_output(world, order: list[int]) -> None:
    whole = world.model(world.source, world.sight, world.target)
    permuted = world.model(world.source[order], world.sight.keep(torch.tensor(order)), world.target[order])
    torch.testing.assert_close(permuted, whole[order], **CLOSE)
