"""Cells: the first one of the search is the Transformer, and any cell at all keeps the laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from qkv.attention.sight import Padded, Plain
from qkv.error import QkvError
from qkv.model.cell import joined
from qkv.model.state import State
from qkv.model.transformer import DecoderOnly, build
from qkv.papers.evolved import decoder, encoder, evolved, evolved_deep
from qkv.papers.transformer import transformer
from qkv.spec import model as spec
from qkv.spec.cell import (
    Add,
    AsInput,
    Branch,
    Cell,
    Concatenate,
    Convolution,
    Dead,
    Dense,
    Depthwise,
    Gate,
    Identity,
    Lightweight,
    Multiply,
    NoActivation,
    Node,
    Separable,
)
from qkv.spec.count import flops, parameters
from qkv.spec.part import Attention, Block, FeedForward, LeakyReLU, MemoryAttention, PreNorm, Recurrence, ReLU, Stack, Swish
from qkv.spec.pattern import Causal, Full
from qkv.spec.position import Sinusoid

WIDTH, CLOSE = 8, {"rtol": 0, "atol": 1e-10}


@pytest.mark.parametrize(("width", "published"), [(128, 7.2), (432, 47.9), (512, 64.1), (768, 131.2), (1024, 221.7)], ids=str)
def test_counts_are_those_of_the_paper(width: int, published: float) -> None:
    """So et al. 2019, table 3, with a vocabulary of 33,288; and so are the Transformers beside them."""
    beside = {128: 7.0, 432: 45.8, 512: 61.1, 768: 124.8, 1024: 210.4}[width]
    vocabulary, heads = spec.Joint(33288), 16 if width == 1024 else 8
    assert round(parameters(evolved(vocabulary, width=width, heads=heads)) / 1e6, 1) == published
    vanilla = transformer(vocabulary, width=width, hidden=4 * width, heads=heads, norm=PreNorm())
    assert abs(parameters(vanilla) / 1e6 - beside) < 0.1
    assert round(parameters(transformer(vocabulary, width=width, hidden=4 * width, heads=heads)) / 1e6, 1) in (
        beside,
        round(beside - 0.1, 1),
    )


def test_the_deep_model_is_that_of_the_paper() -> None:
    assert round(parameters(evolved_deep(spec.Joint(33288))) / 1e6, 1) == 218.1


def test_the_first_attention_of_a_decoder_has_twice_the_heads_up_to_16() -> None:
    assert [decoder(heads).nodes[0].left.layer.heads for heads in (2, 4, 8, 16, 32)] == [4, 8, 16, 16, 32]  # pyright: ignore


def writer(cell: Any, depth: Any = None) -> spec.DecoderOnly:
    """A decoder of some cell."""
    return spec.DecoderOnly(spec.Joint(11), WIDTH, spec.Embedding(Sinusoid()), depth or Stack(cell, depth=2))


def made(described: spec.Model, seed: int = 3) -> Any:
    """Its module, in fp64, with nothing as it was initialised."""
    model, generator = build(described, seed).double().eval(), torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


SEED = Cell(
    Node(Branch(0, Attention(2, Causal()), norm=True), Branch(0)),
    Node(Branch(1, Dense(), 4.0, norm=True, activation=ReLU())),
    Node(Branch(2, Dense(), 1.0), Branch(1)),
    dropout=0.0,
)


def test_the_first_cell_of_the_search_is_the_transformer_with_norms_before() -> None:
    vanilla = made(writer(Block(Attention(2, Causal()), FeedForward(4 * WIDTH, ReLU()), norm=PreNorm())))
    cell = made(writer(SEED), 5)
    places = {
        "branches.0.": "sublayers.0.",
        "branches.2.norm": "sublayers.1.norm",
        "branches.2.sublayer.out": "sublayers.1.sublayer.into",
    }
    places |= {"branches.4.sublayer.out": "sublayers.1.sublayer.out"}
    weights = {}
    for name in cell.state_dict():
        other = name
        for mine, its in places.items():
            other = other.replace(mine, its)
        weights[name] = vanilla.state_dict()[other]
    cell.load_state_dict(weights)
    ids = torch.randint(0, 11, (3, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cell.decode(ids, Plain()), vanilla.decode(ids, Plain()), **CLOSE)
    assert parameters(writer(SEED)) == sum(each.numel() for each in vanilla.parameters())


def layers(pattern: Full | Causal) -> st.SearchStrategy[Any]:
    """Any layer but attention to a memory."""
    reach = st.integers(1, 5)
    return st.one_of(
        st.builds(Dense, st.booleans()),
        st.builds(Gate, st.booleans()),
        st.builds(Convolution, reach, st.integers(1, 3), st.just(pattern), st.booleans()),
        st.builds(Separable, reach, st.just(pattern), st.booleans()),
        st.builds(Depthwise, reach, st.just(pattern)),
        st.builds(Lightweight, reach, st.sampled_from([1, 2, 4]), st.just(pattern)),
        st.builds(Attention, st.sampled_from([1, 2, 4]), st.just(pattern), st.booleans()),
        st.just(Identity()),
    )


@st.composite
def cells(draw: st.DrawFn, pattern: Full | Causal = Causal(), memory: bool = False) -> Cell:
    """Any cell: 1 to 5 nodes that take what they like of what there is."""
    nodes: list[Node] = []
    kinds = st.one_of(layers(pattern), st.just(MemoryAttention(2))) if memory else layers(pattern)
    for number in range(draw(st.integers(1, 5))):

        def branch(layer: Any, number: int = number) -> Branch:
            keeps = isinstance(layer, Identity | Depthwise | Lightweight)
            width = AsInput() if keeps else draw(st.sampled_from([AsInput(), 0.5, 1.0, 2.0]))
            activation = draw(st.sampled_from([NoActivation(), ReLU(), LeakyReLU(), Swish()]))
            return Branch(draw(st.integers(0, number)), layer, width, draw(st.booleans()), activation)

        left = branch(draw(kinds))
        right = Branch(layer=Dead()) if draw(st.integers(0, 4)) == 0 else branch(draw(kinds))
        shared = (
            left.norm and right.norm and left.input == right.input and not isinstance(right.layer, Dead) and draw(st.booleans())
        )
        nodes.append(Node(left, right, draw(st.sampled_from([Add(), Multiply(), Concatenate()])), shared))
    return Cell(*nodes)


@settings(max_examples=60)
@given(cell=cells(), data=st.data())
@torch.no_grad()
def test_any_cell_keeps_the_laws_of_a_decoder(cell: Cell, data: st.DataObject) -> None:
    """It is counted as it is built; what comes later is not seen; token by token, and in any two parts, it is a full pass."""
    try:
        described = writer(cell, data.draw(st.sampled_from([None, Recurrence(cell, 2)])))
    except QkvError as refused:
        assert "cannot" in str(refused) or "no whole number" in str(refused)
        return
    model: DecoderOnly = made(described)
    assert parameters(described) == sum(each.numel() for each in model.parameters()) and flops(described) > 0
    ids = torch.randint(0, 11, (2, 8), generator=torch.Generator().manual_seed(1))
    whole = model.decode(ids, Plain())
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 3) % 11
    torch.testing.assert_close(model.decode(changed, Plain())[:, :5], whole[:, :5], **CLOSE)
    state, split = State(), data.draw(st.integers(1, 7))
    parts = [model.decode(ids[:, :split], Plain(), state)]
    step = model.stepper(Plain(), state)
    parts += [step(ids[:, place])[:, None] for place in range(split, 8)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, **CLOSE)


@settings(max_examples=40)
@given(reads=cells(Full()), writes=cells(memory=True))
@torch.no_grad()
def test_any_cells_keep_the_laws_of_both_sides(reads: Cell, writes: Cell) -> None:
    """Padding changes nothing, and neither do the other sentences of a batch."""
    try:
        described = spec.EncoderDecoder(
            spec.Joint(11), WIDTH, spec.Embedding(Sinusoid()), Stack(reads, depth=1), Stack(writes, depth=1)
        )
    except QkvError:
        return
    model = made(described)
    assert parameters(described) == sum(each.numel() for each in model.parameters())
    generator = torch.Generator().manual_seed(1)
    source, target = (torch.randint(0, 11, (3, 7), generator=generator) for _ in range(2))
    lengths = torch.tensor([7, 3, 1])
    whole = model.decode(target, model.encode(source, Padded(lengths)))
    for row, length in enumerate(lengths.tolist()):
        alone = model.decode(target[row : row + 1], model.encode(source[row : row + 1, :length], Plain()))
        torch.testing.assert_close(whole[row : row + 1], alone, **CLOSE)


def test_the_narrower_branch_is_padded() -> None:
    one, other = torch.full((1, 1, 2), 3.0), torch.full((1, 1, 3), 5.0)
    assert joined([one, other], Add()).tolist() == [[[8, 8, 5]]]
    assert joined([one, other], Multiply()).tolist() == [[[15, 15, 5]]]
    assert joined([one, other], Concatenate()).tolist() == [[[3, 3, 5, 5, 5]]]


def test_what_no_node_takes_comes_out() -> None:
    """Two loose ends of different widths are added up, and brought to the width of the model."""
    cell = Cell(Node(Branch(0)), Node(Branch(0, Dense(), 2.0)))
    assert cell.loose == (1, 2) and cell.widths(WIDTH) == [WIDTH, WIDTH, 2 * WIDTH]
    model = made(writer(cell, Stack(cell, depth=1)))
    (module,) = model.decoder.blocks
    x = torch.randn(1, 4, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dense = module.branches[2].sublayer.out
    expected = module.out(functional.linear(x, dense.weight, dense.bias) + functional.pad(x, (0, WIDTH)))
    from qkv.model.context import Context

    torch.testing.assert_close(module(x, Context(Plain())), expected, **CLOSE)


def test_convolutions_are_those_of_pytorch() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, WIDTH, dtype=torch.float64, generator=generator)
    from qkv.model.context import Context

    for pattern in (Full(), Causal()):
        for rate in (1, 2):
            cell = Cell(Node(Branch(0, Convolution(3, rate, pattern), 2.0)), Node(Branch(1, Dense(), 1.0)))
            described = writer(cell) if pattern == Causal() else None
            stack = Stack(cell, depth=1)
            model = made(described or spec.EncoderOnly(spec.Joint(11), WIDTH, spec.Embedding(Sinusoid()), stack))
            (module, *_) = (model.decoder if described else model.encoder).blocks
            near = module.branches[0].sublayer
            weight = near.near.out.weight.view(2 * WIDTH, 3, WIDTH).transpose(1, 2)
            sides = (2 * rate, 0) if pattern == Causal() else (rate, rate)
            expected = functional.conv1d(functional.pad(x.transpose(1, 2), sides), weight, near.near.out.bias, dilation=rate)
            torch.testing.assert_close(near(x, Context(Plain())), expected.transpose(1, 2), **CLOSE)


def test_a_decoder_refuses_what_sees_the_future_and_an_encoder_what_has_no_memory() -> None:
    with pytest.raises(QkvError, match="sees the future"):
        writer(Cell(Node(Branch(0, Separable(3)))))
    with pytest.raises(QkvError, match="no memory"):
        spec.EncoderOnly(spec.Joint(11), 32, spec.Embedding(Sinusoid()), Stack(decoder(4), depth=1))
    with pytest.raises(QkvError, match="no memory"):
        writer(decoder(2))
    assert encoder(4).loose == (6,) and decoder(4).loose == (8,)
