"""A trained encoder as something one can use: it fills in what is masked, makes vectors of texts, tells how likely they are, and
tells their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.attention.sight import Padded, Plain, Sight
from qkv.data.symbols import MASK
from qkv.decode.translate import batches
from qkv.error import QkvError
from qkv.model.transformer import Classifier, EncoderDecoder, EncoderOnly, pooled
from qkv.spec.model import FirstToken, MeanToken, Pooling
from qkv.spec.position import Learned
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
            raise QkvError(f"a model of the shape {type(stored.model).__name__} has no encoder")
        self.model, self.tokenizer = stored.model, stored.source
        self.symbols = stored.source.symbols

    @torch.inference_mode()
    def fill(self, text: str, count: int = 5) -> list[list[Filled]]:
        """The `count` likeliest words for each masked place of a text, each place by itself, best first.

        Raises QkvError for a text without a mask, and for a model that was not trained to fill one.
        """
        model, ids = self._filler(), self.masked(text)
        places = [place for place, token in enumerate(ids) if token == self.symbols.mask]
        if not places:
            raise QkvError(f"there is nothing to fill in: write {MASK} where a word is missing, as in 'A dog {MASK}.'")
        logits = self._logits(model, [ids])[0]
        logits[:, [entry for entry in self.symbols.special if entry < logits.shape[1]]] = -torch.inf
        values, words = logits[places].softmax(1).topk(min(count, logits.shape[1] - len(self.symbols.special)))
        return [
            [self._filled(ids, place, word, value) for word, value in zip(some.tolist(), shares.tolist(), strict=True)]
            for place, some, shares in zip(places, words, values, strict=True)
        ]

    def masked(self, text: str) -> list[int]:
        """What the encoder reads of a text in which <mask> stands for a hidden word."""
        names = {MASK, self.tokenizer.pieces([self.symbols.mask])[0]}
        parts = [text]
        for name in names:
            parts = [piece for part in parts for piece in part.split(name)]
        ids = self.tokenizer.encode([part.rstrip() if place < len(parts) - 1 else part for place, part in enumerate(parts)])
        row = list(ids[0])
        for piece in ids[1:]:
            row += [self.symbols.mask, *piece]
        return self._fitting(self.symbols.read(row))

    def embed(self, texts: Sequence[str], pooling: Pooling = MeanToken(), batch_tokens: int = 8192) -> Float[Tensor, "N D"]:
        """A vector for each text: the mean over its tokens, or that of the first, on the CPU in fp32.

        What frames a text has no part in the mean, unless there is nothing else.
        """
        rows = [self._fitting(self.symbols.read(ids)) for ids in self.tokenizer.encode(list(texts))]
        found = torch.empty(len(rows), self.model.spec.width)
        for group, hidden, sight in self._encoded(rows, batch_tokens):
            found[group] = self._pooled(pooling, hidden, sight, [len(rows[i]) for i in group]).float().cpu()
        return found

    def score(self, texts: Sequence[str], batch: int = 64) -> list[float]:
        """The pseudo-log-likelihood of each text in nats: the sum over its tokens of the log-probability of each where it alone
        is masked (Salazar et al. 2020, equation 2)."""
        return [self._pseudo(ids, batch) for ids in self.tokenizer.encode(list(texts))]

    def classify(self, texts: Sequence[str], batch_tokens: int = 8192) -> list[list[Told]]:
        """The labels of each text with their probabilities, likeliest first. Raises QkvError for a model that knows none."""
        model = self.model
        if not isinstance(model, Classifier):
            raise QkvError("the model knows no labels: train one by `qkv train classify --from` this run")
        labels = model.spec.labels
        rows = [self._fitting(self.symbols.read(ids)) for ids in self.tokenizer.encode(list(texts))]
        results: list[list[Told]] = [[] for _ in rows]
        for group, ids, sight in self._batched(rows, batch_tokens):
            with torch.inference_mode():
                shares = model(ids, sight).float().softmax(1)
            for place, row in zip(group, shares.tolist(), strict=True):
                results[place] = sorted(
                    (Told(*pair) for pair in zip(labels, row, strict=True)), key=lambda told: -told.probability
                )
        return results

    def logits(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S V"]:
        """What may stand at each place, in fp32, of rows of equal length that are framed already."""
        model = self._filler()
        with torch.no_grad():
            return model(ids.to(model.output.weight.device), Plain()).float().cpu()

    def _filler(self) -> EncoderOnly:
        if not isinstance(self.model, EncoderOnly):
            raise QkvError(
                f"a model of the shape {type(self.model).__name__} fills in nothing: that takes a run of `qkv train fill`"
            )
        return self.model

    def _filled(self, ids: Sequence[int], place: int, word: int, probability: float) -> Filled:
        whole = [*ids[:place], word, *ids[place + 1 :]]
        parts: list[list[int]] = [[]]
        for token in whole:  # masks that are left stay to be seen
            if token == self.symbols.mask:
                parts.append([])
            else:
                parts[-1].append(token)
        text = f" {MASK} ".join(self.tokenizer.decode(part).strip() for part in parts)
        return Filled(self.tokenizer.decode([word]).strip(), probability, text)

    @torch.inference_mode()
    def _pseudo(self, ids: Sequence[int], batch: int) -> float:
        model, row = self._filler(), self._fitting(self.symbols.read(ids))
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

    def _batched(self, rows: list[list[int]], batch_tokens: int) -> Iterator[tuple[list[int], Int[Tensor, "B S"], Sight]]:
        """Rows of like length together: their places, as tensors."""
        device = self.model.source.weight.device
        for group in batches(list(range(len(rows))), list(map(len, rows)), batch_tokens):
            lengths = [len(rows[i]) for i in group]
            ids = [[*rows[i], *[self.symbols.pad] * (max(lengths) - len(rows[i]))] for i in group]
            even = min(lengths) == max(lengths)
            yield (
                group,
                torch.tensor(ids, device=device),
                Plain() if even else Padded(torch.tensor(lengths, device=device), False),
            )

    def _pooled(self, pooling: Pooling, hidden: Tensor, sight: Sight, lengths: list[int]) -> Float[Tensor, "B D"]:
        if isinstance(pooling, FirstToken):
            return hidden[:, 0]
        first = len(self.symbols.before)
        inner = torch.tensor([max(1, length - first - 1) for length in lengths], device=hidden.device)
        return pooled(pooling, hidden[:, first:], Padded(inner))

    def _fitting(self, row: list[int]) -> list[int]:
        position = self.model.spec.embedding.position
        if isinstance(position, Learned) and len(row) > position.longest:
            raise QkvError(
                f"a text of {len(row)} tokens is longer than the {position.longest} places that the model knows: cut it"
            )
        return row
