"""T5 (Raffel et al. 2019), version 1.0 with ReLU and one matrix, and 1.1 with gated GELU and an output map of its own.

Scores have no scale; the first block of a stack has the bias that all of them add. Where the output map is the embedding, the
vectors are multiplied by width^-0.5 before it.
"""

from __future__ import annotations

from typing import Any

from qkv.interop.fit import Fit
from qkv.interop.huggingface.architecture import Architecture, Weights, apart
from qkv.interop.huggingface.names import WEIGHT, Pair, paired
from qkv.interop.huggingface.settings import ACTIVATIONS, Settings, activation_name
from qkv.spec.model import AllThree, Embedding, EncoderDecoder, FanIn, Joint, Output, SourceAndTarget
from qkv.spec.part import (
    GELU,
    Activation,
    Attention,
    Block,
    FeedForward,
    MemoryAttention,
    PreNorm,
    RMSNorm,
    Stack,
    TanhGELU,
)
from qkv.spec.pattern import Causal, Full
from qkv.spec.position import NoPosition, Relative
from qkv.spec.score import Dot

FIT = Fit("T5")
SHARED, HEAD = "shared.weight", "lm_head.weight"
SIDES = ("encoder", "decoder")
BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
SELF = {
    "0.norm": "layer.0.layer_norm",
    "0.sublayer.qkv": tuple(f"layer.0.SelfAttention.{name}" for name in "qkv"),
    "0.sublayer.out": "layer.0.SelfAttention.o",
}
MEMORY = {
    "1.norm": "layer.1.layer_norm",
    "1.sublayer.q": "layer.1.EncDecAttention.q",
    "1.sublayer.kv": ("layer.1.EncDecAttention.k", "layer.1.EncDecAttention.v"),
    "1.sublayer.out": "layer.1.EncDecAttention.o",
}


def _described(settings: Settings, theirs: Weights) -> EncoderDecoder:
    dropout, wide = settings.number("dropout_rate"), settings.whole("d_kv")
    heads, norm = settings.whole("num_heads"), PreNorm(settings.number("layer_norm_epsilon"), RMSNorm())
    activation, gated = _activation(settings)
    forward = FeedForward(settings.whole("d_ff"), activation, offset=False, gated=gated)
    reads = Block(Attention(heads, head_width=wide, score=Dot()), forward, norm=norm, dropout=dropout)
    writes = Block(
        Attention(heads, Causal(), head_width=wide, score=Dot()),
        MemoryAttention(heads, head_width=wide, score=Dot()),
        forward,
        norm=norm,
        dropout=dropout,
    )
    buckets, farthest = settings.whole("relative_attention_num_buckets"), settings.whole("relative_attention_max_distance")
    depth = settings.whole("num_layers")
    above = depth if settings.get("num_decoder_layers") is None else settings.whole("num_decoder_layers")
    return EncoderDecoder(
        vocabulary=Joint(settings.whole("vocab_size")),
        width=settings.whole("d_model"),
        embedding=Embedding(NoPosition(), scale=False, dropout=dropout),
        encoder=Stack(reads, depth=depth, bias=Relative(buckets, farthest)),
        decoder=Stack(writes, depth=above, bias=Relative(buckets, farthest, two_sided=False)),
        tie=SourceAndTarget() if apart(theirs, HEAD, SHARED) else AllThree(),
        output=Output(scaled=_scaled(settings)),
        initial=FanIn(),
    )


def _scaled(settings: Settings) -> bool:
    """Newer configs say it; in older ones it is what is said of the ties, whether or not there are any."""
    if isinstance(settings.get("scale_decoder_outputs"), bool):
        return settings.flag("scale_decoder_outputs")
    return settings.get("tie_word_embeddings") is not False


def _activation(settings: Settings) -> tuple[Activation, bool]:
    """The activation, and whether it is a gate's; GELU is the exact one, but a gate's is the tanh form."""
    said = settings.get("feed_forward_proj")
    gated = isinstance(said, str) and said.startswith("gated-")
    name = said.removeprefix("gated-") if isinstance(said, str) else said
    if gated and name == "gelu":
        return TanhGELU(), True
    settings.refuse("feed_forward_proj", *ACTIVATIONS, *(f"gated-{known}" for known in ACTIVATIONS))
    return ACTIVATIONS[str(name)], gated


def _configured(spec: EncoderDecoder) -> dict[str, Any]:
    FIT.be("embedding.position", spec.embedding.position, NoPosition())
    FIT.be("embedding.scale", spec.embedding.scale, False)
    FIT.embedding(spec.embedding, norm=False)
    if not isinstance(spec.tie, AllThree | SourceAndTarget):
        FIT.refuse(f"a model with tie={spec.tie}", "AllThree() or SourceAndTarget(), one vocabulary for both sides")
    FIT.be("output", spec.output, Output(scaled=FIT.scores(spec.output).scaled))
    if FIT.scores(spec.output).scaled and spec.tie == SourceAndTarget():
        FIT.refuse("tie=SourceAndTarget() with output.scaled=True", "tie=AllThree() with it")
    reads, writes = (
        FIT.stack(stack, spec.width, pattern, PreNorm, by=RMSNorm(), memory=memory, score=Dot(), gates=True)
        for stack, pattern, memory in ((spec.encoder, Full(), False), (spec.decoder, Causal(), True))
    )
    for stack in (spec.encoder, spec.decoder):
        for each in (each for block in stack.blocks for each in block.sublayers):
            if each.offset:
                FIT.refuse(f"{type(each).__name__} with offset=True", "offset=False")
    biases = FIT.own(spec.encoder).bias, FIT.own(spec.decoder).bias
    buckets, farthest = _buckets(biases)
    for name in ("heads", "head_width", "hidden", "activation", "gated", "epsilon"):
        FIT.one((getattr(reads, name), getattr(writes, name)), name)
    if reads.gated and reads.activation == GELU():
        FIT.refuse("a gated FeedForward with GELU()", TanhGELU())
    activation = "gelu" if reads.gated and reads.activation == TanhGELU() else activation_name(FIT, reads.activation)
    return {
        "vocab_size": spec.vocabulary.target,
        "d_model": spec.width,
        "d_kv": reads.head_width,
        "d_ff": reads.hidden,
        "num_layers": reads.depth,
        "num_decoder_layers": writes.depth,
        "num_heads": reads.heads,
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": farthest,
        "dropout_rate": reads.dropout,
        "layer_norm_epsilon": reads.epsilon,
        "feed_forward_proj": f"{'gated-' if reads.gated else ''}{activation}",
        "is_encoder_decoder": True,
        # the second is what the first has come to mean
        "tie_word_embeddings": FIT.scores(spec.output).scaled,
        "scale_decoder_outputs": FIT.scores(spec.output).scaled,
    }


def _buckets(biases: tuple[object, object]) -> tuple[int, int]:
    """The buckets of both stacks."""
    first = biases[0]
    if not isinstance(first, Relative):
        FIT.refuse(f"a stack with bias={first}", "Relative(...)")
    wanted = (Relative(first.buckets, first.farthest), Relative(first.buckets, first.farthest, two_sided=False))
    for found, fitting in zip(biases, wanted, strict=True):
        if found != fitting:
            FIT.refuse(f"a stack with bias={found}", fitting)
    return first.buckets, first.farthest


def _copies(spec: EncoderDecoder) -> dict[str, str]:
    """What is not scaled is not tied in older versions of `transformers`, which then look for an output map."""
    return {HEAD: SHARED} if spec.tie == AllThree() and not FIT.scores(spec.output).scaled else {}


def _pairs(spec: EncoderDecoder) -> list[Pair]:
    pairs = [Pair("target.weight", SHARED)]
    for side, stack, between in zip(SIDES, (spec.encoder, spec.decoder), ({}, MEMORY), strict=True):
        place = 2 if between else 1
        forward = stack.blocks[0].sublayers[place]
        assert isinstance(forward, FeedForward)
        dense = f"layer.{place}.DenseReluDense"
        table = SELF | between | {f"{place}.norm": f"layer.{place}.layer_norm", f"{place}.sublayer.out": f"{dense}.wo"}
        table[f"{place}.sublayer.into"] = (f"{dense}.wi_0", f"{dense}.wi_1") if forward.gated else f"{dense}.wi"
        for level in range(len(stack.tiled())):
            pairs += paired(table, f"{side}.blocks.{level}.sublayers.", f"{side}.block.{level}.", WEIGHT)
        pairs.append(Pair(f"{side}.bias.weight", f"{side}.{BIAS}"))
        pairs.append(Pair(f"{side}.norm.weight", f"{side}.final_layer_norm.weight"))
    return [*pairs, Pair("output.weight", HEAD)] if spec.tie == SourceAndTarget() else pairs


T5 = Architecture(
    name="T5",
    model_type="t5",
    classes=("T5ForConditionalGeneration", "T5WithLMHeadModel", "T5Model"),
    auto="AutoModelForSeq2SeqLM",
    usual={
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_heads": 8,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
        "pad_token_id": 0,
        "eos_token_id": 1,
    },
    described=_described,
    configured=_configured,
    pairs=_pairs,
    shared=((SHARED, "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", HEAD),),
    copies=_copies,
    # the released first versions hold one that is never used
    spare=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
)
