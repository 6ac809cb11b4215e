"""`qkv.attend`: the reference, for any number of dimensions, and what does not fit together is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import qkv
from qkv.attention.call import Call
from qkv.attention.reference import Reference, weights
from qkv.attention.sight import Padded
from qkv.error import QkvError
from qkv.spec.pattern import Causal, Local, PerHead
from qkv.spec.score import Additive, Gaussian, General


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


Q, K, V = drawn(2, 4, 6, 5), drawn(2, 2, 6, 5, seed=1), drawn(2, 2, 6, 3, seed=2)


def test_it_is_the_reference_with_all_it_takes() -> None:
    bias, lengths, learned = drawn(4, 6, 6), torch.tensor([6, 3]), {"vector": drawn(4, 5)}
    pattern = PerHead(Causal(), Causal() & Local(2))
    call = Call(Q, K, V, pattern, Padded(lengths), score=Additive(), bias=bias[None], learned=learned)
    given = {"score": Additive(), "pattern": pattern, "bias": bias, "lengths": lengths, "learned": learned}
    attended, found = qkv.attend(Q, K, V, **given, weights=True)
    by_head = torch.cat([Reference().run(each) for each in call.by_head()], 1)
    torch.testing.assert_close(attended, by_head, rtol=0, atol=1e-12)
    torch.testing.assert_close(found, weights(call), rtol=0, atol=1e-12)
    torch.testing.assert_close(qkv.attend(Q, K, V, **given), by_head, rtol=0, atol=1e-12)


def test_without_a_batch_and_without_heads() -> None:
    whole = qkv.attend(Q, K, V, score=Gaussian(2.0), pattern=Causal())
    torch.testing.assert_close(qkv.attend(Q[0], K[0], V[0], score=Gaussian(2.0), pattern=Causal()), whole[0])
    one, its = qkv.attend(Q[1, 3], K[1, 1], V[1, 1], score=Gaussian(2.0), pattern=Causal(), weights=True)
    torch.testing.assert_close(one, whole[1, 3])
    assert its.shape == (6, 6) and its[0, 0] == 1 and not its[0, 1:].any()


def test_dropped_weights_are_made_up_for_and_those_given_back_are_whole() -> None:
    torch.manual_seed(0)
    ones = torch.ones(1, 1, 1000, 1)
    q = torch.zeros(1, 1, 1, 3).expand(1, 1, 500, 3)
    attended, found = qkv.attend(q, torch.zeros(1, 1, 1000, 3), ones, dropout=0.5, weights=True)
    assert attended.std() > 0.01 and abs(attended.mean() - 1) < 0.01
    torch.testing.assert_close(found.sum(-1), torch.ones(1, 1, 500))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "dimensions": ({"q": Q[0]}, "q, k and v have 2 to 4 dimensions, all as many, not 3, 4 and 4"),
    "width": ({"q": Q[..., :4]}, "batch and width must be equal"),
    "batch": ({"q": Q[:1]}, "batch and width must be equal"),
    "values": ({"v": V[:, :, :5]}, "each key has one value"),
    "heads": ({"q": Q[:, :3]}, "2 heads of keys and values cannot serve 3 heads evenly"),
    "what is learned": ({"score": General()}, r"General\(\) and Soft\(\) learn {'map': \(4, 5, 5\)}, and were given {}"),
    "what is not learned": ({"learned": {"map": Q}}, "learn nothing, and were given"),
    "bias": ({"bias": torch.zeros(4, 6, 5)}, r"a bias of shape \(1, 4, 6, 5\) cannot be added to scores of \(2, 4, 6, 6\)"),
    "lengths": ({"lengths": torch.tensor([7, 1])}, "lengths are 2 numbers from 0 to 6"),
    "dropout": ({"dropout": 1.0}, "dropout is a probability below 1, not 1.0"),
    "heads of patterns": ({"pattern": PerHead(Causal(), Local(2), Local(3))}, "heads"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_together_is_said(name: str) -> None:
    wrong, words = BAD[name]
    with pytest.raises(QkvError, match=words):
        qkv.attend(**({"q": Q, "k": K, "v": V} | wrong))


def test_weights_that_would_not_fit_are_not_made_in_silence() -> None:
    q = torch.empty(1, 1, 40_000, 4, device="meta")
    for asked in ({"weights": True}, {"dropout": 0.1}):
        with pytest.raises(QkvError, match=r"the weights themselves .*40000 keys would take"):
            qkv.attend(q, q, q, **asked)
