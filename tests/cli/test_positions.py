"""Where tokens stand: one linear map shifts all sinusoids, and `qkv look positions` draws what a model knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.conftest import Ask, Runs, refused

from qkv.error import QkvError
from qkv.look import positions
from qkv.model.position import RelativeBias
from qkv.spec.part import Attention
from qkv.spec.position import ALiBi, Learned, Relative, Rotary, Sinusoid


@given(distance=st.integers(-40, 200), half=st.integers(1, 40), base=st.sampled_from([100.0, 10000.0]))
def test_one_map_shifts_every_place(distance: int, half: int, base: float) -> None:
    found = positions.vectors(Sinusoid(base), 300, 2 * half)
    places = range(max(0, -distance), min(300, 300 - distance))
    moved = found.vectors[places.start : places.stop] @ found.shift(distance)
    torch.testing.assert_close(moved, found.vectors[places.start + distance : places.stop + distance], rtol=0, atol=1e-10)
    square = found.shift(distance) @ found.shift(distance).t()
    torch.testing.assert_close(square, torch.eye(2 * half, dtype=torch.float64), rtol=0, atol=1e-12)


def test_what_has_no_such_map_says_so() -> None:
    with pytest.raises(QkvError, match="the last sine has no cosine beside it"):
        positions.vectors(Sinusoid(), 9, 5).shift(1)
    with pytest.raises(QkvError, match="no one map shifts them"):
        positions.vectors(Learned(9), 9, 4, torch.zeros(9, 4)).shift(1)


def test_what_attention_makes_of_distances() -> None:
    alibi = positions.by_distance(Attention(2, bias=ALiBi()), 8, 3)
    assert alibi is not None and alibi.of_heads.tolist() == [
        [-(2**-4) * abs(each) for each in range(-3, 4)],
        [-(2**-8) * abs(each) for each in range(-3, 4)],
    ]
    rotary = positions.by_distance(Attention(2, rotate=Rotary()), 8, 5)
    assert rotary is not None and rotary.of_heads[0].argmax() == 5 and rotary.of_heads[0, 5] == pytest.approx(1)
    assert rotary.of_heads[0].flip(0).tolist() == pytest.approx(rotary.of_heads[0].tolist())
    bias = RelativeBias(Relative(8, 16, two_sided=True), 2)
    torch.nn.init.normal_(bias.weight, generator=torch.Generator().manual_seed(0))
    relative = positions.by_distance(Attention(2), 8, 4, bias)
    whole = bias(0, 9, 9)[0].detach()
    assert relative is not None
    for place, ahead in enumerate(relative.ahead):
        torch.testing.assert_close(relative.of_heads[:, place], whole[:, 4, 4 + ahead])
    assert positions.by_distance(Attention(2), 8, 4) is None


def test_a_person_looks_at_positions(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    out = str(tmp_path / "positions.png")
    answer = ask("look", "positions", "Sinusoid()", "--length", "60", "--width", "16", "--shift", "7", "--out", out)
    first, second, last = answer.out.splitlines()
    assert first == "Sinusoid(base=10000.0): 60 places, 16 channels" and last == out
    assert second.startswith("one linear map shifts any place by 7: off by ") and float(second.split()[-3]) < 1e-12
    assert (tmp_path / "positions.png").stat().st_size > 10_000
    assert ask("look", "positions", str(runs.language), "--out", out).out.startswith("Learned(longest=")
    assert "Sinusoid(" in ask("look", "positions", "universal-tiny", "--side", "encoder", "--out", out).out
    refused(ask("look", "positions", "gpt-tiny", "--out", out), "name a run that learned them")
    refused(ask("look", "positions", "t5-tiny", "--out", out), "name a run that learned it")
    refused(ask("look", "positions", "Causal()", "--out", out), "says no places")
    refused(ask("look", "positions", "Sinusoid()", "--shift", "0", "--out", out), "must be at least 1")
    refused(ask("look", "positions", "transformer-tiny", "--side", "middle", "--out", out), "has no 'middle'")
