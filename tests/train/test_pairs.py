"""What a decoder is given in training, where it is to learn to go on after a wrong token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.train.conftest import Listener, weights

from qkv.data.batch import Batch, of_rows
from qkv.data.corpus import default_cache, prepare
from qkv.data.symbols import OURS
from qkv.error import QkvError
from qkv.model.dropout import Noise
from qkv.model.transformer import EncoderDecoder
from qkv.spec.objective import Translate
from qkv.spec.run import Run, Steps
from qkv.store import load
from qkv.train.pairs import Translating, slipped
from qkv.train.run import train

START = 1


def _batch(rows: int = 200, length: int = 12) -> Batch:
    """Rows of two lengths, each with tokens that no other has; 0 is padding."""
    target = torch.arange(rows * length).view(rows, length) + 10
    target[:, 0] = START
    lengths = torch.tensor([length, length - 4] * (rows // 2))
    target[torch.arange(length) >= lengths[:, None]] = 0
    source = torch.ones(rows, 3, dtype=torch.long)
    return Batch(source, torch.full((rows,), 3), target, target.roll(-1, 1), lengths, False, True, int(lengths.sum()))


def test_a_share_of_what_was_said_is_exchanged_for_what_others_said() -> None:
    batch, noise = _batch(), Noise(3, 7)
    given = slipped(batch, 0.2, noise)
    said = (torch.arange(12) > 0) & (torch.arange(12) < batch.target_lengths[:, None])
    changed = given != batch.target_in
    assert not changed[~said].any(), "neither the start nor what is not there"
    assert changed[said].float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert set(given[said].tolist()) <= set(batch.target_in[said].tolist())
    assert slipped(batch, 0.2, noise).equal(given) and not slipped(batch, 0.2, Noise(3, 8)).equal(given)
    assert slipped(batch, 0.0, noise).equal(batch.target_in)


def test_a_single_token_has_no_other_to_be_exchanged_for() -> None:
    batch = of_rows([np.array([5, 6])], [np.array([9])], OURS, OURS)
    assert slipped(batch, 0.9, Noise(3, 7)).equal(batch.target_in)


def test_slips_are_met_in_training_alone(tiny: Run, tmp_path: Path) -> None:
    slipping = replace(tiny, objective=Translate(0.5), budget=Steps(4))
    for name, run in (("plain", replace(slipping, objective=Translate())), ("slips", slipping)):
        train(run, tmp_path / name, Listener())
    assert weights(tmp_path / "plain") != weights(tmp_path / "slips")
    prepared = prepare(
        slipping.train, slipping.valid, slipping.tokenizer, seed=1, longest=slipping.longest, cache=default_cache()
    )
    model = load(tmp_path / "slips").model
    assert isinstance(model, EncoderDecoder)
    told = [Translating(run, prepared).validation_loss(model) for run in (slipping, replace(slipping, objective=Translate()))]
    assert told[0] == told[1]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(QkvError, match=r"Translate\.slips is a share of tokens"):
        Translate(share)
