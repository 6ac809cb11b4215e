"""An encoder at use: what it fills in, the vectors it makes, how likely it finds texts, and the labels it tells."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from qkv.attention.sight import Plain
from qkv.data.symbols import MASK
from qkv.decode.read import Reader
from qkv.decode.translate import Translator
from qkv.error import QkvError
from qkv.model.transformer import Classifier
from qkv.spec.data import Lines, Texts
from qkv.spec.pooling import FirstToken, MeanToken
from qkv.store import Stored
from qkv.train import measure

TEXTS = ["the quick brown fox", "dog.", "", "jumps over the lazy dog", "box with five dozen liquor jugs!", "fox"]


def framed(reader: Reader, text: str) -> list[int]:
    """What is read of a text, by the rule written out: a start where there are masks, the pieces, the end."""
    symbols = reader.symbols
    return [*([symbols.start] if symbols.masks else []), *reader.tokenizer.encode([text])[0], symbols.end]


# Fill


@torch.no_grad()
@pytest.mark.parametrize("text", ["the <mask> brown fox", "<mask> dog.", "pack my <mask>", "the <mask> fox <mask>. a <mask>"])
def test_the_words_for_a_mask_are_the_likeliest_of_a_plain_pass(reader: Reader, text: str) -> None:
    ids = reader.masked(text)
    logits = reader.model(torch.tensor([ids]), Plain())[0]
    ordinary = [entry for entry in range(reader.tokenizer.size) if entry not in reader.symbols.special]
    places = [place for place, token in enumerate(ids) if token == reader.symbols.mask]
    found = reader.fill(text, 7)
    assert len(found) == len(places) == text.count(MASK)
    for place, words in zip(places, found, strict=True):
        odds = {entry: math.exp(logits[place, entry]) for entry in ordinary}
        best = sorted(ordinary, key=lambda entry, odds=odds: -odds[entry])[:7]
        assert [each.word for each in words] == [reader.tokenizer.decode([entry]).strip() for entry in best]
        expected = [odds[entry] / math.fsum(odds.values()) for entry in best]
        assert [each.probability for each in words] == pytest.approx(expected, rel=1e-4)


def test_all_words_together_are_certain(reader: Reader) -> None:
    (words,) = reader.fill("the <mask> fox", 10_000)
    assert len(words) == reader.tokenizer.size - len(reader.symbols.special)
    assert math.fsum(each.probability for each in words) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe", "unigram"])
def test_a_text_with_a_mask_is_cut_as_the_same_text_with_a_word_there(make_reader: Callable[..., Reader], kind: str) -> None:
    """All but the hidden piece is as it is in training, spaces and full stops above all."""
    reader = make_reader(kind, longest=60)
    tokenizer, mask = reader.tokenizer, reader.symbols.mask
    for text in ("the quick brown fox jumps over the lazy dog.", "box", "my box!"):
        ids = tokenizer.encode([text])[0]
        for place in range(len(ids)):
            before, after = tokenizer.decode(ids[:place]), tokenizer.decode_after(ids[: place + 1], ids[place + 1 :])
            spoilt = [*ids[:place], mask, *ids[place + 1 :]]
            if tokenizer.encode([before])[0] == ids[:place]:  # else the pieces before it are cut otherwise by themselves
                assert reader.masked(before + MASK + after) == reader.symbols.read(spoilt)
                if tokenizer.spaced:
                    assert reader.masked(f"{before} {MASK}{after}") == reader.symbols.read(spoilt)


@pytest.mark.parametrize(
    ("kind", "text", "filled"),
    [
        ("bpe", "the <mask> fox", "the{} fox"),
        ("bpe", "the quick<mask>.", "the quick{}."),
        ("bpe", "<mask> fox", "{} fox"),
        ("bytes", "the <mask>!  two", "the{}!  two"),
        ("characters", "the <mask>ox", "the {}ox"),
        ("characters", "<mask>he fox", "{}he fox"),
    ],
)
def test_the_whole_text_has_the_word_in_its_place_and_is_else_as_it_was(
    make_reader: Callable[..., Reader], kind: str, text: str, filled: str
) -> None:
    reader = make_reader(kind)
    for each, piece in zip(reader.fill(text, 30)[0], pieces_of(reader, text, 30), strict=True):
        said = piece.replace("▁", " ")
        expected = filled.format(said.lstrip() or said if filled.startswith("{}") else said)
        assert each.text == expected or "\ufffd" in each.text
        assert each.word == (piece.strip("▁ ") or "▁")


def pieces_of(reader: Reader, text: str, count: int) -> list[str]:
    ids = reader.masked(text)
    with torch.no_grad():
        logits = reader.model(torch.tensor([ids]), Plain())[0, ids.index(reader.symbols.mask)]
    logits[sorted(reader.symbols.special)] = -math.inf
    count = min(count, reader.tokenizer.size - len(reader.symbols.special))
    return reader.tokenizer.pieces(logits.topk(count).indices.tolist())


def test_other_masks_stay_to_be_seen(reader: Reader) -> None:
    first, second = reader.fill("the <mask> brown <mask>.", 1)
    assert first[0].text.startswith("the") and first[0].text.endswith("brown <mask>.")
    assert second[0].text.startswith("the <mask> brown") and second[0].text.endswith(".")


@pytest.mark.parametrize(
    ("text", "count", "words"),
    [
        ("the fox", 5, "nothing to fill in: write <mask>"),
        ("the <mask>", 0, "at least 1 word is asked for each place, not 0"),
        ("the " * 40 + "<mask>", 5, "a text of 4. tokens is longer than the 38 .* cut what begins with 'the the"),
        ("half a \ud83d <mask>", 5, "half a character"),
    ],
)
def test_what_cannot_be_filled_is_said(reader: Reader, text: str, count: int, words: str) -> None:
    with pytest.raises(QkvError, match=words):
        reader.fill(text, count)


def test_a_model_without_masks_fills_nothing(make_reader, translator: Translator) -> None:
    unmasked = make_reader("bpe", "<extra_0>")
    with pytest.raises(QkvError, match=r"no mask token: this model was not trained to fill in .*`qkv train fill`"):
        unmasked.fill("the <mask>")
    for shape, verb in ((reader_of(translator), "`qkv translate`"), (make_reader(shape=Classifier), "`qkv classify`")):
        with pytest.raises(QkvError, match=f"does not say what may stand in a place: use {verb}"):
            shape.fill("the <mask>")


def reader_of(translator: Translator) -> Reader:
    """The encoder of a translator."""
    return Reader(Stored(translator.model, translator.source, translator.target))


# Embed


@torch.no_grad()
@pytest.mark.parametrize("batch_tokens", [1, 30, 8192])
def test_a_vector_is_the_mean_over_the_tokens_of_a_text_alone(reader: Reader, batch_tokens: int) -> None:
    found = reader.embed(TEXTS, batch_tokens=batch_tokens)
    for text, vector in zip(TEXTS, found, strict=True):
        hidden = reader.model.encode(torch.tensor([framed(reader, text)]), Plain())[0]
        inner = hidden[1:-1] if text else hidden[1:]  # of an empty text the end is all that there is
        torch.testing.assert_close(vector, inner.mean(0).float(), rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_first_token_is_what_the_text_is_read_from(reader: Reader) -> None:
    found = reader.embed(TEXTS, FirstToken())
    for text, vector in zip(TEXTS, found, strict=True):
        hidden = reader.model.encode(torch.tensor([framed(reader, text)]), Plain())[0]
        torch.testing.assert_close(vector, hidden[0].float(), rtol=0, atol=1e-6)
    assert (found - reader.embed(TEXTS, MeanToken())).abs().amax(1).min() > 1e-3


@torch.no_grad()
def test_the_encoder_of_a_translator_makes_vectors_too(translator: Translator) -> None:
    reader, texts = reader_of(translator), ["abc", "h", "", "kfedm la"]
    for how in (MeanToken(), FirstToken()):
        found = reader.embed(texts, how)
        for text, vector in zip(texts, found, strict=True):
            ids = [*translator.source.encode([text])[0], translator.source.symbols.end]
            hidden = translator.model.encode(torch.tensor([ids]), Plain()).vectors[0]
            mean = hidden[:-1].mean(0) if text else hidden[0]
            expected = hidden[0] if isinstance(how, FirstToken) else mean
            torch.testing.assert_close(vector, expected.float(), rtol=0, atol=1e-6)


def test_no_texts_have_no_vectors_and_a_long_one_is_named(reader: Reader) -> None:
    assert reader.embed([]).shape == (0, 16)
    with pytest.raises(QkvError, match="cut what begins with 'long long"):
        reader.embed(["fox", "long " * 50, "dog"])
    assert reader.too_long(["fox", "long " * 50, "dog"]) == [1]


# Score


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_pseudo_likelihood_is_a_loop_that_masks_one_token_at_a_time(reader: Reader, batch: int) -> None:
    for text, found in zip(TEXTS, reader.score(TEXTS, batch), strict=True):
        total, row = 0.0, framed(reader, text)
        for place in range(1, len(row) - 1):
            spoilt = [*row[:place], reader.symbols.mask, *row[place + 1 :]]
            total += reader.model(torch.tensor([spoilt]), Plain())[0, place].log_softmax(0)[row[place]].item()
        assert found == pytest.approx(total, abs=1e-4)


def test_what_is_restored_is_measured_within_the_places_of_the_model(make_reader, tmp_path) -> None:
    path = tmp_path / "text"
    path.write_text("".join(f"{text}\n" for text in TEXTS if text) + "the quick brown fox " * 30)
    reader = make_reader("characters", longest=20)
    loss, accuracy = measure.restoration(reader, Texts((str(path),), Lines()))
    assert 0 <= accuracy["value"] <= 100 and loss["value"] > 1
    assert "context:18" in loss["signature"]
    wide = measure.restoration(make_reader("characters", longest=400), Texts((str(path),), Lines()))
    assert f"context:{measure.PIECE}" in wide[0]["signature"]


def test_a_model_that_knows_nothing_restores_by_chance(make_reader, tmp_path) -> None:
    path = tmp_path / "text"
    path.write_text("the quick brown fox\n" * 40)
    reader = make_reader("characters")
    reader.model.output.weight.data.zero_()
    reader.model.head.offset.data.zero_()
    loss, _ = measure.restoration(reader, Texts((str(path),), Lines()))
    assert loss["value"] == pytest.approx(reader.tokenizer.size)


# Classify


@torch.no_grad()
@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
def test_labels_have_the_probabilities_of_each_text_alone(make_reader, batch_tokens: int) -> None:
    reader = make_reader(shape=Classifier)
    found = reader.classify(TEXTS, batch_tokens)
    for text, told in zip(TEXTS, found, strict=True):
        shares = reader.model(torch.tensor([framed(reader, text)]), Plain())[0].softmax(0).tolist()
        expected = sorted(zip(shares, reader.model.spec.labels, strict=True), reverse=True)
        assert [each.label for each in told] == [label for _, label in expected]
        assert [each.probability for each in told] == pytest.approx([share for share, _ in expected], abs=1e-5)
        assert math.fsum(each.probability for each in told) == pytest.approx(1, abs=1e-5)
    assert len({told[0].label for told in found}) > 1


def test_of_a_long_text_the_beginning_is_classified(make_reader) -> None:
    reader = make_reader("characters", shape=Classifier)
    long = "the quick brown fox jumps over the lazy dog. " * 3
    assert reader.too_long(["fox", long]) == [1] and reader.room == 38
    assert reader.classify([long, "fox"])[0] == reader.classify([long[:38], "fox"])[0]


def test_a_model_without_labels_says_how_to_have_some(reader: Reader) -> None:
    with pytest.raises(QkvError, match=r"a masked model, which knows no labels before `qkv train classify --from` it"):
        reader.classify(["the fox"])


def test_a_model_without_an_encoder_is_refused_with_the_verb_that_fits(writer) -> None:
    with pytest.raises(QkvError, match="the run is a language model, which has no encoder: use `qkv generate`"):
        Reader(Stored(writer.model, writer.tokenizer, writer.tokenizer))
