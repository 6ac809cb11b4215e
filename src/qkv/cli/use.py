"""`qkv translate`, and what the commands that use a run have in common."""

from __future__ import annotations

import json as json_
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from qkv.cli.console import hush, warn
from qkv.error import QkvError

CHUNK = 5000  # lines read at a time: sorted by length among themselves, so that batches are even

Run = Annotated[Path, typer.Argument(help="The run folder.")]
BeamSize = Annotated[int, typer.Option(help="Hypotheses side by side; 1 is greedy.")]
Penalty = Annotated[float, typer.Option(help="Of length, as in GNMT; 0 favours short translations.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or int8.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 leaves it to PyTorch.")]
BatchTokens = Annotated[int, typer.Option(help="Positions of a batch, its hypotheses counted.")]
Thorough = Annotated[bool, typer.Option("--thorough", help="Search on until nothing better can come, however unlikely it is.")]
Prune = Annotated[
    float,
    typer.Option(help="Drop hypotheses that are less probable than the best by more nats than this, such as 3; 0 drops none."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def translate(
    run: Run,
    file: Annotated[str, typer.Argument(help="Lines to translate; - is standard input.")] = "-",
    beam: BeamSize = 4,
    length_penalty: Penalty = 0.6,
    thorough: Thorough = False,
    prune: Prune = 0.0,
    n_best: Annotated[int, typer.Option(help="Translations of each line.")] = 1,
    scores: Annotated[bool, typer.Option("--scores", help="The score before each translation.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    precision: Precision = "auto",
    threads: Threads = 0,
    batch_tokens: BatchTokens = 8192,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Lines in, lines out: an empty line stays an empty line.

    With --n-best each translation has its line's number, counted from 1, and its score before it, with tabs between.
    """
    from qkv.decode.translate import Translator

    rule = beam_rule(beam, length_penalty, thorough, prune)
    if not 1 <= n_best <= beam:
        raise QkvError(f"--n-best {n_best}: a beam of {beam} gives 1 to {beam} translations of a line")
    with sink(output) as out:
        translator = Translator(loaded(run, device, precision, threads))
        number = 0
        for lines in chunks(file):
            warn_too_long(translator, lines, number)
            for found in translator.translate(lines, rule, batch_tokens=batch_tokens, count=n_best):
                number += 1
                for best in found:
                    print(_shown(number, best, n_best > 1, scores, json), file=out)
            out.flush()


def loaded(run: Path, device: str, precision: str, threads: int) -> Any:
    """The finished model of a run, in a process that is set up for it."""
    from qkv import device as machine
    from qkv.decode.load import finished

    machine.prepare(threads)
    return finished(run, device=device, precision=precision)


def beam_rule(beam: int, length_penalty: float, thorough: bool, prune: float) -> Any:
    """The search that the options describe."""
    from qkv.decode.rule import Beam, Certain, Likely

    return Beam(beam, length_penalty, stop=Certain() if thorough else Likely(), prune=prune or math.inf)


def chunks(file: str) -> Iterator[list[str]]:
    """Lines of a file or of standard input, some thousands at a time; one at a time where a person types them."""
    from qkv.data.text import decode_line, read_lines

    if file == "-":
        lines = (decode_line(raw, "standard input", number) for number, raw in enumerate(sys.stdin.buffer, start=1))
    else:
        lines = read_lines(file)
    size = 1 if file == "-" and sys.stdin.isatty() else CHUNK
    while chunk := list(islice(lines, size)):
        yield chunk


def warn_too_long(translator: Any, lines: list[str], before: int) -> None:
    """Say which lines, of which `before` came earlier, are too long to be translated."""
    from qkv.decode.translate import LONGEST

    places = translator.too_long(lines)
    if places:
        shown = ", ".join(str(before + place + 1) for place in places[:5])
        warn(f"{len(places)} lines are longer than {LONGEST} tokens and are left untranslated, as empty lines (line {shown})")


def _shown(number: int, best: Any, numbered: bool, scored: bool, json: bool) -> str:
    if json:
        return json_.dumps(
            {"line": number, "text": best.text, "score": best.score, "finished": best.finished}, ensure_ascii=False
        )
    before = [str(number)] if numbered else []
    return "\t".join([*before, *([f"{best.score:.6f}"] if scored or numbered else []), best.text])


@contextmanager
def sink(path: Path | None) -> Iterator[IO[str]]:
    """Where results go: a file, or standard output, whose reader may be gone before the end."""
    if path is None:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:
            hush()  # typer would end with 1
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise QkvError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        yield file
