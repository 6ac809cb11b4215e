"""Batches: every pair once, within the budget, in an order of its own each epoch; and the tensors made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qkv.data.batch import Batch, Plan, collate, plan
from qkv.data.sides import Corpus, Side
from qkv.data.symbols import OURS
from qkv.data.text import read_lines
from qkv.error import QkvError

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=200)
PAD, BOS, EOS = 0, 1, 2


def columns(lengths: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    source, target = np.array(lengths).T
    return source, target


def made(lengths: list[tuple[int, int]], tokens: int = 100, seed: int = 1, epoch: int = 0) -> Plan:
    return plan(*columns(lengths), tokens=tokens, seed=seed, epoch=epoch)


def corpus(pairs: list[tuple[list[int], list[int]]]) -> Corpus:
    sides = []
    for sentences in zip(*pairs, strict=True):
        ids = np.array([token for sentence in sentences for token in sentence], dtype=np.uint16)
        sides.append(Side(ids, np.cumsum([0, *map(len, sentences)])))
    return Corpus(*sides)


@given(LENGTHS, st.integers(1, 200))
def test_every_pair_is_in_one_batch_within_the_budget(lengths: list[tuple[int, int]], tokens: int) -> None:
    found = made(lengths, tokens)
    assert sorted(np.concatenate(list(found)).tolist()) == list(range(len(lengths)))
    positions, padded = 0, 0
    for batch in found:
        size = [len(batch) * int(side[batch].max() + 1) for side in columns(lengths)]
        assert max(size) <= tokens or len(batch) == 1
        positions += sum(size)
        padded += sum(size) - sum(int((side[batch] + 1).sum()) for side in columns(lengths))
    assert found.padding == pytest.approx(padded / positions)
    assert found.alone == sum(max(pair) + 1 > tokens for pair in lengths)
    assert len(found) == len(list(found))


def test_a_batch_is_as_full_as_can_be() -> None:
    found = made([(9, 4)] * 30, tokens=100)
    assert [len(batch) for batch in found] == [10, 10, 10]
    assert found.padding == 0.0


def test_a_plan_ends() -> None:
    found = made([(3, 3)] * 5)
    with pytest.raises(IndexError):
        found[len(found)]


@given(LENGTHS, st.integers(0, 5), st.integers(0, 5))
def test_a_plan_is_a_pure_function(lengths: list[tuple[int, int]], seed: int, epoch: int) -> None:
    one, other = made(lengths, seed=seed, epoch=epoch), made(lengths, seed=seed, epoch=epoch)
    assert [batch.tolist() for batch in one] == [batch.tolist() for batch in other]


def test_epochs_and_seeds_differ() -> None:
    lengths = [(5, 5)] * 500 + [(6, 7)] * 500
    plans = [made(lengths, seed=seed, epoch=epoch) for seed, epoch in [(1, 0), (1, 1), (2, 0)]]
    assert len({tuple(np.concatenate(list(found)).tolist()) for found in plans}) == 3
    # Batches too are shuffled: not all short ones come first.
    firsts = [lengths[batch[0]] for batch in plans[0]]
    assert firsts != sorted(firsts) and firsts != sorted(firsts, reverse=True)


def test_lengths_too_long_for_their_type() -> None:
    found = plan(np.array([255] * 4, dtype=np.uint8), np.array([3] * 4, dtype=np.uint8), tokens=512, seed=1, epoch=0)
    assert [len(batch) for batch in found] == [2, 2]


def test_wrong_plans() -> None:
    one = np.array([3])
    for wrong in [
        lambda: plan(one, one, tokens=0, seed=1, epoch=0),
        lambda: plan(one, one, tokens=9, seed=-1, epoch=0),
        lambda: plan(one, np.array([3, 4]), tokens=9, seed=1, epoch=0),
        lambda: plan(one[:0], one[:0], tokens=9, seed=1, epoch=0),
    ]:
        with pytest.raises(QkvError):
            wrong()


@pytest.mark.parametrize("tokens", [2048, 4096])
def test_real_text_pads_little(data_dir: Path, tokens: int) -> None:
    folder = data_dir / "multi30k" / "tok"
    sides = [read_lines(folder / f"train.lc.norm.tok.{end}.gz") for end in ("en", "de")]
    lengths = [np.array([len(line.split()) for line in side]) for side in sides]
    assert len(lengths[0]) == 29_000
    assert plan(lengths[0], lengths[1], tokens=tokens, seed=1, epoch=0).padding < 0.04


# Tensors


def test_collate() -> None:
    made_of = corpus([([5, 6, 7], [8]), ([9], [10, 11]), ([12, 13], [14, 15])])
    batch = collate(made_of, np.array([0, 1]), OURS, OURS)
    assert batch.source.tolist() == [[5, 6, 7, EOS], [9, EOS, PAD, PAD]]
    assert batch.source_lengths.tolist() == [4, 2]
    assert batch.target_in.tolist() == [[BOS, 8, PAD], [BOS, 10, 11]]
    assert batch.target_out.tolist() == [[8, EOS, PAD], [10, 11, EOS]]
    assert batch.target_lengths.tolist() == [2, 3]
    assert batch.padded_source and batch.padded_target and batch.tokens == 5
    plain = collate(made_of, np.array([1, 2]), OURS, OURS)
    assert plain.padded_source and not plain.padded_target
    single = collate(made_of, np.array([2]), OURS, OURS)
    assert not single.padded_source and not single.padded_target
    tensors = [single.source, single.source_lengths, single.target_in, single.target_out, single.target_lengths]
    assert all(tensor.dtype == torch.int64 for tensor in tensors)


SENTENCE = st.lists(st.integers(4, 99), min_size=1, max_size=9)


@given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=9), st.randoms())
def test_what_goes_in_can_be_read_out(pairs: list[tuple[list[int], list[int]]], random: object) -> None:
    order = np.arange(len(pairs))
    random.shuffle(order)  # type: ignore[attr-defined]
    batch = collate(corpus(pairs), order, OURS, OURS)
    for row, index in enumerate(order.tolist()):
        source, target = pairs[index]
        ends = int(batch.source_lengths[row]), int(batch.target_lengths[row])
        assert batch.source[row, : ends[0]].tolist() == [*source, EOS]
        assert batch.target_in[row, : ends[1]].tolist() == [BOS, *target]
        assert batch.target_out[row, : ends[1]].tolist() == [*target, EOS]
        for side, end in [(batch.source, ends[0]), (batch.target_in, ends[1]), (batch.target_out, ends[1])]:
            assert (side[row, end:] == PAD).all()
    assert batch.padded_source == bool((batch.source == PAD).any())
    assert batch.padded_target == bool((batch.target_out == PAD).any())
    assert batch.tokens == int((batch.target_out != PAD).sum())


def test_a_batch_moves() -> None:
    batch = collate(corpus([([5], [6])]), np.array([0]), OURS, OURS)
    moved = batch.to("cpu")
    assert isinstance(moved, Batch) and moved.tokens == 2 and torch.equal(moved.source, batch.source)
    assert batch.to(torch.device("meta")).target_out.device.type == "meta"
