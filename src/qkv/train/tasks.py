"""The task of each objective, and the models that can learn it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qkv.data.corpus import prepare
from qkv.data.documents import prepare_texts
from qkv.data.labels import prepare_labels
from qkv.data.pictures import described
from qkv.data.tokenizer import Tokenizers
from qkv.error import QkvError
from qkv.spec.data import Bytes, HeldOut, Labelled, OfRun, Pictures, Stories, Texts
from qkv.spec.model import (
    AllSentences,
    Classifier,
    DecoderOnly,
    EncoderDecoder,
    EncoderOnly,
    Joint,
    Model,
    Sentences,
    Spelled,
    Tokens,
    known_places,
    sides,
    with_places,
)
from qkv.spec.objective import Classify, Generate, MaskedWords, Translate
from qkv.spec.part import own_attention
from qkv.spec.pattern import periods
from qkv.spec.pooling import Pooling
from qkv.spec.run import Run
from qkv.train.labels import Classifying
from qkv.train.pairs import Translating
from qkv.train.task import Task
from qkv.train.texts import Denoising, Filling, Generating


def task_of(run: Run, given: Tokenizers | None, cache: Path, unit: Tokens | Sentences = Tokens()) -> Task:
    """The objective of a run on its text, which is encoded if it is not yet; tokenizers that are given are not learned anew. The
    unit of its model says how much of a story is read."""
    text, valid, seed = run.train, run.valid, _dice(run)
    if isinstance(text, Texts | Bytes):
        assert not isinstance(valid, Labelled)
        prepared = prepare_texts(text, valid, given.source if given else run.tokenizer, seed=seed, cache=cache)  # pyright: ignore[reportArgumentType]
        match run.objective:
            case Generate():
                return Generating(run, prepared)
            case MaskedWords():
                return Filling(run, prepared)
            case _:
                return Denoising(run, prepared)
    if isinstance(text, Labelled | Stories):
        cut = given.source if given else run.tokenizer
        recent = unit.recent if isinstance(unit, Sentences) else AllSentences()
        labelled = prepare_labels(text, valid, cut, longest=run.longest, seed=seed, cache=cache, recent=recent)  # pyright: ignore[reportArgumentType]
        return Classifying(run, labelled)
    cut = given or run.tokenizer
    return Translating(run, prepare(text, valid, cut, seed=seed, longest=run.longest, cache=cache))  # pyright: ignore[reportArgumentType]


def _dice(run: Run) -> int:
    """The seed that decides which text is held out, where some is."""
    held = run.valid
    return held.seed if isinstance(held, HeldOut) and not isinstance(held.seed, OfRun) else run.seed


def labels_of(task: Task) -> tuple[str, ...]:
    """The labels that a task is about; two that mean nothing where it is about none."""
    return task.prepared.report.labels if isinstance(task, Classifying) else ("", " ")


def classifier(spec: Model, labels: tuple[str, ...], pooling: Pooling) -> Classifier:
    """A classifier with the encoder of a model. Raises QkvError where it has none, or has other labels already."""
    match spec:
        case Classifier():
            if spec.labels != labels and labels != ("", " "):
                raise QkvError(f"the run to start from knows the labels {spec.labels}, and the table has {labels}")
            return spec
        case EncoderOnly() | EncoderDecoder():
            return Classifier(
                Joint(spec.vocabulary.source), spec.width, spec.embedding, spec.encoder, labels, pooling, initial=spec.initial
            )
        case DecoderOnly():
            raise QkvError("a classifier reads with an encoder, and a model of the shape DecoderOnly has none: choose bert-tiny")


def spelled(spec: Model, task: Task) -> Model:
    """The model, with the words of its labels where it tells these by their words and nobody has said which they are."""
    if isinstance(spec, Classifier) and isinstance(task, Classifying) and spec.answer == Spelled():
        return replace(spec, answer=task.spelled())
    return spec


def placed(run: Run, spec: Model) -> Model:
    """A model with as many learned places as the texts of a run need: one that no training reaches would be worth nothing."""
    return with_places(spec, _needed(run)) if _needed(run) else spec


def _needed(run: Run) -> int:
    """Places for the longest text; where positions are sentences, nobody knows before they are read."""
    if isinstance(run.train, Stories):
        return 0
    return run.places + run.roaming


def refuse_misfit(run: Run, spec: Model) -> None:
    """Raises QkvError where the shape of a model is not that of the objective, its positions are not what the text is read by, or
    texts have more places than it knows, or fewer than a stride of it is long."""
    wanted = {Translate: EncoderDecoder, Generate: DecoderOnly, MaskedWords: EncoderOnly, Classify: Classifier}
    shape = wanted.get(type(run.objective), EncoderDecoder)
    if not isinstance(spec, shape):
        raise QkvError(
            f"{run.model} is of the shape {type(spec).__name__}, and {type(run.objective).__name__} needs {shape.__name__}: "
            f"`qkv models` lists the models of every shape"
        )
    if isinstance(run.train, Stories) != isinstance(spec.embedding.unit, Sentences):
        raise QkvError(
            f"stories are read sentence by sentence, and all other texts token by token: embedding.unit={spec.embedding.unit} "
            f"does not go with this text. Leave it out"
        )
    if isinstance(run.form, Pictures) and run.longest != run.form.size:
        raise QkvError(
            f"pictures {described(run.form)} are {run.form.size:,} bytes each, and each is read whole: say --longest "
            f"{run.form.size}, not {run.longest}, or nothing"
        )
    if run.spread and not run.roaming:  # only here, since what is said place by place may say it first
        raise QkvError("places are spread over those that roaming adds: say how many, such as roaming=360, or spread=False")
    places, needed = known_places(spec), _needed(run)
    if places < needed:
        raise QkvError(
            f"{run.model} knows {places} places, and texts of {run.longest} tokens need {needed}: make them shorter by "
            f"--longest {int(places) - needed + run.longest}"
        )
    for attention in (each for depth in sides(spec).values() for each in own_attention(depth)):
        period = max(periods(attention.pattern), default=0)
        if period > needed:
            raise QkvError(
                f"a stride or block of {period} is longer than the {needed} positions of a text: {attention.pattern}. Say "
                f"--longest {period} or more, or another pattern: --set '*.pattern=Causal() & Local(64)'"
            )
