"""Models of Hugging Face's as runs: the same numbers for the same text, the same logits, and every verb of their shape."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.cli.conftest import Ask, write
from tests.interop.conftest import KINDS, SENTENCES, There, make, transformers

from qkv.attention.sight import Padded
from qkv.data.tokenizer import Tokenizer
from qkv.decode.translate import Translator
from qkv.interop.huggingface.exporting import export
from qkv.interop.huggingface.importing import bring
from qkv.interop.huggingface.library import tokenizer_of
from qkv.interop.huggingface.parity import Parity, compare
from qkv.spec.pooling import FirstToken
from qkv.store import Stored, load, weights_of

ENDS = "\n".join(SENTENCES)


def batch(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of different lengths as one tensor, and their lengths."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows]), torch.tensor([len(row) for row in rows])


@torch.no_grad()
def both(stored: Stored, theirs: Any, sentences: tuple[str, ...] = SENTENCES) -> tuple[torch.Tensor, torch.Tensor]:
    """Our logits and theirs for a batch of texts of different lengths, padded, where there is something."""
    model, symbols = stored.model, stored.source.symbols
    rows = [[*symbols.opening, *ids] for ids in stored.source.encode(list(sentences))]
    if stored.model.spec.__class__.__name__ != "DecoderOnly":
        rows = [symbols.read(ids) for ids in stored.source.encode(list(sentences))]
    ids, lengths = batch(rows, symbols.pad)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    if not hasattr(theirs.config, "decoder_start_token_id") or not theirs.config.is_encoder_decoder:
        found, wanted = model(ids, Padded(lengths)), theirs(input_ids=ids, attention_mask=mask.long()).logits
        return (found, wanted) if found.dim() == 2 else (found[mask], wanted[mask])
    written, ends = batch([[*stored.target.symbols.opening, *row] for row in stored.target.encode(list(sentences))], symbols.pad)
    found = model(ids, Padded(lengths), written)
    wanted = theirs(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=written).logits
    there = torch.arange(written.shape[1]) < ends[:, None]
    return found[there], wanted[there]


def numbers(tokenizer: Any, sentences: tuple[str, ...] = SENTENCES) -> list[list[int]]:
    """What a tokenizer of `transformers` makes of texts."""
    return [list(ids) for ids in tokenizer(list(sentences))["input_ids"]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this module lie."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def run(there: There, runs: Path, ask: Ask) -> Path:
    """The run that a model became by the command line, which is asked once for each."""
    folder = runs / there.kind
    if not folder.is_dir():
        answer = ask("import", there.folder, "--out", folder)
        assert answer.code == 0, answer.err
    return folder


def test_an_imported_model_says_the_same(there: There, run: Path) -> None:
    stored = load(run)
    found, wanted = both(stored, there.model)
    assert wanted.abs().max() > 1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_its_tokenizer_gives_the_same_numbers(there: There, run: Path) -> None:
    stored, theirs = load(run), tokenizer_of(there.folder)
    symbols = stored.source.symbols
    ours = stored.source.encode(list(SENTENCES))
    ours = ours if there.kind == "gpt2" else [symbols.read(ids) for ids in ours]
    assert ours == numbers(theirs)
    if there.kind == "marian":
        written = [[*ids, symbols.end] for ids in stored.target.encode(list(SENTENCES))]
        assert written == [list(ids) for ids in theirs(text_target=list(SENTENCES))["input_ids"]] != ours
    for text, ids in zip(SENTENCES[:3], stored.target.encode(list(SENTENCES[:3])), strict=True):
        if there.kind != "bert":  # which has no capitals, and no way to say that there was no space
            assert stored.target.decode(ids) == text


def test_the_command_prints_what_it_measured(there: There, runs: Path, ask: Ask, tmp_path: Path) -> None:
    lines = write(tmp_path / "lines", [*SENTENCES[:3], ""])
    answer = ask("import", there.folder, "--out", tmp_path / "run", "--text", lines)
    assert answer.code == 0 and answer.err == ""
    said = answer.out.splitlines()
    texts = 6 if there.kind == "marian" else 3
    assert said[0].startswith(f"read {there.folder}: ") and "parameters" in said[0]
    assert said[1] == f"token ids: the same as in transformers for {texts} of {texts} texts"
    assert said[2].startswith(f"largest difference of a logit, over 3 lines of {lines}: ")
    assert float(said[2].split(": ")[1].split()[0]) < 1e-4
    assert said[3].startswith(f"wrote {tmp_path / 'run'}: `qkv ")
    assert ask("verify", tmp_path / "run").code == 0


def test_what_is_imported_and_exported_is_as_it_was(there: There, run: Path, tmp_path: Path) -> None:
    architecture = export(load(run), tmp_path / "back")
    again = getattr(transformers, KINDS[there.kind].auto).from_pretrained(tmp_path / "back")
    before, after = there.model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    different = [name for name in before if not torch.equal(before[name], after[name])]
    # the sinusoids are no weights; what a matrix has before its first place is never used
    assert all("embed_positions" in name for name in different)
    assert numbers(tokenizer_of(tmp_path / "back")) == numbers(tokenizer_of(there.folder))
    assert architecture.model_type == there.kind


VERBS: dict[str, list[tuple[str, ...]]] = {
    "gpt2": [("generate", "A dog", "--greedy", "--length", "8"), ("score", "--text")],
    "bert": [("fill", "a dog <mask> over"), ("embed",), ("score", "--text")],
    "marian": [("translate",), ("embed",), ("score", "--source", "--target")],
    "t5": [("translate",), ("embed",), ("score", "--source", "--target")],
    "bart": [("translate",), ("embed",), ("score", "--source", "--target")],
}


def test_all_verbs_of_its_shape_use_it(there: There, run: Path, ask: Ask, tmp_path: Path) -> None:
    lines = write(tmp_path / "lines", ["A dog runs.", "The cat sleeps."])
    files = {"--text": lines, "--source": lines, "--target": write(tmp_path / "target", ["Ein Hund läuft.", "Katze!"])}
    for verb, *options in VERBS[there.kind]:
        given = [each for option in options for each in ([option, files[option]] if option in files else [option])]
        answer = ask(verb, run, *(given or [lines]))
        assert answer.code == 0, answer.err
        assert len(answer.out.splitlines()) >= (1 if verb == "generate" else 2)


TUNED = {
    "gpt2": ("generate", "--text"),
    "bert": ("fill", "--text"),
    "marian": ("translate", "--source"),
    "t5": ("denoise", "--text"),
    "bart": ("denoise", "--text"),
}


def test_it_is_fine_tuned_with_its_tokenizer(there: There, run: Path, ask: Ask, tmp_path: Path) -> None:
    lines = write(tmp_path / "lines", ["A dog runs over the green field.", "The cat sleeps."] * 20)
    verb, option = TUNED[there.kind]
    target = write(tmp_path / "target", ["Ein Hund läuft über das Feld.", "Die Katze schläft."] * 20)
    files = [option, lines, *(("--target", target) if verb == "translate" else ())]
    noise = ("--noise", "infill") if there.kind == "bart" else ()
    more = ("--steps", 2, "--longest", 40, "--device", "cpu", "--precision", "fp32", "--set", "evaluation=Evaluation(2,0)")
    options = (*more, "--set", "checkpoints=Checkpoints(2,1,Exactly(1))")
    answer = ask("train", verb, *files, *noise, "--from", run, "--out", tmp_path / "tuned", *options)
    assert answer.code == 0, answer.err
    before, after = load(run), load(tmp_path / "tuned")
    assert before.model.spec == after.model.spec
    for side in ("source", "target"):
        assert getattr(before, side).fingerprint == getattr(after, side).fingerprint
    old, new = weights_of(before.model), weights_of(after.model)
    assert any(not torch.equal(old[name], new[name]) for name in old)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "bart", "t5"])
def test_a_tokenizer_json_is_read_as_the_older_files_are(kind: str, tmp_path: Path) -> None:
    make(kind, tmp_path)
    older = bring(tmp_path).stored.source
    tokenizer_of(tmp_path).save_pretrained(tmp_path)
    for path in tmp_path.iterdir():
        if path.name in ("vocab.json", "merges.txt", "vocab.txt", "spiece.model"):
            path.unlink()
    newer = bring(tmp_path).stored.source
    assert newer.encode(list(SENTENCES)) == older.encode(list(SENTENCES))
    assert newer.symbols == older.symbols


def test_without_a_tokenizer_there_are_numbers_for_text(ask: Ask, tmp_path: Path) -> None:
    model = make("gpt2", tmp_path / "there")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "there" / name).unlink()
    answer = ask("import", tmp_path / "there", "--out", tmp_path / "run")
    assert answer.code == 0 and "there is no tokenizer" in answer.err
    assert "over 12 rows of random entries" in answer.out and "token ids" not in answer.out
    written = model.generate(torch.tensor([[5, 17]]), max_new_tokens=4, do_sample=False, pad_token_id=0)[0].tolist()
    said = ask("generate", tmp_path / "run", "5 17", "--greedy", "--length", 4).out.split()
    assert [int(number) for number in said] == written


@pytest.mark.parametrize("kind", ["gpt2", "marian"])
def test_weights_may_be_sharded_or_a_pickle(kind: str, tmp_path: Path) -> None:
    model = make(kind, tmp_path / "whole")
    whole = weights_of(bring(tmp_path / "whole").stored.model)
    shutil.copytree(tmp_path / "whole", tmp_path / "shards")
    (tmp_path / "shards" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    shutil.copytree(tmp_path / "whole", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    for folder, said in (("shards", ""), ("pickled", "weights-only loader")):
        imported = bring(tmp_path / folder)
        found = weights_of(imported.stored.model)
        assert all(torch.equal(found[name], whole[name]) for name in whole)
        assert said in "".join(imported.notes) and bool(said) == bool(imported.notes)


def test_half_precision_becomes_single_and_is_said(tmp_path: Path) -> None:
    make("bert", tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    safetensors.torch.save_file({name: each.bfloat16() for name, each in tensors.items()}, tmp_path / "model.safetensors")
    imported = bring(tmp_path)
    assert {each.dtype for each in weights_of(imported.stored.model).values()} == {torch.float32}
    assert any("bfloat16" in note for note in imported.notes)


def test_a_classifier_goes_both_ways(ask: Ask, tmp_path: Path) -> None:
    model = make("bert", tmp_path / "there", "BertForSequenceClassification", id2label={0: "bad", 1: "good", 2: "so so"})
    answer = ask("import", tmp_path / "there", "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    stored = load(tmp_path / "run")
    assert stored.model.spec.labels == ("bad", "good", "so so") and stored.model.spec.pooling == FirstToken()
    torch.testing.assert_close(*both(stored, model), rtol=0, atol=1e-4)
    assert ask("classify", tmp_path / "run", write(tmp_path / "lines", ["a dog"])).out.split("\t")[0] in stored.model.spec.labels
    answer = ask("export", tmp_path / "run", tmp_path / "back", "--to", "huggingface")
    assert answer.code == 0, answer.err
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "back")
    assert again.config.id2label == {0: "bad", 1: "good", 2: "so so"}
    torch.testing.assert_close(*both(stored, again), rtol=0, atol=1e-4)


def test_parity_notices_another_model(there: There) -> None:
    imported = bring(there.folder)

    def measured() -> Parity:
        pairs = [(text, text) for text in SENTENCES]
        return compare(imported.stored, imported.architecture, there.folder, pairs, tokenized=True, writes=False)

    assert measured().close
    next(each for name, each in imported.stored.model.named_parameters() if name.endswith("out.weight")).data *= 1.1
    found = measured()
    assert not found.close and found.worst > 1e-3


def test_a_model_that_says_something_else_is_not_imported(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("bert", tmp_path / "there")
    monkeypatch.setattr("qkv.interop.huggingface.parity.CLOSE", 1e-12)
    answer = ask("import", tmp_path / "there", "--out", tmp_path / "run")
    assert answer.code == 1 and "says something else in transformers than here" in answer.err
    assert not (tmp_path / "run").exists()


def test_pieces_that_are_cut_in_another_way_are_said(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("bert", tmp_path / "there")
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: [ids[::-1] for ids in encode(self, texts)])
    answer = ask("import", tmp_path / "there", "--out", tmp_path / "run")
    assert answer.code == 0 and "other pieces" in answer.err


def test_transformers_is_wanted_for_the_proof_alone(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    make("marian", tmp_path / "there")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "transformers" else find(name, *more))
    answer = ask("import", tmp_path / "there", "--out", tmp_path / "run")
    assert answer.code == 0
    (said,) = answer.err.splitlines()
    assert "not compared with transformers" in said and "pip install 'qkv[huggingface]'" in said
    assert isinstance(Translator(load(tmp_path / "run")).translate(["A dog"])[0][0].text, str)


def test_language_codes_of_marian_are_one_token(tmp_path: Path) -> None:
    make("marian", tmp_path)
    stored, theirs = bring(tmp_path).stored, tokenizer_of(tmp_path)
    text = ">>deu<< A dog runs"
    ids = stored.source.symbols.read(stored.source.encode([text])[0])
    assert ids == numbers(theirs, (text,))[0]
    assert ids[0] == json.loads((tmp_path / "vocab.json").read_text())[">>deu<<"]
