"""A model exported to CTranslate2 says there what it says here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("ctranslate2", reason="needs the extra: pip install 'qkv[ctranslate2]'")

from qkv.decode.rule import Beam
from qkv.decode.translate import Translator
from qkv.error import QkvError
from qkv.interop.ctranslate2 import export, library, parity
from qkv.spec.part import PreNorm

VARIANTS = {
    "post-norm": ((), {}),
    "pre-norm": ((), {"norm": PreNorm()}),
    "offsets": ((), {"offset": True}),
    "pre-norm, offsets, separate vocabularies": ((), {"norm": PreNorm(), "offset": True, "separate": True}),
    "separate vocabularies": ((), {"separate": True}),
    "untied": (("tie=Untied()",), {}),
    "untied, separate vocabularies": (("tie=Untied()",), {"separate": True}),
    "unscaled embeddings": (("embedding.scale=false",), {}),
    "another depth on each side": (("encoder.depth=3", "decoder.depth=1"), {}),
    "another hidden width on each side": (("encoder.blocks.0.sublayers.1.hidden=40",), {}),
    "a large epsilon": (("encoder.blocks.0.norm.epsilon=0.01", "decoder.blocks.0.norm.epsilon=0.01"), {}),
    "one head": ((), {"heads": 1}),
    "another base of the sinusoids": (("embedding.position=Sinusoid(500)",), {}),
}


def random_pairs(translator: Translator, count: int = 8) -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(2)

    def ids(entries: int) -> list[int]:
        length = int(torch.randint(1, 15, (1,), generator=generator))
        return torch.randint(4, entries, (length,), generator=generator).tolist()

    return [(ids(translator.source.size), ids(translator.target.size)) for _ in range(count)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_exported_model_says_the_same(make_translator, variant: str, tmp_path: Path) -> None:
    changes, more = VARIANTS[variant]
    translator = make_translator(*changes, **more)
    export(translator, tmp_path / "exported")
    assert parity(translator, tmp_path / "exported", random_pairs(translator)) < 1e-4


def test_parity_notices_another_model(make_translator, tmp_path: Path) -> None:
    export(make_translator(), tmp_path / "exported")
    other = make_translator()
    other.model.decoder.blocks[0].sublayers[1].sublayer.kv.weight.data *= 1.1
    assert parity(other, tmp_path / "exported", random_pairs(other)) > 1e-3


def test_greedy_translations_agree(make_translator, tmp_path: Path) -> None:
    translator = make_translator(separate=True)
    export(translator, tmp_path / "exported")
    engine = library().Translator(str(tmp_path / "exported"), device="cpu", compute_type="float32")
    lines = ["abc", "klmabc", "e", "hgfedcba"]
    pieces = [translator.source.pieces(ids) for ids in translator.source.encode(lines)]
    theirs = engine.translate_batch(pieces, beam_size=1, max_decoding_length=6, suppress_sequences=[["<pad>"], ["<s>"]])
    ours = translator.translate(lines, Beam(1, most=6))
    names = translator.target.entries()
    for found, result in zip(ours, theirs, strict=True):
        assert found[0].text == translator.target.decode([names.index(name) for name in result.hypotheses[0]])


@pytest.mark.parametrize(
    "changes",
    [
        ("encoder.blocks.0.norm=PreNorm()",),
        ("encoder.blocks.0.norm.epsilon=0.01",),
        ("encoder.blocks.0.sublayers.0.heads=2",),
        ("decoder.blocks.0.sublayers=[Attention(4, Causal()), FeedForward(8)]",),
        ("decoder.blocks=[Block(Attention(4,Causal()),MemoryAttention(4),FeedForward(8)), Block(FeedForward(8))]",),
        ("encoder.blocks.0.sublayers=[FeedForward(8), Attention(4)]",),
        ("encoder.blocks.0.sublayers=[Attention(4)]",),
        ("encoder.blocks.0.sublayers.0.pattern=Causal()",),
    ],
)
def test_what_ctranslate2_cannot_hold_is_refused_and_nothing_is_written(
    make_translator, changes: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(QkvError, match="CTranslate2 wants"):
        export(make_translator(*changes), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_folder_with_something_in_it_is_left_alone(make_translator, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(QkvError, match="not empty"):
        export(make_translator(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
