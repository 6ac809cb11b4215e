"""`qkv attend`: a database on disk is asked, and what is no database is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tests.cli.conftest import Ask, refused

import qkv
from qkv.spec.score import Gaussian


def test_a_person_asks_a_database(ask: Ask, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(rows, columns, generator=generator) for rows, columns in ((7, 16), (5000, 16), (5000, 8)))
    for name, array in (("q", q), ("k", k), ("v", v), ("short", v[:-1]), ("narrow", q[:, 1:])):
        np.save(tmp_path / f"{name}.npy", array.numpy())
    save_file({"keys": k, "values": v}, tmp_path / "kv.safetensors")
    files = ("--keys", str(tmp_path / "k.npy"), "--values", str(tmp_path / "v.npy"))
    queries, out = ("--queries", str(tmp_path / "q.npy")), tmp_path / "a.npy"
    answer = ask("attend", *files, *queries, "--out", str(out))
    assert (answer.code, answer.out) == (0, f"7 queries asked 5,000 keys: {out}\n"), answer.err
    torch.testing.assert_close(torch.from_numpy(np.load(out)), qkv.attend(q, k, v), rtol=0, atol=1e-5)
    how = ("--score", "Gaussian(width=2)", "--rows", "999", "--threads", "1")
    assert ask("attend", "--database", str(tmp_path / "kv.safetensors"), *queries, "--out", str(out), *how).code == 0
    torch.testing.assert_close(torch.from_numpy(np.load(out)), qkv.attend(q, k, v, score=Gaussian(2.0)), rtol=0, atol=1e-5)
    short = ("--keys", str(tmp_path / "k.npy"), "--values", str(tmp_path / "short.npy"))
    refused(ask("attend", *short, *queries, "--out", str(out)), "5,000 keys, and")
    refused(
        ask("attend", *files, "--queries", str(tmp_path / "narrow.npy"), "--out", str(out)), "keys are 16 wide, and queries 15"
    )
    refused(ask("attend", *files[:2], *queries, "--out", str(out)), "give --keys and --values, or --database")
    refused(ask("attend", *files, *queries, "--out", str(out), "--score", "Additive()"), "has a vector to learn")
    refused(ask("attend", *files, *queries, "--out", str(out), "--score", "Adam()"), "--score is a score")
    refused(ask("attend", *files, *queries, "--out", str(out), "--rows", "-1"), "--rows is a number of keys")
    refused(ask("attend", *files, *queries, "--out", str(tmp_path / "none" / "a.npy")), "cannot be written")
