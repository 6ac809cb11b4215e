"""Where tokens stand, as others compute it: the buckets of T5, the slopes of ALiBi, the turning of rotary attention."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qkv.attention.call import Call
from qkv.attention.reference import weights
from qkv.attention.sight import Late, Packed, Plain
from qkv.error import QkvError
from qkv.model.context import Context
from qkv.model.embedding import Embedding
from qkv.model.position import LinearBias, RelativeBias, Turn, buckets
from qkv.spec import model as spec
from qkv.spec.pattern import Causal
from qkv.spec.position import ALiBi, Learned, Relative, Rotary

transformers = pytest.importorskip("transformers")

FAR = torch.arange(-5000, 5001)


def random(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# T5's buckets


@pytest.mark.parametrize("two_sided", [True, False], ids=["two-sided", "causal"])
@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (8, 16), (16, 20), (64, 1000), (2, 9), (10, 100), (4, 3)])
def test_buckets_of_all_distances_are_those_of_the_released_code(count: int, farthest: int, two_sided: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    how = Relative(count if count > 2 or not two_sided else 4, farthest, two_sided)
    theirs = T5Attention._relative_position_bucket(FAR, two_sided, how.buckets, how.farthest)
    assert torch.equal(buckets(how, FAR), theirs)
    # nothing stands after a query at no distance
    assert theirs.unique().tolist() == [b for b in range(how.buckets) if not two_sided or b != how.buckets // 2]


@pytest.mark.parametrize("two_sided", [True, False], ids=["two-sided", "causal"])
@pytest.mark.parametrize(("first", "queries", "keys"), [(0, 9, 9), (0, 5, 12), (7, 1, 8), (30, 4, 34), (200, 1, 201)])
def test_relative_biases_stand_where_theirs_do(two_sided: bool, first: int, queries: int, keys: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    config = transformers.T5Config(d_model=6, d_kv=2, num_heads=3, is_decoder=not two_sided)
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    ours = RelativeBias(Relative(32, 128, two_sided), 3)
    ours.weight.data.copy_(theirs.relative_attention_bias.weight.data)
    expected = theirs.compute_bias(queries, keys, past_seen_tokens=first)
    assert torch.equal(ours.during_a_pass()(first, queries, keys), expected)


def test_a_pass_makes_its_bias_once_and_the_gradients_of_all_layers_flow_back() -> None:
    relative = RelativeBias(Relative(8, 16), 2)
    relative.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    bias = relative.during_a_pass()
    assert bias(0, 4, 6) is bias(0, 4, 6)
    (bias(0, 4, 6).sum() + 2 * bias(0, 4, 6).sum()).backward()
    assert relative.weight.grad is not None
    counted = torch.bincount(buckets(relative.spec, torch.arange(6) - torch.arange(4)[:, None]).flatten(), minlength=8)
    torch.testing.assert_close(relative.weight.grad, 3.0 * counted[:, None].expand(8, 2))


@pytest.mark.parametrize("wrong", [(1, 128, True), (3, 128, True), (32, 8, True), (32, 16, False), (1, 9, False), (0, 9, False)])
def test_buckets_that_cannot_be_are_refused(wrong: tuple[int, int, bool]) -> None:
    with pytest.raises(QkvError, match="Relative needs some buckets and a distance beyond"):
        Relative(*wrong)


# ALiBi


def published(heads: int) -> list[float]:
    """`get_slopes` of the code released with the paper, word for word but for names."""

    def of_a_power(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(heads).is_integer():
        return of_a_power(heads)
    power = 2 ** math.floor(math.log2(heads))
    return of_a_power(power) + published(2 * power)[0::2][: heads - power]


@pytest.mark.parametrize("heads", [*range(1, 34), 48, 64, 71, 112])
def test_slopes_are_the_published_ones_and_those_of_bloom(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    assert ALiBi().of(heads) == pytest.approx(published(heads), rel=1e-12)
    theirs = build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)  # of keys at 0 and 1
    assert ALiBi().of(heads) == pytest.approx(theirs[:, 0, 1].tolist(), rel=1e-6)


@pytest.mark.parametrize(("heads", "first"), [(4, 0), (6, 0), (6, 5)])
def test_weights_with_slopes_are_those_of_bloom(heads: int, first: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    q, k = random(2, heads, 7 - first, 3), random(2, heads, 7, 3, seed=4)
    found = weights(Call(q, k, k, Causal(), first=first, bias=LinearBias(ALiBi(), heads)(q, first, 7)))
    # a row of softmax does not feel that its distances are counted from the start of the text
    alibi = build_alibi_tensor(torch.ones(2, 7), heads, torch.float64).view(2, heads, 1, 7)
    scores = q @ k.transpose(2, 3) / 3**0.5 + alibi
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1)[first:]
    torch.testing.assert_close(found, scores.masked_fill(hidden, -math.inf).softmax(-1), rtol=0, atol=1e-7)


def test_a_linear_bias_is_made_anew_for_another_precision_or_another_place() -> None:
    bias = LinearBias(ALiBi(), 3)
    q = random(1, 3, 2, 4)
    made = bias(q, 4, 6)
    assert bias(q, 4, 6) is made
    distance = torch.tensor([[abs(4 + t - j) for j in range(6)] for t in range(2)])
    torch.testing.assert_close(made[0], -torch.tensor(ALiBi().of(3)).double()[:, None, None] * distance, rtol=1e-6, atol=0)
    assert bias(q.float(), 4, 6).dtype == torch.float32
    assert bias(q, 3, 6)[0, :, 0, 3].abs().max() == 0


def test_slopes_may_be_said_head_by_head() -> None:
    made = LinearBias(ALiBi((0.0, 0.5)), 2)(random(1, 2, 2, 4), 3, 5)[0]
    torch.testing.assert_close(made[0], torch.zeros(2, 5, dtype=made.dtype), rtol=0, atol=0)
    assert made[1].tolist() == [[-1.5, -1, -0.5, 0, -0.5], [-2, -1.5, -1, -0.5, 0]]


# Rotary


@pytest.mark.parametrize(("first", "base"), [(0, 10000.0), (13, 10000.0), (200, 10000.0), (3, 500.0)])
def test_queries_and_keys_are_turned_as_in_llama(first: int, base: float) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    q, k = random(2, 4, 9, 6), random(2, 2, 9, 6, seed=4)
    turn = Turn(Rotary(base), 6)
    rope = {"rope_theta": base, "rope_type": "default"}
    config = transformers.LlamaConfig(hidden_size=24, num_attention_heads=4, head_dim=6, rope_parameters=rope)
    places = torch.arange(first, first + 9)[None]
    cosine, sine = LlamaRotaryEmbedding(config)(q.float(), places)  # whose angles are in fp32
    for ours, theirs in zip((turn(q, first), turn(k, first)), apply_rotary_pos_emb(q, k, cosine, sine), strict=True):
        torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=1e-4 if first > 100 else 1e-5)
    # and in fp64 as equation 34 has it, a pair of channels at a time
    for pair in range(3):
        angle = places[0].double() * base ** (-2 * pair / 6)
        complex_ = torch.complex(q[..., pair], q[..., pair + 3]) * torch.polar(torch.ones_like(angle), angle)
        torch.testing.assert_close(turn(q, first)[..., [pair, pair + 3]], torch.view_as_real(complex_), rtol=0, atol=1e-12)


@given(i=st.integers(0, 300), j=st.integers(0, 300), far=st.integers(1, 500), half=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_score_depends_on_the_distance_alone(i: int, j: int, far: int, half: int, seed: int) -> None:
    turn = Turn(Rotary(), 2 * half)
    q, k = random(1, 1, 1, 2 * half, seed=seed), random(1, 1, 1, 2 * half, seed=seed + 100)

    def score(i: int, j: int) -> float:
        return (turn(q, i) * turn(k, j)).sum().item()

    assert score(i + far, j + far) == pytest.approx(score(i, j), abs=1e-11)
    assert turn(q, i).norm().item() == pytest.approx(q.norm().item(), rel=1e-13), "what is turned is as long as before"
    assert abs(score(i + 1, j) - score(i, j)) > 1e-11


# Learned places


def table(longest: int, first: int, sight: Plain | Packed | Late, length: int) -> Tensor:
    """What an embedding of zeros makes of tokens: their places alone."""
    made = Embedding(spec.Embedding(Learned(longest), scale=False), 5, 2)
    made.weight.data.zero_()
    assert made.places is not None
    made.places.data.copy_(torch.arange(longest)[:, None].expand(longest, 2))
    with torch.no_grad():
        return made(torch.zeros(1, length, dtype=torch.int64), Context(sight, first))[0, :, 0]


def test_learned_places_are_those_of_the_tokens_however_they_are_laid_out() -> None:
    assert table(9, 2, Plain(), 4).tolist() == [2, 3, 4, 5]
    documents, pos = torch.tensor([[0, 0, 0, 1, 1, 2]]), torch.tensor([[0, 1, 2, 0, 1, 0]])
    assert table(9, 0, Packed(documents, pos), 6).tolist() == [0, 1, 2, 0, 1, 0]
    assert table(9, 0, Late(torch.tensor([2])), 6).tolist() == [0, 0, 0, 1, 2, 3]
    assert table(9, 6, Late(torch.tensor([2])), 1).tolist() == [4]


def test_more_tokens_than_places_are_refused_in_words() -> None:
    assert len(table(9, 5, Plain(), 4)) == 9 - 5
    for first, length in ((0, 10), (5, 5), (9, 1)):
        with pytest.raises(QkvError, match=f"the model knows 9 places, and a text has {first + length} tokens: give it less"):
            table(9, first, Plain(), length)


def test_packed_and_late_texts_may_be_longer_together_than_the_places() -> None:
    documents, pos = torch.tensor([[0] * 7 + [1] * 7]), torch.tensor([[*range(7), *range(7)]])
    assert table(7, 0, Packed(documents, pos), 14).tolist() == [*range(7), *range(7)]
    assert table(7, 0, Late(torch.tensor([4])), 11).tolist() == [0] * 4 + [*range(7)]
