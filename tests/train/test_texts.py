"""What text becomes before a model sees it, and that the loss counts what it says it counts, and nothing else."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.conftest import sentences, write
from torch.nn import functional

from qkv.attention.sight import Packed, Padded, Plain
from qkv.data.batch import Batch
from qkv.data.cache import default_cache
from qkv.data.sides import Side
from qkv.data.symbols import END, MASK, SENTINELS, START
from qkv.data.tokenizer import Tokenizers
from qkv.error import QkvError
from qkv.model.transformer import AnyModel, build
from qkv.spec.data import AtMost, Bytes, Exactly, Labelled, Lines, Pictures, Texts, Tokenizer, Whole
from qkv.spec.model import known_places
from qkv.spec.objective import Classify, Delete, Generate, Infill, MaskedWords, Objective, Rotate, Spans
from qkv.spec.run import Batching, Run
from qkv.train.evaluate import confusion, macro_f1
from qkv.train.labels import Classifying
from qkv.train.loss import Smoothing
from qkv.train.run import describe
from qkv.train.tasks import labels_of, task_of
from qkv.train.texts import Denoising, Filling, Generating, MaskedBatch, Windows

SMALL = ("width=16", "*.heads=2", "*.hidden=24")
MODELS = {Generate: "gpt-tiny", MaskedWords: "bert-tiny", Classify: "bert-tiny", Spans: "t5-tiny"}
CUT = Tokenizer("characters", AtMost(200), extra=(MASK, *SENTINELS))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Texts, Texts]:
    """60 lines to train on and 13 to validate on."""
    folder = tmp_path_factory.mktemp("texts")
    train, valid = (write(folder / name, sentences(number, number)) for name, number in (("train", 60), ("valid", 13)))
    return Texts((train,), Lines()), Texts((valid,), Lines())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Labelled, Labelled]:
    """Labelled lines."""
    folder, made = tmp_path_factory.mktemp("tables"), []
    for number in (60, 13):
        rows = [f"{line}\t{'ka' in line}" for line in sentences(number, number)]
        made.append(Labelled((write(folder / f"{number}.tsv", rows),), ("1", "2")))
    return made[0], made[1]


def run_of(objective: Objective, texts: tuple[Any, Any], **more: Any) -> Run:
    how: dict[str, Any] = {"longest": 12, "batching": Batching(80), "tokenizer": CUT, "changes": SMALL} | more
    return Run(MODELS.get(type(objective), "bart-tiny"), *texts, objective=objective, **how)


def made(run: Run, given: Tokenizers | None = None) -> Any:
    return task_of(run, given, default_cache())


def model_of(run: Run, task: Any) -> Any:
    """The model of a run with nothing left at its initial value, in fp64."""
    model: AnyModel = build(describe(run, task.report.vocabularies, labels_of(task)))
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def batches(task: Any, epoch: int) -> list[Any]:
    plan = task.plan(epoch)
    return [task.batch(plan, index, epoch) for index in range(len(plan))]


def plain_loss(task: Any, model: Any, batch: Any) -> torch.Tensor:
    return task.losses(model, batch, Smoothing(0.0), None, torch.float64)[0]


# Pieces of documents


@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=8), longest=st.integers(1, 20))
def test_documents_are_cut_into_as_few_pieces_as_fit_and_no_token_is_lost(lengths: list[int], longest: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    side = Side(np.arange(offsets[-1]).astype(np.uint16), offsets)
    windows = Windows.of(side, longest)
    pieces = [windows[index].tolist() for index in range(len(windows))]
    assert [token for piece in pieces for token in piece] == list(range(sum(lengths)))
    assert [len(piece) for piece in pieces] == windows.lengths.tolist() and all(0 < len(piece) <= longest for piece in pieces)
    document = [int(np.searchsorted(offsets, piece[0], side="right")) for piece in pieces]
    assert document == [int(np.searchsorted(offsets, piece[-1], side="right")) for piece in pieces], "no piece is of two"
    for number, length in enumerate(lengths, 1):
        own = [len(piece) for piece, of in zip(pieces, document, strict=True) if of == number]
        assert len(own) == math.ceil(length / longest) and (not own or max(own) - min(own) <= 1)


# Masked words


def test_an_epoch_masks_every_piece_once_by_the_count_and_never_its_frame(text: tuple[Texts, Texts]) -> None:
    task: Filling = made(run_of(MaskedWords(), text))
    symbols, seen = task.symbols, []
    for batch in batches(task, 0):
        assert batch.ids.shape[0] * batch.ids.shape[1] <= 80 and batch.tokens == len(batch.truth)
        assert (batch.ids[:, 0] == START).all() and (batch.ids[torch.arange(len(batch.ids)), batch.lengths - 1] == END).all()
        restored = batch.ids.clone()
        restored[batch.rows, batch.columns] = batch.truth
        for row, length in enumerate(batch.lengths.tolist()):
            picked = batch.columns[batch.rows == row]
            assert len(picked) == max(1, round(0.15 * (length - 2))) and picked.min() >= 1 and picked.max() <= length - 2
            shown = batch.ids[row, 1 : length - 1].tolist()
            assert set(shown) & set(symbols.special) <= {symbols.mask}
            seen.append(tuple(restored[row, 1 : length - 1].tolist()))
        assert not set(batch.truth.tolist()) & set(symbols.special)
    windows = task.pieces.train
    assert sorted(seen) == sorted(tuple(windows[index].tolist()) for index in range(len(windows)))


def masks(task: Filling, epoch: int) -> Counter[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The pieces of an epoch as they are shown, with the places that are asked for."""
    found: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for batch in batches(task, epoch):
        for row, length in enumerate(batch.lengths.tolist()):
            found[tuple(batch.ids[row, :length].tolist()), tuple(batch.columns[batch.rows == row].tolist())] += 1
    return found


def test_masks_are_a_pure_function_of_seed_epoch_and_piece(text: tuple[Texts, Texts]) -> None:
    run = run_of(MaskedWords(), text)
    one, same, other_seed = made(run), made(run), made(replace(run, seed=2))
    other_batches = made(replace(run, batching=Batching(300)))
    assert masks(one, 3) == masks(same, 3) == masks(other_batches, 3), "however they are batched"
    number = masks(one, 0).total()
    for other in (masks(one, 1), masks(other_seed, 0)):
        assert (masks(one, 0) & other).total() < number / 2, "every epoch and every seed has other masks"


def test_validation_has_the_same_masks_at_every_time_and_for_every_seed(text: tuple[Texts, Texts]) -> None:
    run = run_of(MaskedWords(), text)
    task = made(run)
    model = model_of(run, task)
    assert task.measure(model) == task.measure(model)
    assert made(replace(run, seed=9)).measure(model) == pytest.approx(task.measure(model))


def test_the_loss_counts_at_masked_words_alone_and_no_other_logits_are_made(text: tuple[Texts, Texts]) -> None:
    run = run_of(MaskedWords(), text)
    task = made(run)
    model = model_of(run, task)
    batch: MaskedBatch = next(batch for batch in batches(task, 0) if batch.padded)
    assert isinstance(batch.sight, Padded)
    ready: list[tuple[int, ...]] = []
    hook = model.head.transform.register_forward_hook(lambda _, __, out: ready.append(tuple(out.shape)))
    loss = plain_loss(task, model, batch)
    hook.remove()
    assert ready == [(batch.tokens, 16)], "vectors of the masked words, and of no other"
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    truth = torch.full(batch.ids.shape, -100)
    truth[batch.rows, batch.columns] = batch.truth
    every = functional.cross_entropy(model(batch.ids, batch.sight).flatten(0, 1), truth.flatten(), reduction="sum")
    assert loss.item() == pytest.approx(every.item(), rel=1e-12)
    expected = torch.autograd.grad(every, list(model.parameters()), allow_unused=True)
    torch.testing.assert_close([g for g in found if g is not None], [g for g in expected if g is not None], rtol=0, atol=1e-9)


def test_the_measure_of_filling_is_that_of_all_logits(text: tuple[Texts, Texts]) -> None:
    run = run_of(MaskedWords(), text)
    task = made(run)
    model = model_of(run, task)
    nats, right, count = 0.0, 0, 0
    for indices in task.pieces.to_validate():
        batch = task._validated(indices)
        logits = model(batch.ids, batch.sight)[batch.rows, batch.columns]
        nats -= logits.log_softmax(-1).gather(1, batch.truth[:, None]).sum().item()
        right, count = right + int((logits.argmax(1) == batch.truth).sum()), count + batch.tokens
    assert task.validation_loss(model) == pytest.approx(nats / count, rel=1e-6)
    wanted = {"loss": nats / count, "perplexity": math.exp(nats / count), "accuracy": right / count}
    assert task.measure(model) == pytest.approx(wanted, rel=1e-6)


def test_masking_needs_a_mask(text: tuple[Texts, Texts]) -> None:
    with pytest.raises(QkvError, match="no mask token"):
        made(run_of(MaskedWords(), text, tokenizer=Tokenizer("characters")))


# Texts to restore


def restored(task: Denoising, batch: Batch) -> list[list[int]]:
    """What source and target of each row are together, by the rule of T5."""
    symbols, found = task.symbols, []
    for source, length, target, written in zip(
        batch.source, batch.source_lengths, batch.target_out, batch.target_lengths, strict=True
    ):
        spans: dict[int, list[int]] = {}
        for token in target[: written - 1].tolist():
            if token in symbols.sentinels:
                last = spans[token] = []
            else:
                last.append(token)
        read = source[len(symbols.before) : length - 1].tolist()
        assert list(spans) == sorted(symbols.sentinels, reverse=True)[: len(spans)], "sentinels count down from the top"
        found.append([each for token in read for each in spans.get(token, [token])])
    return found


def pieces_of(task: Denoising) -> list[list[int]]:
    windows = task.pieces.train
    return sorted(windows[index].tolist() for index in range(len(windows)))


def test_spans_and_what_is_left_are_every_piece_once(text: tuple[Texts, Texts]) -> None:
    task: Denoising = made(run_of(Spans(), text))
    found = batches(task, 0)
    assert sorted(row for batch in found for row in restored(task, batch)) == pieces_of(task)
    for batch in found:
        assert batch.source.shape[1] <= 1 + 12 and (batch.target_in[:, 0] == START).all()
        assert (batch.source[:, 0] == START).all(), "what can be masked is read with a start before it"
        for row, length in enumerate(batch.source_lengths.tolist()):
            assert batch.source[row, length - 1] == END and batch.target_out[row, batch.target_lengths[row] - 1] == END
    again = made(run_of(Spans(), text))
    assert all(torch.equal(one.source, other.source) for one, other in zip(found, batches(again, 0), strict=True))
    assert sorted(map(restored_source, batches(task, 1))) != sorted(map(restored_source, found)), "another epoch, other spans"


def restored_source(batch: Batch) -> list[list[int]]:
    return sorted(batch.source.tolist())


@pytest.mark.parametrize("objective", [Infill(), Infill(permute=False), Delete(0.2), Rotate()], ids=str)
def test_other_noises_ask_for_the_whole_piece(text: tuple[Texts, Texts], objective: Objective) -> None:
    task: Denoising = made(run_of(objective, text))
    found = batches(task, 0)
    written = sorted(
        batch.target_out[row, : length - 1].tolist() for batch in found for row, length in enumerate(batch.target_lengths)
    )
    assert written == pieces_of(task)
    mask = task.symbols.mask
    for batch in found:
        for row, length in enumerate(batch.source_lengths.tolist()):
            read = Counter(batch.source[row, 1 : length - 1].tolist())
            whole = Counter(batch.target_out[row, : batch.target_lengths[row] - 1].tolist())
            masks = read.pop(mask, 0)
            gone = (whole - read).total()
            assert not read - whole, "nothing is read that is not in the text, but masks"
            match objective:
                case Infill():
                    assert gone == round(0.3 * whole.total()) and (masks > 0) == (gone > 0)
                case Delete():
                    assert gone == min(round(0.2 * whole.total()), whole.total() - 1) and masks == 0
                case _:
                    assert gone == masks == 0


def test_masks_where_nothing_is_missing_make_no_source_too_long(text: tuple[Texts, Texts]) -> None:
    run = run_of(Infill(0.5, 1.0), text)
    task: Denoising = made(run)
    found = [batch for epoch in range(3) for batch in batches(task, epoch)]
    assert max(batch.source.shape[1] for batch in found) == 12 + 2 == describe(run, (30, 30)).embedding.position.longest
    model = model_of(run, task)
    assert all(plain_loss(task, model, batch).isfinite() for batch in found)


def test_sentences_end_where_their_pieces_say_so(tmp_path: Path) -> None:
    lines = Texts((write(tmp_path / "t", ["A b. C d! E f? g.h 。x", "e"] * 9),), Lines())
    task: Denoising = made(run_of(Infill(), (lines, lines)))
    (ids,) = task.tokenizers.source.encode(["A b. C d! E f? g 。x"])
    stops = [task.tokenizers.source.decode([entry]) for entry, stops in enumerate(task._stops) if stops]
    assert sorted(stops) == sorted(".!?。") and int(task._stops[np.array(ids)].sum()) == 4


def test_infilling_needs_a_mask_and_spans_need_sentinels(text: tuple[Texts, Texts]) -> None:
    bare = Tokenizer("characters")
    with pytest.raises(QkvError, match=r"Infill\(\) writes masks, and the tokenizer has none: say --noise infill"):
        made(run_of(Infill(), text, tokenizer=bare))
    with pytest.raises(QkvError, match=r"spans need 2 sentinels, .* but the vocabulary has 0"):
        made(run_of(Spans(), text, tokenizer=bare))
    few = Tokenizer("characters", extra=SENTINELS[:3])
    assert made(run_of(Spans(), text, tokenizer=few, longest=12)) is not None
    with pytest.raises(QkvError, match=r"5 spans need 6 sentinels, .* but the vocabulary has 3"):
        made(run_of(Spans(0.3, 1.0), text, tokenizer=few, longest=30))


# Texts to write on


def test_bits_per_byte_count_every_prediction_and_every_byte(text: tuple[Texts, Texts]) -> None:
    run = run_of(Generate(), text, tokenizer=Tokenizer("bytes", AtMost(270)))
    task: Generating = made(run)
    model = model_of(run, task)
    nats, predictions = 0.0, 0
    documents, valid = task.prepared.valid, Path(text[1].files[0]).read_bytes()
    # as packed, a document that a cut goes through is two
    stream = [(index, t) for index in range(len(documents)) for t in range(len(documents[index]) + 1)]
    for start in range(0, len(stream), run.longest):
        row = stream[start : start + run.longest]
        for index in {index for index, _ in row}:
            framed = [START, *documents[index].tolist(), END]
            places = [t for number, t in row if number == index]
            given_, truth = framed[places[0] : places[-1] + 1], framed[places[0] + 1 : places[-1] + 2]
            logits = model(torch.tensor([given_]), Plain())[0]
            nats += functional.cross_entropy(logits, torch.tensor(truth), reduction="sum").item()
            predictions += len(truth)
    found = task.measure(model)
    assert found["loss"] == pytest.approx(nats / predictions, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(nats / predictions), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(valid), rel=1e-6)


def test_bits_per_dimension_count_every_byte_of_a_picture_from_the_start_of_its_own(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (7, 2, 3), dtype=np.uint8)
    for name, part in (("train", pictures[:4]), ("valid", pictures[4:])):
        np.save(tmp_path / f"{name}.npy", part)
    given_ = tuple(Bytes((str(tmp_path / f"{name}.npy"),), Pictures(2, 3)) for name in ("train", "valid"))
    run = run_of(Generate(), given_, tokenizer=Tokenizer("bytes", Exactly(260)), longest=6)
    task: Generating = made(run)
    model = model_of(run, task)
    assert known_places(model.spec) == 6, "as many as a picture has bytes"
    nats = 0.0
    for picture in pictures[4:]:
        ids = [START, *(picture.flatten().astype(int) + 4).tolist()]
        logits = model(torch.tensor([ids[:-1]]), Plain())[0]
        nats += functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
    found = task.measure(model)
    assert found["bits_per_dimension"] == pytest.approx(nats / math.log(2) / 18, rel=1e-6)
    assert found["loss"] == pytest.approx(nats / 18, rel=1e-6)
    assert {tuple(row) for batch in batches(task, 0) for row in batch.truth.tolist()} == {
        tuple((picture.flatten().astype(int) + 4).tolist()) for picture in pictures[:4]
    }
    with pytest.raises(QkvError, match="are 6 bytes each, and each is read whole: say --longest 6, not 12, or nothing"):
        describe(replace(run, longest=12), (8, 8))


def test_documents_of_a_row_do_not_see_each_other_in_training(text: tuple[Texts, Texts]) -> None:
    run = run_of(Generate(), text)
    task: Generating = made(run)
    model = model_of(run, task)
    batch = batches(task, 0)[0]
    assert isinstance(batch.sight, Packed)
    losses = functional.cross_entropy(
        model(batch.given, batch.sight).flatten(0, 1), batch.truth.flatten(), reduction="none"
    ).view_as(batch.truth)
    assert plain_loss(task, model, batch).item() == pytest.approx(losses.sum().item(), rel=1e-12)
    row = int(batch.documents.amax(1).argmax())
    (first, *_) = (batch.documents[row] == 1).nonzero().flatten().tolist()
    changed = batch.given.clone()
    changed[row, :first] = changed[row, :first].flip(0)
    after = functional.cross_entropy(model(changed, batch.sight)[row], batch.truth[row], reduction="none")
    assert torch.equal(after[first:], losses[row, first:]) and not torch.equal(after[:first], losses[row, :first])


# Labels


def test_labels_are_told_from_texts_without_their_padding(table: tuple[Labelled, Labelled]) -> None:
    run = run_of(Classify(), table, longest=30)
    task: Classifying = made(run)
    model = model_of(run, task)
    seen, known = [], task.report.labels
    for batch in batches(task, 0):
        assert batch.tokens == len(batch.truth) == len(batch.ids)
        alone = [model(batch.ids[row : row + 1, :length], Plain()) for row, length in enumerate(batch.lengths.tolist())]
        loss = functional.cross_entropy(torch.cat(alone), batch.truth, reduction="sum")
        assert plain_loss(task, model, batch).item() == pytest.approx(loss.item(), rel=1e-5)
        for ids, length, truth in zip(batch.ids, batch.lengths.tolist(), batch.truth, strict=True):
            seen.append(f"{task.tokenizers.source.decode(ids[:length].tolist())}\t{known[int(truth)]}")
    assert sorted(seen) == sorted(Path(table[0].files[0]).read_text().splitlines())


def test_the_measure_of_labels_is_by_hand(table: tuple[Labelled, Labelled]) -> None:
    run = run_of(Classify(), table, longest=30)
    task: Classifying = made(run)
    model = model_of(run, task)
    told, truth, nats = [], [], 0.0
    for index in range(len(task.prepared.valid)):
        ids, label = task.prepared.valid[index]
        logits = model(torch.tensor([task.tokenizers.source.symbols.read(ids.tolist())]), Plain())[0]
        told.append(int(logits.argmax()))
        truth.append(int(label[0]))
        nats -= logits.log_softmax(-1)[truth[-1]].item()
    f1 = []
    for label in sorted({*told, *truth}):
        right = sum(one == other == label for one, other in zip(told, truth, strict=True))
        f1.append(2 * right / (told.count(label) + truth.count(label)))
    right = sum(one == other for one, other in zip(told, truth, strict=True)) / len(truth)
    wanted = {"loss": nats / len(truth), "accuracy": right, "macro_f1": sum(f1) / len(f1)}
    assert task.measure(model) == pytest.approx(wanted, rel=1e-5)
    assert task.validation_loss(model) == pytest.approx(wanted["loss"], rel=1e-5)


def test_f1_by_hand() -> None:
    assert confusion([0, 0, 1, 2], [0, 1, 1, 1], 4).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0] * 4]
    # 2/3, 1/2 and 0; the fourth label occurs nowhere
    assert macro_f1([0, 0, 1, 2], [0, 1, 1, 1], 4) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert macro_f1([0, 1], [0, 1], 2) == 1.0


# Which model learns what


@pytest.mark.parametrize(
    ("objective", "model", "words"),
    [
        (Generate(), "bert-tiny", "bert-tiny is of the shape EncoderOnly, and Generate needs DecoderOnly: `qkv models` lists"),
        (Generate(), "t5-tiny", "EncoderDecoder, and Generate needs DecoderOnly"),
        (MaskedWords(), "gpt-tiny", "DecoderOnly, and MaskedWords needs EncoderOnly"),
        (Spans(), "bert-tiny", "EncoderOnly, and Spans needs EncoderDecoder"),
        (Infill(), "gpt-tiny", "DecoderOnly, and Infill needs EncoderDecoder"),
        (Classify(), "gpt-tiny", "a classifier reads with an encoder, and a model of the shape DecoderOnly has none"),
    ],
)
def test_a_model_of_another_shape_is_refused(
    text: tuple[Texts, Texts], table: tuple[Labelled, Labelled], objective: Objective, model: str, words: str
) -> None:
    run = replace(run_of(objective, table if isinstance(objective, Classify) else text), model=model)
    with pytest.raises(QkvError, match=words):
        describe(run, (30, 30))


@pytest.mark.parametrize(("objective", "frame"), [(Generate(), 0), (MaskedWords(), 2), (Infill(), 2)])
def test_a_model_has_as_many_places_as_its_texts_need(text: tuple[Texts, Texts], objective: Objective, frame: int) -> None:
    run = run_of(objective, text, longest=37)
    assert describe(run, (30, 30)).embedding.position.longest == 37 + frame
    few = replace(run, changes=(*SMALL, f"embedding.position=Learned({36 + frame})"))
    with pytest.raises(QkvError, match=f"knows {36 + frame} places, and texts of 37 tokens need {37 + frame}: .* --longest 36"):
        describe(few, (30, 30))


def test_an_objective_and_its_text_belong_together(text: tuple[Texts, Texts], table: tuple[Labelled, Labelled]) -> None:
    for objective, wrong, words in (
        (Generate(), table, "learns from Texts or Bytes, not from Labelled"),
        (Classify(), text, "learns from Labelled or Stories, not from Texts"),
        (Generate(), (text[0], table[1]), "learns from Texts or Bytes, not from Labelled"),
    ):
        with pytest.raises(QkvError, match=words):
            run_of(objective, wrong)
    whole = Texts(text[0].files, Whole())
    assert len(made(run_of(Generate(), (whole, whole))).prepared.train) == 1
