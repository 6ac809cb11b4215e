"""A trained encoder as something one can use: it fills in what is masked, makes vectors of texts, tells how likely they are, and
tells their labels."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.attention.sight import Padded, Plain, Sight
from qkv.data.batch import by_sentence
from qkv.data.stories import latest, sentences
from qkv.data.symbols import MASK
from qkv.decode.likelihood import places
from qkv.decode.load import misused
from qkv.decode.translate import batches
from qkv.error import QkvError
from qkv.model.pooling import pooled
from qkv.model.transformer import Classifier, EncoderDecoder, EncoderOnly
from qkv.spec.model import AllSentences, Sentences
from qkv.spec.pooling import FirstToken, MeanToken, Pooling
from qkv.store import Stored


@dataclass(frozen=True)
class Filled:
    """A word for a masked place, its probability, and the whole text with it in place."""

    word: str
    probability: float
    text: str


@dataclass(frozen=True)
class Told:
    """A label and its probability."""

    label: str
    probability: float


class Reader:
    """An encoder with its tokenizer: that of a model by itself, of a classifier, or of a translator."""

    def __init__(self, stored: Stored) -> None:
        if not isinstance(stored.model, EncoderOnly | Classifier | EncoderDecoder):
            raise misused(stored.model, "has no encoder")
        self.model, self.tokenizer = stored.model, stored.source
        self.symbols = stored.source.symbols
        known = places(stored.model) - len(self.symbols.read([]))
        unit = stored.model.spec.embedding.unit
        self.reads_sentences = isinstance(unit, Sentences)
        self.recent = unit.recent if isinstance(unit, Sentences) else AllSentences()
        # tokens of a text, beside what frames it; how many sentences these are is not known before they are parted
        self.room = sys.maxsize if self.reads_sentences else int(min(known, sys.maxsize))

    @torch.inference_mode()
    def fill(self, text: str, count: int = 5) -> list[list[Filled]]:
        """The `count` likeliest words for each masked place of a text, each place by itself, best first.

        Raises QkvError for a text without a mask, and for a model that was not trained to fill one.
        """
        if count < 1:
            raise QkvError(f"at least 1 word is asked for each place, not {count}")
        model, ids = self._filler(), self.masked(text)
        hidden = [place for place, token in enumerate(ids) if token == self.symbols.mask]
        if not hidden:
            raise QkvError(f"there is nothing to fill in: write {MASK} where a word is missing, as in 'A dog {MASK}.'")
        logits = self._logits(model, [ids])[0]
        logits[:, [entry for entry in self.symbols.special if entry < logits.shape[1]]] = -torch.inf
        values, words = logits[hidden].softmax(1).topk(min(count, logits.shape[1] - len(self.symbols.special)))
        around = text.replace(self.tokenizer.pieces([self.symbols.mask])[0], MASK).split(MASK)
        return [
            [self._filled(around, number, word, value) for word, value in zip(some.tolist(), shares.tolist(), strict=True)]
            for number, (some, shares) in enumerate(zip(words, values, strict=True), 1)
        ]

    def masked(self, text: str) -> list[int]:
        """What the encoder reads of a text in which <mask> stands for a hidden word."""
        return self._fitting(text, self.tokenizer.encode_masked(text))

    def given(self, text: str) -> list[int]:
        """What the encoder reads of a text; <mask> in it is a hidden word to a model that knows such."""
        return self.masked(text) if self.symbols.masks else self._fitting(text, self._encode([text])[0])

    def parts(self, ids: Sequence[int]) -> list[str]:
        """What stands at each position of a text, to be read in pictures: pieces, or whole sentences."""
        if not self.reads_sentences:
            return self.tokenizer.pieces(ids)
        (lines,), _ = by_sentence([ids], self.tokenizer.line_end)
        return [self.tokenizer.decode([word for word in line if word >= 0]) for line in lines.tolist()]

    def embed(self, texts: Sequence[str], pooling: Pooling = MeanToken(), batch_tokens: int = 8192) -> Float[Tensor, "N D"]:
        """A vector for each text: the mean over its tokens, or that of the first, on the CPU in fp32.

        What frames a text has no part in the mean, unless there is nothing else.
        """
        rows = [self._fitting(*pair) for pair in zip(texts, self._encode(texts), strict=True)]
        found = torch.empty(len(rows), self.model.spec.width)
        for group, hidden, sight in self._encoded(rows, batch_tokens):
            found[group] = self._pooled(pooling, hidden, sight, [len(rows[i]) for i in group]).float().cpu()
        return found

    def score(self, texts: Sequence[str], batch: int = 64) -> list[float]:
        """The pseudo-log-likelihood of each text in nats: the sum over its tokens of the log-probability of each where it alone
        is masked (Salazar et al. 2020, equation 2)."""
        return [self._pseudo(*pair, batch) for pair in zip(texts, self._encode(texts), strict=True)]

    def classify(self, texts: Sequence[str], batch_tokens: int = 8192) -> list[list[Told]]:
        """The labels of each text with their probabilities, likeliest first. Of a text that is `too_long` the beginning is read,
        of a story its last sentences, as in training. Raises QkvError for a model that knows no labels."""
        model = self.model
        if not isinstance(model, Classifier):
            raise misused(model, "knows no labels before `qkv train classify --from` it")
        labels = model.spec.labels
        rows = [self._read(ids[: self.room]) for ids in self._encode(texts)]
        results: list[list[Told]] = [[] for _ in rows]
        for group, ids, sight in self._batched(rows, batch_tokens):
            with torch.inference_mode():
                shares = model(ids, sight).float().softmax(1)
            for place, row in zip(group, shares.tolist(), strict=True):
                results[place] = sorted(
                    (Told(*pair) for pair in zip(labels, row, strict=True)), key=lambda told: -told.probability
                )
        return results

    def too_long(self, texts: Sequence[str]) -> list[int]:
        """Which texts, counted from 0, have more tokens than the model has places for, or more sentences than it reads."""
        if not self.reads_sentences:
            return [number for number, ids in enumerate(self._encode(texts)) if len(ids) > self.room]
        whole = map(sentences, texts)
        return [number for number, text in enumerate(whole) if len(latest(text, self.recent)) < len(text)]

    def logits(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S V"]:
        """What may stand at each place, in fp32, of rows of equal length that are framed already."""
        model = self._filler()
        with torch.no_grad():
            return model(ids.to(model.output.weight.device), Plain()).float().cpu()

    def _filler(self) -> EncoderOnly:
        if not isinstance(self.model, EncoderOnly):
            raise misused(self.model, "does not say what may stand in a place")
        return self.model

    def _filled(self, around: Sequence[str], number: int, word: int, probability: float) -> Filled:
        """A word for the mask before part `number` of a text that was parted at its masks; other masks stay to be seen."""
        said = self.tokenizer.decode_after([word], [word])  # with its space, as it is said after anything else
        before, after = MASK.join(around[:number]), MASK.join(around[number:])
        if self.tokenizer.spaced:
            before = before.rstrip()
        name = said.strip()
        if not name or "\ufffd" in name:  # a space by itself, or part of a character
            name = self.tokenizer.pieces([word])[0]
        return Filled(name, probability, before + (said if before else said.lstrip() or said) + after)

    @torch.inference_mode()
    def _pseudo(self, text: str, ids: Sequence[int], batch: int) -> float:
        model, row = self._filler(), self._fitting(text, ids)
        first = len(self.symbols.before)
        total = 0.0
        for start in range(0, len(ids), batch):
            places = range(start, min(start + batch, len(ids)))
            spoilt = [[*row[: first + place], self.symbols.mask, *row[first + place + 1 :]] for place in places]
            logits = self._logits(model, spoilt)[range(len(spoilt)), [first + place for place in places]]
            total += logits.log_softmax(1)[range(len(spoilt)), [ids[place] for place in places]].sum().item()
        return total

    def _logits(self, model: EncoderOnly, rows: list[list[int]]) -> Float[Tensor, "B S V"]:
        """In fp32, of rows of equal length."""
        with torch.inference_mode():
            return model(torch.tensor(rows, device=model.output.weight.device), Plain()).float()

    def _encoded(self, rows: list[list[int]], batch_tokens: int) -> Iterator[tuple[list[int], Float[Tensor, "B S D"], Sight]]:
        for group, ids, sight in self._batched(rows, batch_tokens):
            with torch.inference_mode():
                hidden = self.model.encode(ids, sight)
            yield group, hidden if isinstance(hidden, Tensor) else hidden.vectors, sight

    def _batched(self, rows: list[list[int]], batch_tokens: int) -> Iterator[tuple[list[int], Int[Tensor, "B S *words"], Sight]]:
        """Rows of like length together: their places, as tensors."""
        device = self.model.source.weight.device
        for group in batches(list(range(len(rows))), list(map(len, rows)), batch_tokens):
            made, lengths = self.collated([rows[i] for i in group])
            even = bool((lengths == lengths[0]).all())
            yield group, made.to(device), Plain() if even else Padded(lengths.to(device), False)

    def collated(self, rows: list[list[int]]) -> tuple[Int[Tensor, "B S *words"], Int[Tensor, " B"]]:
        """Rows as one tensor, and how long each is."""
        if self.reads_sentences:
            ids, numbers = by_sentence(rows, self.tokenizer.line_end)
            return torch.from_numpy(ids), torch.from_numpy(numbers)
        longest = max(map(len, rows))
        ids = [[*row, *[self.symbols.pad] * (longest - len(row))] for row in rows]
        return torch.tensor(ids), torch.tensor([len(row) for row in rows])

    def _pooled(self, pooling: Pooling, hidden: Tensor, sight: Sight, lengths: list[int]) -> Float[Tensor, "B D"]:
        if isinstance(pooling, FirstToken):
            return hidden[:, 0]
        if self.reads_sentences:
            return pooled(pooling, hidden, sight)
        first = len(self.symbols.before)
        inner = torch.tensor([max(1, length - first - 1) for length in lengths], device=hidden.device)
        return pooled(pooling, hidden[:, first:], Padded(inner))

    def _fitting(self, text: str, ids: Sequence[int]) -> list[int]:
        """What the encoder reads of a text."""
        if len(ids) > self.room:
            raise QkvError(
                f"a text of {len(ids)} tokens is longer than the {self.room} that the model has places for: cut what begins with "
                f"{text[:40]!r}"
            )
        return self._read(ids)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts as tokens, nothing around them; a model of sentences is given them as those that it learned from."""
        if self.reads_sentences:
            texts = [latest(sentences(text), self.recent) for text in texts]
        return self.tokenizer.encode(list(texts))

    def _read(self, ids: Sequence[int]) -> list[int]:
        """A text with what frames it; nothing frames sentences."""
        return list(ids) if self.reads_sentences else self.symbols.read(ids)
