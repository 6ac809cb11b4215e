"""Every backend is the reference, forward and backward; who declines says so in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.attention.attend import BACKENDS, Backend, attend, choose
from qkv.attention.call import Call
from qkv.attention.products import QUERIES, SCORES, Products
from qkv.attention.reference import Reference, weights
from qkv.attention.sight import Packed, Padded, Plain
from qkv.error import QkvError
from qkv.spec.pattern import Causal, Full


@st.composite
def calls(draw: st.DrawFn, dtype: torch.dtype = torch.float64) -> Call:
    """Any call: more keys than queries and fewer, queries that do not start at 0, sentences without any key."""
    size = st.integers(1, 4)
    batch, heads, width = draw(size), draw(size), draw(st.integers(1, 9))
    queries, keys, first = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def made(length: int) -> torch.Tensor:
        return torch.randn(batch, heads, length, width, dtype=torch.float64, generator=generator).to(dtype)

    lengths = st.lists(st.integers(0, keys), min_size=batch, max_size=batch)
    sight = draw(st.one_of(st.just(Plain()), lengths.map(lambda found: Padded(torch.tensor(found), blank=0 in found))))
    return Call(made(queries), made(keys), made(keys), draw(st.sampled_from([Full(), Causal()])), sight, first)


def learning(call: Call) -> Call:
    """The same call by somebody who asks for gradients."""
    leaves = {name: getattr(call, name).detach().clone().requires_grad_() for name in ("q", "k", "v")}
    return replace(call, **leaves)


def run(backend: Backend, call: Call) -> list[torch.Tensor]:
    """What a backend gives, and its gradients."""
    call = learning(call)
    leaves = [call.q, call.k, call.v]
    attended = backend.run(call)
    generator = torch.Generator().manual_seed(0)
    upstream = torch.randn(attended.shape, dtype=torch.float64, generator=generator).to(attended.dtype)
    return [attended.detach(), *torch.autograd.grad((attended * upstream).sum(), leaves)]


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@settings(max_examples=60)
@given(call=calls())
def test_every_backend_equals_the_reference_forward_and_backward(backend: Backend, call: Call) -> None:
    if not backend.declines(learning(call)):
        torch.testing.assert_close(run(backend, call), run(Reference(), call), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@settings(max_examples=25)
@given(data=st.data())
def test_lower_precisions_stay_near_fp64(backend: Backend, dtype: torch.dtype, data: st.DataObject) -> None:
    call = data.draw(calls(dtype))
    exact = Call(call.q.double(), call.k.double(), call.v.double(), call.pattern, call.keys, call.first)
    found = run(backend, call)
    assert all(tensor.dtype == dtype for tensor in found)
    tolerance = 1e-5 if dtype == torch.float32 else 0.15
    torch.testing.assert_close([tensor.double() for tensor in found], run(Reference(), exact), rtol=tolerance, atol=tolerance)


@given(call=calls())
def test_the_reference_is_the_formula_key_by_key(call: Call) -> None:
    attended = Reference().run(call)
    batch, heads, queries, width = call.q.shape
    keys = call.k.shape[2]
    for b in range(batch):
        there = int(call.keys.lengths[b]) if isinstance(call.keys, Padded) else keys
        for t in range(queries):
            seen = [j for j in range(there) if isinstance(call.pattern, Full) or j <= call.first + t]
            for h in range(heads):
                expected = torch.zeros(width, dtype=torch.float64)
                if seen:
                    exponentials = torch.stack([(call.q[b, h, t] @ call.k[b, h, j] / width**0.5).exp() for j in seen])
                    expected = (exponentials[:, None] * call.v[b, h, seen]).sum(0) / exponentials.sum()
                torch.testing.assert_close(attended[b, h, t], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize("pattern", [Full(), Causal()], ids=["full", "causal"])
def test_a_query_that_may_see_nothing_receives_zeros_and_gives_no_gradient(backend: Backend, pattern: Full | Causal) -> None:
    q, k, v = torch.randn(3, 3, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = run(backend, Call(q, k, v, pattern, Padded(torch.tensor([5, 0, 2]))))
    assert all(tensor.isfinite().all() for tensor in found)
    assert all((tensor[1] == 0).all() for tensor in found)
    assert all((tensor[0] != 0).any() for tensor in found)


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
    assert "8192 MiB" in choose(Call(q, q, q, Causal())).declined[0][1]


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
