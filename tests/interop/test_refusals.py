"""Folders that are not whole, not known, or would run code: each is refused in a sentence that says what to do."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest
import safetensors.torch
import torch
from tests.cli.conftest import Answer, Ask
from tests.interop.conftest import MakeStored, make

from qkv.error import QkvError
from qkv.interop.huggingface import fetch
from qkv.interop.huggingface.importing import bring
from qkv.interop.huggingface.spm import read_spm
from qkv.papers.gpt import gpt
from qkv.store import save_spec, save_tokenizers


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind that is whole, to be copied."""
    root = tmp_path_factory.mktemp("originals")
    for kind in ("gpt2", "bert", "marian", "t5", "bart"):
        make(kind, root / kind)
    return {path.name: path for path in root.iterdir()}


Copied = Callable[[str], Path]


@pytest.fixture
def copied(originals: dict[str, Path], tmp_path: Path) -> Copied:
    """A copy of one of them, to be spoilt."""
    return lambda kind: shutil.copytree(originals[kind], tmp_path / kind)


def refused(folder: Path, *words: str) -> None:
    """The folder is refused in one line with these words, its own name among them."""
    with pytest.raises(QkvError) as caught:
        bring(folder)
    said = str(caught.value)
    assert all(word in said for word in (*words, str(folder))) and "\n" not in said, said


def config(folder: Path, name: str = "config.json", **changed: Any) -> None:
    path = folder / name
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(before | changed))


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    found = safetensors.torch.load_file(folder / "model.safetensors")
    change(found)
    safetensors.torch.save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


# what is not whole


def test_a_folder_without_a_config(copied: Copied) -> None:
    folder = copied("gpt2")
    (folder / "config.json").unlink()
    refused(folder, "there is no config.json", "the download is not whole")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_config_that_is_no_json_object(copied: Copied, text: str) -> None:
    folder = copied("gpt2")
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    refused(folder, "config.json", "download it again")


def test_a_folder_without_weights(copied: Copied) -> None:
    folder = copied("bert")
    (folder / "model.safetensors").unlink()
    refused(folder, "there are no weights", "model.safetensors", "pytorch_model.bin")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_weights_cut_short(copied: Copied, share: float) -> None:
    folder = copied("t5")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: int(share * len(whole))])
    refused(folder, "model.safetensors cannot be read", "cut short", "download it again")


def sharded(folder: Path) -> Path:
    """The same weights in two files and an index."""
    found = safetensors.torch.load_file(folder / "model.safetensors")
    places = {name: f"model-0000{1 + (number % 2)}-of-00002.safetensors" for number, name in enumerate(found)}
    for shard in set(places.values()):
        safetensors.torch.save_file({name: found[name] for name in found if places[name] == shard}, folder / shard)
    (folder / "model.safetensors").unlink()
    config(folder, "model.safetensors.index.json", weight_map=places)
    return folder


def test_a_shard_that_is_missing(copied: Copied) -> None:
    folder = sharded(copied("bart"))
    bring(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "model-00002-of-00002.safetensors, which is not in", "the download is not whole")


def test_an_index_that_promises_too_much_or_leads_elsewhere(copied: Copied) -> None:
    folder = sharded(copied("bart"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    config(folder, "model.safetensors.index.json", weight_map=index | {"more": "model-00001-of-00002.safetensors"})
    refused(folder, "'more' is in model-00001-of-00002.safetensors, but it is not")
    config(folder, "model.safetensors.index.json", weight_map=index | {"more": "../elsewhere.safetensors"})
    refused(folder, "'../elsewhere.safetensors'", "not the plain name of a file")
    config(folder, "model.safetensors.index.json", weight_map={})
    refused(folder, "names no shards")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("gpt2", "merges.txt"),
        ("bart", "vocab.json"),
        ("marian", "source.spm"),
        ("marian", "target.spm"),
        ("marian", "vocab.json"),
    ],
)
def test_a_file_of_the_vocabulary_that_is_missing(copied: Copied, kind: str, name: str) -> None:
    folder = copied(kind)
    (folder / name).unlink()
    refused(folder, "parts of a tokenizer", name, "the download is not whole")


@pytest.mark.parametrize(("kind", "name"), [("bert", "vocab.txt"), ("t5", "spiece.model")])
def test_a_tokenizer_that_is_only_spoken_of(copied: Copied, kind: str, name: str) -> None:
    folder = copied(kind)
    config(folder, "tokenizer_config.json", do_lower_case=True)
    (folder / name).unlink()
    refused(folder, "parts of a tokenizer", name)


@pytest.mark.parametrize(("kind", "name"), [("gpt2", "vocab.json"), ("marian", "source.spm"), ("t5", "spiece.model")])
def test_a_file_of_the_vocabulary_that_is_cut_short(copied: Copied, kind: str, name: str) -> None:
    folder = copied(kind)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2 + 1])
    refused(folder, "download")


def test_a_tokenizer_json_that_is_none(copied: Copied) -> None:
    folder = copied("bert")
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    refused(folder, "the tokenizer in", "cannot be read", "download the folder again")


def test_a_model_of_sentencepiece_that_is_of_another_type(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra: pip install 'qkv[huggingface]'")
    (tmp_path / "text").write_text("a dog runs over the field\n" * 30)
    how = {"model_type": "bpe", "vocab_size": 30, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(input=str(tmp_path / "text"), model_prefix=str(tmp_path / "m"), **how)
    with pytest.raises(QkvError, match="a bpe model of SentencePiece, and qkv reads unigram ones only"):
        read_spm(tmp_path / "m.model")


def test_sentencepiece_reads_what_we_read(originals: dict[str, Path]) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra: pip install 'qkv[huggingface]'")
    for path in (originals["marian"] / "source.spm", originals["t5"] / "spiece.model"):
        theirs, ours = sentencepiece.SentencePieceProcessor(str(path)), read_spm(path)
        count = theirs.get_piece_size()
        assert [piece.text for piece in ours.pieces] == [theirs.id_to_piece(number) for number in range(count)]
        assert [piece.score for piece in ours.pieces] == [theirs.get_score(number) for number in range(count)]
        assert ours.prefix and ours.trim and ours.split and ours.map


# what does not fit together


def test_a_tensor_that_is_missing_has_another_shape_or_no_numbers(copied: Copied) -> None:
    folder, name = copied("gpt2"), "transformer.h.1.attn.c_attn.weight"
    original = safetensors.torch.load_file(folder / "model.safetensors")
    tensors(folder, lambda found: found.pop(name))
    refused(folder, "lack 1 of the", name)
    tensors(folder, lambda found: found.update({name: original[name][:, :90].contiguous()}))
    refused(folder, name, "(32, 90)", "(32, 96)", "not of the same model")
    for value in (torch.nan, torch.inf):
        spoilt = original[name].clone()
        spoilt[3, 4] = value
        tensors(folder, lambda found, spoilt=spoilt: found.update({name: spoilt}))
        refused(folder, name, "no number (NaN or infinite)")


def test_weights_of_another_kind_of_model(copied: Copied, originals: dict[str, Path]) -> None:
    folder = copied("bart")
    shutil.copy(originals["bert"] / "model.safetensors", folder)
    refused(folder, "lack", "of another kind of model")


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("gpt2", {"model_type": "gpt_2"}, ("unknown model_type", "did you mean 'gpt2'")),
        ("gpt2", {"model_type": "llama"}, ("unknown model_type", "'llama'")),
        ("gpt2", {"model_type": None}, ("says no model_type", "bart, bert, gpt2")),
        ("bert", {"architectures": ["BertForMaskedLMs"]}, ("unknown architecture", "did you mean 'BertForMaskedLM'")),
        ("bert", {"architectures": ["BertForTokenClassification"]}, ("unknown architecture", "did you mean")),
        ("gpt2", {"n_head": 5}, ("cannot be shared by 5 heads",)),
        ("gpt2", {"n_embd": "wide"}, ("n_embd = 'wide'", "a whole number of at least 1")),
        ("gpt2", {"n_layer": 3}, ("lack 12 of the", "transformer.h.2")),
        ("gpt2", {"activation_function": "gelu_neu"}, ("unknown activation", "did you mean 'gelu_new'")),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, ("scale_attn_by_inverse_layer_idx = True",)),
        ("bert", {"position_embedding_type": "relative_key"}, ("position_embedding_type = 'relative_key'",)),
        ("bert", {"hidden_dropout_prob": -1}, ("hidden_dropout_prob = -1", "a number of at least 0")),
        ("bert", {"is_decoder": True}, ("is_decoder = True",)),
        ("t5", {"feed_forward_proj": "gated-tanh"}, ("feed_forward_proj = 'gated-tanh'",)),
        ("marian", {"static_position_embeddings": False}, ("static_position_embeddings = False",)),
        ("bart", {"scale_embedding": "yes"}, ("scale_embedding = 'yes'", "true or false")),
        ("marian", {"vocab_size": 90}, ("has the shape", "not of the same model")),
    ],
    ids=str,
)
def test_a_config_that_asks_for_what_is_not_there(
    copied: Copied, kind: str, changed: dict[str, Any], words: tuple[str, ...]
) -> None:
    folder = copied(kind)
    config(folder, **changed)
    refused(folder, *words)


def test_labels_that_are_none(tmp_path: Path) -> None:
    make("bert", tmp_path, "BertForSequenceClassification", num_labels=3)
    config(tmp_path, id2label={"0": "a", "2": "b", "3": "c"})
    refused(tmp_path, "id2label")
    config(tmp_path, id2label={"0": "a"})
    refused(tmp_path, "at least two labels")
    config(tmp_path, id2label={"0": "a", "1": "b", "2": "c"}, problem_type="multi_label_classification")
    refused(tmp_path, "problem_type = 'multi_label_classification'")


def test_a_tokenizer_of_another_model(copied: Copied, originals: dict[str, Path]) -> None:
    folder = copied("gpt2")
    tensors(folder, lambda found: found.update({"transformer.wte.weight": found["transformer.wte.weight"][:300].contiguous()}))
    config(folder, vocab_size=300)
    refused(folder, "has 330 entries, and its model 300", "belongs to another model")


def test_an_entry_that_a_model_has_no_vector_for_is_left_out_and_said(copied: Copied) -> None:
    """As in bart-large-cnn, which has no mask."""
    folder = copied("bart")
    from qkv.interop.huggingface.library import tokenizer_of

    tokenizer = tokenizer_of(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<more>"]})
    tokenizer.save_pretrained(folder)
    imported = bring(folder)
    assert any("'<more>'" in note for note in imported.notes)
    assert imported.stored.source.size == imported.stored.model.spec.vocabulary.size


# what would run code


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_out_of_the_folder_is_never_run(copied: Copied, name: str) -> None:
    folder = copied("gpt2")
    (folder / "modeling.py").write_text("raise SystemExit('run')")
    config(folder, name, auto_map={"AutoModelForCausalLM": "modeling.Model"})
    refused(folder, "auto_map", "which qkv never does")


class Touch:
    """Something that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", ["torch", "plain"])
def test_a_pickle_that_would_run_code_is_refused(copied: Copied, tmp_path: Path, protocol: str) -> None:
    folder = copied("gpt2")
    (folder / "model.safetensors").unlink()
    state = {"transformer.wte.weight": torch.zeros(2, 2), "x": Touch(tmp_path / "touched")}
    if protocol == "torch":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(state))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the plain one is not what PyTorch writes
        refused(folder, "holds more than tensors", "could run code")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("what", [{"a": 1}, [torch.zeros(2)], {"a": {"b": torch.zeros(2)}}], ids=str)
def test_a_pickle_of_something_else(copied: Copied, what: Any) -> None:
    folder = copied("gpt2")
    (folder / "model.safetensors").unlink()
    torch.save(what, folder / "pytorch_model.bin")
    refused(folder, "should hold tensors by name")


def test_a_pickle_cut_short(copied: Copied, originals: dict[str, Path]) -> None:
    folder = copied("gpt2")
    torch.save(safetensors.torch.load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    refused(folder, "pytorch_model.bin")


# where a model comes from, and where a run goes


def told(answer: Answer, *words: str) -> None:
    assert answer.code == 2 and answer.out == "", answer
    (line,) = answer.err.splitlines()
    assert line.startswith("qkv: ") and all(word in line for word in words), line


def test_a_name_on_the_hub_is_downloaded(
    ask: Ask, originals: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(originals["marian"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    answer = ask("import", "Helsinki-NLP/opus-mt-en-de", "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    ((name, patterns),) = asked
    assert name == "Helsinki-NLP/opus-mt-en-de"
    assert {"config.json", "*.spm", "vocab.json"} <= set(patterns)
    assert not any(pattern.endswith((".py", ".bin", ".h5", "*")) for pattern in patterns)


def test_a_pickle_is_downloaded_where_there_is_nothing_better(
    copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = copied("gpt2"), []
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, allow_patterns: asked.append(allow_patterns) or str(folder)
    )
    assert fetch.located("somebody/gpt2") == folder
    assert len(asked) == 2 and "pytorch_model*.bin" in asked[1] and "pytorch_model*.bin" not in asked[0]


def test_without_a_network_the_error_is_one_line(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str, allow_patterns: list[str]) -> str:
        raise ConnectionError("no route\nto anywhere")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    answer = ask("import", "Helsinki-NLP/opus-mt-en-de", "--out", tmp_path / "run")
    told(answer, "no folder Helsinki-NLP/opus-mt-en-de", "huggingface.co", "ConnectionError: no route", "with a network")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["./none", "/none/there", "a/b/c", "~/none-there"])
def test_a_folder_that_is_not_there_is_no_name_on_the_hub(ask: Ask, tmp_path: Path, name: str) -> None:
    told(ask("import", name, "--out", tmp_path / "run"), f"there is no folder {name}")


def test_a_file_is_no_folder(ask: Ask, originals: dict[str, Path], tmp_path: Path) -> None:
    told(ask("import", originals["gpt2"] / "config.json", "--out", tmp_path / "run"), "is a file", "name the folder")


def test_a_run_folder_that_is_taken_is_left_alone(
    ask: Ask, originals: dict[str, Path], make_stored: MakeStored, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    told(ask("import", originals["gpt2"], "--out", tmp_path / "full"), "is not empty", "another folder")
    told(ask("import", originals["gpt2"], "--out", tmp_path / "full" / "mine"), "is a file")
    (tmp_path / "run").mkdir()
    stored = make_stored(gpt, longest=64)
    save_spec(tmp_path / "run", stored.model.spec)
    save_tokenizers(tmp_path / "run", stored.source, stored.target)
    told(ask("import", originals["gpt2"], "--out", tmp_path / "run"), "holds a run already", "another folder")
    (tmp_path / "used").mkdir()
    with filelock.FileLock(tmp_path / "used" / ".lock"):
        answer = ask("import", originals["gpt2"], "--out", tmp_path / "used")
    assert answer.code == 2 and "in use" in answer.err
    assert [path.name for path in (tmp_path / "used").iterdir() if path.name != ".lock"] == []


def test_text_to_compare_on_that_is_none(ask: Ask, originals: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    told(ask("import", originals["gpt2"], "--out", tmp_path / "run", "--text", tmp_path / "empty"), "is empty")
    told(ask("import", originals["gpt2"], "--out", tmp_path / "run", "--text", tmp_path / "none"), "there is no file")
