"""What the README shows is so: its commands run, its tables are what is printed, its model is the one of that name."""

from __future__ import annotations

import gzip
import random
import re
import shlex
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from qkv.cli.main import app
from qkv.papers.catalogue import named
from qkv.spec.model import EncoderDecoder, Joint
from qkv.spec.plain import parse
from qkv.spec.score import Location, Score, folds

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


WORDS = ["night", "dark", "light", "day", "late", "early"]


def commands() -> list[str]:
    """The command lines of the section on one's own text."""
    block = next(block for block in BLOCKS if "qkv train translate --source" in block)
    return [line for line in block.splitlines() if line.startswith("qkv ")]


def test_the_commands_on_your_own_text_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QKV_CACHE", str(tmp_path / "cache"))
    words = ["one", "two", "three", "four", "five", "six"]
    for name in ("train", "val", "test"):
        lines = [f"{a} {b} {name[0]}" for a in words for b in words]
        (tmp_path / f"{name}.en").write_text("\n".join(lines) + "\n")
        (tmp_path / f"{name}.de").write_text("\n".join(line.upper() for line in lines) + "\n")
    (tmp_path / "sentences.en").write_text("one two t\n\nsix six t\n")
    shown = commands()
    assert [shlex.split(line)[1] for line in shown] == ["train", "translate", "evaluate"]
    for line in shown:
        arguments = shlex.split(line.replace("--minutes 60", "--steps 2"))[1:]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, line
        if arguments[0] == "translate":
            assert len(result.stdout.splitlines()) == 3
        if arguments[0] == "evaluate":
            assert "BLEU" in result.stdout and "chrF" in result.stdout


def test_the_commands_of_the_three_shapes_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QKV_CACHE", str(tmp_path / "cache"))
    lines = [f"It was a {a} and {b} one, said {a}." for a in WORDS for b in WORDS]
    for name, text in (("book.txt", lines), ("other.txt", lines[:5]), ("lines.txt", lines[:3]), ("train.en", lines)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in text))
    (tmp_path / "train.de").write_text("".join(f"{line.upper()}\n" for line in lines))
    table = ["text\tlabel", *(f"{line}\t{'even' if len(line) % 2 == 0 else 'odd'}" for line in lines)]
    (tmp_path / "reviews.tsv").write_text("".join(f"{line}\n" for line in table))
    block = next(block for block in BLOCKS if "qkv train generate --text" in block)
    shown = [line for line in block.splitlines() if line]
    assert all(line.startswith("qkv ") for line in shown)
    for line in shown:
        arguments = shlex.split(re.sub(r"--minutes \d+", "--steps 2 --longest 64", line))[1:]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"


def test_every_option_it_names_exists() -> None:
    verbs = "train translate,translate,evaluate,score,look heads,export,import,models,verify,doctor,generate,fill,embed,classify"
    for verb in verbs.split(","):
        assert CliRunner().invoke(app, [*verb.split(), "--help"]).exit_code == 0
    known = CliRunner().invoke(app, ["train", "translate", "--help"], terminal_width=200).stdout
    for option in "--pairs --fields --tensorboard --resume --set --tokenizer --separate --recipe --minutes".split():
        assert option in README and option in known
    known = CliRunner().invoke(app, ["generate", "--help"], terminal_width=200).stdout
    row = next(line for line in README.splitlines() if line.startswith("| draw text in another way"))
    options = re.findall(r"--[a-z-]+", row)
    assert len(options) > 15 and all(option in known for option in options)


def test_the_table_of_models_is_what_is_printed() -> None:
    printed = CliRunner().invoke(app, ["models"]).stdout
    assert printed.strip() in README


STORIES = (
    "1 Mary moved to the bathroom.\n2 Where is Mary? \tbathroom\t1\n1 John went to the hallway.\n2 Where is John? \thallway\t1\n"
)


def test_the_page_on_depth_as_time_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QKV_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QKV_DATA", raising=False)
    for name in ("train.en", "train.de"):
        lines = [f"A {a} man on a {b} ladder." for a in WORDS for b in WORDS]
        (tmp_path / name).write_text("".join(f"{line if name.endswith('en') else line.upper()}\n" for line in lines))
    for name in ("qa1_train.txt", "qa1_test.txt", "qa3_train.txt"):
        (tmp_path / name).write_text(STORIES * 9)
    page = (Path(__file__).parents[1] / "docs" / "universal.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert parse(blocks[0][1].strip()) == named("universal-tiny", Joint(10000))
    for line in (line for kind, block in blocks for line in block.splitlines() if line.startswith("qkv ") and not kind):
        said = (
            line.replace("$'", "'")
            .replace("longest=400", "longest=9")
            .replace("--minutes 30", "--number 200 --steps 2")
            .replace("--epochs 20", "--steps 2")
        )
        arguments = [part.replace("\\n", "\n") for part in shlex.split(said)[1:]]
        if arguments[0] == "train":
            arguments += ["--set", "width=16", "--set", "*.hidden=8", "--set", "evaluation.sentences=3"]
            arguments += ["--steps", "2"] if "--steps" not in arguments else []
        if "evaluate" in arguments and "--world" in arguments:
            arguments += ["--number", "3"]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    (example,) = (block for kind, block in blocks[1:] if kind == "python")
    exec(example, {})


SMALL = "--steps 2 --set width=16 --set *.depth=1 --device cpu".split()


def test_the_page_on_bytes_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands, and those of the README, run one after the other on smaller files of the same names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QKV_CACHE", str(tmp_path / "cache"))
    images = bytes(random.Random(1).choices(range(256), k=30 * 8 * 8))
    sizes = b"".join(size.to_bytes(4, "big") for size in (30, 8, 8))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + sizes + images))
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        Image.frombytes("L", (8, 8), images[64 * number : 64 * (number + 1)]).save(tmp_path / "pictures" / f"{number}.png")
    for name in ("seven.png", "half.png"):
        (tmp_path / name).write_bytes((tmp_path / "pictures" / "0.png").read_bytes())
    for name, size in (("train.bin", 900), ("test.bin", 400)):
        (tmp_path / name).write_bytes(images[:size])
    page = (Path(__file__).parents[1] / "docs" / "bytes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    blocks.append(("", next(block for block in BLOCKS if "qkv train generate --images" in block)))
    for kind, block in blocks:
        if kind == "python":
            exec(block, {})
        for line in (line.removeprefix("$ ") for line in block.splitlines() if line.startswith(("qkv ", "$ qkv "))):
            arguments = shlex.split(re.sub(r"--(minutes|steps) \d+", "", line))[1:] + (SMALL if " train " in line else [])
            result = CliRunner().invoke(app, arguments, catch_exceptions=False)
            assert result.exit_code == 0, f"{line}\n{result.output}"
    assert all((tmp_path / name).is_file() for name in ("digits.png", "new.wav", "sheet.png", "whole.png"))


def test_the_page_on_sparse_attention_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands, and those of the README, on smaller files and texts; what `qkv look pattern` prints is what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QKV_CACHE", str(tmp_path / "cache"))
    some = bytes(random.Random(1).choices(range(256), k=30 * 784))
    sizes = b"".join(size.to_bytes(4, "big") for size in (30, 28, 28))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + sizes + some))
    (tmp_path / "enwik8").write_bytes(some[:2000])
    (tmp_path / "enwik8.gz").write_bytes(gzip.compress(some[:5000]))
    (tmp_path / "book.txt").write_text("".join(f"It was a {a} and {b} one, said {a}.\n" for a in WORDS for b in WORDS))
    page = (Path(__file__).parents[1] / "docs" / "sparse.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    blocks.append(("", next(block for block in BLOCKS if "qkv look pattern" in block)))
    models = "from qkv.spec.part import *\nfrom qkv.spec.pattern import *\n"
    for kind, block in blocks:
        if kind == "python":
            exec(models + block.replace("65536", "600").replace("strided(256)", "strided(16)"), {})
        lines = block.splitlines()
        for number, line in enumerate(lines):
            if not line.startswith(("qkv ", "$ qkv ")):
                continue
            said = re.sub(r"--minutes \d+", "", line.removeprefix("$ "))
            said = said.replace("65536", "256").replace("[256,256]", "[16,16]").replace("(256)", "(16)")
            arguments = shlex.split(said)[1:] + (SMALL if " train " in line else [])
            result = CliRunner().invoke(app, arguments, catch_exceptions=False)
            assert result.exit_code == 0, f"{line}\n{result.output}"
            if line.startswith("$ "):
                assert result.stdout.splitlines() == lines[number + 1 : number + 4]


def test_the_page_on_cells_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell that it shows is that of the catalogue; its commands, and those of the README, run on less."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QKV_CACHE", str(tmp_path / "cache"))
    for name in ("train.en", "train.de"):
        lines = [f"A {a} man on a {b} ladder." for a in WORDS for b in WORDS]
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    page = (Path(__file__).parents[1] / "docs" / "evolved.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    base = named("evolved-base", Joint(100))
    assert isinstance(base, EncoderDecoder) and parse(blocks[0][1].strip()) == base.encoder.blocks[0]
    for out in ("runs/start", "runs/ende"):
        begin = [
            "train",
            "translate",
            "--source",
            "train.en",
            "--target",
            "train.de",
            "--model",
            "transformer-tiny",
            "--out",
            out,
        ]
        assert CliRunner().invoke(app, [*begin, *SMALL], catch_exceptions=False).exit_code == 0
    blocks.append(("", next(block for block in BLOCKS if "qkv evolve" in block).replace("searches/one", "searches/two")))
    for line in (line for _, block in blocks for line in block.splitlines() if line.startswith("qkv ")):
        said = line.replace("60,60,120", "1,1").replace("--children 150", "--children 2 --population 2 --tournament 1")
        said = re.sub(r"--parameters \S+", "", said)
        said += " --workers 1" if " evolve " in said else ""
        arguments = shlex.split(said)[1:] + (SMALL[:2] + SMALL[6:] if " train " in line else [])
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("name", ["gpt-tiny", "bert-tiny"])
def test_the_models_beside_each_other_are_those_of_the_catalogue(name: str) -> None:
    page = (Path(__file__).parents[1] / "docs" / "shapes.md").read_text(encoding="utf-8")
    block = page.split(f"`{name}`")[1].split("```python\n")[1].split("```")[0]
    assert parse(block.strip()) == named(name, Joint(10000))


def test_the_model_it_shows_is_transformer_base() -> None:
    block = next(block for block in BLOCKS if block.startswith("EncoderDecoder("))
    assert parse(block.strip()) == named("transformer-base", Joint(37000))


def test_the_page_on_attention_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands run one after the other, and its Python as one program."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QKV_CACHE", str(tmp_path / "cache"))
    for name in ("train.en", "train.de", "book.txt"):
        (tmp_path / name).write_text("".join(f"A {a} man on a {b} ladder.\n" for a in WORDS for b in WORDS))
    k, v = torch.randn(500, 64), torch.randn(500, 32)
    for name, array in (("keys", k), ("values", v), ("queries", torch.randn(3, 64))):
        np.save(tmp_path / f"{name}.npy", array.numpy())
    save_file({"keys": k, "values": v}, tmp_path / "pairs.safetensors")
    page = (Path(__file__).parents[1] / "docs" / "attention.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    known: dict[str, object] = {}
    for kind, block in [*blocks, ("", next(block for block in BLOCKS if "qkv attend" in block))]:
        if kind == "python":
            exec(block, known)
        for line in (line for line in block.splitlines() if line.startswith("qkv ") and not kind):
            arguments = shlex.split(line)[1:] + (SMALL if " train " in line else [])
            arguments += ["--number", "200"] if "--world" in line else []
            result = CliRunner().invoke(app, arguments, catch_exceptions=False)
            assert result.exit_code == 0, f"{line}\n{result.output}"
    assert np.load(tmp_path / "answers.npy").shape == (3, 32)
    table = re.findall(r"^\| `(\w+\(.*?\))` \|.*?\| *(folds)? *\|$", page, flags=re.MULTILINE)
    named = {line.partition("(")[0]: bool(said) for line, said in table}
    assert named == {kind.__name__: folds(kind(9) if kind is Location else kind()) for kind in get_args(Score)}


NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[+-]?\d+)?")


def alike(shown: str, printed: str) -> bool:
    """The same words, and numbers that differ by two in their last digit at most: processors round in other places."""
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(abs(float(one.replace(",", "")) - float(other.replace(",", ""))) <= 2.01 * last_digit(one) for one, other in pairs)


def last_digit(number: str) -> float:
    """What one in the last digit of a number is worth."""
    digits, _, power = number.partition("e")
    return 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))


def test_the_page_on_scaling_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands, one after the other, on the tables that lie beside it, print what it shows; its table begins as they do."""
    monkeypatch.chdir(tmp_path)
    docs = Path(__file__).parents[1] / "docs"
    for name in ("gpt.csv", "universal.csv"):
        (tmp_path / name).write_bytes((docs / name).read_bytes())
    page = (docs / "scaling.md").read_text(encoding="utf-8")
    table, *blocks = re.findall(r"^```(?:\w*)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert (docs / "gpt.csv").read_text(encoding="utf-8").startswith(table)
    calls = [call for block in blocks for call in block.split("$ ")[1:]]
    assert len(calls) == 6
    for line, _, shown in (call.partition("\n") for call in calls):
        result = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert result.exit_code == 0 and alike(shown, result.stdout), f"{line}\n{result.stdout}"
    assert (tmp_path / "scaling.png").is_file() and (tmp_path / "contest.png").is_file()
    assert alike("1.064 in 7%", "1.066 in 7%") and not alike("1.064 in 7%", "1.067 in 7%")
    assert not alike("1.00e18", "1.03e18") and not alike("a 1", "b 1")
