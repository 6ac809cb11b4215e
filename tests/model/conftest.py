"""Small translators to look into and to export."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from qkv.data.tokenizer import Tokenizer
from qkv.decode.translate import Translator
from qkv.model.transformer import build
from qkv.papers.transformer import transformer
from qkv.spec import plain
from qkv.spec.data import AtMost
from qkv.spec.data import Tokenizer as TokenizerSpec
from qkv.spec.model import Joint, Separate
from qkv.store import Stored

MakeTranslator = Callable[..., Translator]


@pytest.fixture(scope="session")
def make_translator() -> MakeTranslator:
    """Makes a translator between two made languages, with changes to its description; no weight is as initialised."""
    how = TokenizerSpec("characters", AtMost(60))
    source, target = (Tokenizer.train(how, [alphabet]) for alphabet in ("abcdefghij klm", "ABCDEFGHI KLMNOPQ"))
    joint = Tokenizer.train(how, ["abcdefghij klm", "ABCDEFGHI KLMNOPQ"])

    def made(*changes: str, separate: bool = False, dtype: torch.dtype = torch.float32, **more) -> Translator:
        vocabulary = Separate(source.size, target.size) if separate else Joint(joint.size)
        spec = transformer(vocabulary, **{"width": 32, "hidden": 48, "heads": 4, "depth": 2} | more)
        for change in changes:
            spec = plain.change(spec, change)
        model = build(spec, 5)
        generator = torch.Generator().manual_seed(5)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
        return Translator(Stored(model.to(dtype).eval(), *((source, target) if separate else (joint, joint))))

    return made
