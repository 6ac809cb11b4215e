"""BERT (Devlin et al. 2018), which fills in masked words or tells labels: segments, small epsilons, and a last transform."""

from __future__ import annotations

from typing import Any

from qkv.error import QkvError
from qkv.interop.fit import Fit, Row
from qkv.interop.huggingface.architecture import Architecture, Weights, apart
from qkv.interop.huggingface.names import BOTH, Pair, paired
from qkv.interop.huggingface.settings import Settings, activation_name
from qkv.spec.model import (
    Classifier,
    Embedding,
    EncoderOnly,
    Joint,
    Mapped,
    Normed,
    Output,
    Tied,
    Transform,
    Untied,
)
from qkv.spec.part import Attention, Block, FeedForward, PostNorm, Stack
from qkv.spec.pattern import Full
from qkv.spec.pooling import FirstToken
from qkv.spec.position import Learned

FIT = Fit("BERT")
WORDS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder"
EMBEDDING = {
    "source.weight": WORDS,
    "source.places": "bert.embeddings.position_embeddings.weight",
    "source.segments": "bert.embeddings.token_type_embeddings.weight",
}
BLOCK = {
    "0.sublayer.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "0.sublayer.out": "attention.output.dense",
    "0.norm": "attention.output.LayerNorm",
    "1.sublayer.into": "intermediate.dense",
    "1.sublayer.out": "output.dense",
    "1.norm": "output.LayerNorm",
}
HEAD = {"linear": "dense", "norm": "LayerNorm"}
LABELS = {"pooler": "bert.pooler.dense", "labels": "classifier"}


def _embedding(settings: Settings) -> Embedding:
    return Embedding(
        Learned(settings.whole("max_position_embeddings")),
        scale=False,
        dropout=settings.number("hidden_dropout_prob"),
        norm=Normed(settings.number("layer_norm_eps")),
        segments=settings.whole("type_vocab_size"),
    )


def _encoder(settings: Settings) -> Stack:
    settings.refuse("position_embedding_type", "absolute")
    settings.refuse("is_decoder", False)
    block = Block(
        Attention(settings.whole("num_attention_heads"), offset=True),
        FeedForward(settings.whole("intermediate_size"), settings.activation("hidden_act")),
        norm=PostNorm(settings.number("layer_norm_eps")),
        dropout=settings.number("hidden_dropout_prob"),
    )
    return Stack(block, depth=settings.whole("num_hidden_layers"))


def _masked_model(settings: Settings, theirs: Weights) -> EncoderOnly:
    tied = settings.flag("tie_word_embeddings") and not apart(theirs, f"{DECODER}.weight", WORDS)
    return EncoderOnly(
        vocabulary=Joint(settings.whole("vocab_size")),
        width=settings.whole("hidden_size"),
        embedding=_embedding(settings),
        encoder=_encoder(settings),
        tie=Tied() if tied else Untied(),
        output=Output(Transform(settings.activation("hidden_act"), settings.number("layer_norm_eps")), offset=True),
    )


def _classifier(settings: Settings, theirs: Weights) -> Classifier:
    settings.refuse("problem_type", "single_label_classification")
    dropout = "classifier_dropout" if settings.get("classifier_dropout") is not None else "hidden_dropout_prob"
    return Classifier(
        vocabulary=Joint(settings.whole("vocab_size")),
        width=settings.whole("hidden_size"),
        embedding=_embedding(settings),
        encoder=_encoder(settings),
        labels=_labels(settings, theirs),
        pooling=FirstToken(),
        dropout=settings.number(dropout),
    )


def _labels(settings: Settings, theirs: Weights) -> tuple[str, ...]:
    """The labels in the order of their numbers; where they have no names, they are called by these, as `transformers` does."""
    named = settings.get("id2label")
    if named is None:
        count = settings.get("num_labels") or len(theirs.get("classifier.weight", ()))
        named = {number: f"LABEL_{number}" for number in range(count)}
    if not isinstance(named, dict) or {str(number) for number in named} != {str(number) for number in range(len(named))}:
        raise QkvError(
            f"{settings.where / 'config.json'} says id2label = {named!r}, which should name each number from 0 on: download the "
            f"folder again"
        )
    return tuple(str(named[number]) for number in sorted(named, key=int))


def _sizes(spec: EncoderOnly | Classifier) -> tuple[Row, dict[str, Any]]:
    embedding, position = spec.embedding, spec.embedding.position
    if not isinstance(position, Learned):
        FIT.refuse(f"embedding.position={position}", "Learned(...)")
    FIT.be("embedding.scale", embedding.scale, False)
    FIT.embedding(embedding, norm=True, segments=True)
    FIT.no_shared_bias(spec.encoder)
    row = FIT.stack(spec.encoder, spec.width, Full(), PostNorm)
    FIT.even(row, spec.width)
    assert isinstance(embedding.norm, Normed)
    FIT.one((row.epsilon, embedding.norm.epsilon), "epsilon")
    return row, {
        "vocab_size": spec.vocabulary.size,
        "hidden_size": spec.width,
        "num_hidden_layers": row.depth,
        "num_attention_heads": row.heads,
        "intermediate_size": row.hidden,
        "hidden_act": activation_name(FIT, row.activation),
        "hidden_dropout_prob": row.dropout,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": position.longest,
        "type_vocab_size": embedding.segments,
        "layer_norm_eps": row.epsilon,
    }


def _masked_config(spec: EncoderOnly) -> dict[str, Any]:
    row, config = _sizes(spec)
    FIT.be("output", spec.output, Output(Transform(row.activation, row.epsilon), offset=True))
    return config | {"tie_word_embeddings": spec.tie == Tied()}


def _classifier_config(spec: Classifier) -> dict[str, Any]:
    if spec.pooling != FirstToken():
        FIT.refuse(
            f"a classifier with pooling={spec.pooling}", "FirstToken(), as `--set objective.pooling='FirstToken()'` trains it"
        )
    FIT.be("answer", spec.answer, Mapped())
    names = dict(enumerate(spec.labels))
    return _sizes(spec)[1] | {
        "classifier_dropout": spec.dropout,
        "id2label": {str(number): label for number, label in names.items()},
        "label2id": {label: number for number, label in names.items()},
        "problem_type": "single_label_classification",
    }


def _body(spec: EncoderOnly | Classifier) -> list[Pair]:
    pairs = [Pair(ours, theirs) for ours, theirs in EMBEDDING.items()]
    pairs += paired({"source.norm": "bert.embeddings.LayerNorm"}, "", "", BOTH)
    for level in range(len(spec.encoder.tiled())):
        pairs += paired(BLOCK, f"encoder.blocks.{level}.sublayers.", f"bert.encoder.layer.{level}.", BOTH)
    return pairs


def _masked_pairs(spec: EncoderOnly) -> list[Pair]:
    pairs = [*_body(spec), *paired(HEAD, "head.transform.", "cls.predictions.transform.", BOTH)]
    pairs.append(Pair("head.offset", f"{DECODER}.bias"))
    return [*pairs, Pair("output.weight", f"{DECODER}.weight")] if spec.tie == Untied() else pairs


def _classifier_pairs(spec: Classifier) -> list[Pair]:
    return [*_body(spec), *paired(LABELS, "", "", BOTH)]


USUAL = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": True,
}
SPARE = (".position_ids",)

BERT = Architecture(
    name="BERT",
    model_type="bert",
    classes=("BertForMaskedLM", "BertForPreTraining"),
    auto="AutoModelForMaskedLM",
    usual=USUAL,
    described=_masked_model,
    configured=_masked_config,
    pairs=_masked_pairs,
    prefix="bert.",
    heads=("cls.",),
    shared=((WORDS, f"{DECODER}.weight"), (f"{DECODER}.bias", "cls.predictions.bias")),
    copies=lambda spec: {"cls.predictions.bias": f"{DECODER}.bias"},
    spare=SPARE,
)
BERT_CLASSIFIER = Architecture(
    name="BERT",
    model_type="bert",
    classes=("BertForSequenceClassification",),
    auto="AutoModelForSequenceClassification",
    usual=USUAL,
    described=_classifier,
    configured=_classifier_config,
    pairs=_classifier_pairs,
    prefix="bert.",
    heads=("classifier.",),
    spare=SPARE,
)
