"""The catalogue, shrunk: every named model keeps its structure and loses its size, so that every law is tried on all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from qkv.attention.sight import Padded, Plain
from qkv.model.transformer import AnyModel, EncoderDecoder, build
from qkv.papers.catalogue import CATALOGUE
from qkv.papers.luong import luong
from qkv.spec.cell import Cell, Node
from qkv.spec.choice import Best, LocalMonotonic, LocalPredictive, StraightThrough
from qkv.spec.halt import GoesOn, Halt, Halting, Interpolated, Itself, Mean, Remainder, Stays
from qkv.spec.model import Classifier, Joint, Pointing, Separate, SourceAndTarget, Untied, Vocabulary
from qkv.spec.model import DecoderOnly as DecoderSpec
from qkv.spec.model import EncoderDecoder as PairSpec
from qkv.spec.model import Model as Spec
from qkv.spec.part import (
    GELU,
    GRU,
    LSTM,
    Attention,
    Block,
    Depth,
    FeedForward,
    MemoryAttention,
    PostNorm,
    PreNorm,
    Recurrence,
    Recurrent,
    SeparableFeedForward,
    Stack,
    Sublayer,
    Swish,
    Unit,
)
from qkv.spec.pattern import Both, Causal, Either, Local, Others, PerHead, SameBlock, Stride, Summary
from qkv.spec.pooling import FirstToken
from qkv.spec.position import ALiBi, Coordinates, Factorised, Learned, LearnedStep, NoPosition, NoSignal, Relative, Rotary
from qkv.spec.score import Additive, Boxcar, Constant, ContentBased, Gaussian, General, Location, Triangular

JOINT, SEPARATE = Joint(23), Separate(19, 23)
HIDDEN, HEADS, DEPTH, STEPS = 32, 8, 2, 3
# both choices of what comes out of a position, and both of what others see of one that has halted, read from the state itself, by
# which positions that have learned nothing differ more; and one by which they halt at the second step or the third
RULES: dict[str, Halting] = {
    f"{type(output).__name__}, {type(halted).__name__}": Halt(0.9, output, halted, bias=0.0, reads=Itself())
    for output in (Interpolated(), Mean())
    for halted in (GoesOn(), Stays())
} | {"Mean, Stays, Remainder": Halt(0.9, Mean(), Stays(), bias=-0.2, last=Remainder())}
STAYS, GOES_ON = "Interpolated, Stays", "Mean, GoesOn"
AnySpec = TypeVar("AnySpec", bound=Spec)


def _small(sublayer: Sublayer, heads: int = HEADS) -> Sublayer:
    if isinstance(sublayer, FeedForward | SeparableFeedForward):
        return replace(sublayer, hidden=HIDDEN)
    if isinstance(sublayer, Recurrent) and isinstance(sublayer.asks, MemoryAttention):
        return replace(sublayer, asks=_small(sublayer.asks))
    if not isinstance(sublayer, Attention | MemoryAttention):
        return sublayer
    cut: dict[str, Any] = {"heads": max(min(sublayer.heads, heads), _patterns(sublayer))}
    cut |= {"head_width": 4} if isinstance(sublayer.head_width, int) else {}
    if isinstance(sublayer, Attention):
        cut |= {"pattern": _close(sublayer.pattern)} | ({"key_width": 2} if isinstance(sublayer.key_width, int) else {})
    return replace(sublayer, **cut)


def _mapped(unit: Unit, change: Callable[[Any], Any], dropout: float | None = None) -> Unit:
    """A block or a cell with other sublayers in the places of its own."""
    dropout = unit.dropout if dropout is None else dropout
    if not isinstance(unit, Cell):
        return Block(*map(change, unit.sublayers), norm=unit.norm, dropout=dropout)

    def node(each: Node) -> Node:
        left, right = (replace(branch, layer=change(branch.layer)) for branch in each.branches)
        return replace(each, left=left, right=right)

    return Cell(*map(node, unit.nodes), norm=unit.norm, dropout=dropout)


def _patterns(sublayer: Sublayer) -> int:
    """How many heads there are at least, so that each pattern has one."""
    return len(sublayer.pattern.patterns) if isinstance(sublayer, Attention) and isinstance(sublayer.pattern, PerHead) else 1


def _close(pattern: Any) -> Any:
    """The same pattern for texts of a few tokens."""
    match pattern:
        case PerHead(patterns=patterns):
            return PerHead(*map(_close, patterns))
        case Both(first=first, second=second):
            return _close(first) & _close(second)
        case Either(first=first, second=second):
            return _close(first) | _close(second)
        case Local():
            return Local(3)
        case Stride():
            return Stride(3)
        case SameBlock():
            return SameBlock(4)
        case Summary(slot=slot):
            return Summary(4, 1, slot)
        case _:
            return pattern


def _each(stack: Depth, change: Callable[[Any], Unit]) -> Depth:
    if isinstance(stack, Recurrence):
        return replace(stack, block=change(stack.block))
    return Stack(*(change(block) for block in stack.blocks), depth=stack.depth, bias=stack.bias)


def _everywhere(spec: AnySpec, change: Callable[[Depth], Depth]) -> AnySpec:
    sides = [name for name in ("encoder", "decoder") if hasattr(spec, name)]
    return replace(spec, **{name: change(getattr(spec, name)) for name in sides})


def _in_all(spec: AnySpec, change: Callable[[Any], Unit]) -> AnySpec:
    return _everywhere(spec, lambda stack: _each(stack, change))


def _attending(spec: AnySpec, **choices: object) -> AnySpec:
    """The same with other choices in every self-attention."""
    return _in_all(
        spec,
        lambda block: Block(
            *(replace(s, **choices) if isinstance(s, Attention) else s for s in block.sublayers),
            norm=block.norm,
            dropout=block.dropout,
        ),
    )


def _asking(spec: AnySpec, **how: object) -> AnySpec:
    """The same with other choices in every attention, to itself and to memory."""

    def change(block: Block) -> Block:
        asks = (Attention, MemoryAttention)
        sublayers = (replace(s, **how) if isinstance(s, asks) else s for s in block.sublayers)
        return Block(*sublayers, norm=block.norm, dropout=block.dropout)

    return _in_all(spec, change)


def _asking_memory(spec: AnySpec, **how: object) -> AnySpec:
    """The same with other choices in every attention to memory."""

    def change(block: Block) -> Block:
        sublayers = (replace(s, **how) if isinstance(s, MemoryAttention) else s for s in block.sublayers)
        return Block(*sublayers, norm=block.norm, dropout=block.dropout)

    return _in_all(spec, change)


def _shrunk_luong(**how: Any) -> PairSpec:
    return luong(JOINT, width=16, depth=2, **how)


def _seen(block: Block, pattern: Any) -> Block:
    """The same with another pattern."""
    seen = (replace(s, pattern=pattern) if isinstance(s, Attention) else s for s in block.sublayers)
    return Block(*seen, norm=block.norm, dropout=block.dropout)


def _sparse_sides(spec: PairSpec) -> PairSpec:
    """A pattern for each head in the encoder, merged ones in the decoder."""
    reads, writes = PerHead(Local(2), Stride(2)), Causal() & (SameBlock(3) | Summary(3, 1))
    encoder = _each(spec.encoder, lambda block: _seen(block, reads))
    return replace(spec, encoder=encoder, decoder=_each(spec.decoder, lambda block: _seen(block, writes)))


def shrunk(spec: AnySpec) -> AnySpec:
    """The same model, small: its width, hidden width, heads and depth are cut, and nothing else."""

    def small(block: Unit) -> Unit:
        return _mapped(block, _small)

    def shallow(stack: Depth) -> Depth:
        if isinstance(stack, Recurrence):
            return replace(stack, block=small(stack.block), steps=STEPS)
        return Stack(*map(small, stack.blocks), depth=min(stack.depth, max(DEPTH, len(stack.blocks))), bias=stack.bias)

    cut = _everywhere(spec, shallow)
    if isinstance(spec.embedding.position, Learned):
        cut = replace(cut, embedding=replace(cut.embedding, position=Learned(64)))
    if isinstance(spec.embedding.position, Factorised):
        cut = replace(cut, embedding=replace(cut.embedding, position=Factorised((2, 8, 4))))
    many = any(heads > 4 for name in ("encoder", "decoder") if hasattr(cut, name) for heads in getattr(cut, name).heads())
    return replace(cut, width=32 if many else 16)


def _pre_norm(block: Block) -> Block:
    return Block(*block.sublayers, norm=PreNorm(1e-6), dropout=block.dropout)


def _offset(block: Block) -> Block:
    return Block(*(replace(s, offset=True) for s in block.sublayers), norm=block.norm, dropout=block.dropout)


def _gated(block: Block) -> Block:
    gated = (
        replace(s, gated=True, offset=False, activation=GELU()) if isinstance(s, FeedForward) else s for s in block.sublayers
    )
    return Block(*gated, norm=block.norm, dropout=block.dropout)


def _swish(block: Block) -> Block:
    other = (replace(s, activation=Swish()) if isinstance(s, FeedForward) else s for s in block.sublayers)
    return Block(*other, norm=block.norm, dropout=block.dropout)


def _unequal(spec: PairSpec) -> PairSpec:
    """Another depth, head count, hidden width and norm on each side, and two kinds of block in turn."""
    first = spec.decoder.blocks[0]
    narrow = Block(Attention(2), FeedForward(24), norm=PreNorm(), dropout=first.dropout)
    pattern = next(s.pattern for s in first.sublayers if isinstance(s, Attention))
    other = Block(FeedForward(8), Attention(4, pattern, offset=True), MemoryAttention(2), norm=PostNorm(1e-6), dropout=0.0)
    embedding = replace(spec.embedding, scale=False)
    return replace(spec, embedding=embedding, encoder=Stack(narrow, depth=1), decoder=Stack(first, other, depth=3))


def _convolved(block: Block) -> Block:
    """The same with separable convolutions in place of linear maps."""
    pattern = next(s.pattern for s in block.sublayers if isinstance(s, Attention))
    other = (SeparableFeedForward(24, 2, 3, pattern=pattern) if isinstance(s, FeedForward) else s for s in block.sublayers)
    return Block(*other, norm=block.norm, dropout=block.dropout)


def _handed_on(unit: GRU | LSTM) -> Callable[[Block], Block]:
    """A state from token to token in place of self-attention, both ways where that sees the future."""

    def change(block: Block) -> Block:
        sublayers = (Recurrent(unit, each.pattern) if isinstance(each, Attention) else each for each in block.sublayers)  # pyright: ignore
        return Block(*sublayers, norm=block.norm, dropout=block.dropout)

    return change


def _recurrent(spec: AnySpec, **choices: Any) -> AnySpec:
    """The same with one block again and again, or, where it is so already, with other choices."""

    def again(depth: Depth) -> Depth:
        made = depth if isinstance(depth, Recurrence) else Recurrence(depth.blocks[0], STEPS)
        return replace(made, **choices)

    return _everywhere(replace(spec, embedding=replace(spec.embedding, position=NoPosition())), again)


def variants(name: str) -> Iterator[tuple[str, Spec]]:
    """A catalogue entry, shrunk, and, if it is the first of its paper, the same with a vocabulary for each side."""

    def made(vocabulary: Vocabulary) -> Spec:
        return shrunk(CATALOGUE[name].make(vocabulary))

    yield name, made(JOINT)
    first = made(JOINT)
    if isinstance(first, PairSpec) and name.endswith("-tiny") and not isinstance(first.output, Pointing):
        yield f"{name}, separate vocabularies", made(SEPARATE)


def _alike(one: Spec, other: Spec) -> bool:
    """Whether two models differ in nothing but how many heads they have and how much they drop."""

    def bare(spec: Spec) -> Spec:
        def plain(block: Unit) -> Unit:
            return _mapped(block, lambda each: _small(each, 4), dropout=0.0)

        return replace(_in_all(spec, plain), width=16, embedding=replace(spec.embedding, dropout=0.0))

    return type(one) is type(other) and bare(one) == bare(other)


SCORES = (
    General(),
    ContentBased(2.0),
    Additive(),
    Location(64),
    Gaussian(2.0, True),
    Boxcar(9.0),
    Triangular(9.0, True),
    Constant(),
)


def specs() -> dict[str, Spec]:
    """Every shrunk model by name: all of the catalogue that differ when shrunk, and variants of three of them."""
    found: dict[str, Spec] = {}
    for name, spec in (pair for entry in CATALOGUE for pair in variants(entry)):
        if not any(_alike(spec, other) for other in found.values()):
            found[name] = spec
    pair, separate = found["transformer-tiny"], found["transformer-tiny, separate vocabularies"]
    gpt, bert = found["gpt-tiny"], found["bert-tiny"]
    bare = replace(gpt, embedding=replace(gpt.embedding, position=NoPosition()))
    return found | {
        "pre-norm": _in_all(pair, _pre_norm),
        "offsets": _in_all(pair, _offset),
        "pre-norm, offsets, separate vocabularies": _in_all(_in_all(separate, _pre_norm), _offset),
        "untied": replace(pair, tie=Untied()),
        "untied, separate vocabularies": replace(separate, tie=Untied()),
        "source and target tied": replace(pair, tie=SourceAndTarget()),
        "unequal sides": _unequal(pair),
        "gated": _in_all(pair, _gated),
        "rotary on both sides": _attending(pair, rotate=Rotary()),
        "rotary": _attending(bare, rotate=Rotary()),
        "ALiBi": _attending(bare, bias=ALiBi()),
        "relative": _everywhere(bare, lambda s: Stack(*s.blocks, depth=s.depth, bias=Relative(8, 16, two_sided=False))),
        "strided": _attending(gpt, pattern=Causal() & (Local(2) | Stride(3))),
        "local": _attending(bare, pattern=Causal() & Local(3), bias=ALiBi()),
        "summaries alone": _attending(gpt, pattern=Causal() & Summary(3, 1)),
        "sparse in turns": _everywhere(
            gpt, lambda s: Stack(*(_seen(s.blocks[0], Causal() & each) for each in (SameBlock(4), Summary(4, 2))), depth=s.depth)
        ),
        "two-sided, sparse": _attending(bert, pattern=Local(3) | Stride(3)),
        "sparse on both sides": _sparse_sides(pair),
        "of others": _attending(bert, pattern=Others()),
        "of others before": _attending(gpt, pattern=Causal() & Others()),
        "of others before, near ones first": _attending(
            bare, heads=2, pattern=PerHead(Causal(), Causal() & Others()), bias=ALiBi((0.0, 0.5))
        ),
        "universal encoder of others, near ones first": _recurrent(
            _attending(bert, heads=2, pattern=PerHead(Others(), Causal() & Others()), bias=ALiBi((0.0, 0.5))), halt=RULES[STAYS]
        ),
        "universal evolved, halting": _recurrent(found["evolved-tiny"], halt=RULES[STAYS]),
        "universal evolved writer": _recurrent(found["evolved-gpt-tiny"], halt=RULES[GOES_ON]),
        "universal, sparse": _recurrent(_sparse_sides(pair), halt=RULES[STAYS]),
        "universal decoder, sparse": _recurrent(
            _attending(gpt, pattern=Causal() & (SameBlock(4) | Summary(4, 1))), halt=RULES[STAYS]
        ),
        "narrow keys": _attending(gpt, key_width=2, kv_heads=2),
        "grouped heads": _attending(gpt, kv_heads=2, head_width=6),
        "untied decoder": replace(_in_all(gpt, _swish), tie=Untied()),
        "untied encoder, ALiBi": replace(_attending(bert, bias=ALiBi()), tie=Untied()),
        **{f"scores: {score}": _asking(pair, score=score) for score in SCORES},
        "scores of a strided decoder": _asking(
            _attending(gpt, pattern=Causal() & (Local(2) | Stride(3))), score=Gaussian(2.0, True)
        ),
        "scores of heads in groups, rotary": _asking(
            _attending(bare, rotate=Rotary(), kv_heads=2), score=ContentBased(3.0, True)
        ),
        "scores by place of a local decoder": _asking(_attending(gpt, pattern=Causal() & Local(3)), score=Location(64)),
        "scores of an encoder": _asking(bert, score=Additive()),
        "the best two": _asking(pair, choice=Best(2)),
        "the best one": _asking(pair, choice=StraightThrough()),
        "the best one, by place, of a local decoder": _asking(
            _attending(gpt, pattern=Causal() & Local(3)), choice=StraightThrough(), score=Location(64)
        ),
        "universal, additive": _recurrent(_asking(pair, score=Additive()), halt=RULES[STAYS]),
        "Luong, by place": _shrunk_luong(score=Location(64)),
        "where to look, folded": _asking_memory(pair, choice=LocalPredictive(3), score=ContentBased(3.0)),
        "where to look, as it is": _asking_memory(pair, choice=LocalMonotonic(1)),
        "pointing": replace(pair, output=Pointing(General())),
        "states on both sides": _in_all(pair, _handed_on(GRU())),
        "states of a decoder": _in_all(bare, _handed_on(LSTM())),
        "states of an encoder": _in_all(bert, _handed_on(LSTM())),
        "universal, states": _recurrent(_in_all(pair, _handed_on(LSTM()))),
        "convolved": _in_all(pair, _convolved),
        "convolved decoder": _in_all(gpt, _convolved),
        "convolved encoder": _in_all(bert, _convolved),
        "universal, trained signal": _recurrent(pair, signal=Coordinates(Learned(64), LearnedStep())),
        "universal without signal": _recurrent(pair, signal=NoSignal()),
        "universal decoder": _recurrent(gpt),
        "universal decoder, trained signal": _recurrent(gpt, signal=Coordinates(Learned(64), LearnedStep())),
        "universal encoder": _recurrent(bert),
        **{f"universal, {name}": _recurrent(pair, halt=rule) for name, rule in RULES.items()},
        **{
            f"{shape}, convolved, {name}": _in_all(_recurrent(spec, halt=RULES[name]), _convolved)
            for shape, spec in (("universal", pair), ("universal decoder", gpt), ("universal encoder", bert))
            for name in (STAYS, GOES_ON)
        },
        **{
            f"{shape}, {name}": _recurrent(spec, halt=RULES[name])
            for shape, spec in (("universal decoder", gpt), ("universal encoder", bert))
            for name in (STAYS, GOES_ON)
        },
        "classifier": Classifier(JOINT, bert.width, bert.embedding, bert.encoder, ("yes", "no", "perhaps")),
        "classifier by its first token": Classifier(JOINT, bert.width, bert.embedding, bert.encoder, ("yes", "no"), FirstToken()),
    }


SPECS = specs()
PAIRS = {name: spec for name, spec in SPECS.items() if isinstance(spec, PairSpec)}
WRITERS = {name: spec for name, spec in SPECS.items() if isinstance(spec, DecoderSpec)}
READERS = {name: spec for name, spec in SPECS.items() if not isinstance(spec, PairSpec | DecoderSpec)}


@dataclass(frozen=True)
class World:
    """A small model in fp64 with all parameters away from their initial zeros and ones, and random sentences for it."""

    spec: PairSpec
    model: EncoderDecoder
    source: Tensor
    lengths: Tensor
    target: Tensor

    @property
    def sight(self) -> Padded:
        return Padded(self.lengths)

    def alone(self, sentence: int) -> tuple[Tensor, Plain]:
        """The source of one sentence, without padding."""
        return self.source[sentence : sentence + 1, : int(self.lengths[sentence])], Plain()


@dataclass(frozen=True)
class Room:
    """A small model with one side, in fp64, and random texts for it; what lies behind a length is junk."""

    spec: Spec
    model: AnyModel
    ids: Tensor
    lengths: Tensor


def stirred(spec: Spec, seed: int = 7) -> AnyModel:
    """A model none of whose parameters is as it was initialised, so that no offset or scale can be forgotten unseen."""
    model = build(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture(params=SPECS, ids=list(SPECS))
def spec(request: pytest.FixtureRequest) -> Spec:
    """Every shrunk model of the catalogue and its variants, in turn."""
    return SPECS[request.param]


@pytest.fixture
def model(spec: Spec) -> AnyModel:
    """The module of `spec`, in fp32, stirred."""
    return stirred(spec)


@pytest.fixture(params=PAIRS, ids=list(PAIRS))
def pair_spec(request: pytest.FixtureRequest) -> PairSpec:
    """Every model with two sides."""
    return PAIRS[request.param]


@pytest.fixture
def calm_model(pair_spec: PairSpec) -> EncoderDecoder:
    """Its module without dropout."""

    def calm(block: Unit) -> Unit:
        return _mapped(block, lambda each: each, dropout=0.0)

    return stirred(replace(_in_all(pair_spec, calm), embedding=replace(pair_spec.embedding, dropout=0.0)))


@pytest.fixture
def world(pair_spec: PairSpec) -> World:
    """Four sentences of different lengths, in fp64; what lies behind a length is junk."""
    generator = torch.Generator().manual_seed(11)
    source = torch.randint(0, pair_spec.vocabulary.source, (4, 9), generator=generator)
    target = torch.randint(0, pair_spec.vocabulary.target, (4, 8), generator=generator)
    return World(pair_spec, stirred(pair_spec).double(), source, torch.tensor([9, 4, 1, 7]), target)


def _room(spec: Spec) -> Room:
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(0, 23, (4, 9), generator=generator)
    return Room(spec, stirred(spec).double(), ids, torch.tensor([9, 4, 1, 7]))


@pytest.fixture(params=WRITERS, ids=list(WRITERS))
def writer(request: pytest.FixtureRequest) -> Room:
    """Every decoder without an encoder, and four texts."""
    return _room(WRITERS[request.param])


@pytest.fixture(params=READERS, ids=list(READERS))
def reader(request: pytest.FixtureRequest) -> Room:
    """Every encoder without a decoder, and four texts."""
    return _room(READERS[request.param])
