"""Documents in rows: every prediction once, each from its own document alone, in an order that is a pure function."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qkv.attention.sight import Packed, Plain
from qkv.data.pack import PackedPlan, Rows, each_in_order, each_whole, in_order, pack
from qkv.data.sides import Side
from qkv.data.symbols import END, OURS, START
from qkv.error import QkvError

FIRST = 100  # tokens start here, and each is another one: a prediction tells which document it is of, and where in it

LENGTHS = st.lists(st.integers(0, 14), min_size=1, max_size=12)


def side(lengths: list[int]) -> Side:
    """Documents of these lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Side(np.arange(FIRST, FIRST + offsets[-1]).astype(np.uint16), offsets)


def rows(plan: PackedPlan) -> list[Rows]:
    return [plan.rows(plan[index]) for index in range(len(plan))]


def predictions(documents: Side) -> list[tuple[int, int]]:
    """Every pair of a token and the one after it that a document has, with its frame."""
    framed = [[START, *documents[index].tolist(), END] for index in range(len(documents))]
    return [pair for each in framed for pair in pairwise(each)]


def made(found: list[Rows]) -> list[tuple[int, int]]:
    return [pair for batch in found for pair in zip(batch.given.flatten().tolist(), batch.truth.flatten().tolist(), strict=True)]


def assert_sound(batch: Rows) -> None:
    """What holds for every batch: documents follow each other, each with its places from 0 and its tokens in their order."""
    assert batch.given.shape == batch.truth.shape == batch.documents.shape == batch.pos.shape
    assert batch.tokens == batch.truth.numel()
    assert batch.whole == bool((batch.documents == 0).all())
    assert isinstance(batch.sight, Plain if batch.whole else Packed)
    for given_, truth, documents, pos in zip(batch.given, batch.truth, batch.documents, batch.pos, strict=True):
        assert documents[0] == 0 and pos[0] == 0
        for t in range(1, len(given_)):
            if documents[t] == documents[t - 1]:
                assert pos[t] == pos[t - 1] + 1 and given_[t] == truth[t - 1], "what is predicted is what comes next"
            else:
                assert documents[t] == documents[t - 1] + 1 and pos[t] == 0
                assert truth[t - 1] == END and given_[t] == START, "only a whole document makes room for the next"


@given(lengths=LENGTHS, length=st.integers(1, 20), tokens=st.integers(1, 70))
def test_validation_meets_every_prediction_once_and_in_order(lengths: list[int], length: int, tokens: int) -> None:
    found = rows(in_order(side(lengths), OURS, length=length, tokens=tokens))
    assert made(found) == predictions(side(lengths))
    for batch in found:
        assert_sound(batch)
    sizes = [tuple(batch.given.shape) for batch in found]
    total = sum(lengths) + len(lengths)
    assert all(width == length and (height - 1) * length < max(tokens, length) for height, width in sizes[:-1])
    assert total % length == 0 or sizes[-1] == (1, total % length)


@given(lengths=LENGTHS, length=st.integers(1, 20), tokens=st.integers(1, 70), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_an_epoch_meets_every_prediction_at_most_once_and_leaves_less_than_a_row_at_each_end(
    lengths: list[int], length: int, tokens: int, seed: int, epoch: int
) -> None:
    documents = side(lengths)
    found = rows(pack(documents, OURS, length=length, tokens=tokens, seed=seed, epoch=epoch))
    for batch in found:
        assert_sound(batch)
        assert batch.given.shape[0] <= max(1, tokens // length)
    known, met = Counter(predictions(documents)), Counter(made(found))
    assert met <= known, "nothing is made up, and nothing met twice"
    left, total = (known - met).total(), known.total()
    assert left < 2 * length and met.total() >= min(total, length)
    if total >= length:
        assert all(batch.given.shape[1] == length for batch in found) and left == total - met.total()
    else:
        assert left == 0, "what is shorter than a row is one"


def test_what_is_left_in_one_epoch_has_its_turn_in_another() -> None:
    documents = side([7, 3, 12, 1, 9])
    met: set[tuple[int, int]] = set()
    for epoch in range(30):
        met |= set(made(rows(pack(documents, OURS, length=8, tokens=16, seed=1, epoch=epoch))))
    assert met == set(predictions(documents))


def test_cuts_fall_everywhere() -> None:
    # one document, longer than a row: where the first row begins is where the cuts are
    firsts = Counter(
        min(batch.given[:, 0].min().item() for batch in rows(pack(side([99]), OURS, length=10, tokens=10, seed=1, epoch=epoch)))
        for epoch in range(200)
    )
    assert len(firsts) == 10


def test_the_order_is_a_pure_function_of_seed_and_epoch() -> None:
    documents = side([5, 9, 2, 14, 3, 3, 8, 1] * 4)

    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        return made(rows(pack(documents, OURS, length=6, tokens=18, seed=seed, epoch=epoch)))

    assert order(1, 2) == order(1, 2)
    found = [tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(found)) == 9
    plan = pack(documents, OURS, length=6, tokens=18, seed=1, epoch=0)
    backwards = [plan.rows(plan[index]) for index in reversed(range(len(plan)))][::-1]
    assert made(backwards) == made(rows(plan)), "whoever asks, and in whatever order"


def test_nothing_is_padded_and_a_batch_has_as_many_rows_as_it_has_room_for() -> None:
    plan = pack(side([5] * 100), OURS, length=8, tokens=32, seed=0, epoch=0)
    found = rows(plan)
    assert plan.padding == 0 and {batch.given.shape[0] for batch in found[:-1]} == {4}
    assert sum(batch.given.shape[0] for batch in found) in (600 // 8 - 1, 600 // 8)


def test_a_row_that_one_document_fills_needs_no_mask() -> None:
    (batch,) = rows(in_order(side([7]), OURS, length=8, tokens=8))
    assert batch.whole and isinstance(batch.sight, Plain)
    (batch,) = rows(in_order(side([3, 3]), OURS, length=8, tokens=8))
    assert isinstance(batch.sight, Packed) and batch.documents.tolist() == [[0] * 4 + [1] * 4]
    assert batch.pos.tolist() == [[0, 1, 2, 3] * 2]


def test_other_symbols_frame_other_vocabularies() -> None:
    other = replace(OURS, start=50, end=51)
    (batch,) = rows(in_order(side([2, 0]), other, length=4, tokens=4))
    assert batch.given.tolist() == [[50, 100, 101, 50]] and batch.truth.tolist() == [[100, 101, 51, 51]]


def test_rows_are_the_same_on_a_device() -> None:
    (batch,) = rows(in_order(side([3, 3]), OURS, length=8, tokens=8))
    moved = batch.to("cpu")
    assert torch.equal(moved.given, batch.given) and torch.equal(moved.pos, batch.pos) and moved.tokens == 8


@pytest.mark.parametrize(("length", "tokens"), [(0, 5), (5, 0)])
def test_rows_and_batches_of_nothing_are_refused(length: int, tokens: int) -> None:
    with pytest.raises(QkvError, match=f"at least one token, not {length} and {tokens}"):
        pack(side([3]), OURS, length=length, tokens=tokens, seed=0, epoch=0)


# Pictures: a row each


@given(
    number=st.integers(1, 9), size=st.integers(1, 7), tokens=st.integers(1, 40), seed=st.integers(0, 9), epoch=st.integers(0, 3)
)
def test_a_picture_is_a_row_and_its_end_is_not_predicted(number: int, size: int, tokens: int, seed: int, epoch: int) -> None:
    pictures = side([size] * number)
    shuffled = each_whole(pictures, OURS, tokens=tokens, seed=1, epoch=epoch)
    for plan in (shuffled, each_in_order(pictures, OURS, tokens=tokens)):
        found = rows(plan)
        for batch in found:
            assert_sound(batch)
            assert batch.whole and batch.given.shape[1] == size and batch.given.shape[0] <= max(1, tokens // size)
            assert (batch.given[:, 0] == START).all() and not (batch.truth == END).any()
            assert batch.pos.tolist() == [list(range(size))] * len(batch.pos)
        truth = [row for batch in found for row in batch.truth.tolist()]
        assert sorted(truth) == [pictures[index].tolist() for index in range(number)], "every picture, once and whole"
    assert truth == [pictures[index].tolist() for index in range(number)], "in order to validate"


def test_pictures_are_met_in_another_order_in_every_epoch_and_by_every_seed() -> None:
    pictures = side([3] * 20)

    def order(seed: int, epoch: int) -> tuple[int, ...]:
        plan = each_whole(pictures, OURS, tokens=9, seed=seed, epoch=epoch)
        return tuple(int(row[0]) for batch in rows(plan) for row in batch.truth)

    assert order(1, 2) == order(1, 2) and len({order(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9
