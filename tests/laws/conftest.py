"""The catalogue, shrunk: every named model keeps its structure and loses its size, so that every law is tried on all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from qkv.attention.sight import Padded, Plain
from qkv.model.transformer import EncoderDecoder, build
from qkv.papers.catalogue import CATALOGUE
from qkv.spec.model import EncoderDecoder as Spec
from qkv.spec.model import Joint, Separate, Untied, Vocabulary
from qkv.spec.part import Attention, Block, FeedForward, MemoryAttention, PostNorm, PreNorm, Stack, Sublayer

JOINT, SEPARATE = Joint(23), Separate(19, 23)
HIDDEN, HEADS, DEPTH = 32, 8, 2


def _small(sublayer: Sublayer, heads: int = HEADS) -> Sublayer:
    if isinstance(sublayer, FeedForward):
        return replace(sublayer, hidden=HIDDEN)
    return replace(sublayer, heads=min(sublayer.heads, heads))


def _each(stack: Stack, change: Callable[[Block], Block]) -> Stack:
    return Stack(*(change(block) for block in stack.blocks), depth=stack.depth)


def _in_both(spec: Spec, change: Callable[[Block], Block]) -> Spec:
    return replace(spec, encoder=_each(spec.encoder, change), decoder=_each(spec.decoder, change))


def shrunk(spec: Spec) -> Spec:
    """The same model, small: its width, hidden width, heads and depth are cut, and nothing else."""

    def small(block: Block) -> Block:
        return Block(*map(_small, block.sublayers), norm=block.norm, dropout=block.dropout)

    def shallow(stack: Stack) -> Stack:
        return Stack(*map(small, stack.blocks), depth=min(stack.depth, max(DEPTH, len(stack.blocks))))

    many = any(s.heads > 4 for block in spec.decoder.blocks for s in block.sublayers if not isinstance(s, FeedForward))
    return replace(spec, width=32 if many else 16, encoder=shallow(spec.encoder), decoder=shallow(spec.decoder))


def _pre_norm(block: Block) -> Block:
    return Block(*block.sublayers, norm=PreNorm(1e-6), dropout=block.dropout)


def _offset(block: Block) -> Block:
    with_offsets = (s if isinstance(s, FeedForward) else replace(s, offset=True) for s in block.sublayers)
    return Block(*with_offsets, norm=block.norm, dropout=block.dropout)


def _unequal(spec: Spec) -> Spec:
    """Another depth, head count, hidden width and norm on each side, and two kinds of block in turn."""
    first = spec.decoder.blocks[0]
    narrow = Block(Attention(2), FeedForward(24), norm=PreNorm(), dropout=first.dropout)
    pattern = next(s.pattern for s in first.sublayers if isinstance(s, Attention))
    other = Block(FeedForward(8), Attention(4, pattern, offset=True), MemoryAttention(2), norm=PostNorm(1e-6), dropout=0.0)
    embedding = replace(spec.embedding, scale=False)
    return replace(spec, embedding=embedding, encoder=Stack(narrow, depth=1), decoder=Stack(first, other, depth=3))


def variants(name: str) -> Iterator[tuple[str, Spec]]:
    """A catalogue entry, shrunk, and what can be made of it by changing one thing."""

    def made(vocabulary: Vocabulary) -> Spec:
        return shrunk(CATALOGUE[name].make(vocabulary))

    yield name, made(JOINT)
    yield f"{name}, separate vocabularies", made(SEPARATE)


def specs() -> dict[str, Spec]:
    """Every shrunk model by name: all of the catalogue, and of its first entry every variant."""
    found = dict(pair for name in CATALOGUE for pair in variants(name))
    first = next(iter(CATALOGUE))
    joint, separate = found[first], found[f"{first}, separate vocabularies"]
    return found | {
        "pre-norm": _in_both(joint, _pre_norm),
        "offsets": _in_both(joint, _offset),
        "pre-norm, offsets, separate vocabularies": _in_both(_in_both(separate, _pre_norm), _offset),
        "untied": replace(joint, tie=Untied()),
        "untied, separate vocabularies": replace(separate, tie=Untied()),
        "unequal sides": _unequal(joint),
    }


SPECS = specs()


@dataclass(frozen=True)
class World:
    """A small model in fp64 with all parameters away from their initial zeros and ones, and random sentences for it."""

    spec: Spec
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


def stirred(spec: Spec, seed: int = 7) -> EncoderDecoder:
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
def model(spec: Spec) -> EncoderDecoder:
    """The module of `spec`, in fp32, stirred."""
    return stirred(spec)


@pytest.fixture
def calm_model(spec: Spec) -> EncoderDecoder:
    """The same without dropout."""

    def calm(block: Block) -> Block:
        return Block(*block.sublayers, norm=block.norm)

    return stirred(replace(_in_both(spec, calm), embedding=replace(spec.embedding, dropout=0.0)))


@pytest.fixture
def world(spec: Spec) -> World:
    """Four sentences of different lengths, in fp64; what lies behind a length is junk."""
    generator = torch.Generator().manual_seed(11)
    source = torch.randint(0, spec.vocabulary.source, (4, 9), generator=generator)
    target = torch.randint(0, spec.vocabulary.target, (4, 8), generator=generator)
    return World(spec, stirred(spec).double(), source, torch.tensor([9, 4, 1, 7]), target)
