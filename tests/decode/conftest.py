"""Small models to search with, in fp64 so that no two hypotheses are equally good by rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from qkv.data.symbols import END, MASK, OURS, UNKNOWN, Symbols
from qkv.data.tokenizer import Tokenizer
from qkv.decode.generate import Writer
from qkv.decode.read import Reader
from qkv.decode.translate import Translator
from qkv.model.transformer import Classifier, DecoderOnly, EncoderDecoder, EncoderOnly, build
from qkv.papers.bert import bert
from qkv.papers.gpt import gpt
from qkv.papers.transformer import transformer
from qkv.spec.data import AtMost
from qkv.spec.data import Tokenizer as TokenizerSpec
from qkv.spec.model import Classifier as ClassifierSpec
from qkv.spec.model import Joint, Separate, Untied
from qkv.store import Stored

MakeModel = Callable[..., EncoderDecoder]


AWAY = torch.full((16,), 0.5, dtype=torch.float64)


def _made(
    source: int, target: int | None = None, *, seed: int = 0, sharpness: float = 3.0, ending: float = 0.2
) -> EncoderDecoder:
    """A random model; the sharper, the more it prefers some tokens to others."""
    vocabulary = Joint(source) if target is None else Separate(source, target)
    # tied matrices would make a random model repeat its last token for ever
    spec = replace(transformer(vocabulary, width=16, hidden=24, heads=2, depth=1), tie=Untied())
    model = build(spec, seed).double().eval()
    model.output.weight.data *= sharpness
    # so that some sentences end early and some late, whatever the chances of the seed
    model.decoder.blocks[-1].sublayers[-1].norm.bias.data += AWAY
    model.output.weight.data[END] = ending * sharpness * AWAY
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data *= 3.0  # so that what follows depends on all that was read and written
    return model


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Makes random models of some vocabulary."""
    return _made


@pytest.fixture(scope="session")
def symbols() -> Symbols:
    return OURS


@pytest.fixture(scope="session")
def translator() -> Translator:
    """A random model between two made languages of characters, so that every text has one spelling in pieces."""
    how = TokenizerSpec("characters", AtMost(50))
    source, target = Tokenizer.train(how, ["abcdefgh klm"]), Tokenizer.train(how, ["ABCDEFGHIKLMNO"])
    model = _made(source.size, target.size, seed=3, sharpness=5.0)
    # an unknown piece has no spelling: a translation in which there is one could not be read back, so let there be few
    model.output.weight.data[UNKNOWN] = -8 * AWAY
    return Translator(Stored(model, source, target))


# Models with one side

PANGRAM = "the quick brown fox jumps over the lazy dog. pack my box with five dozen liquor jugs!"


def _decoder(entries: int, *, seed: int = 0, sharpness: float = 3.0, ending: float = 0.1, **how: Any) -> DecoderOnly:
    """A random decoder; the sharper, the more it prefers some tokens to others."""
    spec = replace(gpt(Joint(entries), **{"width": 16, "heads": 2, "depth": 1, "longest": 40} | how), tie=Untied())
    model = build(spec, seed).double().eval()
    # the initial deviation is small: without more, every token would be as likely as any other
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data *= 12.0
    model.output.weight.data *= sharpness
    away = torch.full((spec.width,), 0.5, dtype=torch.float64)
    model.decoder.norm.bias.data += away
    model.output.weight.data[END] = ending * sharpness * away
    return model


@pytest.fixture(scope="session")
def make_decoder() -> Callable[..., DecoderOnly]:
    """Makes random decoders of some vocabulary."""
    return _decoder


def _tokenizer(kind: str, text: Sequence[str] = (PANGRAM,) * 4, *extra: str) -> Tokenizer:
    return Tokenizer.train(TokenizerSpec(kind, AtMost(400), extra=extra), text)


def _writer(kind: str = "characters", **how: Any) -> Writer:
    tokenizer = _tokenizer(kind)
    return Writer(Stored(_decoder(tokenizer.size, **how), tokenizer, tokenizer))


@pytest.fixture(scope="session")
def make_writer() -> Callable[..., Writer]:
    """Makes random writers with a tokenizer of some kind."""
    return _writer


@pytest.fixture(scope="session")
def writer() -> Writer:
    """A random writer of characters that ends some texts early and others not at all."""
    return _writer(ending=0.35, seed=4)


def _encoder(entries: int, *, seed: int = 0, shape: type = EncoderOnly, **how: Any) -> Any:
    """A random encoder, by itself or as a classifier, in fp64."""
    spec = bert(Joint(entries), **{"width": 16, "heads": 2, "depth": 2, "longest": 40} | how)
    if shape is Classifier:
        spec = ClassifierSpec(spec.vocabulary, spec.width, spec.embedding, spec.encoder, ("yes", "no", "perhaps"))
    model = build(spec, seed).double().eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data *= 12.0
    return model


def _reader(kind: str = "bpe", *extra: str, **how: Any) -> Reader:
    tokenizer = _tokenizer(kind, (PANGRAM,) * 4, *(extra or (MASK,)))
    return Reader(Stored(_encoder(tokenizer.size, **how), tokenizer, tokenizer))


@pytest.fixture(scope="session")
def make_reader() -> Callable[..., Reader]:
    """Makes random readers with a tokenizer of some kind."""
    return _reader


@pytest.fixture(scope="session")
def reader() -> Reader:
    """A random encoder of word pieces, among them a mask."""
    return _reader()


def random_sources(count: int, entries: int, *, longest: int = 9, seed: int = 0) -> list[list[int]]:
    """Sentences of random lengths, each with its end symbol."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [[*torch.randint(3, entries, (length,), generator=generator).tolist(), END] for length in lengths]


@pytest.fixture(scope="session")
def sources() -> Callable[..., list[list[int]]]:
    """Makes random sources."""
    return random_sources
