"""Whether two members differ by more than the choice of sentences explains: paired bootstrap resampling (Koehn 2004)."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest

from qkv.study.judge import STRETCHES, TOLD
from qkv.study.member import Member
from qkv.train.evaluate import DETOKENISED, TOKENISED

RESAMPLES = 1000
SEED = 12345  # sacreBLEU's own
LEVEL = 0.05


def of_translations(first: Sequence[str], other: Sequence[str], references: Sequence[str], tokenise: str = DETOKENISED) -> float:
    """The p of a difference in BLEU, by sacreBLEU's paired bootstrap. Of translations that are the same line by line it is 1,
    where sacreBLEU would say less."""
    if list(first) == list(other):
        return 1.0
    systems: list[tuple[str, Sequence[str]]] = [("first", list(first)), ("other", list(other))]
    metric = BLEU(tokenize=tokenise, force=tokenise == TOKENISED)
    logging.getLogger("sacrebleu").setLevel(logging.WARNING)  # it tells of every step
    _, found = PairedTest(systems, {"BLEU": metric}, [list(references)], test_type="bs", n_samples=RESAMPLES)()
    return float(found["BLEU"][1].p_value)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]


def of_stretches(first: Sequence[tuple[float, int]], other: Sequence[tuple[float, int]]) -> float:
    """The p of a difference in loss per prediction: how often it is at least as far from its mean, over resamples of the same
    stretches for both, as it is from nothing."""
    one, two = (np.array([loss for loss, _ in each]) for each in (first, other))
    counts = np.array([count for _, count in first])
    assert [count for _, count in first] == [count for _, count in other], "both were judged by the same stretches"
    apart = (one - two).sum() / counts.sum()
    drawn = np.random.default_rng(SEED).integers(len(counts), size=(RESAMPLES, len(counts)))
    found = (one - two)[drawn].sum(1) / counts[drawn].sum(1)
    return (int((np.abs(found - apart) >= abs(apart)).sum()) + 1) / (RESAMPLES + 1)


def p_value(first: Member, other: Member, references: Sequence[str]) -> float:
    """The p of the difference between two finished members; the references are those of translations."""
    name = TOLD if (first.folder / TOLD).is_file() else STRETCHES
    one, two = (json.loads((each.folder / name).read_text(encoding="utf-8")) for each in (first, other))
    if name == STRETCHES:
        return of_stretches(one, two)
    return of_translations(one, two, references, first.run.evaluation.tokenise)
