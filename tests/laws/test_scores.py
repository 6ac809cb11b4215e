"""Every score by its formula, key by key; those that fold give the same on any kernel, with the same gradients."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qkv.attention.attend import attend, choose
from qkv.attention.call import Call
from qkv.attention.folded import Folded
from qkv.attention.reference import Reference, weights
from qkv.attention.score import folded
from qkv.attention.sight import Padded
from qkv.error import QkvError
from qkv.spec.choice import Best, Soft, StraightThrough
from qkv.spec.pattern import Causal, Full, Local, PerHead, Stride
from qkv.spec.score import (
    Additive,
    Boxcar,
    Constant,
    ContentBased,
    Dot,
    Gaussian,
    General,
    Location,
    Score,
    Triangular,
    folds,
    learns,
)

SCORES: tuple[Score, ...] = (
    *(General(), ContentBased(), ContentBased(3.0, True), Additive(), Location(20), Constant()),
    *(Gaussian(0.7), Gaussian(2.0, True), Boxcar(2.5), Triangular(3.0), Triangular(4.0, True)),
)


def drawn(score: Score, heads: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
    shapes = learns(score, heads, width)
    return {
        name: torch.randn(shape, dtype=torch.float64, generator=generator) * 0.3 + name.startswith("log")
        for name, shape in shapes.items()
    }


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Any score on any small call; heads in groups, padding, and queries that do not begin at 0."""
    score = draw(st.sampled_from(SCORES))
    size = st.integers(1, 4)
    batch, groups, width, queries, first = draw(size), draw(size), draw(size), draw(st.integers(1, 6)), draw(st.integers(0, 4))
    heads, keys = groups * draw(st.integers(1, 2)), first + queries
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    q, k, v = (
        torch.randn(batch, many, length, width, dtype=torch.float64, generator=generator)
        for many, length in ((heads, queries), (groups, keys), (groups, keys))
    )
    lengths = draw(st.lists(st.integers(0, keys), min_size=batch, max_size=batch))
    pattern = draw(st.sampled_from([Full(), Causal()]))
    sight = Padded(torch.tensor(lengths), blank=0 in lengths)
    return Call(q, k, v, pattern, sight, first, score, learned=drawn(score, heads, width, generator))


def by_hand(call: Call, b: int, h: int, t: int, j: int) -> float:
    """The score of one key for one query."""
    q, k = call.q[b, h, t], call.k[b, h * call.k.shape[1] // call.q.shape[1], j]
    distance = math.dist(q.tolist(), k.tolist())
    own = {name: each[h] for name, each in call.learned.items()}
    match call.score:
        case General():
            return sum((q[a] * own["map"][a, c] * k[c]).item() for a in range(len(q)) for c in range(len(k)))
        case ContentBased(sharpness=value, learned=learned):
            sharp = math.exp(own["log_sharpness"]) if learned else value
            return sharp * (q @ k / (q.norm() * k.norm())).item()
        case Additive():
            return sum((own["vector"][c] * torch.tanh(q[c] + k[c])).item() for c in range(len(k)))
        case Location():
            return (q @ own["map"][:, j]).item()
        case Gaussian(width=value, learned=learned):
            width = math.exp(own["log_width"]) if learned else value
            return -(distance**2) / (2 * width**2)
        case Boxcar(width=width):
            return 0.0 if distance < width else -math.inf
        case Triangular(width=value, learned=learned):
            width = math.exp(own["log_width"]) if learned else value
            return math.log(1 - distance / width) if distance < width else -math.inf
        case Constant():
            return 0.0
        case _:
            raise AssertionError


@given(call=calls())
def test_the_reference_is_the_formula_key_by_key(call: Call) -> None:
    """A kernel that reaches no key gives nothing."""
    found, mask = weights(call), call.mask()
    assert mask is not None
    mask = mask.expand(found.shape)
    for b, h, t in itertools.product(*map(range, call.q.shape[:3])):
        scores = [by_hand(call, b, h, t, j) if mask[b, h, t, j] else -math.inf for j in range(call.k.shape[2])]
        exponentials = torch.tensor(scores, dtype=torch.float64).exp()
        expected = exponentials / exponentials.sum() if exponentials.sum() else exponentials
        torch.testing.assert_close(found[b, h, t], expected, rtol=0, atol=1e-9)


def learnt(call: Call, run: object) -> list[Tensor]:
    """What queries receive, and all gradients, those of what the score learns among them."""
    leaves = {name: getattr(call, name).detach().clone().requires_grad_() for name in ("q", "k", "v")}
    learned = {name: each.detach().clone().requires_grad_() for name, each in call.learned.items()}
    attended = run(replace(call, **leaves, learned=learned))  # pyright: ignore
    upstream = torch.randn(attended.shape, dtype=attended.dtype, generator=torch.Generator().manual_seed(0))
    wanted = [*leaves.values(), *learned.values()]
    gradients = torch.autograd.grad((attended * upstream).sum(), wanted, allow_unused=True)
    return [attended.detach(), *(torch.zeros_like(x) if g is None else g for x, g in zip(wanted, gradients, strict=True))]


@settings(max_examples=200)
@given(call=calls())
def test_any_way_is_the_reference(call: Call) -> None:
    """Those that fold run on a kernel for dot products, and the chooser says so; the others on the reference alone."""
    wanted = learnt(call, Reference().run)
    for mine, its in zip(learnt(call, attend), wanted, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-8)
    chosen = choose(call)
    assert (chosen.backend.name != "reference") == folds(call.score)
    if folds(call.score):
        assert isinstance(folded(call).score, Dot)
    else:
        assert f"fused declined: {call.score} is no dot product, and does not fold into one" in str(chosen)


@pytest.mark.parametrize("score", [ContentBased(4.0), Gaussian(3.0), General(), Constant()], ids=str)
def test_scores_that_fold_run_in_sparse_patterns(score: Score) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 700, 8, dtype=torch.float64, generator=generator) for _ in range(3))
    pattern = Causal() & (Local(20) | Stride(20))
    call = Call(q, k, v, pattern, score=score, learned=drawn(score, 2, 8, generator))
    assert isinstance(choose(call).backend, Folded)
    for mine, its in zip(learnt(call, attend), learnt(call, Reference().run), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-8)


def test_heads_of_different_patterns_have_their_own_part_of_what_is_learned() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 9, 3, dtype=torch.float64, generator=generator) for _ in range(3))
    for score in (Additive(), General(), Location(9)):
        learned = drawn(score, 4, 3, generator)
        call = Call(q, k, v, PerHead(Causal(), Causal() & Local(2)), score=score, learned=learned)
        halves = [
            Reference().run(Call(q[:, each], k[:, each], v[:, each], pattern, score=score, learned=part))
            for each, pattern in ((slice(0, 2), Causal()), (slice(2, 4), Causal() & Local(2)))
            for part in [{name: x[each] for name, x in learned.items()}]
        ]
        torch.testing.assert_close(attend(call), torch.cat(halves, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("score", [Gaussian(2.0), ContentBased(2.0)], ids=str)
def test_in_sixteen_bits_what_tells_keys_apart_is_kept(score: Score) -> None:
    """Far from the origin squares are large, and their differences small."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 30, 8, generator=generator).bfloat16() + 4 for _ in range(3))
    found = attend(Call(q, k, v, score=score))
    wanted = Reference().run(Call(q.double(), k.double(), v.double(), score=score))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=0.05)


def test_what_cannot_be_is_refused() -> None:
    q = torch.zeros(1, 1, 5, 2)
    with pytest.raises(QkvError, match=r"Location\(longest=4\) knows 4 places, and was asked about 5"):
        attend(Call(q, q, q, score=Location(4), learned={"map": torch.zeros(1, 2, 4)}))
    for wrong, value in ((Gaussian, 0.0), (Boxcar, -1.0), (Location, 0), (ContentBased, math.nan), (Triangular, "wide")):
        with pytest.raises(QkvError, match="must be positive"):
            wrong(value)


@given(call=calls(), keys=st.integers(1, 4))
def test_the_best_keys_share_all_weight_as_if_there_were_no_others(call: Call, keys: int) -> None:
    whole, found = weights(call), weights(replace(call, choice=Best(keys)))
    for soft, few in zip(whole.flatten(0, 2), found.flatten(0, 2), strict=True):
        least = soft.sort(descending=True).values[min(keys, len(soft)) - 1]
        kept = torch.where((soft >= least) & (soft > 0), soft, 0.0)
        torch.testing.assert_close(few, kept / kept.sum() if kept.sum() else kept, rtol=0, atol=1e-9)
    wanted = learnt(replace(call, choice=Best(keys)), Reference().run)
    for mine, its in zip(learnt(replace(call, choice=Best(keys)), attend), wanted, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-12)


@given(call=calls())
def test_straight_through_looks_at_one_key_and_learns_as_if_it_looked_at_all(call: Call) -> None:
    hard = weights(replace(call, choice=StraightThrough()))
    soft = weights(call)
    assert torch.equal(hard.sum(-1).round(decimals=9), (soft.sum(-1) > 0).double())
    torch.testing.assert_close((hard * soft).sum(-1), soft.amax(-1), rtol=0, atol=1e-9)

    def gradients(choice: Soft | StraightThrough) -> list[Tensor]:
        leaves = [getattr(call, name).detach().clone().requires_grad_() for name in ("q", "k")]
        found = weights(replace(call, q=leaves[0], k=leaves[1], choice=choice))
        upstream = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(0))
        given = torch.autograd.grad((found * upstream).sum(), leaves, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, given, strict=True)]

    for mine, its in zip(gradients(StraightThrough()), gradients(Soft()), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-12)


def test_other_weights_run_on_the_reference_and_the_chooser_says_so() -> None:
    q = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    chosen = choose(Call(q, q, q, Causal(), choice=Best(2)))
    assert chosen.backend.name == "reference" and "fused declined: Best(keys=2) makes other weights of the softmax's" in str(
        chosen
    )
    halves = attend(Call(q, q, q, PerHead(Causal(), Local(2)), choice=StraightThrough()))
    torch.testing.assert_close(halves[:, :1], attend(Call(q[:, :1], q[:, :1], q[:, :1], Causal(), choice=StraightThrough())))
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(QkvError, match=r"Best.keys must be a whole number of at least 1"):
            Best(wrong)  # pyright: ignore
