"""PyTorch's own attention and transformer, given our weights, say what we say: logits and every gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qkv.attention.sight import Padded, Plain
from qkv.model.attention import Attention
from qkv.model.block import Block
from qkv.model.context import Context
from qkv.model.depth import Stack
from qkv.model.position import sinusoids
from qkv.model.transformer import EncoderDecoder, build
from qkv.papers.transformer import transformer
from qkv.spec.model import Joint
from qkv.spec.part import Attention as AttentionSpec
from qkv.spec.part import Norm, PostNorm, PreNorm
from qkv.spec.pattern import Causal, Full
from qkv.spec.position import Sinusoid

WIDTH, HEADS, HIDDEN, DEPTH, ENTRIES = 16, 4, 24, 2, 23
PRECISIONS = pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["fp64", "fp32"])
OFFSETS = pytest.mark.parametrize("offset", [False, True], ids=["no offsets", "offsets"])
NORMS = pytest.mark.parametrize("norm", [PostNorm(), PreNorm()], ids=["post-norm", "pre-norm"])
LENGTHS = torch.tensor([7, 3, 5])

Pairs = list[tuple[Tensor, Tensor]]
"""Our parameter (or a part of it) and the gradient that it should have."""


def stir(module: nn.Module) -> None:
    """No offset or scale may be left at its initial value, or it could be forgotten unseen."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter)


def put(theirs: Tensor, ours: Tensor) -> None:
    with torch.no_grad():
        theirs.copy_(ours)


def joined(*parts: nn.Linear) -> tuple[Tensor, Tensor | None]:
    weight = torch.cat([part.weight for part in parts])
    return weight, None if parts[0].bias is None else torch.cat([part.bias for part in parts])


def put_attention(theirs: nn.MultiheadAttention, into: tuple[nn.Linear, ...], out: nn.Linear) -> None:
    """Our maps of q, k and v (one or two modules) and of the result; PyTorch's offsets are zero where we have none."""
    weight, bias = joined(*into)
    put(theirs.in_proj_weight, weight)
    put(theirs.in_proj_bias, torch.zeros(3 * WIDTH) if bias is None else bias)
    put(theirs.out_proj.weight, out.weight)
    put(theirs.out_proj.bias, torch.zeros(WIDTH) if out.bias is None else out.bias)


def attention_gradients(theirs: nn.MultiheadAttention, into: tuple[nn.Linear, ...], out: nn.Linear) -> Pairs:
    sizes = [len(part.weight) for part in into]
    pairs = [(p.weight.grad, g) for p, g in zip(into, theirs.in_proj_weight.grad.split(sizes), strict=True)]
    pairs.append((out.weight.grad, theirs.out_proj.weight.grad))
    if out.bias is not None:
        pairs += [(p.bias.grad, g) for p, g in zip(into, theirs.in_proj_bias.grad.split(sizes), strict=True)]
        pairs.append((out.bias.grad, theirs.out_proj.bias.grad))
    return pairs


@PRECISIONS
@OFFSETS
@pytest.mark.parametrize("pattern", [Full(), Causal()], ids=["full", "causal"])
@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
def test_attention_is_that_of_pytorch(
    dtype: torch.dtype, close: float, offset: bool, pattern: Full | Causal, padded: bool
) -> None:
    ours = Attention(AttentionSpec(HEADS, pattern, offset), WIDTH)
    stir(ours)
    ours = ours.to(dtype)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).to(dtype)
    put_attention(theirs, (ours.qkv,), ours.out)
    generator = torch.Generator().manual_seed(2)
    x, upstream = torch.randn(2, 3, 7, WIDTH, generator=generator).to(dtype)
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    one = ours(first, Context(Padded(LENGTHS) if padded else Plain()))
    other = theirs(
        *[second] * 3,
        need_weights=False,
        key_padding_mask=torch.arange(7) >= LENGTHS[:, None] if padded else None,
        attn_mask=torch.ones(7, 7).triu(1).bool() if isinstance(pattern, Causal) else None,
    )[0]
    torch.testing.assert_close(one, other, rtol=close, atol=close)
    for result in (one, other):
        (result * upstream).sum().backward()
    pairs = [*attention_gradients(theirs, (ours.qkv,), ours.out), (first.grad, second.grad)]
    assert len(pairs) == sum(1 for _ in ours.parameters()) + 1
    for mine, yours in pairs:
        torch.testing.assert_close(mine, yours, rtol=close, atol=close)


class Twin:
    """PyTorch's `nn.Transformer` with the weights of one of our models; its embedding, positions and output are by hand."""

    def __init__(self, model: EncoderDecoder, norm: Norm) -> None:
        dtype = model.target.weight.dtype
        self.pre = isinstance(norm, PreNorm)
        self.model = model
        self.theirs = nn.Transformer(
            WIDTH, HEADS, DEPTH, DEPTH, HIDDEN, dropout=0.0, batch_first=True, norm_first=self.pre, dtype=dtype
        )
        if not self.pre:  # PyTorch adds a norm that the paper does not have
            self.theirs.encoder.norm = self.theirs.decoder.norm = None
        self.table = model.target.weight.detach().clone().requires_grad_()
        for layer, block in self._layers():
            for attention, into, out in self._attentions(layer, block):
                put_attention(attention, into, out)
        for theirs, ours in self._plain():
            put(theirs.weight, ours.weight)
            put(theirs.bias, ours.bias)

    def _layers(self) -> list[tuple[nn.Module, Block]]:
        layers = [*self.theirs.encoder.layers, *self.theirs.decoder.layers]
        return list(zip(layers, [*self.model.encoder.blocks, *self.model.decoder.blocks], strict=True))

    def _attentions(self, layer: nn.Module, block: Block) -> list[tuple[nn.MultiheadAttention, tuple[nn.Linear, ...], nn.Linear]]:
        own, *others = [residual.sublayer for residual in block.sublayers][:-1]
        return [(layer.self_attn, (own.qkv,), own.out), *((layer.multihead_attn, (m.q, m.kv), m.out) for m in others)]

    def _plain(self) -> list[tuple[nn.Module, nn.Module]]:
        """Everything with a weight and an offset that both have in the same form."""
        pairs: list[tuple[nn.Module, nn.Module]] = []
        for layer, block in self._layers():
            forward = block.sublayers[-1].sublayer
            pairs += [(layer.linear1, forward.into), (layer.linear2, forward.out)]
            pairs += [(getattr(layer, f"norm{i + 1}"), residual.norm) for i, residual in enumerate(block.sublayers)]
        if self.pre:
            pairs += [(self.theirs.encoder.norm, self.model.encoder.norm), (self.theirs.decoder.norm, self.model.decoder.norm)]
        return pairs

    def __call__(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        absent = torch.arange(source.shape[1]) >= lengths[:, None]
        hidden = self.theirs(
            self._embed(source),
            self._embed(target),
            tgt_mask=torch.ones(target.shape[1], target.shape[1]).triu(1).bool(),
            src_key_padding_mask=absent,
            memory_key_padding_mask=absent,
        )
        return hidden @ self.table.t()

    def _embed(self, ids: Tensor) -> Tensor:
        return self.table[ids] * WIDTH**0.5 + formula(ids.shape[1], WIDTH, 10000.0).to(self.table)

    def gradients(self) -> Pairs:
        pairs = [
            pair for layer, block in self._layers() for a in self._attentions(layer, block) for pair in attention_gradients(*a)
        ]
        for theirs, ours in self._plain():
            pairs += [(ours.weight.grad, theirs.weight.grad), (ours.bias.grad, theirs.bias.grad)]
        return [*pairs, (self.model.target.weight.grad, self.table.grad)]


def formula(length: int, width: int, base: float) -> Tensor:
    """Section 3.5 of the paper, number by number."""
    table = np.empty((length, width))
    for pos in range(length):
        for i in range(width // 2):
            table[pos, 2 * i] = np.sin(pos / base ** (2 * i / width))
            table[pos, 2 * i + 1] = np.cos(pos / base ** (2 * i / width))
    return torch.from_numpy(table)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@PRECISIONS
@OFFSETS
@NORMS
def test_the_transformer_is_that_of_pytorch(dtype: torch.dtype, close: float, offset: bool, norm: Norm) -> None:
    spec = transformer(Joint(ENTRIES), width=WIDTH, hidden=HIDDEN, heads=HEADS, depth=DEPTH, norm=norm, offset=offset)
    model = build(spec)
    stir(model)
    model = model.to(dtype)
    twin = Twin(model, norm)
    generator = torch.Generator().manual_seed(3)
    source, target = torch.randint(0, ENTRIES, (2, 3, 7), generator=generator)
    ours, theirs = model(source, Padded(LENGTHS), target), twin(source, LENGTHS, target)
    torch.testing.assert_close(ours, theirs, rtol=close, atol=close)
    for logits in (ours, theirs):
        nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
    pairs = twin.gradients()
    assert sum(mine.numel() for mine, _ in pairs) == sum(p.numel() for p in model.parameters()), "every weight is compared"
    for mine, yours in pairs:
        torch.testing.assert_close(mine, yours, rtol=close, atol=close)


def test_pytorch_would_differ_if_a_weight_did() -> None:
    spec = transformer(Joint(ENTRIES), width=WIDTH, hidden=HIDDEN, heads=HEADS, depth=DEPTH)
    model = build(spec).double()
    twin = Twin(model, PostNorm())
    ids = torch.randint(0, ENTRIES, (3, 7), generator=torch.Generator().manual_seed(3))
    for name, parameter in model.named_parameters():
        before = parameter.detach().clone()
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        assert (model(ids, Padded(LENGTHS), ids) - twin(ids, LENGTHS, ids)).abs().max() > 1e-6, name
        parameter.data.copy_(before)


@pytest.mark.parametrize(("length", "width", "base"), [(1, 2, 10000.0), (50, 16, 10000.0), (20, 6, 100.0), (5, 512, 10000.0)])
def test_sinusoids_are_the_formula(length: int, width: int, base: float) -> None:
    table = sinusoids(Sinusoid(base), length, width)
    assert table.dtype == torch.float64
    torch.testing.assert_close(table, formula(length, width, base), rtol=0, atol=1e-12)


def test_sinusoids_stay_exact_far_out_and_in_fp32() -> None:
    table = sinusoids(Sinusoid(), 5001, 8)
    assert table[5000, 0].item() == pytest.approx(np.sin(5000.0), abs=1e-12)
    assert table[5000, 7].item() == pytest.approx(np.cos(5000 / 10000**0.75), abs=1e-12)
    model = build(transformer(Joint(ENTRIES), width=8, hidden=8, heads=2, depth=1))
    model.target.weight.data.zero_()
    ids = torch.zeros(1, 100, dtype=torch.int64)
    torch.testing.assert_close(model.target(ids, Context(Plain()))[0].double(), formula(100, 8, 10000.0), rtol=0, atol=1e-7)
    torch.testing.assert_close(
        model.target(ids, Context(Plain(), first=70))[0].double(), formula(170, 8, 10000.0)[70:], rtol=0, atol=1e-7
    )


def test_embeddings_are_scaled_only_where_asked() -> None:
    spec = transformer(Joint(ENTRIES), width=16, hidden=8, heads=2, depth=1)
    ids = torch.arange(ENTRIES)[None]
    for scale, factor in ((True, 4.0), (False, 1.0)):
        model = build(replace(spec, embedding=replace(spec.embedding, scale=scale))).double()
        expected = factor * model.target.weight + formula(ENTRIES, 16, 10000.0)
        torch.testing.assert_close(model.target(ids, Context(Plain()))[0], expected)


def test_a_stack_ends_with_a_norm_only_where_norms_come_before() -> None:
    for norm, kind in ((PostNorm(), nn.Identity), (PreNorm(), nn.LayerNorm)):
        spec = transformer(Joint(ENTRIES), width=16, hidden=8, heads=2, depth=1, norm=norm)
        assert isinstance(Stack(spec.encoder, 16).norm, kind)
