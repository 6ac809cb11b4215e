"""What the page on studies shows is so: its commands run, on less, and print tables with the columns that it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.cli.conftest import asked, sentences, write

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
SMALL = "--set width=16 --device cpu --precision fp32 --threads 1".split()


@pytest.mark.usefixtures("inline")
def test_the_page_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "book.txt", sentences(300, 1))
    for name, number in (("train", 30), ("val", 5), ("test", 3)):
        write(tmp_path / f"{name}.en", sentences(number, 2))
        write(tmp_path / f"{name}.de", sentences(number, 2))
    blocks = re.findall(r"^```\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    shown = [block.splitlines()[0] for block in blocks if block.startswith("|")]
    printed: list[str] = []
    for line in (line for block in blocks for line in block.splitlines() if line.startswith("qkv ") and "--recipe" not in line):
        said = re.sub(r"--(flops|steps) \S+", "--steps 1", line).replace("--vocabulary 512 --longest 128", "--longest 16")
        said = re.sub(r"--seeds \S+", "", said)  # one will do
        said = said.replace("--minutes 3", "--budget 2e9").replace("--span 20 --tokens 5e4,1.5e5", "--span 9 --tokens 600")
        small = [] if "--resume" in line else SMALL[-6:] if " scale " in line else SMALL
        answer = asked(*shlex.split(said)[1:], *small)
        assert answer.code == 0, f"{line}\n{answer.err}"
        printed += [text for text in (answer.out + answer.err).splitlines() if text.startswith("| m")]
    assert {_columns(head) for head in shown} <= {_columns(head) for head in printed} and len(shown) == 3
    named = re.findall(r"--recipe (\S+)", PAGE)
    assert named and all((Path(__file__).parents[2] / "recipes" / f"{name}.toml").is_file() for name in named)


def _columns(head: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in head.strip("|").split("|"))
