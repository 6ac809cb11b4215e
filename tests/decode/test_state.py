"""What decoding remembers: it grows by doubling, copies nothing on a step, and what never changes never moves."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from qkv.attention.sight import Padded
from qkv.model.state import Keys, Once, State


def made(rows: int, length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, length, 3, generator=generator), torch.randn(rows, 2, length, 3, generator=generator)


@given(pieces=st.lists(st.integers(1, 20), min_size=1, max_size=12))
def test_what_is_appended_is_what_is_given_back(pieces: list[int]) -> None:
    k, v = made(3, sum(pieces))
    slot, end = Keys(), 0
    for piece in pieces:
        keys, values = slot.append(k[:, :, end : end + piece], v[:, :, end : end + piece])
        end += piece
        assert torch.equal(keys, k[:, :, :end]) and torch.equal(values, v[:, :, :end])


def test_it_grows_by_doubling_and_stays_in_place_between() -> None:
    k, v = made(2, 200)
    slot, places = Keys(), []
    for t in range(200):
        keys, _ = slot.append(k[:, :, t : t + 1], v[:, :, t : t + 1])
        places.append(keys.data_ptr())
    moves = [t for t in range(1, 200) if places[t] != places[t - 1]]
    assert moves == [16, 34, 70, 142]


@given(seed=st.integers(0, 1000), steps=st.integers(1, 20))
def test_reorder_and_keep_move_rows_as_indexing_does(seed: int, steps: int) -> None:
    beam, generator = 3, torch.Generator().manual_seed(seed)
    state, sentences = State(), 4
    expected = torch.empty(sentences * beam, 2, 0, 3)
    for step in range(steps):
        k, v = made(sentences * beam, 1, seed * 100 + step)
        keys, values = state.keys(("decoder", "0")).append(k, v)
        expected = torch.cat([expected, k], 2)
        assert torch.equal(keys, expected)
        assert torch.equal(values[:, :, -1:], v)
        within = torch.randint(0, beam, (sentences * beam,), generator=generator)
        rows = torch.arange(sentences * beam) // beam * beam + within
        state.reorder(rows)
        expected = expected[rows]
        if sentences > 1 and step % 5 == 2:
            kept = torch.arange(sentences)[1:]
            state.keep(kept, beam)
            sentences -= 1
            expected = expected.view(-1, beam, *expected.shape[1:])[kept].flatten(0, 1)


def test_once_is_unmoved_by_reorder_and_loses_the_sentences_that_leave() -> None:
    k, v = made(3, 5)
    state, once = State(), Once(k, v, Padded(torch.tensor([5, 2, 4])))
    state.slots[("decoder", "0", "1")] = once
    state.reorder(torch.tensor([1, 0, 3, 3, 4, 5]))
    assert once.k is k and once.v is v
    left = k[[0, 2]], v[[0, 2]]
    state.keep(torch.tensor([0, 2]), 2)
    assert torch.equal(once.k, left[0]) and torch.equal(once.v, left[1])
    assert isinstance(once.sight, Padded) and once.sight.lengths.tolist() == [5, 4]


def test_slots_of_different_paths_know_nothing_of_each_other() -> None:
    state = State()
    first, second = state.keys(("a",)), state.keys(("b",))
    assert first is not second and first is state.keys(("a",))
    first.append(*made(2, 3))
    assert (first.length, second.length) == (3, 0)


@given(pieces=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30)), min_size=1, max_size=8))
def test_what_is_trimmed_is_forgotten_and_written_over(pieces: list[tuple[int, int]]) -> None:
    slot, expected = Keys(), torch.empty(3, 2, 0, 3)
    for number, (piece, left) in enumerate(pieces):
        k, v = made(3, piece, number)
        keys, values = slot.append(k, v)
        expected = torch.cat([expected, k], 2)
        assert torch.equal(keys, expected) and torch.equal(values[:, :, -piece:], v)
        slot.trim(left)
        expected = expected[:, :, :left]
        assert slot.length == expected.shape[2]


def test_memory_is_not_trimmed() -> None:
    k, v = made(2, 5)
    state = State()
    state.slots[("decoder", "0", "1")] = once = Once(k, v, Padded(torch.tensor([5, 2])))
    state.keys(("decoder", "0", "0")).append(*made(2, 4))
    state.length = 4
    state.trim(1)
    assert (state.length, state.keys(("decoder", "0", "0")).length) == (1, 1)
    assert once.k is k and once.v is v
