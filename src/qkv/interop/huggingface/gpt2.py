"""GPT-2 (Radford et al. 2019): its matrices stand on their side, and q, k and v are one."""

from __future__ import annotations

from typing import Any

from qkv.interop.fit import Fit
from qkv.interop.huggingface.architecture import Architecture, Weights, apart
from qkv.interop.huggingface.names import BOTH, Pair, Turned, changed, paired
from qkv.interop.huggingface.settings import Settings, activation_name
from qkv.spec.model import DecoderOnly, Embedding, Joint, Output, Tied, Untied
from qkv.spec.part import Attention, Block, FeedForward, PreNorm, Stack
from qkv.spec.pattern import Causal
from qkv.spec.position import Learned
from qkv.spec.score import Dot, ScaledDot

FIT = Fit("GPT-2")
BLOCK = {
    "0.norm": "ln_1",
    "0.sublayer.qkv": "attn.c_attn",
    "0.sublayer.out": "attn.c_proj",
    "1.norm": "ln_2",
    "1.sublayer.into": "mlp.c_fc",
    "1.sublayer.out": "mlp.c_proj",
}
TURNED = {f"{name}.weight": Turned() for name in ("qkv", "out", "into")}


def _described(settings: Settings, theirs: Weights) -> DecoderOnly:
    settings.refuse("scale_attn_by_inverse_layer_idx", False)
    settings.refuse("add_cross_attention", False)
    width, dropout = settings.whole("n_embd"), settings.number("resid_pdrop")
    score = ScaledDot() if settings.flag("scale_attn_weights") else Dot()
    hidden = settings.whole("n_inner") if settings.get("n_inner") is not None else 4 * width
    block = Block(
        Attention(settings.whole("n_head"), Causal(), offset=True, score=score),
        FeedForward(hidden, settings.activation("activation_function")),
        norm=PreNorm(settings.number("layer_norm_epsilon")),
        dropout=dropout,
    )
    tied = settings.flag("tie_word_embeddings") and not apart(theirs, "lm_head.weight", "transformer.wte.weight")
    return DecoderOnly(
        vocabulary=Joint(settings.whole("vocab_size")),
        width=width,
        embedding=Embedding(Learned(settings.whole("n_positions")), scale=False, dropout=settings.number("embd_pdrop")),
        decoder=Stack(block, depth=settings.whole("n_layer")),
        tie=Tied() if tied else Untied(),
    )


def _configured(spec: DecoderOnly) -> dict[str, Any]:
    embedding, position = spec.embedding, spec.embedding.position
    if not isinstance(position, Learned):
        FIT.refuse(f"embedding.position={position}", "Learned(...)")
    FIT.be("embedding.scale", embedding.scale, False)
    FIT.embedding(embedding, norm=False)
    FIT.be("output", spec.output, Output())
    FIT.no_shared_bias(spec.decoder)
    first = spec.decoder.blocks[0].sublayers[0]
    score = first.score if isinstance(first, Attention) else ScaledDot()
    row = FIT.stack(spec.decoder, spec.width, Causal(), PreNorm, score=score)
    FIT.even(row, spec.width)
    return {
        "vocab_size": spec.vocabulary.size,
        "n_positions": position.longest,
        "n_embd": spec.width,
        "n_layer": row.depth,
        "n_head": row.heads,
        "n_inner": row.hidden,
        "activation_function": activation_name(FIT, row.activation),
        "resid_pdrop": row.dropout,
        "embd_pdrop": embedding.dropout,
        "attn_pdrop": 0.0,
        "layer_norm_epsilon": row.epsilon,
        "scale_attn_weights": score == ScaledDot(),
        "tie_word_embeddings": spec.tie == Tied(),
    }


def _pairs(spec: DecoderOnly) -> list[Pair]:
    pairs = [Pair("target.weight", "transformer.wte.weight"), Pair("target.places", "transformer.wpe.weight")]
    for level in range(len(spec.decoder.tiled())):
        pairs += paired(BLOCK, f"decoder.blocks.{level}.sublayers.", f"transformer.h.{level}.", BOTH)
    pairs += paired({"decoder.norm": "transformer.ln_f"}, "", "", BOTH)
    pairs += [Pair("output.weight", "lm_head.weight")] if spec.tie == Untied() else []
    return changed(pairs, TURNED)


GPT2 = Architecture(
    name="GPT-2",
    model_type="gpt2",
    classes=("GPT2LMHeadModel", "GPT2Model"),
    auto="AutoModelForCausalLM",
    usual={
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "activation_function": "gelu_new",
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
    },
    described=_described,
    configured=_configured,
    pairs=_pairs,
    prefix="transformer.",
    heads=("lm_head.",),
    shared=(("transformer.wte.weight", "lm_head.weight"),),
    spare=(".attn.bias", ".attn.masked_bias"),
)
