"""Any split of a batch into micro-batches gives the same gradient: each token counts the same."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qkv.data.batch import Batch, collate
from qkv.data.sides import Corpus, Side
from qkv.data.symbols import OURS
from qkv.model.score import Scored
from qkv.model.transformer import EncoderDecoder
from qkv.spec.model import EncoderDecoder as Spec
from qkv.spec.score import Boxcar, Constant
from qkv.train.loop import Loop
from qkv.train.loss import Smoothing
from qkv.train.pairs import losses

PAIRS = 12
SPLITS = [[[i] for i in range(PAIRS)], [[0, 5, 7], list(range(1, 5)), [11, 6, 8, 9, 10]], [list(range(11, 0, -1)), [0]]]


def _side(entries: int, seed: int) -> Side:
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 9, PAIRS))])
    return Side(random.integers(4, entries, offsets[-1]).astype(np.uint16), offsets)


def _batches(spec: Spec, split: list[list[int]]) -> list[Batch]:
    corpus = Corpus(_side(spec.vocabulary.source, 1), _side(spec.vocabulary.target, 2))
    return [collate(corpus, np.array(part), OURS, OURS) for part in split]


def _gradients(model: EncoderDecoder, batches: list[Batch]) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    tokens, total = sum(batch.tokens for batch in batches), 0.0
    for batch in batches:
        smoothed, plain = losses(model, batch, Smoothing(0.1))
        (smoothed / tokens).backward()
        total += plain.item()
    return total / tokens, [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("split", SPLITS, ids=["one by one", "three", "two"])
def test_any_split_gives_the_same_loss_and_gradient(world, split: list[list[int]]) -> None:
    loss, whole = _gradients(world.model, _batches(world.spec, [list(range(PAIRS))]))
    part_loss, parts = _gradients(world.model, _batches(world.spec, split))
    assert part_loss == pytest.approx(loss, abs=1e-12)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)
    if not any(isinstance(module, Scored) and isinstance(module.spec, Boxcar | Constant) for module in world.model.modules()):
        assert all(gradient.abs().max() > 0 for gradient in whole), "a flat score alone does not hear what asks"


@pytest.mark.parametrize("split", SPLITS[1:2], ids=["three"])
def test_the_training_loop_weighs_tokens_the_same_in_any_split(
    pair_spec: Spec, calm_model: EncoderDecoder, split: list[list[int]]
) -> None:
    model = calm_model.double()
    loop = SimpleNamespace(
        model=model,
        adam=torch.optim.Adam(model.parameters()),
        run=SimpleNamespace(seed=1, smoothing=0.1, roaming=0, spread=False),
        ground=SimpleNamespace(
            where=SimpleNamespace(device=torch.device("cpu"), precision=torch.float32), task=SimpleNamespace(losses=losses)
        ),
    )
    found = []
    for batches in (_batches(pair_spec, [list(range(PAIRS))]), _batches(pair_spec, split)):
        plain = Loop._gradients(loop, batches, sum(batch.tokens for batch in batches), 3)
        found.append((plain, [p.grad.clone() for p in model.parameters()]))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-12)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=0, atol=1e-12)
