"""The values before training are a function of the seed, and as the table in the code says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from qkv.error import QkvError
from qkv.model.attention import Attention, MemoryAttention
from qkv.model.embedding import Embedding
from qkv.model.feedforward import FeedForward
from qkv.model.initialise import initialise, maps_of
from qkv.model.transformer import build
from qkv.papers.transformer import transformer
from qkv.spec import model as model_spec
from qkv.spec import part
from qkv.spec.model import Classifier, DecoderOnly, EncoderDecoder, EncoderOnly, Glorot, Joint, Likeness, Orthogonal, Separate
from qkv.spec.pattern import Causal
from qkv.spec.position import Coordinates, Learned, LearnedStep, NoPosition
from qkv.spec.score import Dot, ScaledDot

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


@pytest.mark.parametrize("score", [ScaledDot(), Dot()], ids=str)
@pytest.mark.parametrize(("heads", "head_width"), [(1, part.Even()), (4, part.Even()), (2, 32), (2, 6)])
def test_likeness_may_be_the_cosine_itself(heads: int, head_width: part.Even | int, score: Dot | ScaledDot) -> None:
    own = part.Attention(heads, Causal(), head_width=head_width, score=score)
    asks = part.MemoryAttention(heads, head_width=head_width, score=score)
    feed = part.FeedForward(8)
    spec = EncoderDecoder(
        Joint(9),
        24,
        model_spec.Embedding(),
        part.Stack(part.Block(part.Attention(heads, head_width=head_width, score=score), feed), depth=1),
        part.Stack(part.Block(own, asks, feed), depth=1),
        initial=Likeness(Orthogonal(12.0, 0.25)),
    )
    vectors = torch.nn.functional.layer_norm(torch.randn(7, 24, generator=torch.Generator().manual_seed(1)), (24,))
    cosines = vectors @ vectors.T / 24
    model = build(spec, 1)
    found = [module for module in model.modules() if isinstance(module, Attention | MemoryAttention)]
    assert len(found) == 3
    silent = [module.out.weight for module in model.modules() if isinstance(module, FeedForward)]
    assert len(silent) == 2 and not any(each.any() for each in silent)
    words = model.source.weight
    assert torch.allclose(words @ words.T, torch.eye(9), atol=1e-5)
    for module in found:
        q, k, v, _ = maps_of(module)
        assert module.out is not None
        scores = (vectors @ q.T) @ (vectors @ k.T).T / (q.shape[0] / heads) ** (0.5 if score == ScaledDot() else 0) / heads
        back = module.out.weight @ v
        if len(q) < 24:  # a part of the vectors is seen
            assert torch.allclose(q @ q.T, q[0] @ q[0] * torch.eye(len(q)), atol=1e-5)
            assert scores.diagonal().mean().item() == pytest.approx(12.0, rel=0.3)
            assert torch.linalg.matrix_rank(back) == len(q)
        else:
            assert torch.allclose(scores, 12.0 * cosines, atol=1e-4)
            assert torch.allclose(back, 0.25 * torch.eye(24), atol=1e-5)


def test_with_exact_likeness_many_words_are_as_long_as_few_and_signals_are_faint() -> None:
    block = part.Block(part.Attention(1), part.FeedForward(8))
    signal = Coordinates(Learned(40), LearnedStep())
    spec = EncoderOnly(Joint(60), 16, model_spec.Embedding(), part.Recurrence(block, steps=3, signal=signal), initial=Likeness())
    plain, exact = build(spec, 1), build(replace(spec, initial=Likeness(Orthogonal())), 1)
    assert exact.source.weight.norm(dim=1).mean().item() == pytest.approx(plain.source.weight.norm(dim=1).mean().item(), rel=0.1)
    tables = [name for name, _ in plain.named_parameters() if name.startswith("encoder.signal")]
    assert len(tables) == 2
    for name in tables:
        assert torch.allclose(exact.get_parameter(name), 0.1 * plain.get_parameter(name))


def test_a_share_of_the_channels_tells_the_order_of_words_from_the_start() -> None:
    encoder = part.Stack(part.Block(part.Attention(1), part.FeedForward(8)), depth=1)
    sentences = model_spec.Embedding(NoPosition(), unit=model_spec.Sentences(9))
    for ordered, told in ((0.0, 0), (0.25, 4), (1.0, 16)):
        maps = Orthogonal(ordered=ordered)
        spec = Classifier(Joint(60), 16, sentences, encoder, ("yes", "no"), initial=Likeness(maps))
        words = build(spec, 1).source.words
        assert words is not None and words.shape == (9, 16)
        assert (words[:, told:] == 1).all()
        assert not told or set(words[:, :told].flatten().tolist()) == {-1.0, 1.0}
    with pytest.raises(QkvError, match=r"Orthogonal\.ordered is a share of the channels"):
        Orthogonal(ordered=1.5)


@pytest.mark.parametrize("wrong", [{"sharpness": 0.0}, {"taken": -1.0}])
def test_a_likeness_without_size_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(QkvError, match="is greater than 0"):
        Orthogonal(**wrong)


def test_keys_that_heads_share_are_like_the_first_of_these() -> None:
    attention = part.Attention(4, Causal(), kv_heads=2)
    stack = part.Stack(part.Block(attention, norm=part.PreNorm()), depth=1)
    spec = DecoderOnly(Joint(9), 32, model_spec.Embedding(), stack, initial=Likeness())
    (found,) = (module for module in build(spec, 1).modules() if isinstance(module, Attention))
    q, k, v = (each.unflatten(0, (-1, 8)) for each in found.qkv.weight.split([32, 16, 16]))
    assert torch.equal(k, q[[0, 2]]) and torch.equal(found.out.weight.T.unflatten(0, (-1, 8)), v[[0, 0, 1, 1]])


@pytest.mark.parametrize("maps", [Glorot(), Orthogonal(12.0, 0.25)], ids=["random", "exact"])
@pytest.mark.parametrize(("alike", "shared", "served"), [(1, 4, 1), (3, 4, 3), (1, 2, 1), (3, 2, 2), (9, 4, 4)])
def test_some_heads_may_begin_by_likeness(maps: Glorot | Orthogonal, alike: int, shared: int, served: int) -> None:
    attention = part.Attention(4, Causal(), kv_heads=shared, head_width=32)
    stack = part.Stack(part.Block(attention, norm=part.PreNorm()), depth=1)
    spec = DecoderOnly(Joint(9), 32, model_spec.Embedding(), stack, initial=Likeness(maps, alike))
    (found,) = (module for module in build(spec, 1).modules() if isinstance(module, Attention))
    q, k, v = (each.unflatten(0, (-1, 32)) for each in found.qkv.weight.split([128, 32 * shared, 32 * shared]))
    back = found.out.weight.T.unflatten(0, (-1, 32))
    of = [head * shared // 4 for head in range(4)]
    first = [of.index(head) for head in range(shared)]
    assert [torch.equal(key, q[one]) for key, one in zip(k, first, strict=True)] == [head < served for head in range(shared)]
    assert [torch.equal(one, v[head]) for one, head in zip(back, of, strict=True)] == [head < alike for head in range(4)]
    assert not back[alike:].any() and q.flatten(1).any(1).all()
    if maps == Orthogonal(12.0, 0.25) and alike == served == 1:
        assert torch.allclose(q[0] @ q[0].T, q[0, 0] @ q[0, 0] * torch.eye(32), atol=1e-4)


def test_likeness_of_no_head_is_refused() -> None:
    with pytest.raises(QkvError, match=r"Likeness\.heads"):
        Likeness(heads=0)


def test_a_way_back_to_another_width_begins_as_any_other() -> None:
    torch.manual_seed(1)
    narrow = Attention(part.Attention(2), 8, inputs=8, outputs=6)
    before = narrow.out.weight.clone()
    initialise(narrow, Likeness(), 1)
    q, k, _ = narrow.qkv.weight.chunk(3)
    assert torch.equal(q, k) and narrow.out.weight.shape == (6, 8) and not torch.equal(narrow.out.weight, before)
