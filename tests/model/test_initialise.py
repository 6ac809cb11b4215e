"""The values before training are a function of the seed, and as the table in the code says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from qkv.model.attention import Attention, MemoryAttention
from qkv.model.embedding import Embedding
from qkv.model.transformer import build
from qkv.papers.transformer import transformer
from qkv.spec.model import Joint, Separate

SPEC = transformer(Joint(500), width=64, hidden=96, heads=4, depth=2, offset=True)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    one, same, other = (dict(build(SPEC, seed).named_parameters()) for seed in (3, 3, 4))
    torch.manual_seed(99)
    again = dict(build(SPEC, 3).named_parameters())
    for name, parameter in one.items():
        assert torch.equal(parameter, same[name]) and torch.equal(parameter, again[name])
        assert torch.equal(parameter, other[name]) == (parameter.dim() == 1), name


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    build(SPEC, 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("vocabulary", [Joint(500), Separate(400, 500)], ids=["joint", "separate"])
def test_every_value_is_as_the_table_says(vocabulary: Joint | Separate) -> None:
    model = build(transformer(vocabulary, width=64, hidden=96, heads=4, depth=2, offset=True), 1)
    seen = 0 if isinstance(vocabulary, Separate) else -500 * 64  # the matrix of both sides is met twice
    fused = {m.qkv: 3 for m in model.modules() if isinstance(m, Attention)}
    fused |= {m.kv: 2 for m in model.modules() if isinstance(m, MemoryAttention)}
    for module in model.modules():
        if isinstance(module, nn.Linear):
            for weight in module.weight.chunk(fused.get(module, 1)):
                bound = math.sqrt(6 / sum(weight.shape))
                assert 0.98 * bound < weight.abs().max().item() <= bound * (1 + 1e-6)
                assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert (module.bias == 0).all()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and (module.bias == 0).all()
        elif isinstance(module, Embedding):
            assert module.weight.std().item() == pytest.approx(64**-0.5, rel=0.03)
            assert abs(module.weight.mean().item()) < 0.003
        else:
            continue
        seen += sum(p.numel() for p in module.parameters())
    assert seen == sum(p.numel() for p in model.parameters())


def test_no_two_maps_start_alike() -> None:
    maps = [p for p in build(SPEC, 1).parameters() if p.dim() > 1]
    assert len({tuple(weight.flatten()[:4].tolist()) for weight in maps}) == len(maps)
    thirds = [third for weight in maps if weight.shape == (192, 64) for third in weight.chunk(3)]
    assert len({third[0, 0].item() for third in thirds}) == len(thirds) > 3
