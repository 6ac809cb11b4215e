"""BART (Lewis et al. 2019) and, with the same layers under the same names, Marian (Junczys-Dowmunt et al. 2018).

BART's table of places begins with two rows that nobody uses. Marian has sinusoids, all sines first and then all cosines, where
ours alternate: the same model with the channels of the residual stream in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qkv.interop.fit import Fit, Row
from qkv.interop.huggingface.architecture import Architecture, Weights, apart
from qkv.interop.huggingface.names import BOTH, After, Change, Channels, Pair, changed, paired
from qkv.interop.huggingface.names import Row as AsRow
from qkv.interop.huggingface.settings import Settings, activation_name
from qkv.spec.model import (
    AllThree,
    Embedding,
    EncoderDecoder,
    Glorot,
    Joint,
    Normal,
    Normed,
    Output,
    Separate,
    SourceAndTarget,
    TargetAndOutput,
    Untied,
)
from qkv.spec.part import Attention, Block, FeedForward, MemoryAttention, PostNorm, Stack
from qkv.spec.pattern import Causal, Full
from qkv.spec.position import Learned, Sinusoid

BART_FIT, MARIAN_FIT = Fit("BART"), Fit("Marian")
UNUSED = 2  # rows before BART's first place
SHARED, HEAD, BIAS = "model.shared.weight", "lm_head.weight", "final_logits_bias"
SOURCE, TARGET = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
SELF = {
    "0.sublayer.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "0.sublayer.out": "self_attn.out_proj",
    "0.norm": "self_attn_layer_norm",
}
MEMORY = {
    "1.sublayer.q": "encoder_attn.q_proj",
    "1.sublayer.kv": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "1.sublayer.out": "encoder_attn.out_proj",
    "1.norm": "encoder_attn_layer_norm",
}
ORDER: Mapping[str, Change] = {
    **{f"{name}.weight": Channels(1) for name in ("source", "target", "output", "qkv", "q", "kv", "into")},
    **{f"out.{kind}": Channels(0) for kind in BOTH},
    **{f"norm.{kind}": Channels(0) for kind in BOTH},
}
SIDES = ("encoder", "decoder")


def _feed_forward(place: int) -> dict[str, str]:
    return {f"{place}.sublayer.into": "fc1", f"{place}.sublayer.out": "fc2", f"{place}.norm": "final_layer_norm"}


def _stacks(settings: Settings) -> tuple[Stack, Stack]:
    settings.refuse("normalize_before", False)
    dropout, activation = settings.number("dropout"), settings.activation("activation_function")
    stacks = []
    for side, pattern in zip(SIDES, (Full(), Causal()), strict=True):
        heads = settings.whole(f"{side}_attention_heads")
        memory = (MemoryAttention(heads, offset=True),) if side == "decoder" else ()
        forward = FeedForward(settings.whole(f"{side}_ffn_dim"), activation)
        block = Block(Attention(heads, pattern, offset=True), *memory, forward, norm=PostNorm(), dropout=dropout)
        stacks.append(Stack(block, depth=settings.whole(f"{side}_layers")))
    return stacks[0], stacks[1]


def _bart_model(settings: Settings, theirs: Weights) -> EncoderDecoder:
    settings.refuse("normalize_embedding", True)
    for name in ("static_position_embeddings", "add_final_layer_norm"):
        settings.refuse(name, False)
    encoder, decoder = _stacks(settings)
    return EncoderDecoder(
        vocabulary=Joint(settings.whole("vocab_size")),
        width=settings.whole("d_model"),
        embedding=Embedding(
            Learned(settings.whole("max_position_embeddings")),
            scale=settings.flag("scale_embedding"),
            dropout=settings.number("dropout"),
            norm=Normed(),
        ),
        encoder=encoder,
        decoder=decoder,
        tie=SourceAndTarget() if apart(theirs, HEAD, SHARED) else AllThree(),
        output=Output(offset=BIAS in theirs),
        initial=Normal(shrink=False),
    )


def _marian_model(settings: Settings, theirs: Weights) -> EncoderDecoder:
    settings.refuse("static_position_embeddings", True)
    for name in ("normalize_embedding", "add_final_layer_norm"):
        settings.refuse(name, False)
    encoder, decoder = _stacks(settings)
    source = settings.whole("vocab_size")
    joint = settings.flag("share_encoder_decoder_embeddings")
    target = source if settings.get("decoder_vocab_size") is None or joint else settings.whole("decoder_vocab_size")
    if joint:
        tie = SourceAndTarget() if apart(theirs, HEAD, SHARED) else AllThree()
    else:
        tie = Untied() if apart(theirs, HEAD, TARGET) else TargetAndOutput()
    return EncoderDecoder(
        vocabulary=Joint(source) if joint else Separate(source, target),
        width=settings.whole("d_model"),
        embedding=Embedding(Sinusoid(), scale=settings.flag("scale_embedding"), dropout=settings.number("dropout")),
        encoder=encoder,
        decoder=decoder,
        tie=tie,
        output=Output(offset=bool(theirs[BIAS].any()) if BIAS in theirs else False),
        initial=Glorot(),
    )


def _config(fit: Fit, spec: EncoderDecoder) -> dict[str, Any]:
    rows: list[Row] = []
    fit.no_shared_bias(spec.encoder, spec.decoder)
    fit.be("output", spec.output, Output(offset=spec.output.offset))
    for stack, pattern, memory in ((spec.encoder, Full(), False), (spec.decoder, Causal(), True)):
        rows.append(fit.stack(stack, spec.width, pattern, PostNorm, memory=memory))
        fit.even(rows[-1], spec.width)
    fit.epsilon(*(row.epsilon for row in rows))
    config: dict[str, Any] = {
        "vocab_size": spec.vocabulary.source,
        "d_model": spec.width,
        "scale_embedding": spec.embedding.scale,
        "activation_function": activation_name(fit.one((row.activation for row in rows), "activation")),
        "dropout": fit.one((*(row.dropout for row in rows), spec.embedding.dropout), "dropout"),
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "is_encoder_decoder": True,
    }
    for side, row in zip(SIDES, rows, strict=True):
        config |= {f"{side}_layers": row.depth, f"{side}_attention_heads": row.heads, f"{side}_ffn_dim": row.hidden}
    return config | {"tie_word_embeddings": isinstance(spec.tie, AllThree | TargetAndOutput)}


def _bart_config(spec: EncoderDecoder) -> dict[str, Any]:
    position = spec.embedding.position
    if not isinstance(position, Learned):
        BART_FIT.refuse(f"embedding.position={position}", "Learned(...)")
    BART_FIT.embedding(spec.embedding, norm=True)
    assert isinstance(spec.embedding.norm, Normed)
    BART_FIT.epsilon(spec.embedding.norm.epsilon)
    if not isinstance(spec.tie, AllThree | SourceAndTarget):
        BART_FIT.refuse(f"a model with tie={spec.tie}", "AllThree(), one vocabulary for both sides")
    return _config(BART_FIT, spec) | {"max_position_embeddings": position.longest}


def _marian_config(spec: EncoderDecoder) -> dict[str, Any]:
    MARIAN_FIT.be("embedding.position", spec.embedding.position, Sinusoid())
    MARIAN_FIT.embedding(spec.embedding, norm=False)
    return _config(MARIAN_FIT, spec) | {
        "decoder_vocab_size": spec.vocabulary.target,
        "max_position_embeddings": 1024,
        "share_encoder_decoder_embeddings": isinstance(spec.tie, AllThree | SourceAndTarget),
        "static_position_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": False,
    }


def _common(spec: EncoderDecoder) -> list[Pair]:
    pairs: list[Pair] = []
    for side, stack, between in zip(SIDES, (spec.encoder, spec.decoder), ({}, MEMORY), strict=True):
        table = SELF | between | _feed_forward(2 if between else 1)
        for level in range(stack.depth):
            pairs += paired(table, f"{side}.blocks.{level}.sublayers.", f"model.{side}.layers.{level}.", BOTH)
    pairs += [Pair("head.offset", BIAS, AsRow())] if spec.output.offset else []
    if isinstance(spec.tie, AllThree | SourceAndTarget):
        pairs.append(Pair("target.weight", SHARED))
    else:
        pairs += [Pair("source.weight", SOURCE), Pair("target.weight", TARGET)]
    return [*pairs, Pair("output.weight", HEAD)] if isinstance(spec.tie, Untied | SourceAndTarget) else pairs


def _copies(spec: EncoderDecoder) -> dict[str, str]:
    """Where the output map has a matrix of its own, `transformers` ties nothing at all."""
    return {SOURCE: SHARED, TARGET: SHARED} if spec.tie == SourceAndTarget() else {}


def _bart_pairs(spec: EncoderDecoder) -> list[Pair]:
    pairs = _common(spec)
    for ours, side in zip(("source", "target"), SIDES, strict=True):
        pairs.append(Pair(f"{ours}.places", f"model.{side}.embed_positions.weight", After(UNUSED)))
        pairs += paired({f"{ours}.norm": f"model.{side}.layernorm_embedding"}, "", "", BOTH)
    return pairs


def _marian_pairs(spec: EncoderDecoder) -> list[Pair]:
    return changed(_common(spec), ORDER)


USUAL: dict[str, Any] = {
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "activation_function": "gelu",
    "d_model": 1024,
    "dropout": 0.1,
    "scale_embedding": False,
    "max_position_embeddings": 1024,
}

BART = Architecture(
    name="BART",
    model_type="bart",
    classes=("BartForConditionalGeneration", "BartModel"),
    auto="AutoModelForSeq2SeqLM",
    usual=USUAL | {"vocab_size": 50265, "decoder_start_token_id": 2, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1},
    described=_bart_model,
    configured=_bart_config,
    pairs=_bart_pairs,
    prefix="model.",
    heads=("lm_head.", BIAS),
    shared=((SHARED, SOURCE, TARGET, HEAD),),
    copies=_copies,
    spare=(".version",),
)
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
    copies=_copies,
    spare=(".version", ".embed_positions.weight", BIAS),
)
