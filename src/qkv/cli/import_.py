"""`qkv import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.console import warn
from qkv.error import QkvError, QkvFailure

TEXTS = 100  # lines of a file that models are compared on
USED_BY = {
    "EncoderDecoder": "qkv translate {}",
    "DecoderOnly": "qkv generate {} 'Once upon'",
    "EncoderOnly": "qkv fill {} 'A dog <mask>.'",
    "Classifier": "qkv classify {}",
}


def import_(
    name: Annotated[str, typer.Argument(help="A folder of Hugging Face's, or a model's name on huggingface.co.")],
    out: Annotated[Path, typer.Option(help="The run folder.")],
    text: Annotated[str | None, typer.Option(help="Lines to compare both models on, instead of some that come with qkv.")] = None,
) -> None:
    """Make a run of a model of Hugging Face's (GPT-2, BERT, BART, T5, Marian, Pegasus), and measure that both say the same.

    No code out of the folder is run: weights are safetensors, or a pickle read by PyTorch's weights-only loader.
    """
    from qkv.interop.huggingface.fetch import located
    from qkv.interop.huggingface.importing import bring, save
    from qkv.interop.huggingface.sentences import SENTENCES
    from qkv.spec.count import parameters
    from qkv.train.checkpoint import write_manifest
    from qkv.train.run_folder import held

    _refuse_taken(out)
    lines = _lines(text) if text is not None else list(SENTENCES)
    imported = bring(located(name))
    spec = imported.stored.model.spec
    for note in imported.notes:
        warn(note)
    print(f"read {imported.folder}: {imported.architecture.name}, {parameters(spec):,} parameters")
    pairs = [(line, line) for line in lines]
    what = "lines of " + text if text is not None else "sentences of several languages"
    compared(imported.stored, imported.architecture, imported.folder, pairs, what, tokenized=imported.tokenized, writes=False)
    with held(out):
        _refuse_taken(out)
        save(imported, out)
        files = ["model.json", "model.safetensors", *sorted(path.name for path in out.glob("*tokenizer*.json"))]
        write_manifest(out, files)
    print(f"wrote {out}: `{USED_BY[type(spec).__name__].format(out)}` uses it")


def compared(
    stored: Any, architecture: Any, folder: Path, pairs: list[tuple[str, str]], what: str, *, tokenized: bool, writes: bool
) -> None:
    """Measure a model against the one in a folder, and say what was found; where `transformers` is missing, say that.

    Raises QkvFailure where they are not the same.
    """
    from importlib.util import find_spec

    from qkv.interop.huggingface.library import INSTALL
    from qkv.interop.huggingface.parity import compare

    if find_spec("transformers") is None:
        warn(f"not compared with transformers, which is not installed: {INSTALL}")
        return
    found = compare(stored, architecture, folder, pairs, tokenized=tokenized, writes=writes)
    over = f"{found.rows} {what}" if tokenized else f"{found.rows} rows of random entries"
    if tokenized:
        print(f"token ids: the same as in transformers for {found.same} of {found.texts} texts")
        if found.same < found.texts:
            warn(f"{found.texts - found.same} of {found.texts} texts are cut into other pieces here than in transformers")
    print(f"largest difference of a logit, over {over}: {found.worst:.2e} (logits up to {found.largest:.1f})")
    if found.written:
        print(f"greedy text: the same as in transformers for {found.alike} of {found.written} texts")
    if not found.close:
        raise QkvFailure(
            f"the model in {folder} says something else in transformers than here: a logit differs by {found.worst:.2e}; do not "
            f"use it, and please report it"
        )


def _refuse_taken(out: Path) -> None:
    """Raises QkvError where something is in the way."""
    from qkv.train.run_folder import RECIPE

    if out.is_dir() and any(path.name != ".lock" for path in out.iterdir()):
        known = "holds a run already" if (out / RECIPE).is_file() or (out / "model.json").is_file() else "is not empty"
        raise QkvError(f"{out} {known}; give --out another folder")
    if out.exists() and not out.is_dir():
        raise QkvError(f"{out} is a file; give --out a folder")


def _lines(text: str) -> list[str]:
    from itertools import islice

    from qkv.data.text import read_lines

    found = [line.strip() for line in islice((line for line in read_lines(text) if line.strip()), TEXTS)]
    if not found:
        raise QkvError(f"{text} is empty: expected lines of text")
    return found
