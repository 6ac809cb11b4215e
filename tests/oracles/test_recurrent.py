"""What is recurrent, as PyTorch computes it; and Bahdanau's and Luong's decoders, step by step as their papers write them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from qkv.attention.sight import Late, Packed, Padded, Plain, Sight
from qkv.model.context import Context, Memory
from qkv.model.recurrent import Recurrent, Unit
from qkv.model.trace import Trace
from qkv.model.transformer import EncoderDecoder, build
from qkv.papers.bahdanau import bahdanau
from qkv.papers.luong import luong
from qkv.papers.pointer import pointer
from qkv.spec import part
from qkv.spec.choice import LocalPredictive
from qkv.spec.model import Joint
from qkv.spec.pattern import Causal, Full
from qkv.spec.score import Additive, Dot, General, Location

WIDTH, HIDDEN = 6, 5
CLOSE = {"rtol": 0, "atol": 1e-9}
LENGTHS = torch.tensor([7, 3, 5])


def stirred(module: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return module.double()


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def theirs(ours: Recurrent) -> nn.GRU | nn.LSTM:
    """PyTorch's module with our weights."""
    kind = nn.GRU if isinstance(ours.spec.unit, part.GRU) else nn.LSTM
    made = kind(WIDTH, HIDDEN, batch_first=True, bidirectional=ours.backwards is not None).double()
    for unit, end in ((ours.forwards, ""), (ours.backwards, "_reverse")):
        if unit is not None:
            for linear, name in ((unit.into, "ih"), (unit.around, "hh")):
                getattr(made, f"weight_{name}_l0{end}").data.copy_(linear.weight.data)
                getattr(made, f"bias_{name}_l0{end}").data.copy_(linear.bias.data)
    return made


@pytest.mark.parametrize("pattern", [Causal(), Full()], ids=str)
@pytest.mark.parametrize("unit", [part.GRU(), part.LSTM()], ids=str)
def test_states_and_gradients_are_those_of_pytorch(unit: Any, pattern: Any) -> None:
    outputs = 2 * HIDDEN if isinstance(pattern, Full) else HIDDEN
    ours = stirred(Recurrent(part.Recurrent(unit, pattern), WIDTH, WIDTH, outputs))
    other, x = theirs(ours), drawn(3, 7, WIDTH)
    packed = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(other(packed)[0], batch_first=True)
    there = (torch.arange(7) < LENGTHS[:, None])[..., None]
    found = ours(x, Context(Padded(LENGTHS))) * there
    torch.testing.assert_close(found, expected, **CLOSE)
    weights = drawn(*found.shape)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.forwards.around.weight.grad, other.weight_hh_l0.grad, **CLOSE)
    torch.testing.assert_close(ours.forwards.into.weight.grad, other.weight_ih_l0.grad, **CLOSE)


@pytest.mark.parametrize("pattern", [Causal(), Full()], ids=str)
def test_texts_that_share_a_row_or_come_late_do_not_hear_of_each_other(pattern: Any) -> None:
    ours = stirred(Recurrent(part.Recurrent(part.LSTM(), pattern), WIDTH, WIDTH, 2 * HIDDEN))
    one, other = drawn(1, 4, WIDTH), drawn(1, 7, WIDTH)[:, 4:]
    alone = [ours(each, Context(Plain())) for each in (one, other)]
    packed: Sight = Packed(torch.tensor([[0] * 4 + [1] * 3]), torch.tensor([[0, 1, 2, 3, 0, 1, 2]]))
    torch.testing.assert_close(ours(torch.cat([one, other], 1), Context(packed)), torch.cat(alone, 1), **CLOSE)
    late = ours(torch.cat([drawn(1, 2, WIDTH), one], 1), Context(Late(torch.tensor([2]))))
    torch.testing.assert_close(late[:, 2:], alone[0], **CLOSE)


def gru(unit: Unit, x: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """One state after another, gate by gate."""
    assert unit.beside is not None
    w, u, v = (each.weight.chunk(3) for each in (unit.into, unit.around, unit.beside))
    b, d = unit.into.bias.chunk(3), unit.around.bias.chunk(3)
    r, z = (torch.sigmoid(w[g] @ x + b[g] + u[g] @ s + d[g] + v[g] @ c) for g in (0, 1))
    n = torch.tanh(w[2] @ x + b[2] + v[2] @ c + r * (u[2] @ s + d[2]))
    return (1 - z) * n + z * s


def test_a_decoder_of_bahdanau_asks_before_each_word() -> None:
    """A.1.2: e_ij = v . tanh(W s_(i-1) + U h_j), and what is received goes into the next state."""
    model = stirred(build(bahdanau(Joint(11), width=8)))
    memory = drawn(1, 4, 8)
    trace = Trace()
    found = model.decode(torch.tensor([[2, 5, 7]]), Memory(memory, Plain()), trace=trace)[0]
    recurrent = cast(Recurrent, model.decoder.blocks[0].branches[0].sublayer)
    asks, start = recurrent.asks, recurrent.start
    assert asks is not None and asks.q is not None and asks.kv is not None and asks.out is not None and start is not None
    h = memory[0]
    state = torch.tanh(start.weight @ h[0] + start.bias)
    keys, values = (h @ asks.kv.weight.t()).chunk(2, 1)
    readout = [model.decoder.blocks[0].branches[place].sublayer.out for place in (2, 3)]
    looked = []
    for i, word in enumerate((2, 5, 7)):
        x = model.target.weight[word] * 8**0.5
        e = torch.stack([asks.score.vector[0] @ torch.tanh(asks.q.weight @ state + key) for key in keys])
        a = torch.exp(e) / torch.exp(e).sum()
        c = asks.out.weight @ (a @ values)
        state = gru(recurrent.forwards, x, state, c)
        read = torch.cat([state, c, x])
        left, right = (linear.weight @ read + linear.bias for linear in readout)
        torch.testing.assert_close(found[i], torch.maximum(left, right), **CLOSE)
        looked.append(a)
    (weights,) = trace.weights.values()
    torch.testing.assert_close(weights[0, 0], torch.stack(looked), **CLOSE)


@pytest.mark.parametrize("choice", [None, LocalPredictive(2)], ids=["global", "local-p"])
@pytest.mark.parametrize("score", [Dot(), General(), Location(9), Additive()], ids=str)
def test_the_highest_state_of_luong_asks(score: Any, choice: LocalPredictive | None) -> None:
    """Equations 5 to 10, from the states of the decoder on."""
    how = {} if choice is None else {"choice": choice}
    model: EncoderDecoder = stirred(build(luong(Joint(11), width=6, depth=1, score=score, **how)))
    h, words = drawn(2, 5, 6), torch.tensor([[2, 5, 7], [1, 1, 3]])
    lengths = torch.tensor([5, 3])
    memory = Memory(h, Padded(lengths))
    found = model.decode(words, memory)
    cell = cast(Any, model.decoder).blocks[0]
    embedded = model.target(words, Context(Plain()))
    states = cell.branches[0].sublayer(embedded, Context(Plain(), memory=memory))
    asks, out = cell.branches[2].sublayer, cell.branches[4].sublayer.out
    for b, length in enumerate(lengths.tolist()):
        for t in range(3):
            q, keys = states[b, t], h[b, :length]
            if isinstance(score, Additive):
                keys, values = (keys @ asks.kv.weight.t()).chunk(2, 1)
                q = asks.q.weight @ q
            else:
                values = keys
            match score:
                case Dot():
                    e = keys @ q
                case General():
                    e = keys @ (asks.score.map[0].t() @ q)
                case Location():
                    e = (asks.score.map[0].t() @ q)[:length]
                case _:
                    e = torch.tanh(q + keys) @ asks.score.vector[0]
            a = torch.exp(e) / torch.exp(e).sum()
            if choice is not None:
                own = asks.score
                p = length * torch.sigmoid(own.place_vector[0] @ torch.tanh(own.place_map[0].t() @ q))
                near = [s for s in range(length) if abs(s - float(p.detach())) <= choice.reach]
                a = torch.zeros(length, dtype=torch.float64)
                total = sum(torch.exp(e[s]) for s in near)
                for s in near:
                    a[s] = torch.exp(e[s]) / total * torch.exp(-((s - p) ** 2) / (2 * (choice.reach / 2) ** 2))
            c = a @ values
            c = asks.out.weight @ c if isinstance(score, Additive) else c
            expected = torch.tanh(out.weight @ torch.cat([c, states[b, t]]))
            torch.testing.assert_close(found[b, t], expected, **CLOSE)


def test_who_points_says_what_stands_where_it_looks() -> None:
    """u_j = v . tanh(W1 e_j + W2 d), and the softmax of u is the answer; an entry that stands twice has both shares."""
    model: EncoderDecoder = stirred(build(pointer(Joint(9), width=4)))
    source = torch.tensor([[5, 7, 5, 2, 0], [8, 2, 0, 0, 0]])
    lengths = torch.tensor([4, 2])
    memory = model.encode(source, Padded(lengths))
    target = torch.tensor([[1, 5, 7], [1, 8, 8]])
    found = model.logits(model.decode(target, memory))
    ctx = Context(Plain(), memory=memory)
    states = model.decoder(model.target(target, ctx), ctx)
    points = model.pointer
    assert points is not None
    for b, length in enumerate(lengths.tolist()):
        for t in range(3):
            keys = memory.vectors[b, :length] @ points.k.weight.t()
            u = torch.tanh(points.q.weight @ states[b, t] + keys) @ points.score.vector[0]
            p = torch.exp(u) / torch.exp(u).sum()
            for entry in range(9):
                share = sum((p[j] for j in range(length) if source[b, j] == entry), torch.tensor(0.0, dtype=torch.float64))
                assert found[b, t, entry].exp().item() == pytest.approx(max(share.item(), 1e-12), abs=1e-9)
