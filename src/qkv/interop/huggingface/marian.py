"""Marian (Junczys-Dowmunt et al. 2018), with norms after the sublayers, and Pegasus (Zhang et al. 2020), with norms before them.

Both have BART's layers, and sinusoids for places: all sines first and then all cosines, where ours alternate. It is the same
model with the channels of the residual stream in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qkv.interop.fit import Fit
from qkv.interop.huggingface.architecture import Architecture, Weights, apart
from qkv.interop.huggingface.bart import (
    BIAS,
    HEAD,
    SHARED,
    SIDES,
    SOURCE,
    TARGET,
    USUAL,
    configured,
    copies,
    layers,
    stacks,
)
from qkv.interop.huggingface.names import BOTH, Change, Channels, Pair, changed, paired
from qkv.interop.huggingface.settings import Settings
from qkv.spec.model import (
    AllThree,
    Embedding,
    EncoderDecoder,
    Joint,
    Output,
    Separate,
    SourceAndTarget,
    TargetAndOutput,
    Tie,
    Untied,
    Vocabulary,
)
from qkv.spec.part import Norm, PostNorm, PreNorm
from qkv.spec.position import Sinusoid

MARIAN_FIT, PEGASUS_FIT = Fit("Marian"), Fit("Pegasus")
PLACES = 1024  # the table is made anew for every model, and is not written out
ORDER: Mapping[str, Change] = {
    **{f"{name}.weight": Channels(1) for name in ("source", "target", "output", "qkv", "q", "kv", "into")},
    **{f"out.{kind}": Channels(0) for kind in BOTH},
    **{f"norm.{kind}": Channels(0) for kind in BOTH},
}


def _model(settings: Settings, theirs: Weights, norm: Norm, vocabulary: Vocabulary, tie: Tie) -> EncoderDecoder:
    encoder, decoder = stacks(settings, norm)
    return EncoderDecoder(
        vocabulary=vocabulary,
        width=settings.whole("d_model"),
        embedding=Embedding(Sinusoid(), scale=settings.flag("scale_embedding"), dropout=settings.number("dropout")),
        encoder=encoder,
        decoder=decoder,
        tie=tie,
        output=Output(offset=bool(theirs[BIAS].any()) if BIAS in theirs else False),
    )


def _marian_model(settings: Settings, theirs: Weights) -> EncoderDecoder:
    settings.refuse("static_position_embeddings", True)
    for name in ("normalize_before", "normalize_embedding", "add_final_layer_norm"):
        settings.refuse(name, False)
    source = settings.whole("vocab_size")
    if settings.flag("share_encoder_decoder_embeddings"):
        tie = SourceAndTarget() if apart(theirs, HEAD, SHARED) else AllThree()
        return _model(settings, theirs, PostNorm(), Joint(source), tie)
    target = source if settings.get("decoder_vocab_size") is None else settings.whole("decoder_vocab_size")
    tie = Untied() if apart(theirs, HEAD, TARGET) else TargetAndOutput()
    return _model(settings, theirs, PostNorm(), Separate(source, target), tie)


def _pegasus_model(settings: Settings, theirs: Weights) -> EncoderDecoder:
    for name in ("static_position_embeddings", "normalize_before", "add_final_layer_norm"):
        settings.refuse(name, True)
    settings.refuse("normalize_embedding", False)
    tie = SourceAndTarget() if apart(theirs, HEAD, SHARED) else AllThree()
    return _model(settings, theirs, PreNorm(), Joint(settings.whole("vocab_size")), tie)


def _places(fit: Fit, spec: EncoderDecoder) -> dict[str, Any]:
    fit.be("embedding.position", spec.embedding.position, Sinusoid())
    fit.embedding(spec.embedding, norm=False)
    return {"max_position_embeddings": PLACES, "static_position_embeddings": True, "normalize_embedding": False}


def _marian_config(spec: EncoderDecoder) -> dict[str, Any]:
    places = _places(MARIAN_FIT, spec)
    return configured(MARIAN_FIT, spec, PostNorm) | {
        **places,
        "decoder_vocab_size": spec.vocabulary.target,
        "share_encoder_decoder_embeddings": isinstance(spec.tie, AllThree | SourceAndTarget),
        "normalize_before": False,
    }


def _pegasus_config(spec: EncoderDecoder) -> dict[str, Any]:
    if not isinstance(spec.tie, AllThree | SourceAndTarget):
        PEGASUS_FIT.refuse(f"a model with tie={spec.tie}", "AllThree(), one vocabulary for both sides")
    places = _places(PEGASUS_FIT, spec)
    return configured(PEGASUS_FIT, spec, PreNorm) | {**places, "normalize_before": True, "add_final_layer_norm": True}


def _marian_pairs(spec: EncoderDecoder) -> list[Pair]:
    return changed(layers(spec), ORDER)


def _pegasus_pairs(spec: EncoderDecoder) -> list[Pair]:
    last = paired({f"{side}.norm": f"model.{side}.layer_norm" for side in SIDES}, "", "", BOTH)
    return changed([*layers(spec), *last], ORDER)


MARIAN = Architecture(
    name="Marian",
    model_type="marian",
    classes=("MarianMTModel", "MarianModel"),
    auto="AutoModelForSeq2SeqLM",
    usual=USUAL
    | {
        "vocab_size": 58101,
        "share_encoder_decoder_embeddings": True,
        "decoder_start_token_id": 58100,
        "eos_token_id": 0,
        "pad_token_id": 58100,
    },
    described=_marian_model,
    configured=_marian_config,
    pairs=_marian_pairs,
    prefix="model.",
    heads=("lm_head.", BIAS),
    shared=((SHARED, SOURCE, TARGET, HEAD), (TARGET, HEAD)),
    copies=copies,
    spare=(".version", ".embed_positions.weight", BIAS),
)
PEGASUS = Architecture(
    name="Pegasus",
    model_type="pegasus",
    classes=("PegasusForConditionalGeneration", "PegasusModel"),
    auto="AutoModelForSeq2SeqLM",
    usual=USUAL | {"vocab_size": 50265, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0},
    described=_pegasus_model,
    configured=_pegasus_config,
    pairs=_pegasus_pairs,
    prefix="model.",
    heads=("lm_head.", BIAS),
    shared=((SHARED, SOURCE, TARGET, HEAD),),
    copies=copies,
    spare=(".version", ".embed_positions.weight", BIAS),
)
