"""Products in eight bits: how far they may be from the true ones, and that a model says nearly the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import qkv
from qkv import device
from qkv.attention.sight import Plain
from qkv.model.linear import InEightBits
from qkv.model.transformer import AnyModel, build, quantise
from qkv.papers.bert import bert
from qkv.papers.gpt import gpt
from qkv.papers.transformer import transformer
from qkv.spec.model import Classifier, Joint

if not device.INT8_ENGINES & set(torch.backends.quantized.supported_engines):
    pytest.skip("needs products in eight bits, which this build of PyTorch has not", allow_module_level=True)


def bound(x: Tensor, weight: Tensor) -> Tensor:
    """How far a product may be from x W^T where an entry of W is off by half a step of its row at most, and one of x by a whole
    step (half for rounding, half since 0 must be a step)."""
    steps = 127 if device.saturates() else 255
    of_x = (x.amax().clamp(min=0) - x.amin().clamp(max=0)) / steps
    of_weight = weight.abs().amax(1) / 127
    sums = x.abs().sum(-1, keepdim=True)
    return of_x * weight.abs().sum(1) + of_weight / 2 * sums + of_x * of_weight / 2 * x.shape[-1]


@pytest.mark.parametrize("offset", [True, False], ids=["offset", "no offset"])
@pytest.mark.parametrize("shape", [(1, 64), (3, 5, 64), (700, 64), (0, 64)], ids=str)
def test_a_product_is_as_near_as_its_steps_are_small(shape: tuple[int, ...], offset: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(96, 64, generator=generator) * torch.logspace(-4, 2, 96)[:, None]
    weight[7] = 0.0
    given = torch.randn(96, generator=generator) if offset else None
    product = InEightBits(weight, given)
    for x in (torch.randn(shape, generator=generator), torch.rand(shape, generator=generator) + 3, torch.full(shape, 5.0)):
        exact = torch.nn.functional.linear(x, weight, given)
        found = product(x)
        assert found.shape == exact.shape and found.dtype == torch.float32
        if x.numel():
            assert ((found - exact).abs() <= bound(x, weight) * 1.001 + 1e-5).all()
            assert (found - exact).abs().max() > 0 or x.unique().numel() == 1, "it is rounded"


OVERFLOW = """
import torch
from qkv import device

ones = torch.ones(3, 64)
weight = device.int8_weight(ones, None)
print(float(torch.ops.quantized.linear_dynamic(ones, weight)[0, 0]), float(device.int8_product(ones, weight)[0, 0]))
"""


def test_large_factors_do_not_overflow_on_any_processor() -> None:
    """Those without VNNI add two products in sixteen bits; the library can be told to do as if this were one of them."""
    assert qkv.__file__ is not None
    environment = os.environ | {"PYTHONPATH": str(Path(qkv.__file__).parents[1]), "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"}
    call = [sys.executable, "-c", OVERFLOW]
    bare, ours = map(float, subprocess.check_output(call, env=environment, text=True).split())
    if bare == pytest.approx(64, rel=0.01):
        pytest.skip("needs a processor that overflows, or can be made to")
    assert ours == pytest.approx(64, rel=0.01)


def models() -> dict[str, AnyModel]:
    """A random model of every shape, whose maps are wide enough to matter."""
    small = {"width": 64, "heads": 4, "depth": 2}
    encoder = bert(Joint(200), **small)
    specs = {
        "decoder": gpt(Joint(200), **small),
        "encoder": encoder,
        "classifier": Classifier(Joint(200), 64, encoder.embedding, encoder.encoder, ("yes", "no", "perhaps")),
        "pairs": transformer(Joint(200), width=64, hidden=128, heads=4, depth=2),
    }
    made: dict[str, AnyModel] = {name: build(spec, 1).eval() for name, spec in specs.items()}
    for model in made.values():
        for parameter in model.parameters():
            if parameter.dim() == 2 and parameter.std() < 0.05:
                parameter.data *= 4.0  # as far from uniform as what was trained
    return made


def said(model: AnyModel, ids: Tensor) -> Tensor:
    """The logits of a model of any shape."""
    given = (ids, Plain(), ids.flip(1)) if hasattr(model, "encoder") and hasattr(model, "decoder") else (ids, Plain())
    with torch.no_grad():
        return model(*given)


@pytest.mark.parametrize("name", ["decoder", "encoder", "classifier", "pairs"])
def test_a_model_InEightBits_says_nearly_the_same(name: str) -> None:
    model = models()[name]
    ids = torch.randint(4, 200, (8, 30), generator=torch.Generator().manual_seed(2))
    exact = said(model, ids).flatten(0, -2)
    kept = [parameter.clone() for parameter in model.parameters()]
    quantise(model)
    rounded = said(model, ids).flatten(0, -2)
    assert not torch.equal(exact, rounded)
    alike = (exact.argmax(1) == rounded.argmax(1)).float().mean()
    assert alike > (0.9 if device.saturates() else 0.95), "what comes in has seven bits where eight would not be safe"
    distance = torch.nn.functional.kl_div(rounded.log_softmax(1), exact.log_softmax(1), log_target=True, reduction="batchmean")
    assert distance < 0.005, "in nats: half a per cent of a perplexity"
    assert all(torch.equal(*pair) for pair in zip(kept, model.parameters(), strict=True)), "the weights themselves stay"


def test_where_there_are_no_such_products_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "INT8_ENGINES", set())
    with pytest.raises(qkv.QkvError, match="no products in eight bits: leave out --precision int8"):
        quantise(models()["decoder"])
