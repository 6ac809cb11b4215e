"""Every backend is the reference, forward and backward; who declines says so in words."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.attention.attend import Backend, attend, choose
from qkv.attention.call import Call
from qkv.attention.fused import Fused
from qkv.attention.products import QUERIES, SCORES, Products
from qkv.attention.reference import Reference, weights
from qkv.attention.sight import Late, Packed, Padded, Plain, Sight
from qkv.error import QkvError
from qkv.spec.pattern import Causal, Full, Others
from qkv.spec.score import Dot, ScaledDot

BACKENDS = (Products(), Fused(), Reference())  # those for any call; for sparse patterns see test_sparse.py
GPU = "flex declined: it cannot train on cpu"


@st.composite
def sights(draw: st.DrawFn, batch: int, first: int, queries: int, keys: int) -> Sight:
    """Any sight that these queries may have of these keys."""
    kinds: list[type] = [Plain, Padded, Late]
    if keys >= first + queries:
        kinds.append(Packed)  # a query sees itself at least

    def each(least: int, most: int) -> torch.Tensor:
        return torch.tensor(draw(st.lists(st.integers(least, most), min_size=batch, max_size=batch)))

    match draw(st.sampled_from(kinds)).__name__:
        case "Padded":
            lengths = each(0, keys)
            return Padded(lengths, blank=bool((lengths == 0).any()))
        case "Late":
            return Late(each(0, keys))
        case "Packed":
            starts = draw(st.lists(st.lists(st.booleans(), min_size=keys, max_size=keys), min_size=batch, max_size=batch))
            documents = torch.tensor(starts).long().cumsum(1)
            return Packed(documents, torch.zeros_like(documents))  # attention asks for documents alone
        case _:
            return Plain()


@st.composite
def calls(draw: st.DrawFn, dtype: torch.dtype = torch.float64) -> Call:
    """Any call: more keys than queries and fewer, queries that do not start at 0, sentences without any key, documents that do
    not see each other, texts that begin late, keys that serve several heads, both scores, and a bias for all rows or for each."""
    size = st.integers(1, 4)
    batch, groups, width = draw(size), draw(size), draw(st.integers(1, 9))
    heads = groups * draw(st.integers(1, 3))
    queries, keys, first = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 9))
    if draw(st.booleans()):  # as in a model: a query is itself a key
        keys = first + queries
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

    q, k, v = (made(batch, number, length, width) for number, length in ((heads, queries), (groups, keys), (groups, keys)))
    bias = draw(st.sampled_from([None, made(1, heads, queries, keys), made(batch, heads, queries, keys)]))
    pattern, score = draw(st.sampled_from([Full(), Causal(), Others()])), draw(st.sampled_from([Dot(), ScaledDot()]))
    return Call(q, k, v, pattern, draw(sights(batch, first, queries, keys)), first, score, bias)


def leaves_of(call: Call) -> dict[str, torch.Tensor]:
    """What a call can be differentiated by."""
    return {name: tensor for name in ("q", "k", "v", "bias") if (tensor := getattr(call, name)) is not None}


def learning(call: Call) -> Call:
    """The same call by somebody who asks for gradients."""
    return replace(call, **{name: tensor.detach().clone().requires_grad_() for name, tensor in leaves_of(call).items()})


def run(backend: Backend, call: Call) -> list[torch.Tensor]:
    """What a backend gives, and its gradients."""
    call = learning(call)
    attended = backend.run(call)
    generator = torch.Generator().manual_seed(0)
    upstream = torch.randn(attended.shape, dtype=torch.float64, generator=generator).to(attended.dtype)
    return [attended.detach(), *torch.autograd.grad((attended * upstream).sum(), list(leaves_of(call).values()))]


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@settings(max_examples=150)
@given(call=calls())
def test_every_backend_equals_the_reference_forward_and_backward(backend: Backend, call: Call) -> None:
    assert not backend.declines(learning(call)), "of small calls in one precision, all run all"
    torch.testing.assert_close(run(backend, call), run(Reference(), call), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@settings(max_examples=25)
@given(data=st.data())
def test_lower_precisions_stay_near_fp64(backend: Backend, dtype: torch.dtype, data: st.DataObject) -> None:
    call = replace(data.draw(calls(dtype)), score=ScaledDot())  # as they are, scores grow with the width, and so do roundings
    exact = replace(call, **{name: tensor.double() for name, tensor in leaves_of(call).items()})
    found = run(backend, call)
    assert all(tensor.dtype == dtype for tensor in found)
    for mine, wanted in zip(found, run(Reference(), exact), strict=True):
        # rounded, a gradient is as far off as the largest of those that it is the sum of
        tolerance = (1e-5 if dtype == torch.float32 else 0.05) * max(3.0, wanted.abs().max().item())
        torch.testing.assert_close(mine.double(), wanted, rtol=0, atol=tolerance)


def seen_by(call: Call, row: int, place: int) -> list[int]:
    """The keys that a query sees, by the words of the sights and the patterns."""
    here = call.first + place

    def there(j: int) -> bool:
        match call.keys:
            case Plain():
                return True
            case Padded(lengths=lengths):
                return j < lengths[row]
            case Packed(documents=documents):
                return bool(documents[row, j] == documents[row, here])
            case Late(starts=starts):
                return j >= starts[row]

    def allowed(j: int) -> bool:
        match call.pattern:
            case Others():
                return j != here
            case Causal():
                return j <= here
            case _:
                return True

    return [j for j in range(call.k.shape[2]) if there(j) and allowed(j)]


@given(call=calls())
def test_the_reference_is_the_formula_key_by_key(call: Call) -> None:
    attended = Reference().run(call)
    batch, heads, queries, width = call.q.shape
    scale = 1.0 if isinstance(call.score, Dot) else width**-0.5
    bias = torch.zeros(1, heads, queries, call.k.shape[2]) if call.bias is None else call.bias
    for b, t, h in itertools.product(range(batch), range(queries), range(heads)):
        seen, group = seen_by(call, b, t), h * call.k.shape[1] // heads
        expected = torch.zeros(width, dtype=torch.float64)
        if seen:
            added = bias[min(b, len(bias) - 1), h, t]
            exponentials = torch.stack([(scale * (call.q[b, h, t] @ call.k[b, group, j]) + added[j]).exp() for j in seen])
            expected = (exponentials[:, None] * call.v[b, group, seen]).sum(0) / exponentials.sum()
        torch.testing.assert_close(attended[b, h, t], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize("pattern", [Full(), Causal()], ids=["full", "causal"])
def test_a_query_that_may_see_nothing_receives_zeros_and_gives_no_gradient(backend: Backend, pattern: Full | Causal) -> None:
    q, k, v = torch.randn(3, 3, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = run(backend, Call(q, k, v, pattern, Padded(torch.tensor([5, 0, 2]))))
    assert all(tensor.isfinite().all() for tensor in found)
    assert all((tensor[1] == 0).all() for tensor in found)
    assert all((tensor[0] != 0).any() for tensor in found)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_what_stands_before_a_late_text_receives_zeros_and_its_bias_learns_nothing(backend: Backend) -> None:
    generator = torch.Generator().manual_seed(4)
    q, k, v = torch.randn(3, 3, 2, 5, 4, dtype=torch.float64, generator=generator)
    bias = torch.randn(3, 2, 5, 5, dtype=torch.float64, generator=generator)
    attended, *of_qkv, of_bias = run(backend, Call(q, k, v, Causal(), Late(torch.tensor([0, 3, 5])), bias=bias))
    assert all(tensor.isfinite().all() for tensor in (attended, *of_qkv, of_bias))
    for row, start in enumerate((0, 3, 5)):
        assert all((tensor[row, :, :start] == 0).all() for tensor in (attended, *of_qkv, of_bias, of_bias.transpose(2, 3)))
        assert (attended[row, :, start:] != 0).all()


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_finite_junk_in_padding_changes_not_a_bit(backend: Backend) -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    sight = Padded(torch.tensor([3, 1]))
    clean = backend.run(Call(q, k, v, Full(), sight))
    k, v = k.clone(), v.clone()
    for sentence, length in enumerate((3, 1)):
        k[sentence, :, length:], v[sentence, :, length:] = 1e30, -1e30
    assert torch.equal(backend.run(Call(q, k, v, Full(), sight)), clean)


@given(call=calls())
def test_weights_sum_to_one_or_are_all_zero(call: Call) -> None:
    sums = weights(call).sum(-1)
    mask = call.mask()
    sees = torch.ones_like(sums, dtype=torch.bool) if mask is None else mask.any(-1).expand_as(sums)
    torch.testing.assert_close(sums, sees.double(), rtol=0, atol=1e-12)


@given(call=calls())
def test_a_mask_is_there_only_where_somebody_is_hidden(call: Call) -> None:
    if isinstance(call.keys, Plain) and call.mask() is not None:
        assert not call.mask().all()


def _large(dtype: torch.dtype = torch.float32, v: torch.dtype | None = None) -> Call:
    """A call whose scores would take 2.1 GB, on the meta device, where it takes nothing."""
    q = torch.empty(1, 2, 16400, 4, device="meta", dtype=dtype)
    return Call(q, q, q.to(v or dtype))


def test_the_reference_declines_what_would_not_fit_in_memory() -> None:
    assert "2.0 GiB" in Reference().declines(_large())
    assert "16400 keys" in Reference().declines(_large())
    small = torch.zeros(1, 2, 100, 4)
    assert Reference().declines(Call(small, small, small)) == ""


def test_the_chooser_says_who_declined_and_why() -> None:
    q = torch.zeros(1, 1, 2, 4)
    idle = "products declined: it is for training, and no gradient is asked for"
    idle = f"{GPU}; folded declined: Full() is not sparse; {idle}"
    assert str(choose(Call(q, q, q))) == f"{idle}; fused runs"
    mixed = choose(Call(q, q, q.double()))
    assert isinstance(mixed.backend, Reference)
    differ = "q, k and v differ in precision: torch.float32, torch.float32, torch.float64"
    assert str(mixed) == f"{idle}; fused declined: {differ}; reference runs"
    assert attend(Call(q, q, q.double())).shape == q.shape


@pytest.mark.parametrize(
    ("dtype", "length", "who"), [("bfloat16", 4, "products"), ("float32", 4, "fused"), ("float32", 512, "products")]
)
def test_training_on_a_cpu_takes_the_quickest(dtype: str, length: int, who: str) -> None:
    q = torch.zeros(1, 1, length, 4, dtype=getattr(torch, dtype))
    assert choose(learning(Call(q, q, q, Causal()))).backend.name == who
    with torch.no_grad():
        assert choose(learning(Call(q, q, q, Causal()))).backend.name == "fused"


def test_products_decline_weights_that_are_kept_too_long() -> None:
    q = torch.empty(64, 16, 2048, 4, dtype=torch.bfloat16, requires_grad=True)
    assert "8192 MiB" in dict(choose(Call(q, q, q, Causal())).declined)["products"]


@pytest.mark.parametrize("pattern", [Full(), Causal()], ids=["full", "causal"])
@pytest.mark.parametrize("rows", [1, 11], ids=["one bias for all", "a bias for each row"])
def test_products_in_many_blocks_equal_the_reference(pattern: Full | Causal, rows: int) -> None:
    """More queries than a block has, more scores than are computed at once, documents, and a bias that is learned."""
    generator = torch.Generator().manual_seed(0)
    batch, heads, length = 11, 2, 2 * QUERIES + 5
    assert batch * heads * length**2 > SCORES
    documents = torch.randint(0, 3, (batch, length), generator=generator).sort(1).values
    drawn = [torch.randn(batch, heads, length, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(4)]
    bias = torch.randn(rows, heads, length, length, dtype=torch.float64, generator=generator).requires_grad_()
    *qkv, upstream = drawn
    for sight in (Plain(), Padded(torch.arange(batch) * 20), Packed(documents, documents)):
        call = Call(*qkv, pattern, sight, bias=bias)
        found, expected = (
            torch.autograd.grad((backend.run(call) * upstream).sum(), [*qkv, bias]) for backend in (Products(), Reference())
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
        torch.testing.assert_close(Products().run(call), Reference().run(call), rtol=0, atol=1e-12)


def test_the_chooser_names_every_reason_where_all_decline() -> None:
    with pytest.raises(QkvError, match=r"fused: .*precision.*; reference: .*GiB"):
        choose(_large(v=torch.float64))
