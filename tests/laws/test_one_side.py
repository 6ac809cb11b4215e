"""What holds for models with one side: decoders by themselves, and encoders by themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qkv.attention.sight import Late, Packed, Padded, Plain
from qkv.error import QkvError
from qkv.model.state import State
from qkv.spec.model import known_places

CLOSE = {"rtol": 0, "atol": 1e-12}


@torch.no_grad()
def test_changing_the_future_changes_nothing_before_it(writer) -> None:
    before = writer.model(writer.ids, Plain())
    for first in range(1, 9):
        changed = writer.ids.clone()
        changed[:, first:] = (changed[:, first:] + 5) % 23
        after = writer.model(changed, Plain())
        torch.testing.assert_close(after[:, :first], before[:, :first], rtol=0, atol=1e-13)
        assert ((after - before)[:, first:].abs().amax((0, 2)) > 1e-6).all(), "what lies behind a token must feel its change"


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 39), max_size=6))
@torch.no_grad()
def test_any_split_of_a_long_text_equals_a_full_pass(writer, cuts: set[int]) -> None:
    ids = torch.randint(0, 23, (3, 40), generator=torch.Generator().manual_seed(2))
    state, bounds = State(), [0, *sorted(cuts), 40]
    parts = [writer.model.decode(ids[:, a:b], Plain(), state) for a, b in itertools.pairwise(bounds)]
    torch.testing.assert_close(torch.cat(parts, 1), writer.model.decode(ids, Plain()), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("prefill", [0, 1, 5])
def test_steps_after_a_prefill_equal_a_full_pass(writer, prefill: int) -> None:
    state = State()
    parts = [writer.model.decode(writer.ids[:, :prefill], Plain(), state)] if prefill else []
    step = writer.model.stepper(Plain(), state)
    parts += [step(writer.ids[:, t])[:, None] for t in range(prefill, 9)]
    torch.testing.assert_close(torch.cat(parts, 1), writer.model.decode(writer.ids, Plain()), **CLOSE)
    assert state.length == 9


LENGTHS = [[3, 1, 5], [9], [4, 5], [1, 1, 7]]  # of the documents in each row
PACKED = Packed(
    torch.tensor([[n for n, length in enumerate(row) for _ in range(length)] for row in LENGTHS]),
    torch.tensor([[t for length in row for t in range(length)] for row in LENGTHS]),
)


def documents() -> Iterator[tuple[int, int, int]]:
    """The row of each document, its first column and the one after its last."""
    for row, lengths in enumerate(LENGTHS):
        for start, end in itertools.pairwise(itertools.accumulate(lengths, initial=0)):
            yield row, start, end


def hidden_and_gradients(room, pieces: list[tuple[torch.Tensor, Packed | Plain, torch.Tensor]]) -> list[torch.Tensor]:
    """What a model makes of some texts, and the gradient by all parameters of a sum that weighs every number of it."""
    through = room.model.decode if hasattr(room.model, "decode") else room.model.encode
    made = [through(ids, sight) for ids, sight, _ in pieces]
    total = sum(((hidden * upstream).sum() for hidden, (_, _, upstream) in zip(made, pieces, strict=True)), torch.zeros(()))
    gradients = torch.autograd.grad(total, list(room.model.parameters()), allow_unused=True)
    return [*(hidden.detach() for hidden in made), *(gradient for gradient in gradients if gradient is not None)]


def packed_is_alone(room) -> None:
    """The law of packing: documents in one row are what each is by itself, forward and backward."""
    width = room.spec.width
    upstream = torch.randn(4, 9, width, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    packed, *together = hidden_and_gradients(room, [(room.ids, PACKED, upstream)])
    pieces = [(room.ids[r : r + 1, a:b], Plain(), upstream[r : r + 1, a:b]) for r, a, b in documents()]
    found = hidden_and_gradients(room, pieces)
    alone, apart = found[: len(pieces)], found[len(pieces) :]
    for (row, start, end), hidden in zip(documents(), alone, strict=True):
        torch.testing.assert_close(packed[row : row + 1, start:end], hidden, **CLOSE)
    assert len(together) == len(apart) > 4
    for mine, wanted in zip(together, apart, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-11 * max(1.0, wanted.abs().max().item()))
    plain, *_ = hidden_and_gradients(room, [(room.ids, Plain(), upstream)])
    assert (plain - packed).abs().amax((1, 2))[[0, 2, 3]].min() > 1e-6, "what is not called another document must matter"


def test_packed_documents_are_what_each_is_alone_forward_and_backward(writer) -> None:
    packed_is_alone(writer)


def test_so_are_those_that_are_packed_for_an_encoder(reader) -> None:
    packed_is_alone(reader)


@torch.no_grad()
def test_texts_that_begin_late_are_what_each_is_alone(writer) -> None:
    starts = torch.tensor([0, 5, 8, 2])
    state = State()
    prefill = writer.model.decode(writer.ids, Late(starts), state)
    step = writer.model.stepper(Late(starts), state)
    more = torch.tensor([3, 9, 1, 7])
    stepped = step(more)
    for row, start in enumerate(starts.tolist()):
        alone = writer.model.decode(torch.cat([writer.ids[row, start:], more[row : row + 1]])[None], Plain())
        torch.testing.assert_close(prefill[row, start:], alone[0, :-1], **CLOSE)
        torch.testing.assert_close(stepped[row], alone[0, -1], **CLOSE)


@torch.no_grad()
def test_rows_that_change_places_go_on_from_what_they_remember(writer) -> None:
    state, rows = State(), torch.tensor([2, 0, 0, 3])
    writer.model.decode(writer.ids[:, :5], Plain(), state)
    state.reorder(rows)
    step = writer.model.stepper(Plain(), state)
    history = torch.cat([writer.ids[rows, :5], writer.ids[:, 5:6]], 1)
    torch.testing.assert_close(step(writer.ids[:, 5]), writer.model.decode(history, Plain())[:, -1], **CLOSE)


@torch.no_grad()
def test_a_text_longer_than_the_places_that_were_learned_is_refused(writer) -> None:
    if known_places(writer.spec) == 64:
        with pytest.raises(QkvError, match="knows 64 places, and a text has 65"):
            writer.model(torch.zeros(1, 65, dtype=torch.int64), Plain())
    else:
        assert writer.model(torch.zeros(1, 65, dtype=torch.int64), Plain()).isfinite().all()


@torch.no_grad()
def test_a_text_padded_with_junk_gives_what_it_gives_alone(reader) -> None:
    together = reader.model(reader.ids, Padded(reader.lengths))
    for row, length in enumerate(reader.lengths.tolist()):
        alone = reader.model(reader.ids[row : row + 1, :length], Plain())[0]
        torch.testing.assert_close(together[row] if alone.dim() == 1 else together[row, :length], alone, **CLOSE)
    assert (reader.model(reader.ids, Plain()) - together)[1:].abs().amax() > 1e-6, "junk must matter where it is no padding"


@torch.no_grad()
def test_every_place_of_a_reader_sees_every_other(reader) -> None:
    before = reader.model.encode(reader.ids, Plain())
    for place in range(9):
        changed = reader.ids.clone()
        changed[:, place] = (changed[:, place] + 5) % 23
        assert ((reader.model.encode(changed, Plain()) - before).abs().amax((0, 2)) > 1e-9).all()


@torch.no_grad()
@pytest.mark.parametrize("order", [[1, 0, 2, 3], [2, 2, 0, 1]])
def test_permuting_the_batch_permutes_the_output(reader, order: list[int]) -> None:
    whole = reader.model(reader.ids, Padded(reader.lengths))
    permuted = reader.model(reader.ids[order], Padded(reader.lengths[order]))
    torch.testing.assert_close(permuted, whole[order], **CLOSE)
