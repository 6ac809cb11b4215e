"""What is easily got wrong between our grammar and Hugging Face's, one test for each trap."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.interop.conftest import SENTENCES, MakeStored, There, make, transformers
from tests.interop.test_import import both

from qkv.decode.rule import Beam
from qkv.decode.translate import Translator
from qkv.error import QkvError
from qkv.interop.huggingface.exporting import export
from qkv.interop.huggingface.importing import bring
from qkv.interop.huggingface.library import tokenizer_of
from qkv.interop.huggingface.marian import MARIAN
from qkv.interop.huggingface.names import Channels
from qkv.model.position import sinusoids
from qkv.papers.bart import bart
from qkv.papers.bert import bert
from qkv.papers.gpt import gpt
from qkv.papers.t5 import t5
from qkv.papers.transformer import transformer
from qkv.spec.model import AllThree, Joint, Output, SourceAndTarget, Tied, Transform
from qkv.spec.part import GELU, PreNorm, TanhGELU
from qkv.spec.position import NoBias, Relative, Sinusoid
from qkv.spec.score import Dot
from qkv.store import weights_of


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def rewrite(folder: Path, **changed: Any) -> None:
    """Other values in a config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


# Marian


def test_marians_sinusoids_come_in_halves() -> None:
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 9, "max_position_embeddings": 20}
    config = transformers.MarianConfig(**sizes, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    theirs = transformers.MarianMTModel(config).model.encoder.embed_positions.weight
    ours = sinusoids(Sinusoid(), 20, 32).float()
    torch.testing.assert_close(Channels(1).theirs(ours), theirs, rtol=0, atol=1e-6)
    assert not torch.allclose(ours, theirs, atol=0.1)
    assert torch.equal(Channels(1).ours(Channels(1).theirs(ours)), ours)
    odd = torch.arange(5.0)
    assert Channels(0).theirs(odd).tolist() == [0, 2, 4, 1, 3] and torch.equal(Channels(0).ours(Channels(0).theirs(odd)), odd)


def test_marian_has_no_norms_before_sublayers(tmp_path: Path) -> None:
    spec = transformer(Joint(99), width=32, heads=4, depth=2, hidden=8, norm=PreNorm())
    with pytest.raises(QkvError, match=r"Marian cannot hold PreNorm.*: it wants PostNorm"):
        MARIAN.configured(spec)
    make("marian", tmp_path)
    rewrite(tmp_path, normalize_before=True)
    with pytest.raises(QkvError, match="normalize_before = True, which qkv does not do"):
        bring(tmp_path)


@pytest.mark.parametrize("offset", [True, False])
def test_marians_logits_bias_is_carried_where_there_is_one(offset: bool, tmp_path: Path) -> None:
    model = make("marian", tmp_path / "there")
    if not offset:
        model.final_logits_bias.zero_()
        model.save_pretrained(tmp_path / "there")
    stored = bring(tmp_path / "there").stored
    assert stored.model.spec.output == Output(offset=offset)
    torch.testing.assert_close(*both(stored, model), rtol=0, atol=1e-4)
    export(stored, tmp_path / "back")
    assert ("final_logits_bias" in tensors(tmp_path / "back")) == offset


def test_marians_vocabularies_may_be_two(tmp_path: Path) -> None:
    model = make("marian", tmp_path, share_encoder_decoder_embeddings=False, decoder_vocab_size=400)
    names = list(json.loads((tmp_path / "vocab.json").read_text()))
    target = {name: number for number, name in enumerate([*names, *(f"x{n}" for n in range(400 - len(names)))])}
    (tmp_path / "target_vocab.json").write_text(json.dumps(target))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": True}))
    stored = bring(tmp_path).stored
    assert (stored.source.size, stored.target.size) == (len(names), 400)
    torch.testing.assert_close(*both(stored, model), rtol=0, atol=1e-4)


def test_pieces_have_the_numbers_of_the_vocabulary_and_not_of_sentencepiece(tmp_path: Path) -> None:
    make("marian", tmp_path)
    stored, numbers = bring(tmp_path).stored, json.loads((tmp_path / "vocab.json").read_text())
    for side, line in ((stored.source, "the green house"), (stored.target, "der grüne Hund")):
        ids = side.encode([line])[0]
        assert ids == [numbers[piece] for piece in side.pieces(ids)] and numbers["<unk>"] not in ids
    # a piece that only the target has is no piece of the source, although both share the numbers
    only = next(
        name for name in numbers if name.startswith("▁") and len(name) > 3 and stored.source.entries()[numbers[name]] != name
    )
    assert numbers[only] not in stored.source.encode([only[1:]])[0]
    assert stored.target.encode([only[1:]])[0] == [numbers[only]] and stored.source.decode([numbers[only]]) == only[1:]


# T5


@pytest.mark.parametrize(("gated", "tied"), [(False, True), (True, False)], ids=["1.0", "1.1"])
def test_t5_has_no_scale_shares_a_bias_and_starts_with_padding(gated: bool, tied: bool, tmp_path: Path) -> None:
    how = {"feed_forward_proj": "gated-gelu" if gated else "relu", "tie_word_embeddings": tied}
    model = make("t5", tmp_path / "there", **how)
    if not tied:  # the library ties them whatever is said, unless they come apart in the file
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        model.save_pretrained(tmp_path / "there")
    if not tied:
        rewrite(tmp_path / "there", tie_word_embeddings=False)
    imported = bring(tmp_path / "there")
    stored, spec = imported.stored, imported.stored.model.spec
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "there").eval()
    torch.testing.assert_close(*both(stored, model), rtol=0, atol=1e-4)
    assert {
        s.score for block in (*spec.encoder.blocks, *spec.decoder.blocks) for s in block.sublayers if hasattr(s, "score")
    } == {Dot()}
    assert spec.encoder.bias == Relative(32, 128) and spec.decoder.bias == Relative(32, 128, two_sided=False)
    assert spec.encoder.blocks[0].sublayers[0].bias == NoBias() and not spec.embedding.scale
    assert spec.output == Output(scaled=tied) and spec.tie == (AllThree() if tied else SourceAndTarget())
    assert spec.encoder.blocks[0].sublayers[1].gated == gated
    assert (spec.encoder.blocks[0].sublayers[1].activation == TanhGELU()) == gated
    assert stored.target.symbols.opening == (stored.target.symbols.pad,) == (0,)
    # more rows than entries: nothing is cut into them, and they are never said
    assert spec.vocabulary.size == stored.source.size == model.config.vocab_size
    assert set(range(model.config.vocab_size - 28, model.config.vocab_size)) <= stored.source.symbols.special
    assert stored.source.encode([f"{model.config.vocab_size - 1}"])[0][-1] < model.config.vocab_size - 28
    export(stored, tmp_path / "back")
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "back").eval()
    torch.testing.assert_close(*both(stored, again), rtol=0, atol=1e-4)
    assert len(stored.source.symbols.sentinels) == 100


def test_t5_writes_the_scores_of_the_tied_matrix_scaled(make_stored: MakeStored, tmp_path: Path) -> None:
    stored = make_stored(t5, hidden=48)
    export(stored, tmp_path)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    found, wanted = both(stored, theirs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    theirs.config.scale_decoder_outputs = False
    torch.testing.assert_close(found * math.sqrt(32), both(stored, theirs)[1], rtol=1e-4, atol=1e-3)


# BART


def test_barts_places_begin_after_two_rows(tmp_path: Path) -> None:
    make("bart", tmp_path / "there")
    stored = bring(tmp_path / "there").stored
    there = tensors(tmp_path / "there")["model.encoder.embed_positions.weight"]
    assert there.shape[0] == 66 and stored.model.spec.embedding.position.longest == 64
    assert torch.equal(weights_of(stored.model)["source.places"], there[2:])
    export(stored, tmp_path / "back")
    assert torch.equal(tensors(tmp_path / "back")["model.encoder.embed_positions.weight"][2:], there[2:])


def test_bart_has_a_norm_after_each_embedding_and_a_logits_bias(make_stored: MakeStored, tmp_path: Path) -> None:
    stored = make_stored(bart, longest=64)
    export(stored, tmp_path)
    there, ours = tensors(tmp_path), weights_of(stored.model)
    for our, their in (("source", "encoder"), ("target", "decoder")):
        assert torch.equal(ours[f"{our}.norm.weight"], there[f"model.{their}.layernorm_embedding.weight"])
    assert torch.equal(there["final_logits_bias"], ours["head.offset"][None]) and ours["head.offset"].any()


def test_bart_starts_with_the_end_and_says_the_start_itself(tmp_path: Path) -> None:
    model = make("bart", tmp_path / "there")
    model.generation_config.forced_bos_token_id, model.generation_config.forced_eos_token_id = 0, None
    model.generation_config.bad_words_ids = [[0], [1]]
    model.save_pretrained(tmp_path / "there")
    stored = bring(tmp_path / "there").stored
    symbols = stored.target.symbols
    assert (symbols.before, symbols.end, symbols.opening) == ((0,), 2, (2, 0))
    export(stored, tmp_path / "back")
    ours = [each[0].text for each in Translator(stored).translate(list(SENTENCES[:3]), Beam(1, most=10))]
    for folder in (tmp_path / "there", tmp_path / "back"):
        theirs, reads = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder), tokenizer_of(folder)
        ids = [theirs.generate(**reads(text, return_tensors="pt"), max_new_tokens=11)[0].tolist() for text in SENTENCES[:3]]
        assert [row[:2] for row in ids] == [[2, 0]] * 3
        assert [reads.decode(row, skip_special_tokens=True).strip() for row in ids] == [text.strip() for text in ours]


def test_bart_without_its_head_is_read(tmp_path: Path) -> None:
    model = make("bart", tmp_path, "BartModel")
    assert "shared.weight" in tensors(tmp_path)
    stored = bring(tmp_path).stored
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert torch.equal(theirs.model.shared.weight, model.shared.weight)
    torch.testing.assert_close(*both(stored, theirs), rtol=0, atol=1e-4)


# GPT-2


def test_gpt2s_matrices_stand_on_their_side_and_three_are_one(make_stored: MakeStored, tmp_path: Path) -> None:
    stored = make_stored(gpt, longest=64)
    export(stored, tmp_path)
    there, ours = tensors(tmp_path), weights_of(stored.model)
    fused = there["transformer.h.1.attn.c_attn.weight"]
    assert fused.shape == (32, 96) and torch.equal(fused.t(), ours["decoder.blocks.1.sublayers.0.sublayer.qkv.weight"])
    assert there["transformer.h.1.mlp.c_fc.weight"].shape == (32, 128)


@pytest.mark.parametrize(("name", "activation"), [("gelu_new", TanhGELU()), ("gelu", GELU())])
def test_gpt2s_gelu_is_the_tanh_form_unless_it_says_otherwise(name: str, activation: object, tmp_path: Path) -> None:
    model = make("gpt2", tmp_path, activation_function=name)
    stored = bring(tmp_path).stored
    assert stored.model.spec.decoder.blocks[0].sublayers[1].activation == activation
    torch.testing.assert_close(*both(stored, model), rtol=0, atol=2e-5)


def test_gpt2_as_it_was_released(tmp_path: Path) -> None:
    """Names without the model's, masks among the weights, next to nothing in the config of the tokenizer."""
    model = make("gpt2", tmp_path)
    found = {name.removeprefix("transformer."): tensor for name, tensor in tensors(tmp_path).items()}
    found |= {"h.0.attn.bias": torch.ones(1, 1, 64, 64).tril(), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    safetensors.torch.save_file(found, tmp_path / "model.safetensors", metadata={"format": "pt"})
    imported = bring(tmp_path)
    assert imported.notes == ()
    torch.testing.assert_close(*both(imported.stored, model), rtol=0, atol=1e-4)
    assert imported.stored.source.symbols.opening == () and imported.stored.source.symbols.end == 0


# BERT


def test_bert_adds_the_first_segment_and_has_a_small_epsilon(make_stored: MakeStored, tmp_path: Path) -> None:
    model = make("bert", tmp_path / "there")
    stored = bring(tmp_path / "there").stored
    spec = stored.model.spec
    assert spec.embedding.segments == 2 and {spec.embedding.norm.epsilon, spec.encoder.blocks[0].norm.epsilon} == {1e-12}
    there = tensors(tmp_path / "there")["bert.embeddings.token_type_embeddings.weight"]
    assert torch.equal(weights_of(stored.model)["source.segments"], there) and there[0].any()
    torch.testing.assert_close(*both(stored, model), rtol=0, atol=1e-4)
    export(make_stored(bert, longest=64), tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (config["layer_norm_eps"], config["type_vocab_size"]) == (1e-12, 2)


def test_bert_transforms_a_vector_once_more_and_adds_an_offset(tmp_path: Path) -> None:
    model = make("bert", tmp_path)
    stored = bring(tmp_path).stored
    assert stored.model.spec.output == Output(Transform(GELU(), 1e-12), offset=True)
    assert torch.equal(weights_of(stored.model)["head.offset"], model.cls.predictions.decoder.bias.data)
    assert model.cls.predictions.decoder.bias.any()


def test_bert_as_it_was_released(tmp_path: Path) -> None:
    """With a pooler and a second objective, which are left out and said so; with norms under their old names; the offset once."""
    make("bert", tmp_path, "BertForPreTraining")
    found = tensors(tmp_path)
    found["cls.predictions.bias"] = found.pop("cls.predictions.decoder.bias", found.get("cls.predictions.bias"))
    for name in [name for name in found if "LayerNorm" in name]:
        found[name.replace(".weight", ".gamma").replace(".bias", ".beta")] = found.pop(name)
    safetensors.torch.save_file(found, tmp_path / "model.safetensors", metadata={"format": "pt"})
    imported = bring(tmp_path)
    assert imported.stored.model.spec.tie == Tied()
    assert len(imported.notes) == 1 and "4 tensors have no part in this model" in imported.notes[0]
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(*both(imported.stored, theirs), rtol=0, atol=1e-4)


def test_a_classifier_has_its_pooler(tmp_path: Path) -> None:
    model = make("bert", tmp_path, "BertForSequenceClassification", num_labels=3)
    stored = bring(tmp_path).stored
    assert stored.model.spec.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert torch.equal(weights_of(stored.model)["pooler.weight"], model.bert.pooler.dense.weight.data)


# all of them


def test_tied_weights_are_there_once_and_read_from_any_of_their_names(there: There, tmp_path: Path) -> None:
    files = [path for path in there.folder.iterdir() if path.name != "model.safetensors"]
    found = tensors(there.folder)
    shared = {
        "gpt2": ("transformer.wte.weight", "lm_head.weight"),
        "bert": ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        "marian": ("model.shared.weight", "model.decoder.embed_tokens.weight"),
        "t5": ("shared.weight", "lm_head.weight"),
        "bart": ("model.shared.weight", "lm_head.weight"),
    }[there.kind]
    there_now = [name for name in found if name in shared or name.endswith("embed_tokens.weight")]
    assert len(there_now) == 1
    for name in shared:
        folder = tmp_path / name
        folder.mkdir()
        for path in files:
            (folder / path.name).write_bytes(path.read_bytes())
        renamed = {(name if key == there_now[0] else key): tensor for key, tensor in found.items()}
        safetensors.torch.save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        torch.testing.assert_close(*both(bring(folder).stored, there.model), rtol=0, atol=1e-4)
    export(bring(there.folder).stored, tmp_path / "back")
    assert sum(name in shared or name.endswith("embed_tokens.weight") for name in tensors(tmp_path / "back")) == 1
