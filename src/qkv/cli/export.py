"""`qkv export`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.import_ import compared
from qkv.error import QkvError, unknown

ENGINES = ("ctranslate2", "huggingface")
TEXTS = 100
LETTERS = 400  # of a line that engines are compared on


def export(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    to: Annotated[str, typer.Option(help="ctranslate2 (translators, language models) or huggingface.")] = "ctranslate2",
) -> None:
    """Write a trained model in another engine's format, and measure that both say the same."""
    if to not in ENGINES:
        raise unknown("engine", to, ENGINES)
    if to == "huggingface":
        _to_hugging_face(run, folder)
    else:
        _to_ctranslate2(run, folder)


def _to_hugging_face(run: Path, folder: Path) -> None:
    from qkv.decode.load import finished
    from qkv.interop.huggingface.exporting import export
    from qkv.interop.huggingface.sentences import SENTENCES

    stored = finished(run, device="cpu", precision="fp32")
    architecture = export(stored, folder)
    print(f"wrote {folder}: {architecture.name}, for {architecture.auto} and AutoTokenizer of transformers")
    texts, what = _texts(run), "validation texts"
    if not texts:
        texts, what = [(line, line) for line in SENTENCES], "sentences of several languages"
    compared(stored, architecture, folder, texts, what, tokenized=True, writes=True)


def _to_ctranslate2(run: Path, folder: Path) -> None:
    from qkv.decode.engine import load
    from qkv.decode.generate import Writer
    from qkv.decode.translate import Translator
    from qkv.interop import ctranslate2, ctranslate2_text

    model, texts = load(run, device="cpu", precision="fp32"), _texts(run)
    what = "of the run's own validation text" if texts else "of random entries"
    match model:
        case Translator():
            ctranslate2.export(model, folder)
            pairs = _pairs(texts, model.source, model.target)
            worst, compared_on = ctranslate2.parity(model, folder, pairs), f"{len(pairs)} pairs {what}"
        case Writer():
            ctranslate2_text.export(model, folder)
            rows = [ids for ids, _ in _pairs(texts, model.tokenizer, model.tokenizer)]
            worst, compared_on = ctranslate2_text.parity(model, folder, rows), f"{len(rows)} texts {what}"
        case _:
            raise QkvError(f"{run} is an encoder, and CTranslate2 takes translators and language models: use --to huggingface")
    print(f"wrote {folder}")
    print(f"largest difference of a log-probability a token, over {compared_on}: {worst:.2e}")


def _pairs(texts: list[tuple[str, str]], source: Any, target: Any) -> list[tuple[list[int], list[int]]]:
    """Pairs of ids to compare the engines on: of these texts, or random ones where there are none."""
    import numpy as np

    if texts:
        read, written = (tokenizer.encode([pair[side] for pair in texts]) for side, tokenizer in enumerate((source, target)))
        return list(zip(read, written, strict=True))
    generator = np.random.default_rng(0)

    def ids(tokenizer: Any) -> list[int]:
        ordinary = [entry for entry in range(tokenizer.size) if entry not in tokenizer.symbols.special]
        return generator.choice(ordinary, generator.integers(5, 30)).tolist()

    return [(ids(source), ids(target)) for _ in range(TEXTS)]


def _texts(run: Path) -> list[tuple[str, str]]:
    """Some of the run's own validation text, or of its training text where that was held out from it: pairs, or single texts
    twice. Nothing where the run has none, or its text is there no more."""
    from qkv.train.run_folder import RECIPE, read_run

    try:
        own = _read(read_run(run / RECIPE).own_text)
        found = [(s.strip()[:LETTERS], t.strip()[:LETTERS]) for s, t in islice(own, 2 * TEXTS)]
        return [(s, t) for s, t in found if s and t][:TEXTS]
    except QkvError:
        return []


def _read(where: Any) -> Any:
    from qkv.data.labels import read_rows
    from qkv.data.text import read_lines, read_pairs
    from qkv.spec.data import Bytes, Labelled, Texts

    match where:
        case Bytes():
            return iter(())
        case Texts():
            return ((line, line) for path in where.files for line in read_lines(path))
        case Labelled():
            return ((text, text) for text, _ in read_rows(where))
        case _:
            return read_pairs(where)
