"""Dropout is a function of (seed, step, path), at the right rate and scale, in the two kinds of place that the paper names."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qkv.attention.sight import Plain
from qkv.model.dropout import Noise
from qkv.model.transformer import EncoderDecoder, build
from qkv.papers.catalogue import CATALOGUE, named
from qkv.papers.transformer import transformer
from qkv.spec.model import EncoderDecoder as Spec
from qkv.spec.model import Joint

LIKE = torch.empty(500, 400)
PATH = ("encoder", "0", "1")


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_the_rate_the_scale_and_the_mean_are_right(probability: float) -> None:
    mask = Noise(1, 2).mask(LIKE, probability, PATH)
    kept = mask > 0
    assert torch.unique(mask).numel() == 2
    torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / (1 - probability)), rtol=2e-4, atol=0)
    deviation = (probability * (1 - probability) / mask.numel()) ** 0.5
    assert abs(1 - kept.float().mean().item() - probability) < 5 * deviation + 1e-5
    assert mask.double().mean().item() == pytest.approx(1, abs=6 * deviation / (1 - probability))


@given(size=st.integers(1, 50), seed=st.integers(0, 2**31), step=st.integers(0, 10**6), probability=st.floats(0.01, 0.9))
def test_the_same_key_gives_the_same_mask_and_moves_no_global_generator(
    size: int, seed: int, step: int, probability: float
) -> None:
    like = torch.empty(3, size)
    before = torch.get_rng_state()
    first, second = (Noise(seed, step).mask(like, probability, PATH) for _ in range(2))
    assert torch.equal(first, second) and first.shape == like.shape and first.dtype == like.dtype
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_step_or_path_gives_an_independent_mask() -> None:
    keys = [
        ((1, 2), PATH),
        ((2, 1), PATH),
        ((1, 3), PATH),
        ((2, 2), PATH),
        ((1, 2), ("encoder", "0", "2")),
        ((1, 2), ("decoder", "0", "1")),
    ]
    masks = [Noise(*key).mask(LIKE, 0.5, path).flatten() > 0 for key, path in keys]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert abs((one == other).float().mean().item() - 0.5) < 0.01


def test_neighbours_and_rows_are_independent() -> None:
    mask = (Noise(1, 2).mask(LIKE, 0.5, PATH) > 0).float()
    for shift in (1, 2, 3, 4):
        assert abs((mask[:, shift:] == mask[:, :-shift]).float().mean().item() - 0.5) < 0.01
    assert abs((mask[1:] == mask[:-1]).float().mean().item() - 0.5) < 0.01
    assert (mask.mean(0) - 0.5).abs().max() < 0.15


def test_half_precision_has_the_same_mask() -> None:
    full, half = (Noise(1, 2).mask(torch.empty(40, 40, dtype=dtype), 0.3, PATH) for dtype in (torch.float32, torch.bfloat16))
    assert half.dtype == torch.bfloat16 and torch.equal(full > 0, half > 0)


def paths(spec: Spec) -> Iterator[tuple[str, ...]]:
    """Everywhere a model draws a mask."""
    for side in ("encoder", "decoder"):
        if not hasattr(spec, side):
            continue
        yield (side,)
        for level, block in enumerate(getattr(spec, side).tiled()):
            for place in range(len(block.sublayers)):
                yield (side, str(level), str(place))


@pytest.mark.parametrize("name", CATALOGUE)
def test_no_two_places_of_a_model_share_their_key(name: str) -> None:
    spec = named(name, Joint(100))
    assert len({zlib.crc32("/".join(path).encode()) for path in paths(spec)}) == len(list(paths(spec)))


@pytest.fixture
def model() -> EncoderDecoder:
    return build(transformer(Joint(23), width=16, hidden=24, heads=2, depth=2, dropout=0.4)).double()


def test_a_mask_is_drawn_once_in_every_place_and_nowhere_else(model: EncoderDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, ...]] = []
    mask = Noise.mask

    def noted(self: Noise, like: torch.Tensor, probability: float, path: tuple[str, ...]) -> torch.Tensor:
        drawn.append(path)
        assert probability == 0.4
        return mask(self, like, probability, path)

    monkeypatch.setattr(Noise, "mask", noted)
    ids = torch.randint(0, 23, (2, 5), generator=torch.Generator().manual_seed(1))
    model(ids, Plain(), ids, Noise(1, 1))
    assert sorted(drawn) == sorted(paths(model.spec))
    drawn.clear()
    model(ids, Plain(), ids)
    assert drawn == []


def test_a_pass_is_a_function_of_its_noise(model: EncoderDecoder) -> None:
    ids = torch.randint(0, 23, (2, 5), generator=torch.Generator().manual_seed(1))
    one, same, other, calm = (model(ids, Plain(), ids, noise) for noise in (Noise(1, 1), Noise(1, 1), Noise(1, 2), None))
    assert torch.equal(one, same)
    assert (one - other).abs().max() > 0.01 and (one - calm).abs().max() > 0.01
    assert torch.equal(model.eval()(ids, Plain(), ids), model.train()(ids, Plain(), ids)), (
        "no noise, no dropout, whatever the mode"
    )
