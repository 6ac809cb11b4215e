"""What holds for models with one side: decoders by themselves, and encoders by themselves."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qkv.attention.sight import Late, Packed, Padded, Plain
from qkv.error import QkvError
from qkv.model.state import State
from qkv.spec.position import Learned

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


@torch.no_grad()
def test_packed_documents_are_what_each_is_alone(writer) -> None:
    lengths = [[3, 1, 5], [9], [4, 5], [1, 1, 7]]
    documents = torch.tensor([[n for n, length in enumerate(row) for _ in range(length)] for row in lengths])
    pos = torch.tensor([[t for length in row for t in range(length)] for row in lengths])
    packed = writer.model(writer.ids, Packed(documents, pos))
    for r, row in enumerate(lengths):
        for start, end in itertools.pairwise(itertools.accumulate(row, initial=0)):
            alone = writer.model(writer.ids[r : r + 1, start:end], Plain())
            torch.testing.assert_close(packed[r : r + 1, start:end], alone, **CLOSE)


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
    if isinstance(writer.spec.embedding.position, Learned):
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
