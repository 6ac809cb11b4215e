"""The quick way to sum over neighbours, against one position at a time."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.model.convolution import depthwise


@settings(max_examples=40)
@given(
    rows=st.integers(1, 3),
    length=st.integers(1, 9),
    width=st.integers(1, 6),
    reach=st.integers(1, 7),
    kind=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_neighbours_are_summed(rows: int, length: int, width: int, reach: int, kind: torch.dtype, seed: int) -> None:
    """Forward and backward; what comes in bf16 goes out so, and is summed in single precision between."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, length + reach - 1, width, generator=generator).to(kind).requires_grad_()
    weight = torch.randn(reach, width, generator=generator).requires_grad_()
    sent = torch.randn(rows, length, width, generator=generator).to(kind)
    found = depthwise(x, weight)
    assert found.dtype == kind
    wide, weights = x.double(), weight.double()
    exact = torch.stack([(wide[:, at : at + reach] * weights).sum(1) for at in range(length)], 1)
    close = {"rtol": 1e-2 if kind == torch.bfloat16 else 1e-5, "atol": 1e-5, "check_dtype": False}
    torch.testing.assert_close(found, exact, **close)
    for mine, its in zip(*(torch.autograd.grad(each, (x, weight), sent.to(each.dtype)) for each in (found, exact)), strict=True):
        torch.testing.assert_close(mine, its, **close)


def test_a_slice_of_a_longer_memory_is_summed_like_any_other() -> None:
    held = torch.randn(2, 20, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(depthwise(held[:, 5:11], weight), depthwise(held[:, 5:11].clone(), weight), rtol=0, atol=1e-6)
    assert depthwise(held[:, 5:11], weight).shape == (2, 4, 4)
