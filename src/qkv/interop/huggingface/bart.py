"""BART (Lewis et al. 2019), whose table of places begins with two rows that nobody uses; and the layers that others have from it,
under the same names."""

from __future__ import annotations

from typing import Any

from qkv.interop.fit import Fit, Row
from qkv.interop.huggingface.architecture import Architecture, Weights, apart
from qkv.interop.huggingface.names import BOTH, After, Pair, paired
from qkv.interop.huggingface.names import Row as AsRow
from qkv.interop.huggingface.settings import Settings, activation_name
from qkv.spec.model import (
    AllThree,
    Embedding,
    EncoderDecoder,
    Joint,
    Normal,
    Normed,
    Output,
    SourceAndTarget,
    TargetAndOutput,
    Untied,
)
from qkv.spec.part import Attention, Block, FeedForward, MemoryAttention, Norm, PostNorm, PreNorm, Stack
from qkv.spec.pattern import Causal, Full
from qkv.spec.position import Learned

FIT = Fit("BART")
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
SIDES = ("encoder", "decoder")


def _feed_forward(place: int) -> dict[str, str]:
    return {f"{place}.sublayer.into": "fc1", f"{place}.sublayer.out": "fc2", f"{place}.norm": "final_layer_norm"}


def stacks(settings: Settings, norm: Norm) -> tuple[Stack, Stack]:
    """The encoder and the decoder that a config.json describes."""
    dropout, activation = settings.number("dropout"), settings.activation("activation_function")
    made = []
    for side, pattern in zip(SIDES, (Full(), Causal()), strict=True):
        heads = settings.whole(f"{side}_attention_heads")
        memory = (MemoryAttention(heads, offset=True),) if side == "decoder" else ()
        forward = FeedForward(settings.whole(f"{side}_ffn_dim"), activation)
        block = Block(Attention(heads, pattern, offset=True), *memory, forward, norm=norm, dropout=dropout)
        made.append(Stack(block, depth=settings.whole(f"{side}_layers")))
    return made[0], made[1]


def _bart_model(settings: Settings, theirs: Weights) -> EncoderDecoder:
    settings.refuse("normalize_embedding", True)
    for name in ("normalize_before", "static_position_embeddings", "add_final_layer_norm"):
        settings.refuse(name, False)
    encoder, decoder = stacks(settings, PostNorm())
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


def configured(fit: Fit, spec: EncoderDecoder, norm: type[PostNorm | PreNorm]) -> dict[str, Any]:
    """A config.json but for what is said of places. Raises QkvError where a part does not fit."""
    rows: list[Row] = []
    fit.no_shared_bias(spec.encoder, spec.decoder)
    fit.be("output", spec.output, Output(offset=fit.scores(spec.output).offset))
    for stack, pattern, memory in ((spec.encoder, Full(), False), (spec.decoder, Causal(), True)):
        rows.append(fit.stack(stack, spec.width, pattern, norm, memory=memory))
        fit.even(rows[-1], spec.width)
    fit.epsilon(*(row.epsilon for row in rows))
    config: dict[str, Any] = {
        "vocab_size": spec.vocabulary.source,
        "d_model": spec.width,
        "scale_embedding": spec.embedding.scale,
        "activation_function": activation_name(fit, fit.one((row.activation for row in rows), "activation")),
        "dropout": rows[0].dropout,
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
        FIT.refuse(f"embedding.position={position}", "Learned(...)")
    FIT.embedding(spec.embedding, norm=True)
    assert isinstance(spec.embedding.norm, Normed)
    FIT.epsilon(spec.embedding.norm.epsilon)
    if not isinstance(spec.tie, AllThree | SourceAndTarget):
        FIT.refuse(f"a model with tie={spec.tie}", "AllThree(), one vocabulary for both sides")
    return configured(FIT, spec, PostNorm) | {"max_position_embeddings": position.longest}


def layers(spec: EncoderDecoder) -> list[Pair]:
    """The parameters of all blocks, the vectors of tokens and the offset of the output."""
    pairs: list[Pair] = []
    for side, stack, between in zip(SIDES, (spec.encoder, spec.decoder), ({}, MEMORY), strict=True):
        table = SELF | between | _feed_forward(2 if between else 1)
        for level in range(len(stack.tiled())):
            pairs += paired(table, f"{side}.blocks.{level}.sublayers.", f"model.{side}.layers.{level}.", BOTH)
    pairs += [Pair("head.offset", BIAS, AsRow())] if FIT.scores(spec.output).offset else []
    if isinstance(spec.tie, AllThree | SourceAndTarget):
        pairs.append(Pair("target.weight", SHARED))
    else:
        pairs += [Pair("source.weight", SOURCE), Pair("target.weight", TARGET)]
    return [*pairs, Pair("output.weight", HEAD)] if isinstance(spec.tie, Untied | SourceAndTarget) else pairs


def copies(spec: EncoderDecoder) -> dict[str, str]:
    """Where the output map has a matrix of its own, `transformers` ties nothing at all."""
    return {SOURCE: SHARED, TARGET: SHARED} if spec.tie == SourceAndTarget() else {}


def _bart_pairs(spec: EncoderDecoder) -> list[Pair]:
    pairs = layers(spec)
    for ours, side in zip(("source", "target"), SIDES, strict=True):
        pairs.append(Pair(f"{ours}.places", f"model.{side}.embed_positions.weight", After(UNUSED)))
        pairs += paired({f"{ours}.norm": f"model.{side}.layernorm_embedding"}, "", "", BOTH)
    return pairs


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
    copies=copies,
    spare=(".version",),
)
