"""A finished model may lay out its weights anew: what it computes stays the same but for rounding."""

from __future__ import annotations

import pytest
import torch

from qkv import device
from qkv.attention.sight import Padded
from qkv.model import linear as module
from qkv.model.linear import COPIES, UP_TO, WAYS, WIDE, Linear, of_few_rows, packed
from qkv.model.transformer import build, pack
from qkv.papers.transformer import transformer
from qkv.spec.model import Joint, Separate

SHAPES = [
    (1, 24),
    (4, 24),
    *[(rows + more, 24) for rows in UP_TO for more in (0, 1)],
    (300, 24),
    (1, 1, 24),
    (2, 3, 24),
    (5, 7, 24),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("offset", [True, False])
@pytest.mark.parametrize("columns", [12, WIDE + 1])
def test_every_way_is_linear_for_any_number_of_rows(
    monkeypatch: pytest.MonkeyPatch, way: str, offset: bool, columns: int
) -> None:
    monkeypatch.setattr(module, "_quickest", lambda: (way,) * (len(UP_TO) + 1))
    linear = Linear(24, columns, bias=offset)
    linear.packed = packed(linear.weight, linear.bias)
    few = of_few_rows(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())
    for shape in SHAPES:
        for x in (torch.randn(shape), torch.randn(shape[::-1]).permute(*reversed(range(len(shape))))):
            with torch.inference_mode():
                exact = torch.nn.functional.linear(x, linear.weight, linear.bias)
                for found in (linear(x), few(x)):
                    assert found.shape == exact.shape
                    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)


def test_the_ways_are_chosen_by_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def noted(name: str) -> module.Way:
        return lambda weight, offset: lambda x: (taken.append(name), torch.zeros(*x.shape[:-1], len(weight)))[1]

    monkeypatch.setattr(module, "WAYS", {name: noted(name) for name in "abcd"})
    monkeypatch.setattr(module, "_quickest", lambda: tuple("abcd"))
    product = packed(torch.zeros(6, 24))
    for shape in SHAPES:
        product(torch.randn(shape))
    assert "".join(taken) == "".join("abcd"[sum(torch.Size(shape[:-1]).numel() > most for most in UP_TO)] for shape in SHAPES)


@pytest.mark.parametrize("way", WAYS)
def test_what_was_just_made_is_packed_in_no_precision(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(module, "_quickest", lambda: (way,) * (len(UP_TO) + 1))
    weight, offset, x = torch.randn(12, 24).double(), torch.randn(12).double(), torch.randn(4, 24).double()
    exact = torch.nn.functional.linear(x, weight, offset)
    torch.testing.assert_close(of_few_rows(weight, offset)(x), exact, rtol=0, atol=1e-12)


def test_a_weight_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out: list[int] = []
    monkeypatch.setattr(module, "_quickest", lambda: ("a", "b", "b", "b"))
    monkeypatch.setattr(module, "WAYS", dict.fromkeys("ab", lambda weight, offset: laid_out.append(1) or torch.neg))
    packed(torch.zeros(6, 24))
    assert len(laid_out) == 2


def test_what_is_quickest_here_holds_one_copy_at_most() -> None:
    for names in (module._quickest(), module.OF_WIDE):
        assert set(names) <= set(WAYS)
        assert names[-1] in COPIES
        assert len({name for name in names if name in COPIES}) == 1


@pytest.mark.skipif(not device.packs(torch.zeros(4, 4, dtype=torch.bfloat16)), reason="this CPU has no products in bf16")
@pytest.mark.parametrize("offset", [True, False])
def test_packed_in_bf16_is_linear_in_bf16(offset: bool) -> None:
    linear = Linear(24, 40, bias=offset).bfloat16()
    linear.packed = packed(linear.weight, linear.bias)
    for shape in [(1, 24), (4, 24), (300, 24), (5, 7, 24)]:
        x = torch.randn(shape).bfloat16()
        with torch.inference_mode():
            found, exact = linear(x), torch.nn.functional.linear(x, linear.weight, linear.bias)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("vocabulary", [Joint(30), Separate(30, 41)], ids=["joint", "separate"])
def test_a_packed_model_says_what_it_said_and_still_has_gradients(vocabulary: Joint | Separate) -> None:
    model = build(transformer(vocabulary, width=16, hidden=24, heads=2, depth=2))
    source, target = torch.randint(4, 30, (5, 6)), torch.randint(4, 30, (5, 7))
    sight = Padded(torch.tensor([6, 3, 1, 6, 5]))
    with torch.no_grad():
        before = model(source, sight, target)
        pack(model)

        torch.testing.assert_close(model(source, sight, target), before, rtol=0, atol=1e-5)
    logits = model(source, sight, target)
    assert torch.equal(logits, before), "where a gradient may be wanted nothing is packed"
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_only_on_a_cpu_and_only_where_oneDNN_is_anything_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(transformer(Joint(30), width=16, hidden=24, heads=2, depth=1))
    pack(model.double())
    assert all(module.packed is None for module in model.modules() if hasattr(module, "packed"))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    pack(model.float())
    assert all(module.packed is None for module in model.modules() if hasattr(module, "packed"))
    monkeypatch.undo()
    pack(model)
    looked_up = {model.source}  # a table that only gives vectors is multiplied by nothing
    assert all(module.packed is not None for module in model.modules() if hasattr(module, "packed") and module not in looked_up)


def test_threads_of_our_own_leave_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="inside"), device.side_by_side():
        assert torch.get_num_threads() == 1
        raise ValueError("inside")
    assert torch.get_num_threads() == before
