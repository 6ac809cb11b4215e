"""Models of ours as folders of Hugging Face's: the same numbers for the same text, the same logits, the same greedy text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.conftest import Ask, Text, Trained, sentences, text, trained, write
from tests.interop.conftest import SENTENCES, MakeStored, transformers
from tests.interop.test_import import both, numbers

from qkv.decode.generate import Greedy, Writer
from qkv.decode.rule import Beam
from qkv.decode.translate import Translator
from qkv.error import QkvError
from qkv.interop.huggingface.exporting import export
from qkv.interop.huggingface.importing import bring
from qkv.interop.huggingface.library import tokenizer_of
from qkv.papers.bart import bart
from qkv.papers.bert import bert
from qkv.papers.gpt import gpt
from qkv.papers.t5 import t5
from qkv.papers.transformer import transformer
from qkv.spec.model import Classifier, DecoderOnly, EncoderDecoder, Joint, Model, Spelled
from qkv.spec.part import PreNorm
from qkv.spec.pooling import FirstToken
from qkv.store import weights_of

__all__ = ["text", "trained"]

PLACES: dict[str, Any] = {"longest": 64}
SMALL: dict[str, Any] = {"hidden": 48}
GATED = (
    "*.activation=TanhGELU()",
    "*.gated=true",
    "tie=SourceAndTarget()",
    "output.scaled=false",
)
MODELS: dict[str, tuple[Callable[..., Model], tuple[str, ...], dict[str, Any]]] = {
    "gpt": (gpt, (), PLACES | {"cut": "bytes"}),
    "gpt, untied, with another activation": (gpt, ("tie=Untied()", "*.activation=Swish()"), PLACES),
    "gpt, gelu by a sigmoid": (gpt, ("*.activation=SigmoidGELU()",), PLACES),
    "gpt without offsets": (gpt, ("*.offset=false",), PLACES),
    "gpt, scores not scaled": (gpt, ("*.score=Dot()",), PLACES | {"cut": "characters"}),
    "bert": (bert, (), PLACES),
    "bert, untied": (bert, ("tie=Untied()",), PLACES | {"cut": "unigram"}),
    "transformer": (transformer, (), SMALL),
    "transformer, separate": (transformer, (), SMALL | {"separate": True, "cut": "unigram"}),
    "transformer, untied": (transformer, ("tie=Untied()",), SMALL | {"separate": True}),
    "transformer, an output of its own": (transformer, ("tie=SourceAndTarget()",), SMALL | {"offset": True}),
    "transformer, not scaled, with an offset": (transformer, ("embedding.scale=false", "output.offset=true"), SMALL),
    "transformer, other sizes on each side": (transformer, ("encoder.depth=3", "encoder.blocks.0.sublayers.1.hidden=24"), SMALL),
    "transformer, norms before": (transformer, (), SMALL | {"norm": PreNorm(), "cut": "unigram"}),
    "transformer, norms before, untied": (transformer, ("tie=SourceAndTarget()", "*.norm=PreNorm()"), SMALL),
    "t5": (t5, (), SMALL),
    "t5, gated, untied": (t5, GATED, SMALL),
    "t5, gated, not scaled": (t5, ("*.activation=Swish()", "*.gated=true", "output.scaled=false"), SMALL),
    "bart": (bart, (), PLACES | {"cut": "characters"}),
    "bart, an output of its own": (bart, ("tie=SourceAndTarget()", "embedding.scale=true"), PLACES),
}


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_model_says_the_same(make_stored: MakeStored, name: str, tmp_path: Path) -> None:
    paper, changes, more = MODELS[name]
    stored = make_stored(paper, *changes, **more)
    architecture = export(stored, tmp_path / "there")
    theirs = getattr(transformers, architecture.auto).from_pretrained(tmp_path / "there").eval()
    reads = transformers.AutoTokenizer.from_pretrained(tmp_path / "there")
    found, wanted = both(stored, theirs)
    assert wanted.abs().max() > 1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    symbols, ids = stored.source.symbols, stored.source.encode(list(SENTENCES))
    writes = isinstance(stored.model.spec, DecoderOnly)
    assert numbers(reads) == [[*symbols.opening, *each] if writes else symbols.read(each) for each in ids]
    _greedy_text_is_the_same(stored, theirs, reads, tmp_path / "there")
    again = bring(tmp_path / "there").stored
    assert all(torch.equal(one, weights_of(stored.model).get(name, one)) for name, one in weights_of(again.model).items())
    assert (again.source.symbols, again.target.symbols) == (stored.source.symbols, stored.target.symbols)
    assert again.target.encode(list(SENTENCES)) == stored.target.encode(list(SENTENCES))


def _greedy_text_is_the_same(stored: Any, theirs: Any, reads: Any, folder: Path) -> None:
    """What both write of themselves, by what generation_config.json says alone."""
    given, most = list(SENTENCES[:3]), 12
    if isinstance(stored.model.spec, DecoderOnly):
        found = Writer(stored).generate(given, Greedy(), length=most)
        ours = [text + each[0].text for text, each in zip(given, found, strict=True)]
    elif isinstance(stored.model.spec, EncoderDecoder):
        ours = [each[0].text for each in Translator(stored).translate(given, Beam(1, most=most))]
    else:
        return
    says = tokenizer_of(folder / "target") if stored.source is not stored.target else reads
    written = [theirs.generate(**reads(text, return_tensors="pt"), max_new_tokens=most)[0] for text in given]
    assert [says.decode(ids, skip_special_tokens=True).strip() for ids in written] == [text.strip() for text in ours]
    assert any(ours)


def test_prompts_of_different_lengths_are_written_on_together(make_stored: MakeStored, tmp_path: Path) -> None:
    stored = make_stored(gpt, cut="bytes", **PLACES)
    export(stored, tmp_path / "there")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "there")
    reads = transformers.AutoTokenizer.from_pretrained(tmp_path / "there")
    given = ["A dog", "The small green house runs"]
    ids = theirs.generate(**reads(given, return_tensors="pt", padding=True), max_new_tokens=10)
    ours = Writer(stored).generate(given, Greedy(), length=10)
    assert [reads.decode(row, skip_special_tokens=True) for row in ids] == [
        text + each[0].text for text, each in zip(given, ours, strict=True)
    ]


def test_text_that_looks_like_a_special_entry_is_text(make_stored: MakeStored, tmp_path: Path) -> None:
    line = "a <unk> dog </s> <s> runs"
    for paper, more in ((gpt, PLACES), (transformer, SMALL)):
        stored = make_stored(paper, cut="bytes", **more)
        export(stored, tmp_path / paper.__name__)
        ids = numbers(tokenizer_of(tmp_path / paper.__name__), (line,))[0]
        assert [each for each in ids if each > 3] == stored.source.encode([line])[0]
        assert bring(tmp_path / paper.__name__).stored.source.encode([line]) == stored.source.encode([line])


def test_a_mask_in_text_is_the_mask(make_stored: MakeStored, tmp_path: Path) -> None:
    stored = make_stored(bert, **PLACES)
    export(stored, tmp_path / "there")
    ids = numbers(tokenizer_of(tmp_path / "there"), ("A dog <mask> over",))[0]
    assert ids.count(stored.source.symbols.mask) == 1


@pytest.mark.parametrize("cut", ["bpe", "unigram", "bytes"])
def test_a_mask_takes_the_space_before_it_and_gives_none(make_stored: MakeStored, tmp_path: Path, cut: str) -> None:
    stored = make_stored(bert, cut=cut, **PLACES)
    export(stored, tmp_path / "there")
    theirs, again = tokenizer_of(tmp_path / "there"), bring(tmp_path / "there").stored
    for line in ("A <mask> over the <mask>.", "<mask>", "dog <mask><mask>, a"):
        ids = stored.source.encode_masked(line)
        assert [each for each in numbers(theirs, (line,))[0] if each not in (1, 2)] == ids
        assert again.source.encode_masked(line) == ids


def test_both_tokenizers_are_written_and_read(make_stored: MakeStored, tmp_path: Path) -> None:
    stored = make_stored(transformer, separate=True, **SMALL)
    export(stored, tmp_path / "there")
    target = numbers(transformers.AutoTokenizer.from_pretrained(tmp_path / "there" / "target"))
    assert target == [[*ids, 2] for ids in stored.target.encode(list(SENTENCES))] != numbers(tokenizer_of(tmp_path / "there"))


PREFIX = {"gpt": "GPT-2", "bert": "BERT", "transformer": "Marian", "t5": "T5", "bart": "BART"}
REFUSED: list[tuple[Callable[..., Model], tuple[str, ...], str]] = [
    (gpt, ("embedding.position=NoPosition()", "*.rotate=Rotary()"), "embedding.position=NoPosition"),
    (gpt, ("*.rotate=Rotary()",), "rotate=Rotary"),
    (gpt, ("*.bias=ALiBi()",), "bias=ALiBi"),
    (gpt, ("*.norm=PreNorm(1e-5,RMSNorm())",), "RMSNorm"),
    (gpt, ("*.norm=PostNorm()",), "PostNorm"),
    (gpt, ("*.kv_heads=2",), "kv_heads=2"),
    (gpt, ("*.gated=true",), "gated=True"),
    (gpt, ("embedding.scale=true",), "embedding.scale=True"),
    (gpt, ("embedding.norm=Normed()",), "Normed"),
    (gpt, ("embedding.segments=2",), "segments=2"),
    (gpt, ("output.offset=true",), "output=Output"),
    (gpt, ("*.head_width=4",), "heads of width 4"),
    (gpt, ("decoder.bias=Relative(8, 16, False)",), "bias=Relative"),
    (gpt, ("decoder.blocks=[Block(Attention(4, Causal()), norm=PreNorm())]",), "a block of Attention"),
    (
        gpt,
        (
            "decoder.blocks=[Block(Attention(4, Causal()), FeedForward(8), norm=PreNorm()), "
            "Block(Attention(4, Causal()), FeedForward(9), norm=PreNorm())]",
        ),
        "different values of hidden",
    ),
    (gpt, ("*.activation=LeakyReLU()",), "activation=LeakyReLU"),
    (bert, ("*.norm=PreNorm(1e-12)",), "PreNorm"),
    (bert, ("embedding.segments=0",), "segments=0"),
    (bert, ("embedding.norm=NoNorm()",), "NoNorm"),
    (bert, ("encoder.blocks.0.norm.epsilon=1e-5",), "different values of epsilon"),
    (bert, ("output.transform=Straight()",), "output=Output"),
    (bert, ("encoder.blocks.0.sublayers.0.pattern=Causal()",), "pattern=Causal"),
    (transformer, ("encoder.blocks.0.norm=PreNorm()",), "PreNorm"),
    (transformer, ("embedding.position=Sinusoid(500)",), "Sinusoid(base=500"),
    (transformer, ("*.epsilon=0.01",), "epsilon=0.01"),
    (transformer, ("output.scaled=true",), "scaled=True"),
    (t5, ("encoder.bias=NoBias()",), "bias=NoBias"),
    (t5, ("decoder.bias=Relative(16, 64, False)",), "Relative(buckets=16"),
    (t5, ("*.score=ScaledDot()",), "score=ScaledDot"),
    (t5, ("*.norm=PreNorm()",), "LayerNorm"),
    (t5, ("encoder.blocks.0.sublayers.1.offset=true",), "offset=True"),
    (t5, ("encoder.blocks.0.sublayers.1.hidden=24",), "different values of hidden"),
    (t5, ("*.activation=GELU()", "*.gated=true"), "gated FeedForward"),
    (t5, ("tie=SourceAndTarget()",), "output.scaled=True"),
    (t5, ("tie=Untied()",), "tie=Untied"),
    (bart, ("embedding.norm=NoNorm()",), "NoNorm"),
    (bart, ("embedding.norm.epsilon=0.1",), "epsilon=0.1"),
    (bart, ("tie=Untied()",), "tie=Untied"),
    (bart, ("decoder.blocks.0.norm=PreNorm()",), "PreNorm"),
]


@pytest.mark.parametrize(("paper", "changes", "named"), REFUSED, ids=[f"{p.__name__}-{n}" for p, _, n in REFUSED])
def test_what_an_architecture_cannot_hold_is_named(
    make_stored: MakeStored, paper: Callable[..., Model], changes: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    stored = make_stored(paper, *changes, **(SMALL if paper in (t5, transformer) else PLACES))
    with pytest.raises(QkvError) as caught:
        export(stored, tmp_path / "there")
    assert str(caught.value).startswith(f"{PREFIX[paper.__name__]} cannot hold ") and "it wants" in str(caught.value)
    assert named in str(caught.value)
    assert not (tmp_path / "there").exists()


def answering(vocabulary: Joint, **sizes: Any) -> Classifier:
    """BERT, whose labels are told by their words."""
    encoder = bert(vocabulary, **sizes)
    body = (encoder.vocabulary, encoder.width, encoder.embedding, encoder.encoder)
    return Classifier(*body, ("yes", "no"), FirstToken(), answer=Spelled(((4,), (5,))))


def test_labels_that_are_told_by_their_words_stay_here(make_stored: MakeStored, tmp_path: Path) -> None:
    with pytest.raises(QkvError, match=r"BERT cannot hold answer=Spelled.*: it wants answer=Mapped\(\)"):
        export(make_stored(answering, **PLACES), tmp_path / "there")


def test_pegasus_has_one_vocabulary(make_stored: MakeStored, tmp_path: Path) -> None:
    stored = make_stored(transformer, separate=True, norm=PreNorm(), **SMALL)
    with pytest.raises(QkvError, match=r"Pegasus cannot hold a model with tie=TargetAndOutput\(\): it wants AllThree"):
        export(stored, tmp_path / "there")


def test_a_folder_with_something_in_it_is_left_alone(make_stored: MakeStored, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    stored = make_stored(gpt, **PLACES)
    with pytest.raises(QkvError, match="not empty"):
        export(stored, tmp_path)
    with pytest.raises(QkvError, match="not empty"):
        export(stored, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_trained_run_is_exported_and_compared_on_its_own_text(ask: Ask, trained: Trained, text: Text, tmp_path: Path) -> None:
    lines = write(tmp_path / "lines", sentences(40, 3))
    how = "--tokenizer bytes --steps 3 --device cpu --precision fp32 --longest 32 --batch-tokens 256".split()
    small = ["--set", "width=16", "--set", "decoder.depth=1", "--set", "checkpoints=Checkpoints(3,1,Exactly(1))"]
    answer = ask("train", "generate", "--text", lines, "--documents", "lines", "--out", tmp_path / "run", *how, *small)
    assert answer.code == 0, answer.err
    answer = ask("export", tmp_path / "run", tmp_path / "there", "--to", "huggingface")
    assert (answer.code, answer.err) == (0, "")
    said = answer.out.splitlines()
    assert said[0].startswith(f"wrote {tmp_path / 'there'}: GPT-2, for AutoModelForCausalLM")
    assert said[1] == "token ids: the same as in transformers for 40 of 40 texts"
    assert said[2].startswith("largest difference of a logit, over 40 validation texts: ")
    assert float(said[2].split(": ")[1].split()[0]) < 1e-4
    assert said[3] == "greedy text: the same as in transformers for 3 of 3 texts"
    lines.unlink()
    answer = ask("export", tmp_path / "run", tmp_path / "again", "--to", "huggingface")
    assert answer.code == 0 and "over 12 sentences of several languages" in answer.out


def test_an_engine_nobody_knows_is_refused(ask: Ask, trained: Trained, tmp_path: Path) -> None:
    answer = ask("export", trained.folder, tmp_path / "there", "--to", "hugingface")
    assert answer.code == 2 and "did you mean 'huggingface'" in answer.err


def test_greedy_text_that_differs_is_counted(make_stored: MakeStored, tmp_path: Path) -> None:
    from qkv.interop.huggingface.parity import compare

    stored = make_stored(gpt, cut="bytes", **PLACES)
    architecture = export(stored, tmp_path / "there")
    config = tmp_path / "there" / "generation_config.json"
    first = stored.target.encode(["A dog"])[0][0]
    banned = {"bad_words_ids": [[number] for number in range(4, stored.target.size) if number != first]}
    pairs = [(line, line) for line in SENTENCES]
    assert compare(stored, architecture, tmp_path / "there", pairs, tokenized=True, writes=True).alike == 3
    config.write_text(json.dumps(json.loads(config.read_text()) | banned))
    found = compare(stored, architecture, tmp_path / "there", pairs, tokenized=True, writes=True)
    assert (found.alike, found.written) == (0, 3) and found.close
    shutil.rmtree(tmp_path / "there")
