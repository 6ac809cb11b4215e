"""Training on labelled texts: to tell the label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional

from qkv.attention.sight import Padded, Plain, Sight
from qkv.data.batch import Given, Movable, Plan, by_sentence, padded, plan
from qkv.data.labels import PreparedLabels
from qkv.data.sides import Corpus
from qkv.data.stories import sentences
from qkv.data.tokenizer import Tokenizers
from qkv.error import QkvError
from qkv.model.dropout import Noise
from qkv.model.trace import Trace
from qkv.model.transformer import Classifier
from qkv.spec.data import Stories
from qkv.spec.model import Spelled
from qkv.spec.run import Run
from qkv.train.evaluate import macro_f1
from qkv.train.loss import Smoothing
from qkv.train.ponder import Tally
from qkv.train.task import Losses
from qkv.train.validation import mean_loss


@dataclass(frozen=True, eq=False)
class LabelBatch(Movable):
    """Texts and the numbers of their labels."""

    ids: Int64[Tensor, "B S *words"]
    lengths: Int64[Tensor, "B"]
    truth: Int64[Tensor, "B"]
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


class Classifying:
    """Texts of like length together; a prediction is a label."""

    def __init__(self, run: Run, prepared: PreparedLabels) -> None:
        self.run, self.prepared = run, prepared
        self.report, self.fingerprints = prepared.report, prepared.fingerprints
        self.tokenizers = Tokenizers(prepared.tokenizer, prepared.tokenizer)

    def spelled(self) -> Spelled:
        """The entries of every label's words. Raises QkvError for labels with words that the vocabulary lacks."""
        labels, cut = self.report.labels, self.prepared.tokenizer
        said = list(map(sentences, labels)) if isinstance(self.run.train, Stories) else list(labels)
        found = tuple(tuple(ids) for ids in cut.encode(said))
        lost = [label for label, ids in zip(labels, found, strict=True) if not ids or cut.symbols.unknown in ids]
        if lost:
            raise QkvError(
                f"answer=Spelled() tells labels by their words, and the vocabulary lacks some of those of {', '.join(lost[:5])}: "
                f"leave it out, or allow more words by --vocabulary"
            )
        return Spelled(found)

    def plan(self, epoch: int) -> Plan:
        return self._plan(self.prepared.train, self.run.seed, epoch)

    def batch(self, plan: Plan, index: int, epoch: int) -> LabelBatch:
        return self._labelled(self.prepared.train, plan[index])

    def losses(
        self,
        model: Classifier,
        batch: LabelBatch,
        smoothing: Smoothing,
        noise: Noise | None,
        precision: torch.dtype,
        trace: Trace | None = None,
    ) -> Losses:
        logits = model(batch.ids, batch.sight, noise, trace).float()
        smoothed = functional.cross_entropy(logits, batch.truth, reduction="sum", label_smoothing=smoothing.amount)
        return smoothed, functional.cross_entropy(logits.detach(), batch.truth, reduction="sum")

    def validation_loss(self, model: Classifier) -> float:
        corpus = self.prepared.valid
        batches = (self._labelled(corpus, indices) for indices in self._plan(corpus, 0, 0))
        return mean_loss(self.losses, model, batches, model.source.weight.device)

    @torch.no_grad()
    def measure(self, model: Classifier) -> dict[str, Any]:
        """Loss, accuracy, and the mean over labels of F1."""
        device, tally = model.source.weight.device, Tally(model.spec)
        total, told, truth = 0.0, [], []
        for indices in self._plan(self.prepared.valid, 0, 0):
            batch = self._labelled(self.prepared.valid, indices).to(device)
            trace = tally.trace()
            logits = model(batch.ids, batch.sight, trace=trace).float()
            tally.add(trace, batch)
            total += functional.cross_entropy(logits, batch.truth, reduction="sum").item()
            told += logits.argmax(1).tolist()
            truth += batch.truth.tolist()
        right = sum(one == other for one, other in zip(told, truth, strict=True))
        return {
            "loss": total / len(truth),
            "accuracy": right / len(truth),
            "macro_f1": macro_f1(truth, told, len(self.report.labels)),
            **tally.fields(),
        }

    def _plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        lengths = corpus.source.lengths + len(self.prepared.tokenizer.symbols.before)
        return plan(lengths, lengths, tokens=self.run.batching.tokens, seed=seed, epoch=epoch)

    def _labelled(self, corpus: Corpus, indices: np.ndarray) -> LabelBatch:
        symbols = self.prepared.tokenizer.symbols
        chosen = [corpus[index] for index in indices.tolist()]
        texts = [text for text, _ in chosen]
        if isinstance(self.run.train, Stories):
            ids, lengths = by_sentence(texts, self.prepared.tokenizer.line_end)
        else:
            ids, lengths = padded(texts, symbols.before, symbols.end, symbols.pad)
        truth = np.array([int(label[0]) for _, label in chosen])
        tensors = (torch.from_numpy(each) for each in (ids, lengths, truth))
        return LabelBatch(*tensors, padded=bool((lengths != ids.shape[1]).any()), tokens=len(truth))
