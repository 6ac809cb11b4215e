"""How likely a text is: by windows as by a loop over its tokens, and comparable between tokenizers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qkv.attention.sight import Plain
from qkv.data.symbols import END, START, Symbols
from qkv.decode.generate import Writer
from qkv.decode.likelihood import Window, surprises
from qkv.error import QkvError
from qkv.model.transformer import DecoderOnly
from qkv.spec.data import Lines, Texts, Whole
from qkv.train.measure import likelihood

TEXT = ["the quick brown fox", "jumps over the lazy dog.", "pack my box!", "five dozen liquor jugs, the quick dog"]


@torch.no_grad()
def token_by_token(model: DecoderOnly, ids: list[int], window: Window) -> list[float]:
    """-log P of each token and of the end, each by a pass of its own over what its window shows it: the first window that
    reaches it, where the first ends after `context` predictions and each further one `stride` later."""
    whole = [START, *ids, END]
    found = []
    for place in range(1, len(whole)):
        last = window.context
        while last < place:
            last += window.stride
        last = min(last, len(whole) - 1)
        seen = whole[max(0, last - window.context) : place]
        found.append(-model(torch.tensor([seen]), Plain())[0, -1].log_softmax(0)[whole[place]].item())
    return found


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, 23), context=st.integers(1, 12), data=st.data(), batch=st.sampled_from([1, 30, 4096]))
def test_windows_are_a_loop_over_tokens(make_decoder, symbols: Symbols, length: int, context: int, data, batch: int) -> None:
    model, window = make_decoder(19, longest=12), Window(context, data.draw(st.integers(1, context)))
    ids = torch.randint(4, 19, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    found = surprises(model, ids, symbols, window, batch)
    assert found.tolist() == pytest.approx(token_by_token(model, ids, window), abs=1e-5)


def test_a_stride_wider_than_the_context_and_a_context_wider_than_the_model_are_refused(make_decoder, symbols: Symbols) -> None:
    for wrong in ((4, 5), (4, 0), (0, 0)):
        with pytest.raises(QkvError, match="does not fit into a context"):
            Window(*wrong)
    with pytest.raises(QkvError, match="a context of 9 tokens is more than the 8 places that the model knows"):
        surprises(make_decoder(19, longest=8), [4, 5], symbols, Window(9, 1))


# Writer.score


@torch.no_grad()
def test_the_score_of_a_text_is_the_log_probability_of_its_tokens_and_its_end(make_writer: Callable[..., Writer]) -> None:
    writer = make_writer("bpe")
    for text, found in zip(["", *TEXT], writer.score(["", *TEXT]), strict=True):
        ids = writer.tokenizer.encode([text])[0]
        logits = writer.model(torch.tensor([[START, *ids]]), Plain())[0].log_softmax(1)
        assert found == pytest.approx(sum(logits[place, token].item() for place, token in enumerate([*ids, END])), abs=1e-4)


def test_a_text_longer_than_the_places_has_half_of_them_to_go_by(make_writer: Callable[..., Writer]) -> None:
    writer = make_writer(longest=12)
    (found,) = writer.score([TEXT[1]])
    expected = token_by_token(writer.model, writer.tokenizer.encode([TEXT[1]])[0], Window(12, 6))
    assert found == pytest.approx(-sum(expected), abs=1e-4)


def test_texts_together_score_as_they_do_alone(make_writer: Callable[..., Writer]) -> None:
    writer, texts = make_writer("bpe"), [*TEXT, TEXT[0], ""]
    alone = [writer.score([text])[0] for text in texts]
    for batch_tokens in (1, 20, 10_000):
        assert writer.score(texts, batch_tokens) == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("kind", ["bpe", "bytes", "characters"])
def test_a_last_word_is_as_likely_as_its_tokens_after_what_came_before(make_writer: Callable[..., Writer], kind: str) -> None:
    writer = make_writer(kind)
    passages = [(context, word) for context, word in (text.rsplit(maxsplit=1) for text in TEXT if len(text.split()) > 1)]
    for (context, word), found in zip(passages, writer.last_words(passages), strict=True):
        before, whole = writer.tokenizer.encode([context, f"{context} {word}"])
        assert whole[: len(before)] == before, "or this test would have to know more"
        logits = writer.model(torch.tensor([[START, *whole]]), Plain())[0].log_softmax(1)
        places = range(len(before), len(whole))
        assert found.surprise == pytest.approx(-sum(logits[place, whole[place]].item() for place in places), abs=1e-4)
        assert found.said == all(logits[place].argmax().item() == whole[place] for place in places)


def test_a_passage_loses_its_beginning_where_there_are_no_places_for_it(make_writer: Callable[..., Writer]) -> None:
    writer = make_writer(longest=12)
    context, word = TEXT[1].rsplit(maxsplit=1)
    (found,) = writer.last_words([(context, word)])
    before, whole = writer.tokenizer.encode([context, f"{context} {word}"])
    kept = whole[-11:]
    logits = writer.model(torch.tensor([[START, *kept]]), Plain())[0].log_softmax(1)
    places = range(11 - (len(whole) - len(before)), 11)
    assert found.surprise == pytest.approx(-sum(logits[place, kept[place]].item() for place in places), abs=1e-4)


# Whole files


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"{line}\n" for line in [TEXT[0], TEXT[1], "", *TEXT[2:]]), encoding="utf-8")
    return path


def measured(writer: Writer, where: Texts, context: int = 0, stride: int = 0, batch: int = 4096) -> dict[str, float]:
    found = likelihood(writer, Path("no-run"), where, context, stride, batch)
    return {each["name"]: each["value"] for each in found}


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe", "unigram"])
def test_bits_per_byte_of_a_model_that_knows_nothing_are_counted_by_hand(make_writer, file: Path, kind: str) -> None:
    """Then every token and every end costs log2 V bits: the sum can be had from the tokenizer alone."""
    writer = make_writer(kind)
    writer.model.output.weight.data.zero_()
    bits = math.log2(writer.tokenizer.size)
    predictions = sum(len(ids) + 1 for ids in writer.tokenizer.encode(TEXT))
    found = measured(writer, Texts((str(file),), Lines()))
    assert found["perplexity per token"] == pytest.approx(writer.tokenizer.size)
    assert found["bits per byte"] == pytest.approx(predictions * bits / sum(len(line.encode()) + 1 for line in TEXT))
    words = sum(len(line.split()) + 1 for line in TEXT)
    assert found["perplexity per word"] == pytest.approx(2 ** (predictions * bits / words))


def test_tokenizers_are_compared_over_the_same_bytes_and_words(make_writer, file: Path) -> None:
    """Bits per byte and nats per word of one model stand in one ratio to each other, whatever the tokenizer."""
    size, words = sum(len(line.encode()) + 1 for line in TEXT), sum(len(line.split()) + 1 for line in TEXT)
    for kind in ("characters", "bytes", "bpe"):
        writer = make_writer(kind, longest=64)
        found = measured(writer, Texts((str(file),), Lines()))
        nats = -sum(writer.score(TEXT))
        assert found["bits per byte"] == pytest.approx(nats / size / math.log(2), rel=1e-5)
        assert found["perplexity per word"] == pytest.approx(math.exp(nats / words), rel=1e-4)
        tokens = sum(len(ids) + 1 for ids in writer.tokenizer.encode(TEXT))
        assert found["perplexity per token"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)


def test_a_whole_file_is_one_document_with_the_ends_of_its_lines(make_writer, file: Path) -> None:
    writer = make_writer("bytes", longest=20)
    found = measured(writer, Texts((str(file),), Whole()), 16, 4)
    whole = file.read_text().removesuffix("\n")  # the end of the last line is the end of the document
    nats = token_by_token(writer.model, writer.tokenizer.encode([whole])[0], Window(16, 4))
    assert found["bits per byte"] == pytest.approx(sum(nats) / math.log(2) / len(file.read_bytes()), rel=1e-5)
    assert found["perplexity per token"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-5)
    assert measured(writer, Texts((str(file),), Whole()), 16, 4, batch=1) == pytest.approx(found)
