"""Who goes back has never been further: what decoding remembers, trimmed and gone on from, is what a full pass gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qkv.attention.sight import Late, Plain
from qkv.model.context import Memory
from qkv.model.state import State

CLOSE = {"rtol": 0, "atol": 1e-12}


def random_ids(rows: int, length: int, seed: int = 4) -> torch.Tensor:
    return torch.randint(0, 19, (rows, length), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=5))
@torch.no_grad()
def test_a_text_that_goes_on_and_back_and_on_is_one_that_never_went_further(writer, moves: list[tuple[int, int]]) -> None:
    """Each move reads some tokens at once and then forgets some of all that was read, which may be all, or none."""
    state, history = State(), random_ids(3, 0)
    for number, (on, back) in enumerate(moves):
        more = random_ids(3, on, number)
        hidden = writer.model.decode(more, Plain(), state)
        history = torch.cat([history, more], 1)
        torch.testing.assert_close(hidden, writer.model.decode(history, Plain())[:, -on:], **CLOSE)
        history = history[:, : max(0, history.shape[1] - back)]
        state.trim(history.shape[1])
        assert state.length == history.shape[1]


@torch.no_grad()
@pytest.mark.parametrize("left", [1, 4, 9])
def test_steps_that_looked_everything_up_go_back_with_it(writer, left: int) -> None:
    state = State()
    step = writer.model.stepper(Plain(), state)
    for place in range(9):
        step(writer.ids[:, place])
    state.trim(left)
    more = random_ids(4, 3)
    whole = writer.model.decode(torch.cat([writer.ids[:, :left], more], 1), Plain())
    for place in range(3):
        torch.testing.assert_close(step(more[:, place]), whole[:, left + place], **CLOSE)


@torch.no_grad()
def test_texts_that_begin_late_go_back_together(writer) -> None:
    starts, state = torch.tensor([0, 5, 2, 3]), State()
    sight = Late(starts)
    writer.model.decode(writer.ids, sight, state)
    state.trim(6)
    more = random_ids(4, 2)
    hidden = writer.model.decode(more, sight, state)
    whole = writer.model.decode(torch.cat([writer.ids[:, :6], more], 1), sight)
    torch.testing.assert_close(hidden, whole[:, 6:], **CLOSE)


@torch.no_grad()
def test_rows_that_changed_places_go_back_in_their_new_ones(writer) -> None:
    state, rows = State(), torch.tensor([2, 0, 0, 3])
    writer.model.decode(writer.ids, Plain(), state)
    state.reorder(rows)
    state.trim(4)
    state.keep(torch.tensor([1, 3]), 1)
    history = torch.cat([writer.ids[rows][[1, 3], :4], random_ids(2, 2)], 1)
    hidden = writer.model.decode(history[:, 4:], Plain(), state)
    torch.testing.assert_close(hidden, writer.model.decode(history, Plain())[:, 4:], **CLOSE)


@torch.no_grad()
def test_going_no_further_back_than_one_stands_changes_nothing(writer) -> None:
    state = State()
    writer.model.decode(writer.ids[:, :5], Plain(), state)
    for length in (5, 6, 100):
        state.trim(length)
        assert state.length == 5
    hidden = writer.model.decode(writer.ids[:, 5:], Plain(), state)
    torch.testing.assert_close(hidden, writer.model.decode(writer.ids, Plain())[:, 5:], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("left", [0, 3, 8])
def test_a_target_goes_back_and_keeps_its_memory(world, left: int) -> None:
    """By a pass, and by a step that looked everything up before."""
    beam = 2
    memory = world.model.encode(world.source, world.sight)
    target = world.target.repeat_interleave(beam, 0)
    sight = type(world.sight)(memory.sight.lengths.repeat_interleave(beam))
    doubled = Memory(memory.vectors.repeat_interleave(beam, 0), sight, memory.ids.repeat_interleave(beam, 0))
    state = State()
    step = world.model.stepper(memory, state)
    world.model.decode(target, memory, state)
    more = random_ids(4 * beam, 3)
    whole = world.model.decode(torch.cat([target[:, :left], more], 1), doubled)[:, left:]
    state.trim(left)
    torch.testing.assert_close(world.model.decode(more, memory, state), whole, **CLOSE)
    state.trim(left)
    for place in range(3):
        torch.testing.assert_close(step(more[:, place]), whole[:, place], **CLOSE)
