"""Decoding with a memory of what was seen equals one full pass, however it is cut."""

from __future__ import annotations

import itertools
from functools import partial

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from qkv.attention.sight import Padded, Plain
from qkv.model.attention import MemoryAttention
from qkv.model.context import Memory
from qkv.model.linear import Linear
from qkv.model.state import State
from qkv.spec.choice import Soft

CLOSE = {"rtol": 0, "atol": 1e-12}


@torch.no_grad()
def test_prefill_and_single_steps_equal_a_full_pass(world) -> None:
    memory = world.model.encode(world.source, world.sight)
    whole = world.model.decode(world.target, memory)
    for prefill in range(1, 9):
        state = State()
        parts = [world.model.decode(world.target[:, :prefill], memory, state)]
        parts += [world.model.decode(world.target[:, t : t + 1], memory, state) for t in range(prefill, 8)]
        torch.testing.assert_close(torch.cat(parts, 1), whole, **CLOSE)
        assert state.length == 8


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 39), max_size=6))
@torch.no_grad()
def test_any_split_of_a_long_target_equals_a_full_pass(world, cuts: set[int]) -> None:
    target = torch.randint(0, world.spec.vocabulary.target, (4, 40), generator=torch.Generator().manual_seed(2))
    memory = world.model.encode(world.source, world.sight)
    state, bounds = State(), [0, *sorted(cuts), 40]
    parts = [world.model.decode(target[:, a:b], memory, state) for a, b in itertools.pairwise(bounds)]
    torch.testing.assert_close(torch.cat(parts, 1), world.model.decode(target, memory), **CLOSE)


@torch.no_grad()
def test_steps_that_look_everything_up_once_equal_a_full_pass(world) -> None:
    memory = world.model.encode(world.source, world.sight)
    state = State()
    step = world.model.stepper(memory, state)
    parts = [step(world.target[:, t])[:, None] for t in range(8)]
    torch.testing.assert_close(torch.cat(parts, 1), world.model.decode(world.target, memory), **CLOSE)
    assert state.length == 8


@torch.no_grad()
def test_a_short_sentence_alone_steps_as_a_full_pass(world, monkeypatch) -> None:
    """Its memory's keys and values are folded with the maps around them, in a finished model."""
    called = []
    alone = MemoryAttention._alone
    monkeypatch.setattr(MemoryAttention, "_alone", lambda self, *given: called.append(1) or alone(self, *given))
    for module in world.model.modules():
        if isinstance(module, Linear):
            monkeypatch.setattr(module, "packed", partial(functional.linear, weight=module.weight, bias=module.bias))
    for sight, rows_sight in ((Plain(), Plain()), (Padded(torch.tensor([1])), Padded(torch.tensor([1] * 3)))):
        called.clear()
        memory = world.model.encode(world.source[:1, :2], sight)
        state = State()
        step = world.model.stepper(memory, state)
        for t in range(4):
            stepped = step(world.target[:3, t])
            rows = Memory(memory.vectors.expand(3, -1, -1), rows_sight, memory.ids.expand(3, -1))
            torch.testing.assert_close(stepped, world.model.decode(world.target[:3, : t + 1], rows)[:, -1], **CLOSE)
        asking = [module for module in world.model.modules() if isinstance(module, MemoryAttention)]
        products = bool(asking) and all(each.q and each.score.plain and isinstance(each.score.choice, Soft) for each in asking)
        assert bool(called) == (isinstance(sight, Plain) and products)


@torch.no_grad()
def test_hypotheses_that_change_places_and_sentences_that_leave_equal_full_passes(world) -> None:
    beam, sentences = 3, 4
    generator = torch.Generator().manual_seed(3)
    memory = world.model.encode(world.source, world.sight)
    state = State()
    history = torch.empty(sentences * beam, 0, dtype=torch.int64)
    for step in range(6):
        new = torch.randint(0, world.spec.vocabulary.target, (len(history), 1), generator=generator)
        history = torch.cat([history, new], 1)
        stepped = world.model.decode(new, memory, state)[:, -1]
        doubled = Memory(
            memory.vectors.repeat_interleave(beam, 0),
            type(world.sight)(memory.sight.lengths.repeat_interleave(beam)),
            memory.ids.repeat_interleave(beam, 0),
        )
        torch.testing.assert_close(stepped, world.model.decode(history, doubled)[:, -1], **CLOSE)
        within = torch.randint(0, beam, (len(history),), generator=generator)
        rows = torch.arange(len(history)) // beam * beam + within
        history = history[rows]
        state.reorder(rows)
        if step == 2:
            kept = torch.tensor([1, 3])
            state.keep(kept, beam)
            history = history.view(-1, beam, history.shape[1])[kept].flatten(0, 1)
            memory = Memory(memory.vectors[kept], memory.sight.keep(kept), memory.ids[kept])
