"""One answer from a database, however it is cut and wherever it lies: that of all keys and values at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import qkv
from qkv.attention.call import Call
from qkv.attention.database import Arrays, Tensors
from qkv.attention.join import Partial, join, nothing
from qkv.attention.reference import Reference
from qkv.error import QkvError
from qkv.spec.score import Additive, Boxcar, Dot, Gaussian, General, Location, ScaledDot, Score, Triangular, learns

SCORES: tuple[Score, ...] = (
    Dot(),
    ScaledDot(),
    Gaussian(1.5),
    Boxcar(1.5),
    Triangular(2.0, True),
    General(),
    Additive(),
    Location(40),
)


def world(keys: int = 23, queries: int = 5, width: int = 4, wide: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(rows, columns, dtype=torch.float64, generator=generator)
        for rows, columns in ((queries, width), (keys, width), (keys, wide))
    )


def cut(x: Tensor, places: list[int]) -> list[Tensor]:
    return [x[a:b] for a, b in itertools.pairwise([0, *sorted(places), len(x)])]


@settings(max_examples=100)
@given(score=st.sampled_from(SCORES), places=st.lists(st.integers(0, 23), max_size=5))
def test_any_chunks_give_the_same_with_the_same_gradients(score: Score, places: list[int]) -> None:
    q, k, v = world()
    generator = torch.Generator().manual_seed(1)
    learned = {name: torch.randn(shape, dtype=torch.float64, generator=generator) for name, shape in learns(score, 1, 4).items()}

    def run(how: Callable[[Tensor, dict[str, Tensor]], Tensor]) -> list[Tensor]:
        asked, own = q.clone().requires_grad_(), {name: each.clone().requires_grad_() for name, each in learned.items()}
        attended = how(asked, own)
        upstream = torch.randn(attended.shape, dtype=attended.dtype, generator=torch.Generator().manual_seed(2))
        leaves = [asked, *own.values()]
        found = torch.autograd.grad((attended * upstream).sum(), leaves, allow_unused=True)
        return [attended, *(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True))]

    chunks = list(zip(cut(k, places), cut(v, places), strict=True))
    mine = run(lambda asked, own: qkv.attend_over(asked, chunks, score, own))
    wanted = run(
        lambda asked, own: Reference().run(Call(asked[None, None], k[None, None], v[None, None], score=score, learned=own))[0, 0]
    )
    for one, other in zip(mine, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@given(sums=st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_joining_is_associative_and_nothing_is_its_identity(sums: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    one, two, three = (
        Partial(torch.randn(2, 3, dtype=torch.float64, generator=generator), torch.full((2, 1), each, dtype=torch.float64))
        for each in sums
    )
    for left, right in (
        (join(join(one, two), three), join(one, join(two, three))),
        (join(one, two), join(two, one)),
        (join(one, nothing(one.attended)), one),
        (join(nothing(one.attended), one), one),
    ):
        for mine, its in zip(left, right, strict=True):
            torch.testing.assert_close(mine, its, rtol=0, atol=1e-12)
    again = join(nothing(one.attended), nothing(one.attended))
    assert not again.attended.any() and (again.sums < -1e300).all()


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rows", [0, 1, 7, 23, 100])
def test_files_are_databases(tmp_path: Path, rows: int, kind: str) -> None:
    q, k, v = world()
    k, v = (each.to(getattr(torch, kind)) for each in (k, v))
    np.save(tmp_path / "k.npy", k.numpy())
    np.save(tmp_path / "v.npy", v.numpy())
    save_file({"keys": k, "values": v}, tmp_path / "kv.safetensors")
    wanted = qkv.attend(q, k.double(), v.double())
    for database in (
        Arrays(tmp_path / "k.npy", tmp_path / "v.npy", rows),
        Tensors(tmp_path / "kv.safetensors", rows=rows),
        iter([(k.numpy(), v.numpy())]),
    ):
        torch.testing.assert_close(qkv.attend_over(q, database), wanted, rtol=0, atol=1e-12)
    asked = q.clone().requires_grad_()
    qkv.attend_over(asked, Arrays(tmp_path / "k.npy", tmp_path / "v.npy", rows)).sum().backward()
    other = q.clone().requires_grad_()
    qkv.attend(other, k.double(), v.double()).sum().backward()
    torch.testing.assert_close(asked.grad, other.grad, rtol=0, atol=1e-12)
    heard: list[int] = []
    qkv.attend_over(q, Arrays(tmp_path / "k.npy", tmp_path / "v.npy", 10), told=heard.append)
    assert heard == [10, 20, 23]


def test_queries_keep_their_shape_and_precision() -> None:
    q, k, v = (each.float() for each in world())
    assert qkv.attend_over(q.view(5, 1, 1, 4).bfloat16(), [(k, v)]).dtype == torch.bfloat16
    torch.testing.assert_close(qkv.attend_over(q.view(5, 1, 1, 4), [(k, v)]).view(5, 3), qkv.attend(q, k, v), rtol=0, atol=1e-6)


def test_a_query_that_nothing_is_near_receives_nothing() -> None:
    q, k, v = world()
    q = torch.cat([q, q[:1] + 1000]).requires_grad_()
    attended = qkv.attend_over(q, [(k[:9], v[:9]), (k[9:], v[9:])], Boxcar(2.0))
    assert attended[:5].any(1).all() and not attended[5].any()
    attended.sum().backward()
    assert q.grad is not None and q.grad.isfinite().all()


BAD: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "fewer values": (lambda k, v: [(k, v), (k, v[:-1])], "from key 23 on come 23 keys and 22 values"),
    "other keys": (lambda k, v: [(k[:, 1:], v)], "from key 0 on keys are 3 wide, and queries 4"),
    "other values": (lambda k, v: [(k, v), (k, v[:, 1:])], "from value 23 on values are 2 wide, and 3 before"),
    "whole numbers": (lambda k, v: [(k.long(), v)], "keys are torch.int64 of shape"),
    "one row": (lambda k, v: [(k[0], v[0])], r"keys are torch.float64 of shape \(4,\), not numbers in rows"),
    "nothing": (lambda k, v: [], "the database is empty"),
    "NaN among keys": (
        lambda k, v: [(k, v), (k * float("nan"), v)],
        "keys 23 to 45, their values or the queries hold a number that",
    ),
    "infinity among values": (
        lambda k, v: [(k, v.clone().fill_(float("inf")))],
        "keys 0 to 22, their values or the queries hold",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_database_is_refused(name: str) -> None:
    q, k, v = world()
    made, words = BAD[name]
    with pytest.raises(QkvError, match=words):
        qkv.attend_over(q, made(k, v))


def test_what_cannot_be_gone_through_again_gives_no_gradient_and_a_place_too_far_is_said() -> None:
    q, k, v = world()
    with pytest.raises(QkvError, match="an iterator can be gone through once"):
        qkv.attend_over(q.requires_grad_(), iter([(k, v)]))
    with torch.no_grad():
        qkv.attend_over(q, iter([(k, v)]))
        with pytest.raises(QkvError, match=r"Location\(longest=40\) knows 40 places, and was asked about 46"):
            qkv.attend_over(q, [(k, v), (k, v)], Location(40), {"map": torch.zeros(1, 4, 40, dtype=torch.float64)})


def test_files_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    _, k, v = world()
    whole, short, many = (tmp_path / name for name in ("k.npy", "short.npy", "many.npy"))
    np.save(whole, k.numpy())
    np.save(many, torch.cat([v, v]).numpy())
    short.write_bytes(whole.read_bytes()[:-9])
    for bad, words in (
        (short, "is no whole .npy"),
        (tmp_path / "none.npy", "is no whole .npy"),
        (many, r"k.npy has 23 keys, and .*many.npy has 46 values"),
    ):
        with pytest.raises(QkvError, match=words):
            Arrays(whole, bad)
    for name, array in (("flat", k.numpy().ravel()), ("whole", k.long().numpy()), ("pickled", np.array([{}], object))):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(QkvError, match=r"should hold numbers in rows|is no whole .npy"):
            Arrays(tmp_path / f"{name}.npy", whole)
    (tmp_path / "header.npy").write_bytes(whole.read_bytes()[:9])
    with pytest.raises(QkvError, match=r"is no whole .npy"):
        Arrays(tmp_path / "header.npy", whole)
    save_file({"keys": k}, tmp_path / "half.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "half.safetensors").read_bytes()[:-9])
    for name in ("half", "cut", "none"):
        with pytest.raises(QkvError, match="is no whole file of safetensors with 'keys' and 'values'"):
            Tensors(tmp_path / f"{name}.safetensors")
