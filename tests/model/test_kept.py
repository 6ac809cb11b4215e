"""What sparse heads remember: no more than their patterns may see, and decoding is what it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qkv.attention.sight import Late, Plain
from qkv.error import QkvError
from qkv.model import state as memory
from qkv.model.state import Kept, State
from qkv.model.transformer import DecoderOnly, build
from qkv.spec import model as spec
from qkv.spec.part import Attention, Block, FeedForward, PreNorm, Stack
from qkv.spec.pattern import Causal, Local, PerHead, SameBlock, Stride, Summary
from qkv.spec.position import ALiBi, NoBias, Sinusoid

PATTERNS: dict[str, Any] = {
    "local": Causal() & Local(8),
    "strided": Causal() & (Local(8) | Stride(8)),
    "fixed": Causal() & (SameBlock(8) | Summary(8, 2)),
    "summaries alone": Causal() & Summary(8, 2),
    "heads": Causal() & PerHead(Local(8), SameBlock(8) | Summary(8, 1), Stride(8), SameBlock(8) | Summary(8, 1, slot=3)),
}
LENGTH = 90
each_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that forgets soon."""
    monkeypatch.setattr(memory, "SPARE", 4)
    monkeypatch.setattr(memory, "LEAST_KEPT", 6)


def small(pattern: Any, bias: NoBias | ALiBi = NoBias()) -> DecoderOnly:
    block = Block(Attention(4, pattern, bias=bias), FeedForward(12), norm=PreNorm())
    described = spec.DecoderOnly(spec.Joint(11), 16, spec.Embedding(Sinusoid()), Stack(block, depth=2))
    return build(described, 3).double().eval()


def stepped(model: DecoderOnly, ids: torch.Tensor, state: State, sight: Any = Plain()) -> list[torch.Tensor]:
    step = model.stepper(sight, state)
    return [step(ids[:, t]) for t in range(state.length, ids.shape[1])]


@pytest.mark.parametrize("bias", [NoBias(), ALiBi()], ids=["", "ALiBi"])
@pytest.mark.parametrize("first", [1, 5, 40, 89])
@each_pattern
@torch.inference_mode()
def test_decoding_with_little_memory_is_a_full_pass(pattern: Any, first: int, bias: NoBias | ALiBi) -> None:
    """Whatever is read at once, and then token by token or a few at a time."""
    model, ids = small(pattern, bias), torch.randint(0, 11, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    full, state = model.decode(ids, Plain()), State()
    torch.testing.assert_close(model.decode(ids[:, :first], Plain(), state), full[:, :first], rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.stack(stepped(model, ids, state), 1), full[:, first:], rtol=0, atol=1e-10)
    state = State()
    pieces = [model.decode(piece, Plain(), state) for piece in ids.split(7, 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), full, rtol=0, atol=1e-10)


@each_pattern
@torch.inference_mode()
def test_texts_that_end_together_forget_each_for_itself(pattern: Any) -> None:
    model, ids = small(pattern), torch.randint(0, 11, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    starts, state = torch.tensor([0, 3, 17]), State()
    sight = Late(starts)
    model.decode(ids[:, :30], sight, state)
    found = torch.stack(stepped(model, ids, state, sight), 1)
    for row, start in enumerate(starts.tolist()):
        alone = model.decode(ids[row : row + 1, start:], Plain())
        torch.testing.assert_close(found[row], alone[0, 30 - start :], rtol=0, atol=1e-10)


def held(state: State) -> dict[str, int]:
    """The tokens for which there is room, by the last names of their slots."""
    return {"/".join(path[1:]): slot._keys._held.shape[1] for path, slot in state.slots.items() if isinstance(slot, Kept)}  # pyright: ignore


@torch.inference_mode()
def test_memory_grows_no_more_than_it_must() -> None:
    """A local head has room for a few windows however long a text is, a fixed one for its block and the summaries."""
    for length in (200, 400):
        ids, rooms = torch.randint(0, 11, (1, length), generator=torch.Generator().manual_seed(0)), {}
        for name in ("local", "fixed"):
            state = State()
            model = small(PATTERNS[name])
            model.decode(ids[:, :150], Plain(), state)
            stepped(model, ids, state)
            rooms[name] = max(held(state).values())
        assert rooms["local"] <= 2 * (2 * (8 + 4) + 6)
        assert rooms["fixed"] <= 2 * (2 * (2 * length // 8 + 8 + 4) + 6)


@torch.inference_mode()
def test_a_head_that_sees_all_columns_remembers_all() -> None:
    model = small(PATTERNS["heads"])
    state = State()
    stepped(model, torch.zeros(1, LENGTH, dtype=torch.long), state)
    kept = {path[-1]: len(slot._stands) for path, slot in state.slots.items() if isinstance(slot, Kept)}  # pyright: ignore
    assert kept["2"] == LENGTH and kept["0"] < 40 and kept["1"] < 60


@torch.inference_mode()
def test_a_text_can_go_back_by_some_tokens_and_no_more() -> None:
    model, ids = small(PATTERNS["fixed"]), torch.randint(0, 11, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    full, state = model.decode(ids, Plain()), State()
    stepped(model, ids[:, :60], state)
    state.trim(58)
    torch.testing.assert_close(torch.stack(stepped(model, ids, state), 1), full[:, 58:], rtol=0, atol=1e-10)
    with pytest.raises(QkvError, match="the last 4 tokens see"):
        state.trim(10)


@torch.inference_mode()
def test_rows_move_and_leave() -> None:
    model, ids = small(PATTERNS["fixed"]), torch.randint(0, 11, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    full, state = model.decode(ids, Plain()), State()
    stepped(model, ids[:, :40], state)
    state.reorder(torch.tensor([0, 0, 2]))
    state.keep(torch.tensor([0, 2]), 1)
    found = torch.stack(stepped(model, ids[[0, 2]], state), 1)
    torch.testing.assert_close(found, full[[0, 2], 40:], rtol=0, atol=1e-10)
