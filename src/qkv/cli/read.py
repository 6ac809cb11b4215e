"""`qkv fill`, `qkv embed`, `qkv classify`."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.console import warn
from qkv.cli.use import Device, Json, Precision, Run, Threads, chunks, loaded, sink
from qkv.error import QkvError, unknown


def fill(
    run: Run,
    text: Annotated[str, typer.Argument(help="A text with <mask> where a word is missing.")],
    count: Annotated[int, typer.Option(help="Words for each place.")] = 5,
    precision: Precision = "auto",
    threads: Threads = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """The likeliest words for each <mask> of a text, with their probabilities."""
    found = _reader(run, device, precision, threads).fill(text, count)
    with sink(None) as out:
        if json:
            print(json_.dumps([[vars(each) for each in place] for place in found], ensure_ascii=False, indent=1), file=out)
            return
        for number, place in enumerate(found, 1):
            for each in place:
                before = f"{number}  " if len(found) > 1 else ""
                print(f"{before}{each.probability:.4f}  {each.word:<16} {each.text}", file=out)


def embed(
    run: Run,
    file: Annotated[str, typer.Argument(help="Texts, one a line; - is standard input.")] = "-",
    pooling: Annotated[str, typer.Option(help="mean (of all tokens) or first (token).")] = "mean",
    output: Annotated[
        Path | None, typer.Option(help="A .npy file of all vectors, or JSONL; without it JSONL is printed.")
    ] = None,
    precision: Precision = "auto",
    threads: Threads = 0,
    device: Device = "auto",
) -> None:
    """A vector for each text, by the encoder of any run that has one.

    With --output V.npy all vectors in one array, (texts, width); else a line {"text": ..., "vector": [...]} for each.
    """
    import numpy as np

    from qkv.spec.pooling import FirstToken, MeanToken

    kinds = {"mean": MeanToken(), "first": FirstToken()}
    if pooling not in kinds:
        raise unknown("pooling", pooling, kinds)
    reader = _reader(run, device, precision, threads)
    if output is not None and output.suffix == ".npy":
        vectors = [reader.embed(lines, kinds[pooling]).numpy() for lines in chunks(file)]
        if not vectors:
            raise QkvError(f"{file} holds no text")
        try:
            np.save(output, np.concatenate(vectors), allow_pickle=False)
        except OSError as error:
            raise QkvError(f"{output} cannot be written: {error.strerror}") from None
        return
    with sink(output) as out:
        for lines in chunks(file):
            for line, vector in zip(lines, reader.embed(lines, kinds[pooling]).tolist(), strict=True):
                print(json_.dumps({"text": line, "vector": [round(x, 6) for x in vector]}, ensure_ascii=False), file=out)


def classify(
    run: Run,
    file: Annotated[str, typer.Argument(help="Texts, one a line; - is standard input.")] = "-",
    count: Annotated[int, typer.Option(help="Labels for each text, likeliest first.")] = 1,
    output: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    precision: Precision = "auto",
    threads: Threads = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """The label of each text and its probability, with a tab between.

    To a model of stories a text is a paragraph: its sentences, one a line, the question last, and then an empty line.
    """
    if count < 1:
        raise QkvError(f"--count {count}: a text is told at least 1 label")
    reader, number = _reader(run, device, precision, threads), 0
    with sink(output) as out:
        for lines in _paragraphs(file) if reader.reads_sentences else chunks(file):
            _warn_cut(reader, lines, number)
            number += len(lines)
            for told in reader.classify(lines):
                best = told[:count]
                if json:
                    print(json_.dumps([vars(each) for each in best], ensure_ascii=False), file=out)
                else:
                    print("\t".join(f"{each.label}\t{each.probability:.4f}" for each in best), file=out)
            out.flush()


def _paragraphs(file: str) -> Iterator[list[str]]:
    """Lines up to the next empty one together, as one text."""
    together: list[str] = []
    for line in (line for lines in chunks(file) for line in lines):
        if line.strip():
            together.append(line)
        elif together:
            yield ["\n".join(together)]
            together = []
    if together:
        yield ["\n".join(together)]


def _warn_cut(reader: Any, lines: list[str], before: int) -> None:
    """Say which texts, of which `before` came earlier, are longer than what is read of them."""
    places = reader.too_long(lines)
    if places:
        shown = ", ".join(str(before + place + 1) for place in places[:5])
        known, lost = (f"{reader.recent} sentences", "beginning") if reader.reads_sentences else (f"{reader.room} tokens", "end")
        warn(f"{len(places)} texts are longer than {known}: their {lost} is not read, as in training (line {shown})")


def _reader(run: Path, device: str, precision: str, threads: int) -> Any:
    from qkv.decode.read import Reader

    return Reader(loaded(run, device, precision, threads))
