"""Saved = loaded, bit for bit; and what does not fit is refused in words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qkv.attention.sight import Plain
from qkv.error import QkvError
from qkv.model.transformer import AnyModel, EncoderDecoder, build
from qkv.spec import plain
from qkv.spec.model import Classifier as ClassifierSpec
from qkv.spec.model import EncoderDecoder as PairSpec
from qkv.spec.model import Model as Spec
from qkv.spec.model import SourceAndTarget, TargetAndOutput, Tied, Untied
from qkv.store import load_spec, load_weights, put_weights, save_spec, save_weights, weights_of


def test_saved_equals_loaded_bit_for_bit(spec: Spec, model: AnyModel, tmp_path: Path) -> None:
    save_spec(tmp_path, spec)
    save_weights(tmp_path / "model.safetensors", weights_of(model))
    loaded = build(load_spec(tmp_path), seed=99)
    put_weights(loaded, load_weights(tmp_path / "model.safetensors"), tmp_path)
    assert loaded.spec == spec
    for (name, ours), (other, theirs) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert name == other
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), name
    source, target = torch.tensor([[4, 9, 2]]), torch.tensor([[1, 8, 5, 17]])
    given = (source, Plain(), target) if isinstance(model, EncoderDecoder) else (target, Plain())
    assert torch.equal(model(*given), loaded(*given))


def test_who_may_read_other_new_files_may_read_the_weights(model: AnyModel, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_weights(tmp_path / "weights", weights_of(model))
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_tied_tensors_are_written_once_and_equal_weights_give_equal_bytes(spec: Spec, model: AnyModel, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    save_weights(first, weights_of(model))
    save_weights(second, weights_of(model))
    assert first.read_bytes() == second.read_bytes()
    embeddings = [name for name in load_weights(first) if name in ("source.weight", "target.weight", "output.weight")]
    assert len(embeddings) == _matrices(spec)
    assert sum(tensor.numel() for tensor in load_weights(first).values()) == sum(p.numel() for p in model.parameters())


def _matrices(spec: Spec) -> int:
    """How many of the embeddings and the output map are matrices of their own."""
    if isinstance(spec, ClassifierSpec) or isinstance(spec.tie, Tied):
        return 1
    if isinstance(spec.tie, Untied):
        return 3 if isinstance(spec, PairSpec) else 2
    return 2 if isinstance(spec.tie, SourceAndTarget | TargetAndOutput) else 1


def test_a_spec_survives_json(spec: Spec) -> None:
    written = json.dumps(plain.to_plain(spec))
    assert plain.from_plain(json.loads(written)) == spec
    assert json.dumps(plain.to_plain(plain.from_plain(json.loads(written)))) == written


def test_weights_of_another_model_are_refused_by_name(spec: Spec, model: AnyModel, tmp_path: Path) -> None:
    weights = weights_of(model)
    name = next(iter(weights))
    with pytest.raises(QkvError, match=re.escape(name)):
        put_weights(model, {other: tensor for other, tensor in weights.items() if other != name}, tmp_path)
    with pytest.raises(QkvError, match="shape"):
        put_weights(model, weights | {name: weights[name][:-1]}, tmp_path)
    with pytest.raises(QkvError):
        put_weights(build(replace(spec, width=2 * spec.width)), weights, tmp_path)


def test_a_file_that_is_cut_short_or_missing_is_refused_in_words(model: AnyModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, weights_of(model))
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(QkvError, match=r"model\.safetensors cannot be read"):
            load_weights(path)
    path.unlink()
    with pytest.raises(QkvError, match="missing"):
        load_weights(path)
