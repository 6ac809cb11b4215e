"""How good a model is: validation loss, BLEU and chrF."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from qkv.attention.sight import Padded, Plain, Sight
from qkv.data.batch import Batch, collate, plan
from qkv.data.sides import Corpus
from qkv.data.tokenizer import Tokenizer
from qkv.error import QkvError, unknown
from qkv.model.dropout import Noise
from qkv.model.transformer import EncoderDecoder
from qkv.train.loss import Smoothing, smoothed_cross_entropy

TOKENISED, DETOKENISED = "none", "13a"


@dataclass(frozen=True)
class Score:
    """A corpus score with the signature that lets others compare."""

    name: str
    value: float
    signature: str


def losses(
    model: EncoderDecoder, batch: Batch, smoothing: Smoothing, noise: Noise | None = None, precision: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """The smoothed and the plain loss of a batch, summed over its target tokens, in nats; padding is nobody's loss."""
    hidden = model.decode(batch.target_in, model.encode(batch.source, sight(batch), noise), noise=noise)
    if not batch.padded_target:
        rows, truth = hidden.flatten(0, 1), batch.target_out.flatten()
    else:
        present = torch.arange(hidden.shape[1], device=hidden.device) < batch.target_lengths[:, None]
        rows, truth = hidden[present], batch.target_out[present]
    return smoothed_cross_entropy(rows.to(model.output.weight.dtype), model.output.weight, truth, smoothing, precision)


def sight(batch: Batch) -> Sight:
    """Which tokens of the source are there."""
    return Padded(batch.source_lengths, blank=False) if batch.padded_source else Plain()


def batch_of(corpus: Corpus, indices: np.ndarray) -> Batch:
    """The batch of some pairs, with the symbols that every tokenizer here has."""
    return collate(corpus, indices, Tokenizer.pad, Tokenizer.bos, Tokenizer.eos)


@torch.no_grad()
def validation_loss(model: EncoderDecoder, corpus: Corpus, tokens: int) -> float:
    """Nats per target token, unsmoothed, without dropout."""
    device = model.output.weight.device
    total, count = 0.0, 0
    for indices in plan(corpus.source.lengths, corpus.target.lengths, tokens=tokens, seed=0, epoch=0):
        batch = batch_of(corpus, indices).to(device)
        total += losses(model, batch, Smoothing(0.0))[1].item()
        count += batch.tokens
    return total / count


def perplexity(loss: float) -> float:
    """e to the loss; infinite rather than an error where the loss is huge."""
    return math.exp(loss) if loss < 700 else math.inf


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenise: str = DETOKENISED) -> Score:
    """Corpus BLEU by sacreBLEU; `tokenise` is "13a" for natural text and "none" for text that is tokenised already."""
    metric = _metric(tokenise)
    value = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Score("BLEU", value, str(metric.get_signature()))


def refuse_unknown(tokenise: str) -> None:
    """Raises QkvError for a tokenisation that sacreBLEU does not have, before any time goes into translations."""
    _metric(tokenise)


def _metric(tokenise: str) -> BLEU:
    if tokenise not in BLEU.TOKENIZERS:
        raise unknown("tokenisation of sacreBLEU", tokenise, BLEU.TOKENIZERS)
    try:
        # text that is tokenised already is meant to be: the metric's warning about it would only mislead
        return BLEU(tokenize=tokenise, force=tokenise == TOKENISED)
    except (ImportError, RuntimeError) as error:
        raise QkvError(f"sacreBLEU cannot use its tokenisation {tokenise!r} here: {error}") from None


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Corpus chrF by sacreBLEU."""
    metric = CHRF()
    value = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Score("chrF", value, str(metric.get_signature()))
