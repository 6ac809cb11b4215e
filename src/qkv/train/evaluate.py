"""How good a model is, as numbers that others use: BLEU and chrF, perplexity, macro F1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from qkv.error import QkvError, unknown

TOKENISED, DETOKENISED = "none", "13a"


@dataclass(frozen=True)
class Score:
    """A corpus score with the signature that lets others compare."""

    name: str
    value: float
    signature: str


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


def macro_f1(truth: Sequence[int], told: Sequence[int], labels: int) -> float:
    """The mean of F1 over the labels that occur, in the truth or among what was told."""
    table = confusion(truth, told, labels)
    right, real, said = table.diagonal(), table.sum(1), table.sum(0)
    occurring = real + said > 0
    return float((2 * right[occurring] / (real + said)[occurring]).mean())


def confusion(truth: Sequence[int], told: Sequence[int], labels: int) -> np.ndarray:
    """How often each label (row) was told as each (column), (labels, labels)."""
    table = np.zeros((labels, labels), dtype=np.int64)
    np.add.at(table, (np.asarray(truth), np.asarray(told)), 1)
    return table
