"""Pictures and sounds, written byte by byte: each byte is what a pass over all before it says, and what is kept is kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from qkv.attention.sight import Plain
from qkv.data.symbols import START
from qkv.data.tokenizer import Tokenizer
from qkv.decode import paint as painting
from qkv.decode.generate import Greedy, Sample, Writer
from qkv.decode.paint import go_on, paint
from qkv.decode.sample import Temperature, TopK
from qkv.error import QkvError
from qkv.model.transformer import DecoderOnly
from qkv.spec.data import Pictures
from qkv.store import Stored

FORM = Pictures(4, 3, 3)  # 36 bytes
BYTES = slice(4, 260)


def writer_of(model: DecoderOnly) -> Writer:
    tokenizer = Tokenizer.of_bytes()
    return Writer(Stored(model, tokenizer, tokenizer))


@pytest.fixture(scope="module")
def writer(make_decoder: Callable[..., DecoderOnly]) -> Writer:
    """A writer with exactly as many places as a picture has bytes, that would rather end, or say a special entry."""
    model = make_decoder(260, longest=FORM.size, seed=2, ending=9.0)
    model.output.weight.data[:4] = model.output.weight.data[2]
    return writer_of(model)


@torch.no_grad()
def likeliest(model: DecoderOnly, seen: list[int]) -> int:
    """The likeliest byte after some entries, as an entry, by a pass over all of them."""
    return int(model(torch.tensor([seen]), Plain())[0, -1, BYTES].argmax()) + 4


def test_every_byte_is_what_a_pass_over_those_before_it_says(writer: Writer) -> None:
    (picture,) = paint(writer, FORM, Greedy())
    assert picture.shape == (4, 3, 3) and picture.dtype == np.uint8
    seen = [START]
    for byte in picture.flatten().tolist():
        assert likeliest(writer.model, seen) == byte + 4
        seen.append(byte + 4)
    assert len(seen) - 1 == writer.places, "the last byte is never read"


def test_a_drawn_picture_is_of_bytes_alone_and_the_same_by_the_same_seed(writer: Writer) -> None:
    first, again, other = (paint(writer, FORM, Sample(seed), count=3) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len({picture.tobytes() for picture in [*first, *other]}) == 6


def test_a_picture_does_not_depend_on_how_many_are_painted(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    five = paint(writer, FORM, count=5)
    monkeypatch.setattr(painting, "BATCH", 2)
    for few in (paint(writer, FORM, count=5), paint(writer, FORM, count=2)):
        assert all((a == b).all() for a, b in zip(five, few, strict=False))


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("how", [Greedy(), Sample(3)])
def test_the_top_is_kept_and_the_rest_is_written_after_it(writer: Writer, rows: int, how: Greedy | Sample) -> None:
    top = np.random.default_rng(1).integers(0, 256, (rows, 3, 3), dtype=np.uint8)
    for picture in paint(writer, FORM, how, count=1 if isinstance(how, Greedy) else 3, top=top):
        assert (picture[:rows] == top).all()
        if isinstance(how, Greedy):
            seen = [START, *(top.flatten().astype(int) + 4).tolist()]
            for byte in picture[rows:].flatten().tolist():
                assert likeliest(writer.model, seen) == byte + 4
                seen.append(byte + 4)


def test_rules_hold(writer: Writer) -> None:
    (greedy,) = paint(writer, FORM, Greedy())
    for rules in ([TopK(1)], [Temperature(1e-6)]):
        (found,) = paint(writer, FORM, Sample(5), rules)
        assert (found == greedy).all()


def test_what_does_not_fit_is_refused(writer: Writer) -> None:
    with pytest.raises(QkvError, match="a picture of 48 bytes is more than the 36 places that the model knows"):
        paint(writer, Pictures(4, 4, 3))
    for shape in ((4, 3, 3), (1, 4, 3), (1, 3, 1)):
        with pytest.raises(QkvError, match="expected fewer than 4 rows of 3 pixels with 3 channel"):
            paint(writer, FORM, top=np.zeros(shape, np.uint8))


# Sounds


@pytest.mark.parametrize("begun", [0, 3, 11, 12, 40])
def test_a_sound_goes_on_past_the_places_by_the_later_half_of_its_context(
    make_decoder: Callable[..., DecoderOnly], begun: int
) -> None:
    model = make_decoder(260, longest=12, seed=3, ending=-9.0)
    prompt = np.random.default_rng(2).integers(0, 256, begun, dtype=np.uint8)
    found = go_on(writer_of(model), prompt, Greedy(), length=50)
    assert len(found) == 50
    whole = [START, *(prompt.astype(int) + 4).tolist()]
    first = 0 if len(whole) <= 12 else len(whole) - 6
    for byte in found.tolist():
        if len(whole) - first > 12:
            first = len(whole) - 6
        assert likeliest(model, whole[first:]) == byte + 4
        whole.append(byte + 4)


def test_the_dice_fall_anew_on_every_page(make_decoder: Callable[..., DecoderOnly]) -> None:
    model = make_decoder(260, longest=8)
    model.output.weight.data.zero_()  # every byte is as likely as any other: what is drawn is the dice alone
    found = go_on(writer_of(model), np.empty(0, np.uint8), Sample(1), length=64).tolist()
    windows = [tuple(found[start : start + 4]) for start in range(0, len(found) - 4)]
    assert len(set(windows)) == len(windows)


def test_a_context_may_be_narrower_than_the_places(make_decoder: Callable[..., DecoderOnly]) -> None:
    wide = make_decoder(260, longest=40, seed=3, ending=-9.0)
    narrow = [go_on(writer_of(wide), np.arange(9, dtype=np.uint8), Greedy(), length=30, context=n).tolist() for n in (10, 40)]
    assert narrow[0][:1] == narrow[1][:1] and narrow[0] != narrow[1]


def test_a_sound_may_end_by_itself(make_decoder: Callable[..., DecoderOnly]) -> None:
    lengths = [
        len(go_on(writer_of(make_decoder(260, longest=12, seed=seed, ending=1.0)), np.empty(0, np.uint8), Sample(1), length=40))
        for seed in range(8)
    ]
    assert min(lengths) < 40
