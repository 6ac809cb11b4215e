"""The values before training are a function of the seed, and as the table in the code says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from qkv.model.attention import Attention, MemoryAttention
from qkv.model.embedding import Embedding
from qkv.model.initialise import initialise
from qkv.model.transformer import build
from qkv.papers.transformer import transformer
from qkv.spec import model as model_spec
from qkv.spec import part
from qkv.spec.model import DecoderOnly, Joint, Likeness, Separate
from qkv.spec.pattern import Causal

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


def test_attention_may_begin_by_likeness() -> None:
    spec = replace(SPEC, initial=Likeness())
    alike, apart = build(spec, 3), build(SPEC, 3)
    changed = set[str]()
    for (name, module), other in zip(alike.named_modules(), apart.modules(), strict=True):
        if isinstance(module, Attention | MemoryAttention):
            if isinstance(module, Attention):
                q, k, v = module.qkv.weight.chunk(3)
                changed |= {f"{name}.qkv.weight", f"{name}.out.weight"}
            else:
                assert module.q is not None and module.kv is not None
                q, (k, v) = module.q.weight, module.kv.weight.chunk(2)
                changed |= {f"{name}.kv.weight", f"{name}.out.weight"}
            assert module.out is not None and isinstance(other, Attention | MemoryAttention)
            assert torch.equal(q, k) and torch.equal(module.out.weight, v.T) and not torch.equal(q, v)
    for (name, ours), theirs in zip(alike.named_parameters(), apart.parameters(), strict=True):
        assert torch.equal(ours, theirs) == (name not in changed), "all else is as with Glorot"
    vectors = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(1))
    attention = next(module for module in alike.modules() if isinstance(module, Attention))
    q, k, _ = (vectors @ attention.qkv.weight.T).view(9, 3, 4, 16).permute(1, 2, 0, 3)
    assert ((q @ k.transpose(1, 2)).argmax(2) == torch.arange(9)).float().mean() > 0.9, "nothing is as like a vector as itself"


def test_keys_that_heads_share_are_like_the_first_of_these() -> None:
    attention = part.Attention(4, Causal(), kv_heads=2)
    stack = part.Stack(part.Block(attention, norm=part.PreNorm()), depth=1)
    spec = DecoderOnly(Joint(9), 32, model_spec.Embedding(), stack, initial=Likeness())
    (found,) = (module for module in build(spec, 1).modules() if isinstance(module, Attention))
    q, k, v = (each.unflatten(0, (-1, 8)) for each in found.qkv.weight.split([32, 16, 16]))
    assert torch.equal(k, q[[0, 2]]) and torch.equal(found.out.weight.T.unflatten(0, (-1, 8)), v[[0, 0, 1, 1]])


def test_a_way_back_to_another_width_begins_as_any_other() -> None:
    torch.manual_seed(1)
    narrow = Attention(part.Attention(2), 8, inputs=8, outputs=6)
    before = narrow.out.weight.clone()
    initialise(narrow, Likeness(), 1)
    q, k, _ = narrow.qkv.weight.chunk(3)
    assert torch.equal(q, k) and narrow.out.weight.shape == (6, 8) and not torch.equal(narrow.out.weight, before)
