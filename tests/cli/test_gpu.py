"""The commands on a GPU: what they say in fp32 is what they say on the CPU. Skipped where PyTorch sees none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.cli.conftest import TINY, Ask, Text, sentences, text, write

__all__ = ["text"]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ON_GPU = ["--device", "cuda", "--precision", "fp32"]
ON_CPU = ["--device", "cpu", "--precision", "fp32"]


def test_a_run_on_a_gpu_translates_on_a_cpu_as_there(ask: Ask, text: Text, tmp_path: Path) -> None:
    options = ["cuda" if option == "cpu" else option for option in TINY]
    said = ask("train", "translate", *text.options, "--out", tmp_path / "run", *options)
    assert said.code == 0, said.err
    lines = "".join(f"{line}\n" for line in sentences(5, 3)).encode()
    found = [ask("translate", tmp_path / "run", *where, stdin=lines) for where in (ON_GPU, ON_CPU)]
    assert [each.code for each in found] == [0, 0], found[0].err
    assert found[0].out == found[1].out


def test_bf16_is_what_a_gpu_picks(ask: Ask, text: Text, tmp_path: Path) -> None:
    options = [option for option in TINY if option not in ("--precision", "fp32", "--device", "cpu")]
    said = ask("train", "translate", *text.options, "--out", tmp_path / "run", *options)
    assert said.code == 0, said.err
    assert "cuda" in said.out + said.err
    assert ask("evaluate", tmp_path / "run", "--source", text.valid_source, "--target", text.valid_target).code == 0


@pytest.mark.parametrize("verb", ["generate", "fill", "denoise"])
def test_texts_train_on_a_gpu(ask: Ask, verb: str, tmp_path: Path) -> None:
    lines = write(tmp_path / "text", sentences(60, 1))
    extra = [] if verb == "generate" else ["--documents", "lines"]
    options = ["--tokenizer", "characters", "--batch-tokens", 300, "--longest", 40, "--steps", 6]
    said = ask("train", verb, "--text", lines, *extra, *options, *ON_GPU, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    match verb:
        case "generate":
            command, given = ["generate", tmp_path / "run", "ka", "--greedy", "--length", 8], b""
        case "fill":
            command, given = ["fill", tmp_path / "run", "ka <mask>"], b""
        case _:
            command, given = ["translate", tmp_path / "run"], b"ka lo\n"
    found = [ask(*command, *where, stdin=given) for where in (ON_GPU, ON_CPU)]
    assert [each.code for each in found] == [0, 0], found[0].err
    assert verb == "fill" or found[0].out == found[1].out
