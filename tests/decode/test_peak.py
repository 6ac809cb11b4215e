"""The likeliest token without all scores is the likeliest of all scores."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qkv import device
from qkv.decode import peak as module
from qkv.decode.generate import Greedy, Sample, Writer
from qkv.decode.peak import Peak
from qkv.decode.sample import Ban, NoRepeat
from qkv.error import QkvFailure
from qkv.model.transformer import DecoderOnly, build, pack, quantise
from qkv.papers.gpt import gpt
from qkv.spec import plain
from qkv.spec.model import Joint

pytestmark = pytest.mark.skipif(not device.has_int8(), reason="this build of PyTorch has no products in eight bits")

ENTRIES, WIDTH = 97, 16


def made(seed: int, *changes: str) -> DecoderOnly:
    """A small decoder whose entries differ by thousands in length, and whose offset, if it has one, matters."""
    spec = gpt(Joint(ENTRIES), width=WIDTH, heads=2, depth=1, longest=128)
    for change in changes:
        spec = plain.change(spec, change)
    model = build(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    model.output.weight.data *= torch.randn(ENTRIES, 1, generator=generator).mul(2).exp()
    return model.eval()


@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    change=st.sampled_from(["tie=Untied()", "output.offset=true", "output.scaled=true"]),
    banned=st.sets(st.integers(0, ENTRIES - 1), max_size=ENTRIES - 1),
    close=st.booleans(),
)
def test_it_is_the_largest_of_all(seed: int, rows: int, dtype: torch.dtype, change: str, banned: set[int], close: bool) -> None:
    model, generator = made(seed, change).to(dtype), torch.Generator().manual_seed(seed)
    if close:  # entries that all but the last bits call the same
        away = 1e-4 * torch.randn(ENTRIES - 1, 1, generator=generator)
        model.output.weight.data[1:] = model.output.weight.data[0] * (1 + away).to(dtype)
    hidden = torch.randn(rows, WIDTH, generator=generator).to(dtype)
    allowed = torch.ones(ENTRIES, dtype=torch.bool)
    allowed[list(banned)] = False
    with torch.inference_mode():
        scores = model.logits(hidden).masked_fill(~allowed, -torch.inf)
        found = Peak(model)(hidden, allowed)
    assert allowed[found].all()
    lost = scores.amax(1).double() - scores.gather(1, found[:, None])[:, 0].double()
    summed = hidden.double().norm(dim=1) * model.output.weight.double().norm(dim=1).max()  # what the roundings are a part of
    assert (lost <= 8 * torch.finfo(dtype).eps * summed).all()


def test_few_are_computed_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gpt(Joint(20000), width=256, heads=2, depth=1, longest=16)
    model, seen = build(spec), []
    largest = Peak._largest
    monkeypatch.setattr(Peak, "_largest", lambda self, x, entries: seen.append(len(entries)) or largest(self, x, entries))
    hidden = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = Peak(model)(hidden, torch.ones(20000, dtype=torch.bool))
        assert torch.equal(found, model.logits(hidden).argmax(1))
    assert 0 < max(seen) < 1000


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small tables count as large; what was asked for is noted."""
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(module, "TOKENS", 1)
    asked: list[int] = []
    work = Peak.__call__
    monkeypatch.setattr(Peak, "__call__", lambda self, hidden, allowed: asked.append(len(hidden)) or work(self, hidden, allowed))
    return asked


def test_what_is_written_greedily_is_the_same(make_writer: Callable[..., Writer], eager: list[int]) -> None:
    prompts = ["the", "quick brown", "lazy dog jumps"]
    quick = make_writer().generate(prompts, Greedy(), length=12)
    assert eager
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Peak, "serves", lambda *given: False)
        eager.clear()
        assert make_writer().generate(prompts, Greedy(), length=12) == quick
    assert not eager


def test_it_serves_only_where_nothing_else_is_asked_for(make_writer: Callable[..., Writer], eager: list[int]) -> None:
    writer = make_writer()
    writer.generate(["the"], Sample(), length=3)
    writer.generate(["the"], Greedy(), [NoRepeat(2)], length=3)
    writer.generate(["the"] * 5, Greedy(), length=3)
    assert not eager
    writer.generate(["the"], Greedy(), [Ban((7,))], length=3)
    assert eager
    eager.clear()
    quantise(writer.model.float())
    writer.generate(["the"], Greedy(), length=3)
    assert not eager


def test_numbers_that_are_none_are_refused_as_ever(make_writer: Callable[..., Writer], eager: list[int]) -> None:
    writer = make_writer()
    pack(writer.model.float())
    writer.model.target.places.data.fill_(torch.nan)
    with pytest.raises(QkvFailure, match="computes no numbers"):
        writer.generate(["the"], Greedy(), length=3)
    assert eager
