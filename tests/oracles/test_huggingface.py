"""Hugging Face's GPT-2, BERT, T5 and BART, given our weights, say what we say: logits and every gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import pytest
import torch
from torch import Tensor, nn

from qkv.attention.sight import Padded, Plain
from qkv.model.transformer import AnyModel, build
from qkv.papers.bart import bart
from qkv.papers.bert import bert
from qkv.papers.catalogue import named
from qkv.papers.gpt import gpt
from qkv.papers.t5 import t5
from qkv.spec import plain
from qkv.spec.count import parameters
from qkv.spec.model import EncoderDecoder, Joint, Model

transformers = pytest.importorskip("transformers")

ENTRIES, WIDTH, HEADS, DEPTH, PLACES = 23, 16, 4, 2, 12
PAD, LENGTHS = 0, torch.tensor([7, 3, 5])
ALL = slice(None)


@dataclass(frozen=True)
class Same:
    """Some rows of a parameter of ours that are some rows of one of theirs, which may lie the other way round."""

    ours: Tensor
    rows: slice
    theirs: Tensor
    part: slice
    turned: bool

    def mine(self, of: Tensor) -> Tensor:
        rows = of[self.rows]
        return rows.t() if self.turned else rows


class Pairing:
    """Which parameters of two models are to be the same."""

    def __init__(self) -> None:
        self.found: list[Same] = []

    def one(self, ours: Tensor | None, theirs: Tensor, rows: slice = ALL, part: slice = ALL, turned: bool = False) -> None:
        assert ours is not None
        self.found.append(Same(ours, rows, theirs, part, turned))

    def linear(self, ours: nn.Linear, theirs: nn.Module, rows: slice = ALL, turned: bool = False) -> None:
        self.one(ours.weight, theirs.weight, rows, turned=turned)
        assert (ours.bias is None) == (theirs.bias is None)
        if ours.bias is not None:
            self.one(ours.bias, theirs.bias, rows)

    def norm(self, ours: nn.Module, theirs: nn.Module) -> None:
        self.one(ours.weight, theirs.weight)
        if hasattr(theirs, "bias"):
            self.one(ours.bias, theirs.bias)

    def several(self, ours: nn.Linear, *theirs: nn.Module) -> None:
        """A map of ours that is several of theirs."""
        high = len(ours.weight) // len(theirs)
        for place, module in enumerate(theirs):
            self.linear(ours, module, slice(place * high, (place + 1) * high))


def of_gpt2(ours: nn.Module, theirs: nn.Module) -> Pairing:
    pairs, body = Pairing(), theirs.transformer
    pairs.one(ours.target.weight, body.wte.weight)
    pairs.one(ours.target.places, body.wpe.weight)
    for block, layer in zip(ours.decoder.blocks, body.h, strict=True):
        attention, forward = block.sublayers
        pairs.norm(attention.norm, layer.ln_1)
        pairs.linear(attention.sublayer.qkv, layer.attn.c_attn, turned=True)
        pairs.linear(attention.sublayer.out, layer.attn.c_proj, turned=True)
        pairs.norm(forward.norm, layer.ln_2)
        pairs.linear(forward.sublayer.into, layer.mlp.c_fc, turned=True)
        pairs.linear(forward.sublayer.out, layer.mlp.c_proj, turned=True)
    pairs.norm(ours.decoder.norm, body.ln_f)
    return pairs


def of_bert(ours: nn.Module, theirs: nn.Module) -> Pairing:
    pairs, embeddings, said = Pairing(), theirs.bert.embeddings, theirs.cls.predictions
    pairs.one(ours.source.weight, embeddings.word_embeddings.weight)
    pairs.one(ours.source.places, embeddings.position_embeddings.weight)
    pairs.one(ours.source.segments, embeddings.token_type_embeddings.weight)
    pairs.norm(ours.source.norm, embeddings.LayerNorm)
    for block, layer in zip(ours.encoder.blocks, theirs.bert.encoder.layer, strict=True):
        attention, forward = block.sublayers
        inside = layer.attention.self
        pairs.several(attention.sublayer.qkv, inside.query, inside.key, inside.value)
        pairs.linear(attention.sublayer.out, layer.attention.output.dense)
        pairs.norm(attention.norm, layer.attention.output.LayerNorm)
        pairs.linear(forward.sublayer.into, layer.intermediate.dense)
        pairs.linear(forward.sublayer.out, layer.output.dense)
        pairs.norm(forward.norm, layer.output.LayerNorm)
    pairs.linear(ours.head.transform.linear, said.transform.dense)
    pairs.norm(ours.head.transform.norm, said.transform.LayerNorm)
    pairs.one(ours.head.offset, said.bias)
    return pairs


def of_t5(ours: nn.Module, theirs: nn.Module) -> Pairing:
    pairs = Pairing()
    pairs.one(ours.target.weight, theirs.shared.weight)
    for side in ("encoder", "decoder"):
        stack, other = getattr(ours, side), getattr(theirs, side)
        for block, layer in zip(stack.blocks, other.block, strict=True):
            for residual, part in zip(block.sublayers, layer.layer, strict=True):
                pairs.norm(residual.norm, part.layer_norm)
            own, *memories, forward = (residual.sublayer for residual in block.sublayers)
            theirs_own, *theirs_memories, theirs_forward = layer.layer
            inside = theirs_own.SelfAttention
            pairs.several(own.qkv, inside.q, inside.k, inside.v)
            pairs.linear(own.out, inside.o)
            for memory, there in zip(memories, theirs_memories, strict=True):
                inside = there.EncDecAttention
                pairs.linear(memory.q, inside.q)
                pairs.several(memory.kv, inside.k, inside.v)
                pairs.linear(memory.out, inside.o)
            inside = theirs_forward.DenseReluDense
            pairs.several(forward.into, *([inside.wi_0, inside.wi_1] if forward.gated else [inside.wi]))
            pairs.linear(forward.out, inside.wo)
        pairs.one(stack.bias.weight, other.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
        pairs.norm(stack.norm, other.final_layer_norm)
    if ours.output.weight is not ours.target.weight:
        pairs.one(ours.output.weight, theirs.lm_head.weight)
    return pairs


def of_bart(ours: nn.Module, theirs: nn.Module) -> Pairing:
    pairs = Pairing()
    pairs.one(ours.target.weight, theirs.model.shared.weight)
    theirs.final_logits_bias.requires_grad_()  # with them it is no parameter
    pairs.one(ours.head.offset, theirs.final_logits_bias)
    for embedding, side in ((ours.source, "encoder"), (ours.target, "decoder")):
        stack, other = getattr(ours, side), getattr(theirs.model, side)
        pairs.one(embedding.places, other.embed_positions.weight, part=slice(2, None))  # the first two are never used
        pairs.norm(embedding.norm, other.layernorm_embedding)
        for block, layer in zip(stack.blocks, other.layers, strict=True):
            own, *memories, forward = block.sublayers
            inside = layer.self_attn
            pairs.several(own.sublayer.qkv, inside.q_proj, inside.k_proj, inside.v_proj)
            pairs.linear(own.sublayer.out, inside.out_proj)
            pairs.norm(own.norm, layer.self_attn_layer_norm)
            for memory in memories:
                inside = layer.encoder_attn
                pairs.linear(memory.sublayer.q, inside.q_proj)
                pairs.several(memory.sublayer.kv, inside.k_proj, inside.v_proj)
                pairs.linear(memory.sublayer.out, inside.out_proj)
                pairs.norm(memory.norm, layer.encoder_attn_layer_norm)
            pairs.linear(forward.sublayer.into, layer.fc1)
            pairs.linear(forward.sublayer.out, layer.fc2)
            pairs.norm(forward.norm, layer.final_layer_norm)
    return pairs


def hf_gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=ENTRIES, n_positions=PLACES, n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS)
    )


def hf_bert() -> nn.Module:
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=ENTRIES,
            hidden_size=WIDTH,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            max_position_embeddings=PLACES,
        )
    )


def hf_t5(**more: object) -> nn.Module:
    sizes = {"vocab_size": ENTRIES, "d_model": WIDTH, "d_ff": 24, "num_layers": DEPTH, "num_heads": HEADS}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, **{"d_kv": WIDTH // HEADS} | more))


def hf_t5_v1_1() -> nn.Module:
    """Whose published weights have an output map of their own, although the class as it is made has none."""
    model = hf_t5(d_kv=6, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def hf_bart() -> nn.Module:
    return transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=ENTRIES,
            d_model=WIDTH,
            max_position_embeddings=PLACES,
            **{f"{side}_layers": DEPTH for side in ("encoder", "decoder")},
            **{f"{side}_attention_heads": HEADS for side in ("encoder", "decoder")},
            **{f"{side}_ffn_dim": 4 * WIDTH for side in ("encoder", "decoder")},
            pad_token_id=PAD,
        )
    )


T5 = t5(Joint(ENTRIES), width=WIDTH, hidden=24, heads=HEADS, depth=DEPTH)
# as released later: gates, an output map of its own, and heads that together are wider than the stream
V1_1 = ["*.gated=true", "*.activation=TanhGELU()", "tie=SourceAndTarget()", "output=Output()", "*.head_width=6"]


@dataclass(frozen=True)
class Twins:
    """A model of ours and how Hugging Face has the same."""

    spec: Model
    theirs: Callable[[], nn.Module]
    pairing: Callable[[nn.Module, nn.Module], Pairing]


sizes = {"width": WIDTH, "heads": HEADS, "depth": DEPTH, "longest": PLACES}
MODELS = {
    "GPT-2": Twins(gpt(Joint(ENTRIES), **sizes), hf_gpt2, of_gpt2),
    "BERT": Twins(bert(Joint(ENTRIES), **sizes), hf_bert, of_bert),
    "T5": Twins(T5, hf_t5, of_t5),
    "T5 v1.1": Twins(reduce(plain.change, V1_1, T5), hf_t5_v1_1, of_t5),
    "BART": Twins(bart(Joint(ENTRIES), **sizes), hf_bart, of_bart),
}


def stirred(model: AnyModel) -> AnyModel:
    """No offset or scale may be left at its initial value, or it could be forgotten unseen."""
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def unused(theirs: nn.Module) -> int:
    """The numbers of theirs that no token ever meets: two rows of each table of BART's places."""
    return 2 * 2 * WIDTH if isinstance(theirs, transformers.BartForConditionalGeneration) else 0


@pytest.fixture
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """T5's norm in the precision of its input: theirs takes the mean square in fp32, whatever it is given."""
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(T5LayerNorm, "forward", forward)


def logits_of(ours: AnyModel, theirs: nn.Module) -> tuple[Tensor, Tensor]:
    """What both say of the same texts. No padding entry is among the ids: as an input, Hugging Face gives it no gradient."""
    generator = torch.Generator().manual_seed(5)
    source, target = (torch.randint(3, ENTRIES, (3, length), generator=generator) for length in (7, 6))
    there = (torch.arange(7) < LENGTHS[:, None]).long()
    if isinstance(ours.spec, EncoderDecoder):
        given = {"input_ids": source, "attention_mask": there, "decoder_input_ids": target}
        return ours(source, Padded(LENGTHS), target), theirs(**given).logits
    if hasattr(ours, "encoder"):
        return ours(source, Padded(LENGTHS)), theirs(input_ids=source, attention_mask=there).logits
    return ours(source, Plain()), theirs(input_ids=source).logits


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["fp64", "fp32"])
def test_the_models_are_the_same(name: str, dtype: torch.dtype, close: float, request: pytest.FixtureRequest) -> None:
    if dtype == torch.float64:
        request.getfixturevalue("exact_norms")
    model = MODELS[name]
    ours, theirs = stirred(build(model.spec)).to(dtype), model.theirs().to(dtype).eval()
    found = model.pairing(ours, theirs).found
    assert sum(same.ours[same.rows].numel() for same in found) == parameters(model.spec), "a parameter of ours is not compared"
    buffers = sum(same.theirs.numel() for same in found if not isinstance(same.theirs, nn.Parameter))
    held = sum(parameter.numel() for parameter in theirs.parameters()) + buffers - unused(theirs)
    assert parameters(model.spec) == held, "a parameter of theirs is not compared"
    with torch.no_grad():
        for same in found:
            same.theirs[same.part].copy_(same.mine(same.ours))
    logits, expected = logits_of(ours, theirs)
    torch.testing.assert_close(logits, expected, rtol=close, atol=close)
    upstream = torch.randn(logits.shape, generator=torch.Generator().manual_seed(6)).to(dtype)
    (logits * upstream).sum().backward()
    (expected * upstream).sum().backward()
    for same in found:
        assert same.ours.grad is not None and same.theirs.grad is not None
        mine, wanted = same.mine(same.ours.grad), same.theirs.grad[same.part]
        torch.testing.assert_close(mine, wanted.view_as(mine), rtol=close, atol=close * max(1.0, wanted.abs().max().item()))


def test_a_weight_that_differs_would_be_seen() -> None:
    model = MODELS["BERT"]
    ours, theirs = stirred(build(model.spec)).double(), model.theirs().double().eval()
    found, generator = model.pairing(ours, theirs).found, torch.Generator().manual_seed(1)
    with torch.no_grad():
        for same in found:
            same.theirs[same.part].copy_(same.mine(same.ours))
        for same in found:
            before = same.theirs.clone()
            same.theirs.add_(0.01 * torch.randn(before.shape, generator=generator))
            logits, expected = logits_of(ours, theirs)
            moved = (logits - expected).abs().max()
            # what is added to the scores of all keys alike, softmax does not feel
            assert moved > 1e-6 or any(same.theirs is layer.attention.self.key.bias for layer in theirs.bert.encoder.layer)
            same.theirs.copy_(before)


@pytest.mark.parametrize(
    ("name", "entries", "config", "model"),
    [
        ("gpt2-small", 50257, "GPT2Config", "GPT2LMHeadModel"),
        ("bert-base", 30522, "BertConfig", "BertForMaskedLM"),
        ("t5-small", 32128, "T5Config", "T5ForConditionalGeneration"),
    ],
)
def test_full_sizes_have_as_many_parameters_as_theirs(name: str, entries: int, config: str, model: str) -> None:
    with torch.device("meta"):
        theirs = getattr(transformers, model)(getattr(transformers, config)(vocab_size=entries))
    assert parameters(named(name, Joint(entries))) == sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.parametrize(("name", "width", "depth", "heads"), [("bart-base", 768, 6, 12), ("bart-large", 1024, 12, 16)])
def test_bart_has_as_many_but_for_what_it_never_uses(name: str, width: int, depth: int, heads: int) -> None:
    sides = ("encoder", "decoder")
    config = transformers.BartConfig(
        vocab_size=50265,
        d_model=width,
        **{f"{side}_layers": depth for side in sides},
        **{f"{side}_attention_heads": heads for side in sides},
        **{f"{side}_ffn_dim": 4 * width for side in sides},
    )
    with torch.device("meta"):
        theirs = transformers.BartForConditionalGeneration(config)
    held = sum(parameter.numel() for parameter in theirs.parameters())
    # two rows of each table of places are never used; the offset of the logits is no parameter with them
    assert parameters(named(name, Joint(50265))) == held - 2 * 2 * width + 50265
