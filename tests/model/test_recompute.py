"""Blocks that are computed anew on the way back: the same loss and gradients, dropout among them, and less that is kept."""

from __future__ import annotations

import torch
from torch.autograd.graph import saved_tensors_hooks

from qkv.attention.sight import Plain
from qkv.model.dropout import Noise
from qkv.model.transformer import build, recompute
from qkv.papers.sparse import fixed, sparse
from qkv.spec.model import Joint

SPEC = sparse(Joint(50), width=32, heads=4, depth=4, pattern=fixed(16, 4, slots=4), places=(20, 16), dropout=0.3)


def learned(anew: bool, step: int) -> tuple[float, dict[str, torch.Tensor], int]:
    """The loss of a text, every gradient, and the numbers that were kept for the way back."""
    model = build(SPEC, 5)
    torch.nn.init.normal_(model.output.weight, generator=torch.Generator().manual_seed(3))  # which begins with zeros
    if anew:
        recompute(model)
    ids = torch.randint(4, 50, (2, 301), generator=torch.Generator().manual_seed(2))
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        logits = model(ids[:, :-1], Plain(), Noise(1, step))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return loss.item(), gradients, sum(kept.values())


def test_computed_anew_is_the_same_with_the_same_dropout_and_keeps_less() -> None:
    (loss, gradients, kept), (again, the_same, less) = learned(False, 7), learned(True, 7)
    assert loss == again and gradients.keys() == the_same.keys() and len(gradients) > 40
    for name, gradient in gradients.items():
        torch.testing.assert_close(the_same[name], gradient, rtol=0, atol=1e-6, msg=name)
        assert gradient.abs().max() > 1e-5, name
    assert less < 0.4 * kept
    assert learned(True, 8)[0] != loss, "another step has other dropout"
