"""Training on pairs: to translate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from qkv.attention.sight import Padded, Plain, Sight
from qkv.data.batch import Batch, Plan, collate, plan
from qkv.data.corpus import Prepared
from qkv.data.sides import Corpus
from qkv.data.tokenizer import Tokenizers
from qkv.data.world import accuracy
from qkv.decode.rule import Beam
from qkv.decode.translate import Translator
from qkv.model.dropout import Noise
from qkv.model.trace import Trace
from qkv.model.transformer import EncoderDecoder
from qkv.spec.objective import Translate
from qkv.spec.run import Run
from qkv.spec.world import Drawn
from qkv.store import Stored
from qkv.train.choices import told
from qkv.train.evaluate import bleu, perplexity, refuse_unknown
from qkv.train.loss import Smoothing
from qkv.train.ponder import Tally
from qkv.train.task import Losses, each_of_vectors, of_vectors
from qkv.train.validation import mean_loss


class Translating:
    """Pairs of sentences; each batch holds pairs of like length."""

    def __init__(self, run: Run, prepared: Prepared) -> None:
        refuse_unknown(run.evaluation.tokenise)
        self.run, self.prepared = run, prepared
        self.report, self.fingerprints, self.tokenizers = prepared.report, prepared.fingerprints, prepared.tokenizers
        self._valid_pairs = prepared.valid_pairs()

    def plan(self, epoch: int) -> Plan:
        corpus = self.prepared.train
        return plan(
            corpus.source.lengths, corpus.target.lengths, tokens=self.run.batching.tokens, seed=self.run.seed, epoch=epoch
        )

    def batch(self, plan: Plan, index: int, epoch: int) -> Batch:
        return batch_of(self.prepared.train, plan[index], self.tokenizers)

    def losses(
        self,
        model: EncoderDecoder,
        batch: Batch,
        smoothing: Smoothing,
        noise: Noise | None,
        precision: torch.dtype,
        trace: Trace | None = None,
    ) -> Losses:
        assert isinstance(self.run.objective, Translate), "pairs are translated"
        if noise is not None and self.run.objective.slips:
            batch = replace(batch, target_in=slipped(batch, self.run.objective.slips, noise))
        return losses(model, batch, smoothing, noise, precision, trace)

    def validation_loss(self, model: EncoderDecoder, tally: Tally | None = None) -> float:
        corpus = self.prepared.valid
        found = plan(corpus.source.lengths, corpus.target.lengths, tokens=self.run.batching.tokens, seed=0, epoch=0)
        batches = (batch_of(corpus, indices, self.tokenizers) for indices in found)
        return mean_loss(self.losses, model, batches, model.output.weight.device, tally)

    def measure(self, model: EncoderDecoder) -> dict[str, Any]:
        """Validation loss and perplexity; by greedy translation BLEU, or, of a world, how many answers are right."""
        tally = Tally(model.spec)
        loss = self.validation_loss(model, tally)
        fields: dict[str, Any] = {"loss": loss, "perplexity": perplexity(loss), **tally.fields()}
        pairs = self._valid_pairs[: self.run.evaluation.sentences]
        if pairs:
            model.eval()
            truth = [target for _, target in pairs]
            drawn = isinstance(self.run.own_text, Drawn)
            rule = greedy(truth) if drawn else Beam(1)
            found = Translator(Stored(model, *self.tokenizers)).translate([s for s, _ in pairs], rule)
            told = [best[0].text for best in found]
            if drawn:
                fields |= vars(accuracy(told, truth))
            else:
                fields["bleu"] = bleu(told, truth, self.run.evaluation.tokenise).value
        return fields


def greedy(truth: list[str]) -> Beam:
    """How the answers of a world are told: one hypothesis, with room for the longest answer even to the shortest question."""
    return Beam(1, extra=max(map(len, truth)))


def losses(
    model: EncoderDecoder,
    batch: Batch,
    smoothing: Smoothing,
    noise: Noise | None = None,
    precision: torch.dtype = torch.float32,
    trace: Trace | None = None,
) -> Losses:
    """The smoothed and the plain loss of a batch, summed over its target tokens, in nats; padding is nobody's loss."""
    memory = model.encode(batch.source, sight(batch), noise, trace)
    hidden = model.decode(batch.target_in, memory, noise=noise, trace=trace)
    there = None
    if not batch.padded_target:
        rows, truth = hidden.flatten(0, 1), batch.target_out.flatten()
    else:
        there = torch.arange(hidden.shape[1], device=hidden.device) < batch.target_lengths[:, None]
        rows, truth = hidden[there], batch.target_out[there]
    if trace is not None and trace.chosen:
        trace.told = told(each_of_vectors(model, rows, truth, precision), hidden, there)
    return of_vectors(model, rows, truth, smoothing, precision)


def slipped(batch: Batch, share: float, noise: Noise) -> Int[Tensor, "B T"]:
    """What goes into the decoder, with a share of the tokens after the start exchanged for others of the batch."""
    places = torch.arange(batch.target_in.shape[1], device=batch.target_in.device)
    said = (places > 0) & (places < batch.target_lengths[:, None])
    others = batch.target_in.clone()
    others[said] = noise.turned(batch.target_in[said], ("slips",))
    kept = noise.mask(others.to(torch.float32), share, ("slips",)) > 0
    return torch.where(kept, batch.target_in, others)


def sight(batch: Batch) -> Sight:
    """Which tokens of the source are there."""
    return Padded(batch.source_lengths, blank=False) if batch.padded_source else Plain()


def batch_of(corpus: Corpus, indices: np.ndarray, tokenizers: Tokenizers) -> Batch:
    """The batch of some pairs."""
    return collate(corpus, indices, tokenizers.source.symbols, tokenizers.target.symbols)
