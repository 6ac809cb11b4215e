"""How good a finished member is, and how quickly it decodes: on validation text, or on other text that nobody has learned from.

What a paired test needs is kept beside it: every translation, or the loss of every stretch of text.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from qkv.data.cache import default_cache
from qkv.data.text import Pair, read_pairs
from qkv.data.tokenizer import Tokenizers
from qkv.decode.generate import Greedy, Order, Page, Writer
from qkv.decode.load import finished
from qkv.decode.rule import Beam
from qkv.decode.sample import Ban
from qkv.decode.translate import Translator
from qkv.spec.data import Sounds
from qkv.spec.objective import Translate
from qkv.spec.run import Run, Source
from qkv.spec.study import OnValidation
from qkv.train.evaluate import bleu, chrf, perplexity
from qkv.train.pairs import Translating
from qkv.train.tasks import task_of
from qkv.train.texts import Generating

TOLD, STRETCHES = "told.json", "stretches.json"
PAGE, LENGTH = 8, 128  # texts that are written beside each other to see how quickly, and the tokens of each

Judged = tuple[dict[str, float], float]
"""Scores by name, and what is decoded in a second."""


def judged(run: Run, folder: Path, test: Source | OnValidation) -> Judged:
    """The scores of a finished run: BLEU, chrF and translated sentences a second; or bits per byte, perplexity and written tokens
    a second."""
    if isinstance(run.objective, Translate):
        return _translator(run, folder, test)
    return _writer(run, folder, test)


def pairs_of(run: Run, test: Source | OnValidation) -> list[Pair]:
    """The sentences that a translator is judged by, and their translations by people."""
    if not isinstance(test, OnValidation):
        return list(read_pairs(test))  # pyright: ignore[reportArgumentType]
    task = task_of(run, None, default_cache())
    assert isinstance(task, Translating)
    return task.prepared.valid_pairs()


def text_of(run: Run, test: Source | OnValidation, known: Tokenizers) -> Generating:
    """The text that a language model is judged by, as what it is validated on."""
    if isinstance(test, OnValidation):
        task = task_of(run, None, default_cache())
    else:  # it stands on both sides, so that nothing else is encoded for it
        task = task_of(replace(run, train=test, valid=test), known, default_cache())
    assert isinstance(task, Generating)
    return task


def _translator(run: Run, folder: Path, test: Source | OnValidation) -> Judged:
    stored = finished(folder, device=run.device)
    sources, targets = zip(*pairs_of(run, test), strict=True)
    start = time.perf_counter()
    found = [best[0].text for best in Translator(stored).translate(sources, Beam())]
    speed = len(found) / (time.perf_counter() - start)
    _keep(folder / TOLD, found)
    return {"bleu": bleu(found, targets, run.evaluation.tokenise).value, "chrf": chrf(found, targets).value}, speed


def _writer(run: Run, folder: Path, test: Source | OnValidation) -> Judged:
    stored = finished(folder, device=run.device)
    task = text_of(run, test, Tokenizers(stored.source, stored.target))
    writer = Writer(stored)
    stretches = task.stretches(writer.model)
    _keep(folder / STRETCHES, stretches)
    nats, number = sum(loss for loss, _ in stretches), sum(count for _, count in stretches)
    name = "bits_per_dimension" if isinstance(run.form, Sounds) else "bits_per_byte"
    scores = {name: nats / math.log(2) / task.report.valid.bytes, "perplexity": perplexity(nats / number)}
    return scores, _writing_speed(writer, run.longest)


@torch.inference_mode()
def _writing_speed(writer: Writer, longest: int) -> float:
    """Tokens a second, of several texts that are written beside each other, no longer than those of training; none of them
    ends."""
    length = int(min(LENGTH, longest, writer.places - 1))
    order = Order(Greedy(), (Ban(tuple(sorted(writer.symbols.special))),), length, ())
    page = Page(writer, [writer.given("")] * PAGE, list(range(PAGE)), order)
    page.next()
    start = time.perf_counter()
    for _ in range(length - 1):
        page.next()
    return PAGE * max(1, length - 1) / (time.perf_counter() - start)


def _keep(path: Path, what: list[Any]) -> None:
    path.write_text(json.dumps(what, ensure_ascii=False) + "\n", encoding="utf-8")
