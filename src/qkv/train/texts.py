"""Training on documents: to say the next token, to fill in masked words, to restore what was taken out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from qkv.attention.sight import Padded, Plain, Sight
from qkv.data.batch import Batch, Given, Movable, of_rows, padded
from qkv.data.batch import Plan as LengthPlan
from qkv.data.batch import plan as plan_by_length
from qkv.data.documents import PreparedTexts
from qkv.data.objective import Special, corrupted, raw_length, window
from qkv.data.pack import PackedPlan, Rows, each_in_order, each_whole, in_order, pack
from qkv.data.sides import Side
from qkv.data.tokenizer import Tokenizer, Tokenizers
from qkv.error import QkvError
from qkv.model.dropout import Noise
from qkv.model.trace import Trace
from qkv.model.transformer import DecoderOnly, EncoderDecoder, EncoderOnly
from qkv.spec.data import Pictures, Sounds
from qkv.spec.objective import Infill, MaskedWords, Spans
from qkv.spec.objective import Noise as NoiseSpec
from qkv.spec.run import Run
from qkv.train.evaluate import perplexity
from qkv.train.loss import Smoothing
from qkv.train.pairs import losses as pair_losses
from qkv.train.ponder import Tally
from qkv.train.task import Losses, of_vectors
from qkv.train.validation import mean_loss

STOPS = frozenset(".!?。！？")


class Generating:
    """Documents packed into rows, or pictures, each a row; every token is predicted from those before it in its document."""

    def __init__(self, run: Run, prepared: PreparedTexts) -> None:
        self.run, self.prepared = run, prepared
        self._each = isinstance(run.form, Pictures)  # then a document is a row, and its end is not predicted
        self.report, self.fingerprints = prepared.report, prepared.fingerprints
        self.tokenizers = Tokenizers(prepared.tokenizer, prepared.tokenizer)

    def plan(self, epoch: int) -> PackedPlan:
        run = self.run
        symbols = self.prepared.tokenizer.symbols
        if self._each:
            return each_whole(self.prepared.train, symbols, tokens=run.batching.tokens, seed=run.seed, epoch=epoch)
        return pack(self.prepared.train, symbols, length=run.longest, tokens=run.batching.tokens, seed=run.seed, epoch=epoch)

    def batch(self, plan: PackedPlan, index: int, epoch: int) -> Rows:
        return plan.rows(plan[index])

    def losses(
        self,
        model: DecoderOnly,
        batch: Rows,
        smoothing: Smoothing,
        noise: Noise | None,
        precision: torch.dtype,
        trace: Trace | None = None,
    ) -> Losses:
        hidden = model.decode(batch.given, batch.sight, noise=noise, trace=trace)
        return of_vectors(model, hidden.flatten(0, 1), batch.truth.flatten(), smoothing, precision)

    def validation_loss(self, model: DecoderOnly, tally: Tally | None = None) -> float:
        return mean_loss(self.losses, model, self._to_validate(), model.output.weight.device, tally)

    @torch.inference_mode()
    def stretches(self, model: DecoderOnly) -> list[tuple[float, int]]:
        """The plain loss of each row of the validation text, in nats, and how many predictions it is the sum of; all rows
        together are the validation loss."""
        found: list[tuple[float, int]] = []
        for batch in self._to_validate():
            batch = batch.to(model.output.weight.device)
            for hidden, truth in zip(model.decode(batch.given, batch.sight), batch.truth, strict=True):
                nats = torch.nn.functional.cross_entropy(model.logits(hidden).float(), truth, reduction="none")
                found.append((nats.sum(dtype=torch.float64).item(), len(truth)))
        return found

    def _to_validate(self) -> Iterator[Rows]:
        """The validation text, row by row as it stands."""
        run, side, symbols = self.run, self.prepared.valid, self.prepared.tokenizer.symbols
        if self._each:
            plan = each_in_order(side, symbols, tokens=run.batching.tokens)
        else:
            plan = in_order(side, symbols, length=run.longest, tokens=run.batching.tokens)
        return (plan.rows(plan[index]) for index in range(len(plan)))

    def measure(self, model: DecoderOnly) -> dict[str, Any]:
        """Validation loss and perplexity per token, and bits per byte of the text, or per dimension of pictures and sounds."""
        tally = Tally(model.spec)
        loss, side = self.validation_loss(model, tally), self.prepared.valid
        predictions = int(side.lengths.sum()) + (0 if self._each else len(side))
        bits = loss * predictions / math.log(2) / self.report.valid.bytes
        name = "bits_per_dimension" if isinstance(self.run.form, Pictures | Sounds) else "bits_per_byte"
        return {"loss": loss, "perplexity": perplexity(loss), name: bits, **tally.fields()}


@dataclass(frozen=True, eq=False)
class Windows:
    """Pieces of documents, none longer than so many tokens: piece i is `side.ids[starts[i] : stops[i]]`."""

    side: Side
    starts: np.ndarray
    stops: np.ndarray

    @classmethod
    def of(cls, side: Side, longest: int) -> Windows:
        """Every document in as few pieces of equal length as it takes."""
        counts = -(-side.lengths // longest)
        document = np.repeat(np.arange(len(side)), counts)
        place = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        length, count, start = side.lengths[document], counts[document], side.offsets[document]
        return cls(side, start + length * place // count, start + length * (place + 1) // count)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.side.ids[self.starts[index] : self.stops[index]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each piece."""
        return self.stops - self.starts


@dataclass(frozen=True, eq=False)
class MaskedBatch(Movable):
    """Texts with masked words; where these stand, as rows and columns; and what they are."""

    ids: Int64[Tensor, "B S"]
    lengths: Int64[Tensor, "B"]
    rows: Int64[Tensor, "N"]
    columns: Int64[Tensor, "N"]
    truth: Int64[Tensor, "N"]
    padded: bool
    tokens: int

    @property
    def sides(self) -> dict[str, Given]:
        """What the encoder is given."""
        return {"encoder": Given(self.ids, self.lengths if self.padded else None)}

    @property
    def sight(self) -> Sight:
        """Which tokens are there."""
        return Padded(self.lengths, blank=False) if self.padded else Plain()


class Pieces:
    """The pieces of a training and a validation text, in batches of like length."""

    def __init__(self, run: Run, prepared: PreparedTexts, longest: int) -> None:
        self._seed, self._tokens = run.seed, run.batching.tokens
        self._before = len(prepared.tokenizer.symbols.before)
        self.train, self.valid = (Windows.of(side, longest) for side in (prepared.train, prepared.valid))

    def plan(self, epoch: int) -> LengthPlan:
        """The batches of an epoch."""
        return self._plan(self.train, self._seed, epoch)

    def to_validate(self) -> LengthPlan:
        """The batches of the validation text."""
        return self._plan(self.valid, 0, 0)

    def _plan(self, windows: Windows, seed: int, epoch: int) -> LengthPlan:
        lengths = windows.lengths + self._before
        return plan_by_length(lengths, lengths, tokens=self._tokens, seed=seed, epoch=epoch)


class Filling:
    """Masked words are predicted from all that stands around them."""

    def __init__(self, run: Run, prepared: PreparedTexts) -> None:
        assert isinstance(run.objective, MaskedWords)
        _ = prepared.tokenizer.symbols.mask  # asked for now, in words
        self.run, self.objective, self.symbols = run, run.objective, prepared.tokenizer.symbols
        self.report, self.fingerprints = prepared.report, prepared.fingerprints
        self.tokenizers = Tokenizers(prepared.tokenizer, prepared.tokenizer)
        self.pieces, self.special = Pieces(run, prepared, run.longest), special_of(prepared.tokenizer)

    def plan(self, epoch: int) -> LengthPlan:
        return self.pieces.plan(epoch)

    def batch(self, plan: LengthPlan, index: int, epoch: int) -> MaskedBatch:
        return self._masked(self.pieces.train, plan[index], self.run.seed, epoch)

    def losses(
        self,
        model: EncoderOnly,
        batch: MaskedBatch,
        smoothing: Smoothing,
        noise: Noise | None,
        precision: torch.dtype,
        trace: Trace | None = None,
    ) -> Losses:
        hidden = model.encode(batch.ids, batch.sight, noise, trace)[batch.rows, batch.columns]
        return of_vectors(model, hidden, batch.truth, smoothing, precision)

    def validation_loss(self, model: EncoderOnly) -> float:
        batches = (self._validated(indices) for indices in self.pieces.to_validate())
        return mean_loss(self.losses, model, batches, model.output.weight.device)

    @torch.no_grad()
    def measure(self, model: EncoderOnly) -> dict[str, Any]:
        """Loss and perplexity at masked words, and how many of them are said right."""
        device, tally = model.output.weight.device, Tally(model.spec)
        total, right, count = 0.0, 0, 0
        for indices in self.pieces.to_validate():
            batch = self._validated(indices).to(device)
            trace = tally.trace()
            logits = model.logits(model.encode(batch.ids, batch.sight, trace=trace)[batch.rows, batch.columns])
            tally.add(trace, batch)
            total += torch.nn.functional.cross_entropy(logits.float(), batch.truth, reduction="sum").item()
            right += int((logits.argmax(1) == batch.truth).sum())
            count += batch.tokens
        mean = total / count
        return {"loss": mean, "perplexity": perplexity(mean), "accuracy": right / count, **tally.fields()}

    def _validated(self, indices: np.ndarray) -> MaskedBatch:
        return self._masked(self.pieces.valid, indices, 0, 0)

    def _masked(self, windows: Windows, indices: np.ndarray, seed: int, epoch: int) -> MaskedBatch:
        symbols = self.symbols
        made = [corrupted(self.objective, windows[index], self.special, window(seed, epoch, index)) for index in indices.tolist()]
        ids, lengths = padded([each.ids for each in made], symbols.before, symbols.end, symbols.pad)
        columns = np.concatenate([each.places for each in made]) + len(symbols.before)
        rows = np.repeat(np.arange(len(made)), [len(each.places) for each in made])
        truth = np.concatenate([each.truth for each in made])
        tensors = (torch.from_numpy(each) for each in (ids, lengths, rows, columns, truth))
        return MaskedBatch(*tensors, padded=bool((lengths != ids.shape[1]).any()), tokens=len(truth))


class Denoising:
    """The encoder reads a spoilt text, the decoder restores it."""

    def __init__(self, run: Run, prepared: PreparedTexts) -> None:
        self.objective: NoiseSpec = run.objective  # pyright: ignore[reportAttributeAccessIssue]
        longest = run.longest
        if isinstance(self.objective, Spans):
            longest, _ = raw_length(run.longest, self.objective.share, self.objective.mean)
        self.run, self.symbols = run, prepared.tokenizer.symbols
        self.report, self.fingerprints = prepared.report, prepared.fingerprints
        self.tokenizers = Tokenizers(prepared.tokenizer, prepared.tokenizer)
        self.pieces, self.special = Pieces(run, prepared, longest), special_of(prepared.tokenizer)
        self._stops = _stops(prepared.tokenizer)
        if isinstance(self.objective, Infill) and not self.symbols.masks:
            raise QkvError(
                "Infill() writes masks, and the tokenizer has none: say --noise infill, or start from a model with one"
            )
        self._spoilt(self.pieces.train, np.argsort(self.pieces.train.lengths)[-1:], 0, 0)  # sentinels too few are said now

    def plan(self, epoch: int) -> LengthPlan:
        return self.pieces.plan(epoch)

    def batch(self, plan: LengthPlan, index: int, epoch: int) -> Batch:
        return self._spoilt(self.pieces.train, plan[index], self.run.seed, epoch)

    def losses(
        self,
        model: EncoderDecoder,
        batch: Batch,
        smoothing: Smoothing,
        noise: Noise | None,
        precision: torch.dtype,
        trace: Trace | None = None,
    ) -> Losses:
        return pair_losses(model, batch, smoothing, noise, precision, trace)

    def validation_loss(self, model: EncoderDecoder, tally: Tally | None = None) -> float:
        batches = (self._validated(indices) for indices in self.pieces.to_validate())
        return mean_loss(self.losses, model, batches, model.output.weight.device, tally)

    def measure(self, model: EncoderDecoder) -> dict[str, Any]:
        """Loss and perplexity per restored token."""
        tally = Tally(model.spec)
        loss = self.validation_loss(model, tally)
        return {"loss": loss, "perplexity": perplexity(loss), **tally.fields()}

    def _validated(self, indices: np.ndarray) -> Batch:
        return self._spoilt(self.pieces.valid, indices, 0, 0)

    def _spoilt(self, windows: Windows, indices: np.ndarray, seed: int, epoch: int) -> Batch:
        symbols = self.symbols
        made = []
        for index in indices.tolist():
            ids = windows[index]
            made.append(corrupted(self.objective, ids, self.special, window(seed, epoch, index), self._stops[ids]))
        # masks where nothing is missing may make a source longer than its text: what the model has no place for is left out
        return of_rows([each.source[: self.run.longest] for each in made], [each.target for each in made], symbols, symbols)


def special_of(tokenizer: Tokenizer) -> Special:
    """What objectives have to know of a vocabulary. Sentinels count down from the top."""
    symbols = tokenizer.symbols
    ordinary = np.array([entry for entry in range(tokenizer.size) if entry not in symbols.special])
    if not len(ordinary):
        raise QkvError("the tokenizer has no entries that are words")
    # without a mask none is ever written; the unknown entry is no word either
    mask = symbols.masks[0] if symbols.masks else symbols.unknown
    return Special(mask, tuple(sorted(symbols.sentinels, reverse=True)), ordinary)


def _stops(tokenizer: Tokenizer) -> np.ndarray:
    """Which entries end a sentence, (V,)."""
    return np.array([piece.strip("▁ ")[-1:] in STOPS and piece != "" for piece in tokenizer.pieces(range(tokenizer.size))])
