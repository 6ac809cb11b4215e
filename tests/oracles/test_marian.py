"""Hugging Face's MarianMTModel, given our weights, says what we say: logits and every gradient.

Its sinusoids are [sines | cosines] where the paper's alternate: the same model with the channels of the residual stream in
another order, so that order is applied to every weight that touches the stream.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from qkv.attention.sight import Padded
from qkv.data.symbols import OURS
from qkv.decode.beam import search
from qkv.decode.rule import Beam
from qkv.model.transformer import build
from qkv.papers.transformer import transformer
from qkv.spec.model import Joint, Separate, Vocabulary

transformers = pytest.importorskip("transformers")

WIDTH, HEADS, HIDDEN, DEPTH = 16, 4, 24, 2
ORDER = torch.cat([torch.arange(0, WIDTH, 2), torch.arange(1, WIDTH, 2)])  # Marian's channel c is our channel ORDER[c]
PAD, BOS, EOS = 0, 1, 2
LENGTHS = torch.tensor([7, 3, 5])


def marian(vocabulary: Vocabulary, dtype: torch.dtype) -> nn.Module:
    """A tiny Marian with the paper's activation and no dropout."""
    joint = isinstance(vocabulary, Joint)
    config = transformers.MarianConfig(
        vocab_size=vocabulary.source,
        decoder_vocab_size=vocabulary.target,
        share_encoder_decoder_embeddings=joint,
        d_model=WIDTH,
        **{f"{side}_layers": DEPTH for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": HEADS for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": HIDDEN for side in ("encoder", "decoder")},
        activation_function="relu",
        dropout=0.0,
        scale_embedding=True,
        max_position_embeddings=32,
        pad_token_id=PAD,
        eos_token_id=EOS,
        forced_eos_token_id=EOS,
        decoder_start_token_id=BOS,
    )
    return transformers.MarianMTModel(config).to(dtype).eval()


def correspondence(ours: nn.Module, theirs: nn.Module) -> list[tuple[Tensor, slice, Tensor, str]]:
    """Our parameter, rows of it, their parameter, and where it touches the stream: rows ("out"), columns ("in") or
    neither."""
    found: list[tuple[Tensor, slice, Tensor, str]] = []

    def linear(our: nn.Linear, rows: slice, their: nn.Linear, touches: str) -> None:
        found.append((our.weight, rows, their.weight, touches))
        found.append((our.bias, rows, their.bias, "out" if touches == "out" else ""))

    def norm(our: nn.LayerNorm, their: nn.LayerNorm) -> None:
        found.extend([(our.weight, slice(None), their.weight, "out"), (our.bias, slice(None), their.bias, "out")])

    def third(place: int) -> slice:
        return slice(place * WIDTH, (place + 1) * WIDTH)

    whole = slice(None)
    for side in ("encoder", "decoder"):
        for block, layer in zip(getattr(ours, side).blocks, getattr(theirs.model, side).layers, strict=True):
            own, *memories, forward = block.sublayers
            for place, name in enumerate(("q_proj", "k_proj", "v_proj")):
                linear(own.sublayer.qkv, third(place), getattr(layer.self_attn, name), "in")
            linear(own.sublayer.out, whole, layer.self_attn.out_proj, "out")
            norm(own.norm, layer.self_attn_layer_norm)
            for memory in memories:
                linear(memory.sublayer.q, whole, layer.encoder_attn.q_proj, "in")
                linear(memory.sublayer.kv, third(0), layer.encoder_attn.k_proj, "in")
                linear(memory.sublayer.kv, third(1), layer.encoder_attn.v_proj, "in")
                linear(memory.sublayer.out, whole, layer.encoder_attn.out_proj, "out")
                norm(memory.norm, layer.encoder_attn_layer_norm)
            linear(forward.sublayer.into, whole, layer.fc1, "in")
            linear(forward.sublayer.out, whole, layer.fc2, "out")
            norm(forward.norm, layer.final_layer_norm)
    found.append((ours.target.weight, whole, theirs.lm_head.weight, "in"))
    if ours.source.weight is not ours.target.weight:
        found.append((ours.source.weight, whole, theirs.model.encoder.embed_tokens.weight, "in"))
    return found


def reordered(tensor: Tensor, touches: str) -> Tensor:
    return tensor[ORDER] if touches == "out" else tensor[:, ORDER] if touches == "in" else tensor


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["fp64", "fp32"])
@pytest.mark.parametrize("vocabulary", [Joint(23), Separate(19, 23)], ids=["joint", "separate"])
def test_the_transformer_is_marian(vocabulary: Vocabulary, dtype: torch.dtype, close: float) -> None:
    model = build(transformer(vocabulary, width=WIDTH, hidden=HIDDEN, heads=HEADS, depth=DEPTH, offset=True))
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    model, theirs = model.to(dtype), marian(vocabulary, dtype)
    # in fp64 its table of positions would still be rounded to fp32
    for side in (theirs.model.encoder, theirs.model.decoder):
        angle = torch.arange(32, dtype=torch.float64)[:, None] / 10000 ** (torch.arange(0, WIDTH, 2, dtype=torch.float64) / WIDTH)
        table = torch.cat([angle.sin(), angle.cos()], 1)
        torch.testing.assert_close(side.embed_positions.create_weight().double(), table, rtol=0, atol=1e-6)
        side.embed_positions.weight.data.copy_(table)
    pairs = correspondence(model, theirs)
    assert sum(our[rows].numel() for our, rows, _, _ in pairs) == sum(p.numel() for p in model.parameters())
    for our, rows, their, touches in pairs:
        their.data.copy_(reordered(our.data[rows], touches))
    # no padding entry among the ids: as an input Hugging Face gives it no gradient
    source = torch.randint(3, vocabulary.source, (3, 7), generator=generator)
    target = torch.randint(3, vocabulary.target, (3, 6), generator=generator)
    given = torch.cat([torch.full((3, 1), BOS), target[:, :-1]], 1)
    ours = model(source, Padded(LENGTHS), given)
    found = theirs(input_ids=source, attention_mask=(torch.arange(7) < LENGTHS[:, None]).long(), labels=target)
    torch.testing.assert_close(ours, found.logits, rtol=close, atol=close)
    loss = nn.functional.cross_entropy(ours.flatten(0, 1), target.flatten())
    torch.testing.assert_close(loss, found.loss, rtol=close, atol=close)
    loss.backward()
    found.loss.backward()
    for our, rows, their, touches in pairs:
        torch.testing.assert_close(reordered(our.grad[rows], touches), their.grad, rtol=close, atol=close)


def test_marian_translates_greedily_as_we_do() -> None:
    model = build(transformer(Joint(23), width=WIDTH, hidden=HIDDEN, heads=HEADS, depth=DEPTH, offset=True)).double().eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    theirs = marian(Joint(23), torch.float64)
    for our, rows, their, touches in correspondence(model, theirs):
        their.data.copy_(reordered(our.data[rows], touches))
    sources = [[*torch.randint(3, 23, (length,), generator=generator).tolist(), EOS] for length in (4, 9, 6, 6, 2)]
    ours = search(model, sources, OURS, Beam(1, most=8))
    for source, found in zip(sources, ours, strict=True):
        given = torch.tensor([source])
        written = theirs.generate(
            given, num_beams=1, do_sample=False, max_new_tokens=8, bad_words_ids=[[PAD], [BOS]], forced_eos_token_id=None
        )
        tokens = written[0].tolist()[1:]
        assert list(found[0].tokens) == (tokens[: tokens.index(EOS)] if EOS in tokens else tokens)
    assert len({found[0].tokens for found in ours}) > 1
