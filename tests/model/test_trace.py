"""What a trace lets out is the softmax that the model computes; the picture shows it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qkv.attention.sight import Padded, Plain
from qkv.error import QkvError
from qkv.look.heads import draw, kinds
from qkv.model.trace import Trace

LENGTHS = torch.tensor([6, 3])
SOURCE, TARGET = torch.randint(4, 20, (2, 2, 6), generator=torch.Generator().manual_seed(1))


def traced(model, wants=lambda path: True) -> dict[tuple[str, ...], Tensor]:
    trace = Trace(wants)
    memory = model.encode(SOURCE, Padded(LENGTHS), trace=trace)
    model.decode(TARGET[:, :5], memory, trace=trace)
    return trace.weights


def test_every_attention_has_weights_that_sum_to_one_and_fall_on_what_may_be_seen(make_translator) -> None:
    found = traced(make_translator(dtype=torch.float64).model)
    assert set(found) == {("encoder", b, "0") for b in "01"} | {("decoder", b, s) for b in "01" for s in "01"}
    absent = torch.arange(6) >= LENGTHS[:, None]
    for path, weight in found.items():
        assert weight.shape == (2, 4, 6 if path[0] == "encoder" else 5, 5 if path[0] == "decoder" and path[2] == "0" else 6)
        assert not weight.requires_grad
        torch.testing.assert_close(weight.sum(-1), torch.ones_like(weight.sum(-1)))
        if path[0] == "decoder" and path[2] == "0":
            assert (weight.triu(1) == 0).all()
        else:
            assert (weight.movedim(3, 1)[absent] == 0).all() and (weight.movedim(3, 1)[~absent] > 0).all()


def test_weights_are_the_softmax_made_by_hand_and_carry_the_values_to_the_result(make_translator) -> None:
    model = make_translator(offset=True, dtype=torch.float64).model
    attention = model.decoder.blocks[1].sublayers[0].sublayer
    seen: list[Tensor] = []
    hook = attention.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    found = traced(model)[("decoder", "1", "0")]
    hook.remove()
    x, result = seen
    q, k, v = (
        part.unflatten(-1, (4, 8)).transpose(1, 2) for part in (x @ attention.qkv.weight.t() + attention.qkv.bias).split(32, -1)
    )
    scores = torch.einsum("bhtk,bhsk->bhts", q, k) / math.sqrt(8) + torch.full((5, 5), -math.inf).triu(1)
    by_hand = scores.exp() / scores.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(found, by_hand)
    torch.testing.assert_close(attention.out((found @ v).transpose(1, 2).flatten(2)), result)


def test_only_what_is_asked_for_is_let_out_and_nothing_changes_by_asking(make_translator) -> None:
    model = make_translator().model
    assert set(traced(model, lambda path: path[0] == "decoder" and path[1] == "1")) == {
        ("decoder", "1", "0"),
        ("decoder", "1", "1"),
    }
    with torch.no_grad():
        assert torch.equal(model.encode(SOURCE, Plain(), trace=Trace()).vectors, model.encode(SOURCE, Plain()).vectors)


@pytest.mark.parametrize("separate", [False, True], ids=["joint", "separate"])
@pytest.mark.parametrize("target", ["ABC", "AB"])
def test_the_three_kinds_of_attention_are_told_apart_even_at_equal_lengths(make_translator, separate: bool, target: str) -> None:
    encoder, memory, decoder = kinds(make_translator(separate=separate), "abc", target)
    found = {"encoder": encoder.levels, "memory": memory.levels, "decoder": decoder.levels}
    read, written = encoder.keys, decoder.queries
    assert encoder.queries == memory.keys == read and memory.queries == decoder.keys == written
    assert read == ["a", "b", "c", "</s>"] and written == ["<s>", *target]
    s, t = len(read), len(written)
    shapes = {kind: [tuple(weight.shape) for weight in levels] for kind, levels in found.items()}
    assert shapes == {"encoder": [(4, s, s)] * 2, "memory": [(4, t, s)] * 2, "decoder": [(4, t, t)] * 2}
    assert all((weight.triu(1) == 0).all() for weight in found["decoder"])
    assert all((weight > 0).all() for kind in ("encoder", "memory") for weight in found[kind])


def test_the_picture_is_a_png_of_the_heads(make_translator, tmp_path: Path) -> None:
    draw(kinds(make_translator(width=16, heads=2, depth=1), "abc", "ABCD"), "abc", tmp_path / "heads.png")
    written = (tmp_path / "heads.png").read_bytes()
    assert written.startswith(b"\x89PNG\r\n\x1a\n") and written.rstrip().endswith(b"IEND\xaeB`\x82")
    assert len(written) > 5000


def test_there_is_nothing_to_see_in_an_empty_sentence(make_translator) -> None:
    with pytest.raises(QkvError, match="empty sentence"):
        kinds(make_translator(), "", "ABC")
