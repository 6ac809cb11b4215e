"""The smoothed cross-entropy, in slabs and with its gradient made by hand, is the written-out formula and PyTorch's own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from qkv.train.loss import ROWS, SLABS, Smoothing, reference, smoothed_cross_entropy


def by_pytorch(
    hidden: Tensor, weight: Tensor, target: Tensor, smoothing: Smoothing, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """PyTorch's cross-entropy against the distribution that section 5.4 and the released code describe."""
    entries = weight.shape[0]
    wanted = torch.full((len(target), entries), smoothing.amount / (entries - 1), dtype=hidden.dtype)
    wanted[torch.arange(len(target)), target] = 1 - smoothing.amount
    assert wanted.sum(1).sub(1).abs().max() < 1e-5
    logits = functional.linear(hidden, weight, offset)
    cross_entropy = functional.cross_entropy
    return cross_entropy(logits, wanted, reduction="sum"), cross_entropy(logits, target, reduction="sum").detach()


def made(rows: int, entries: int, width: int, *, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64) * scale
    weight = torch.randn(entries, width, generator=generator, dtype=torch.float64)
    return hidden, weight, torch.randint(0, entries, (rows,), generator=generator)


def offsets(entries: int, seed: int = 0) -> Tensor:
    """A number for each entry."""
    return torch.randn(entries, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)


def values_and_gradients(
    function, hidden: Tensor, weight: Tensor, target: Tensor, smoothing: Smoothing, offset: Tensor | None = None, **more
) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in (hidden, weight, offset) if tensor is not None]
    smoothed, plain = function(*leaves[:2], target, smoothing, offset=None if offset is None else leaves[2], **more)
    assert not plain.requires_grad
    return [smoothed.detach(), plain, *torch.autograd.grad(smoothed * 0.7, leaves)]


@settings(max_examples=60)
@given(
    rows=st.one_of(st.integers(1, 9), st.integers(ROWS - 1, 2 * ROWS + 3)),
    entries=st.integers(2, 40),
    width=st.integers(1, 9),
    amount=st.sampled_from([0.0, 0.1, 0.3, 0.9]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    shifted=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_values_and_gradients_are_the_formula_and_pytorch(
    rows: int, entries: int, width: int, amount: float, scale: float, shifted: bool, seed: int
) -> None:
    inputs = made(rows, entries, width, scale=scale, seed=seed)
    offset = offsets(entries, seed) if shifted else None
    found = values_and_gradients(smoothed_cross_entropy, *inputs, Smoothing(amount), offset)
    assert len(found) == (5 if shifted else 4)
    for oracle in (reference, by_pytorch):
        expected = values_and_gradients(oracle, *inputs, Smoothing(amount), offset)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)
    with torch.no_grad():  # which takes another way
        values = smoothed_cross_entropy(*inputs, Smoothing(amount), offset=offset)
    torch.testing.assert_close(list(values), expected[:2], rtol=1e-10, atol=1e-9)
    hidden, weight, target = inputs
    low = None if offset is None else offset.float()
    narrow = values_and_gradients(smoothed_cross_entropy, hidden.float(), weight.float(), target, Smoothing(amount), low)
    assert all(tensor.dtype == torch.float32 for tensor in narrow)
    for mine, exact in zip(narrow, expected, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-4, atol=2e-5 * max(1.0, exact.abs().max().item()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("amount", [0.0, 0.1])
def test_logits_of_ten_thousand_are_finite_and_right(dtype: torch.dtype, amount: float) -> None:
    hidden, weight, target = made(ROWS + 9, 50, 8, scale=1.0)
    hidden *= 1e4 / (hidden @ weight.t()).abs().max()
    exact = values_and_gradients(by_pytorch, hidden, weight, target, Smoothing(amount))
    assert exact[1] / len(target) > 1000
    found = values_and_gradients(smoothed_cross_entropy, hidden.to(dtype), weight.to(dtype), target, Smoothing(amount))
    assert all(tensor.isfinite().all() for tensor in found)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    for mine, theirs in zip(found[:2], exact[:2], strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=tolerance, atol=tolerance)
    for mine, theirs in zip(found[2:], exact[2:], strict=True):
        # a rounding of the logits by 1e-3 moves a softmax by as much
        torch.testing.assert_close(
            mine.double(), theirs, rtol=0, atol=theirs.abs().max().item() * (1e-9 if dtype == torch.float64 else 5e-3)
        )


def test_the_gradient_is_that_of_finite_differences() -> None:
    hidden, weight, target = made(5, 7, 3)
    inputs = [tensor.requires_grad_() for tensor in (hidden, weight, offsets(7))]
    assert torch.autograd.gradcheck(lambda h, w, o: smoothed_cross_entropy(h, w, target, Smoothing(0.2), offset=o)[0], inputs)


@pytest.mark.parametrize("rows", [ROWS + 5, ROWS * SLABS, 2 * ROWS * SLABS + 3])
@pytest.mark.parametrize("shifted", [False, True], ids=["no offset", "offset"])
def test_products_in_bf16_are_near(rows: int, shifted: bool) -> None:
    hidden, weight, target = made(rows, 60, 16)
    hidden, weight, offset = hidden.float(), weight.float() / 4, offsets(60).float() if shifted else None
    found = values_and_gradients(smoothed_cross_entropy, hidden, weight, target, Smoothing(0.1), offset, precision=torch.bfloat16)
    expected = values_and_gradients(reference, hidden, weight, target, Smoothing(0.1), offset)
    for mine, exact in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, exact, rtol=2e-2, atol=2e-2 * exact.abs().max().item())


def test_a_model_that_knows_nothing_loses_the_logarithm_of_the_vocabulary() -> None:
    hidden, weight, target = made(6, 37, 4)
    for loss in smoothed_cross_entropy(0 * hidden, weight, target, Smoothing(0.1)):
        assert loss.item() == pytest.approx(6 * math.log(37))


def test_the_plain_loss_knows_no_smoothing() -> None:
    inputs = made(6, 37, 4)
    losses = [smoothed_cross_entropy(*inputs, Smoothing(amount)) for amount in (0.0, 0.4)]
    assert losses[0][1] == losses[1][1] == pytest.approx(losses[0][0].item())
    assert losses[1][0] != losses[0][0]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_without_gradients_the_values_are_the_same(precision: torch.dtype) -> None:
    hidden, weight, target = made(2 * ROWS + 5, 60, 16)
    inputs = (hidden.float(), weight.float(), target, Smoothing(0.1), precision)
    with torch.no_grad():
        found = smoothed_cross_entropy(*inputs)
    torch.testing.assert_close(found, smoothed_cross_entropy(*inputs), rtol=1e-6, atol=0)


def test_many_slabs_in_a_lower_precision_are_multiplied_out_whole() -> None:
    hidden, weight, target = made(ROWS * SLABS + ROWS + 3, 30, 8)
    hidden, weight = hidden.float(), weight.float()
    found = values_and_gradients(smoothed_cross_entropy, hidden, weight, target, Smoothing(0.1), precision=torch.bfloat16)
    expected = values_and_gradients(reference, hidden, weight, target, Smoothing(0.1))
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, exact, rtol=2e-2, atol=2e-2 * exact.abs().max().item())
