"""How good a finished language model, masked model or classifier is on text that it is given."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qkv.data.bytes import encode_chunks, read_chunks
from qkv.data.documents import encode_pieces, read_pieces
from qkv.data.labels import read_rows
from qkv.data.last_word import read_passages
from qkv.data.minimal_pairs import by_template, read_minimal_pairs
from qkv.data.objective import corrupted, window
from qkv.data.text import read_pairs
from qkv.data.world import accuracy
from qkv.decode.generate import Writer
from qkv.decode.likelihood import Window, predicted_whole, surprises
from qkv.decode.read import Reader
from qkv.decode.translate import Translator
from qkv.error import QkvError, unknown
from qkv.look import confusion as picture
from qkv.model.transformer import Classifier, EncoderOnly
from qkv.spec.data import AsTheyAre, Bytes, Labelled, Pictures, Stories, Texts
from qkv.spec.objective import MaskedWords
from qkv.spec.world import Drawn
from qkv.train.evaluate import confusion, macro_f1, perplexity
from qkv.train.pairs import greedy
from qkv.train.run_folder import RECIPE, read_run
from qkv.train.texts import special_of

PIECE = 126  # tokens of a text that a masked model is given at once


def likelihood(writer: Writer, run: Path, where: Texts, context: int, stride: int, batch_tokens: int) -> list[dict[str, Any]]:
    """Perplexity per token and per word, and bits per byte, of all documents.

    Bits per byte compare models of any tokenizer: all that the tokens and the ends of documents surprise by, over the bytes of
    the text in UTF-8, the end of each document counted as one. Words are what white space parts; the end of a line is one, too.
    """
    how = _window(writer, run, context, stride)
    nats = predictions = size = words = 0.0
    ids: list[int] = []
    for piece, (tokens, ends, length) in zip(
        read_pieces(where), encode_pieces(writer.tokenizer, read_pieces(where)), strict=True
    ):
        ids += tokens
        size += length
        words += len(piece.text.split()) + piece.text.count("\n") + piece.ends
        if ends:
            found = surprises(writer.model, ids, writer.symbols, how, batch_tokens)
            nats, predictions, ids = nats + found.sum().item(), predictions + len(found), []
    signature = f"tokens:{int(predictions)}|bytes:{int(size)}|words:{int(words)}|context:{how.context}|stride:{how.stride}"
    return [
        {"name": "perplexity per token", "value": perplexity(nats / predictions), "signature": signature},
        {"name": "perplexity per word", "value": perplexity(nats / words), "signature": signature},
        {"name": "bits per byte", "value": nats / math.log(2) / size, "signature": signature, "digits": 4},
    ]


def bits(writer: Writer, run: Path, where: Bytes, context: int, stride: int, batch_tokens: int) -> list[dict[str, Any]]:
    """Bits per byte of files as they are, the end of each counted as one; bits per dimension of pictures and sounds: all that
    their bytes, and the ends of sounds, surprise by, over the number of bytes."""
    if isinstance(where.form, Pictures):
        if context or stride:
            raise QkvError("a picture is read whole, from its beginning on: leave out --context and --stride")
        return [_of_pictures(writer, where, batch_tokens)]
    how = _window(writer, run, context, stride)
    nats = size = documents = 0.0
    pieces: list[np.ndarray] = []
    for tokens, ends, length in encode_chunks(writer.tokenizer, where.form, read_chunks(where)):
        pieces.append(tokens)
        size += length
        if ends:
            found = surprises(writer.model, np.concatenate(pieces).tolist(), writer.symbols, how, batch_tokens)
            nats, documents, pieces = nats + found.sum().item(), documents + 1, []
    name = "bits per byte" if isinstance(where.form, AsTheyAre) else "bits per dimension"
    signature = f"documents:{int(documents)}|bytes:{int(size)}|context:{how.context}|stride:{how.stride}"
    return [{"name": name, "value": nats / math.log(2) / size, "signature": signature, "digits": 4}]


def _of_pictures(writer: Writer, where: Bytes, batch_tokens: int) -> dict[str, Any]:
    assert isinstance(where.form, Pictures)
    size, nats, number = where.form.size, 0.0, 0
    if size > writer.places:
        raise QkvError(f"a picture of {size} bytes is more than the {writer.places} places that the model knows")
    pictures = (tokens.tolist() for tokens, _, _ in encode_chunks(writer.tokenizer, where.form, read_chunks(where)))
    while some := list(islice(pictures, max(1, batch_tokens // size))):
        nats += predicted_whole(writer.model, some, writer.symbols).surprise.sum().item()
        number += len(some)
    signature = f"pictures:{number}|bytes:{number * size}|context:{size}"
    return {"name": "bits per dimension", "value": nats / math.log(2) / (number * size), "signature": signature, "digits": 4}


def _window(writer: Writer, run: Path, context: int, stride: int) -> Window:
    """What a prediction may look back over: by default as far as in training."""
    known = run / RECIPE
    trained = read_run(known).longest if known.is_file() else 1024
    context = context or int(min(writer.places, trained))
    return Window(context, stride or max(1, context // 2))


@torch.inference_mode()
def restoration(reader: Reader, where: Texts) -> list[dict[str, Any]]:
    """Perplexity and accuracy at masked words, as in training, always the same ones."""
    assert isinstance(reader.model, EncoderOnly)
    special, how, symbols, size = special_of(reader.tokenizer), MaskedWords(), reader.symbols, min(PIECE, reader.room)
    nats = right = count = number = 0.0
    for ids, _, _ in encode_pieces(reader.tokenizer, read_pieces(where)):
        for start in range(0, len(ids), size):
            spoilt = corrupted(how, np.array(ids[start : start + size]), special, window(0, 0, int(number)))
            row = torch.tensor([symbols.read(spoilt.ids.tolist())])
            logits = reader.logits(row)[0, spoilt.places + len(symbols.before)]
            truth = torch.from_numpy(spoilt.truth)
            nats += torch.nn.functional.cross_entropy(logits, truth, reduction="sum").item()
            right += int((logits.argmax(1) == truth).sum())
            count, number = count + len(truth), number + 1
    signature = f"masked:{int(count)}|share:{how.share}|context:{size}"
    return [
        {"name": "perplexity at masked words", "value": perplexity(nats / count), "signature": signature},
        {"name": "accuracy at masked words", "value": 100 * right / count, "signature": f"percent|{signature}"},
    ]


def answers(translator: Translator, drawn: Drawn, batch_tokens: int) -> list[dict[str, Any]]:
    """How many characters of the answers of a world, and how many answers as a whole, a translator tells right; and how many
    tokens are its likeliest after the truth before them, where one slip does not shift all behind it."""
    asked, truth = zip(*read_pairs(drawn), strict=True)
    forced = translator.teacher_forced(asked, truth, batch_tokens=batch_tokens)
    found = translator.translate(list(asked), greedy(list(truth)), batch_tokens=batch_tokens)
    right = accuracy([best[0].text for best in found], list(truth))
    signature = f"percent|{drawn.world}|answers:{drawn.number}|seed:{drawn.seed}"
    return [
        {"name": "characters right", "value": 100 * right.characters, "signature": signature},
        {"name": "answers right", "value": 100 * right.sequences, "signature": signature},
        {
            "name": "tokens right after the truth",
            "value": 100 * sum(each for each, _ in forced) / sum(whole for _, whole in forced),
            "signature": f"{signature}|end counted",
        },
    ]


def agreement(writer: Writer, path: str, batch_tokens: int) -> list[dict[str, Any]]:
    """In how many minimal pairs a writer finds the good sentence likelier than the bad one, by template, and their mean."""
    pairs = list(read_minimal_pairs(path))
    good, bad = (writer.score([getattr(pair, name) for pair in pairs], batch_tokens) for name in ("good", "bad"))
    counts = by_template(pairs, [one > other for one, other in zip(good, bad, strict=True)])
    shares = {template: 100 * right / whole for template, (right, whole) in counts.items()}
    mean = {"name": "mean of the templates", "value": sum(shares.values()) / len(shares)}
    return [
        *({"name": name, "value": share, "signature": f"percent|pairs:{counts[name][1]}"} for name, share in shares.items()),
        {**mean, "signature": f"percent|templates:{len(shares)}|pairs:{len(pairs)}"},
    ]


def last_words(writer: Writer, path: str, batch_tokens: int) -> list[dict[str, Any]]:
    """How many of the last words of passages a writer would say, and their perplexity."""
    passages = list(read_passages(path))
    found = writer.last_words([(passage.context, passage.word) for passage in passages], batch_tokens)
    said = 100 * sum(word.said for word in found) / len(found)
    surprise = sum(word.surprise for word in found) / len(found)
    signature = f"passages:{len(passages)}|places:{writer.places}"
    return [
        {"name": "last words said", "value": said, "signature": f"percent|{signature}"},
        {"name": "perplexity of last words", "value": perplexity(surprise), "signature": signature},
    ]


def labels(reader: Reader, where: Labelled | Stories, path: Path | None) -> list[dict[str, Any]]:
    """Accuracy and macro F1, and a picture of what was taken for what, if there is a path for it. An answer about a story may be
    one that the model never met, and is then told wrongly; of a table, raises QkvError for a label that it does not know."""
    assert isinstance(reader.model, Classifier)
    known = reader.model.spec.labels
    rows = list(read_rows(where))
    new = [(number, label) for number, (_, label) in enumerate(rows, 1) if label not in known]
    if new and isinstance(where, Labelled):
        number, label = new[0]
        raise unknown(f"label in row {number} of {', '.join(where.files)}, which the run does not know:", label, known)
    names = (*known, *sorted({label for _, label in new}))
    texts = [text for text, _ in rows]
    told = [known.index(best[0].label) for best in reader.classify(texts)]
    truth = [names.index(label) for _, label in rows]
    if path is not None:
        picture.draw(confusion(truth, told, len(names)), names, path)
    signature = f"texts:{len(rows)}|cut:{len(reader.too_long(texts))}|labels:{len(known)}"
    signature += f"|never met:{len(new)}" if new else ""
    right = sum(one == other for one, other in zip(told, truth, strict=True))
    return [
        {"name": "accuracy", "value": 100 * right / len(rows), "signature": f"percent|{signature}"},
        {"name": "macro F1", "value": macro_f1(truth, told, len(names)), "signature": signature, "digits": 4},
    ]
