"""A language model exported to CTranslate2 says there what it says here."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ctranslate2", reason="needs the extra: pip install 'qkv[ctranslate2]'")

from tests.cli.conftest import Ask, Trained, sentences, text, trained, write
from tests.interop.conftest import SENTENCES, MakeStored, make

from qkv.decode.generate import Greedy, Writer
from qkv.error import QkvError
from qkv.interop.ctranslate2 import library
from qkv.interop.ctranslate2_text import export, parity
from qkv.papers.gpt import gpt

__all__ = ["text", "trained"]

VARIANTS = {
    "gpt": (),
    "untied": ("tie=Untied()",),
    "without offsets": ("*.offset=false",),
    "sinusoids, scaled": ("embedding.position=Sinusoid()", "embedding.scale=true"),
    "an offset of the output": ("output.offset=true",),
    "relu, a large epsilon": ("*.activation=ReLU()", "*.norm=PreNorm(0.01)"),
    "exact gelu": ("*.activation=GELU()",),
    "swish": ("*.activation=Swish()",),
    "gelu by a sigmoid": ("*.activation=SigmoidGELU()",),
}


def ids(writer: Writer) -> list[list[int]]:
    return writer.tokenizer.encode(list(SENTENCES))


@pytest.mark.parametrize("name", VARIANTS)
def test_an_exported_model_says_the_same(make_stored: MakeStored, name: str, tmp_path: Path) -> None:
    writer = Writer(make_stored(gpt, *VARIANTS[name], cut="bytes", longest=64))
    export(writer, tmp_path / "exported")
    assert parity(writer, tmp_path / "exported", ids(writer)) < 1e-4


def test_greedy_texts_agree(make_stored: MakeStored, tmp_path: Path) -> None:
    writer = Writer(make_stored(gpt, cut="bytes", longest=64))
    export(writer, tmp_path / "exported")
    engine, entries = (
        library().Generator(str(tmp_path / "exported"), device="cpu", compute_type="float32"),
        writer.tokenizer.entries(),
    )
    for prompt in SENTENCES[:3]:
        given = [entries[number] for number in writer.given(prompt)]
        banned = [[entries[number]] for number in (0, 1, 3)]
        (found,) = engine.generate_batch(
            [given], max_length=12, beam_size=1, suppress_sequences=banned, include_prompt_in_result=False
        )
        ours = writer.generate([prompt], Greedy(), length=12)[0][0].tokens
        assert [number for number in found.sequences_ids[0] if number != 2] == list(ours)


def test_parity_notices_another_model(make_stored: MakeStored, tmp_path: Path) -> None:
    writer = Writer(make_stored(gpt, cut="bytes", longest=64))
    export(writer, tmp_path / "exported")
    writer.model.decoder.blocks[1].sublayers[1].sublayer.out.weight.data *= 1.1
    assert parity(writer, tmp_path / "exported", ids(writer)) > 1e-3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (("embedding.position=NoPosition()",), "embedding.position=NoPosition"),
        (("*.rotate=Rotary()",), "rotate=Rotary"),
        (("*.bias=ALiBi()",), "bias=ALiBi"),
        (("*.norm=PostNorm()",), "PostNorm"),
        (("*.norm=PreNorm(1e-5,RMSNorm())",), "RMSNorm"),
        (("*.gated=true",), "gated=True"),
        (("*.kv_heads=2",), "kv_heads=2"),
        (("*.score=Dot()",), "score=Dot"),
        (("*.activation=LeakyReLU()",), "activation=LeakyReLU"),
        (("output.scaled=true",), "scaled=True"),
    ],
    ids=str,
)
def test_what_ctranslate2_cannot_hold_is_named(
    make_stored: MakeStored, changes: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    with pytest.raises(QkvError) as caught:
        export(Writer(make_stored(gpt, *changes, longest=64)), tmp_path / "exported")
    assert str(caught.value).startswith("CTranslate2 cannot hold ") and named in str(caught.value)
    assert not (tmp_path / "exported").exists()


def test_the_command_chooses_by_shape(ask: Ask, trained: Trained, tmp_path: Path) -> None:
    make("gpt2", tmp_path / "there")
    make("bert", tmp_path / "reads")
    for name in ("there", "reads"):
        assert ask("import", tmp_path / name, "--out", tmp_path / f"{name}-run").code == 0
    answer = ask("export", tmp_path / "there-run", tmp_path / "exported", "--to", "ctranslate2")
    assert (answer.code, answer.err) == (0, "")
    said = answer.out.splitlines()
    assert said[0] == f"wrote {tmp_path / 'exported'}"
    assert said[1].startswith("largest difference of a log-probability a token, over 100 texts of random entries: ")
    assert float(said[1].split(": ")[1]) < 1e-4
    answer = ask("export", trained.folder, tmp_path / "translates")
    assert answer.code == 0 and "over 8 pairs of the run's own validation text" in answer.out
    answer = ask("export", tmp_path / "reads-run", tmp_path / "none")
    assert answer.code == 2 and "use --to huggingface" in answer.err and not (tmp_path / "none").exists()


def test_a_long_text_is_compared_at_its_beginning(make_stored: MakeStored, tmp_path: Path) -> None:
    writer = Writer(make_stored(gpt, cut="bytes", longest=64))
    export(writer, tmp_path / "exported")
    long = writer.tokenizer.encode([" ".join(sentences(30, 1))])
    assert len(long[0]) > 64
    assert parity(writer, tmp_path / "exported", long) < 1e-4


def test_a_folder_with_something_in_it_is_left_alone(make_stored: MakeStored, tmp_path: Path) -> None:
    write(tmp_path / "mine", ["mine"])
    with pytest.raises(QkvError, match="not empty"):
        export(Writer(make_stored(gpt, longest=64)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
