"""`qkv evaluate` and `qkv score`: how good a run is, and how likely it finds given text, by what its shape can do."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.train import two_fields
from qkv.cli.use import BatchTokens, BeamSize, Device, Json, Penalty, Run, Thorough, Threads, beam_rule, chunks, warn_too_long
from qkv.error import QkvError

AnyPrecision = Annotated[str, typer.Option(help="auto, fp32, bf16 or int8.")]
TextFile = Annotated[str | None, typer.Option(help="Text to be told how likely it is: for language models.")]


def evaluate(
    run: Run,
    source: Annotated[str | None, typer.Option(help="Sentences to translate.")] = None,
    target: Annotated[str | None, typer.Option(help="Their translations by people.")] = None,
    text: TextFile = None,
    documents: Annotated[str, typer.Option(help="What in --text is a document: whole files, lines or paragraphs.")] = "whole",
    context: Annotated[
        int, typer.Option(help="Tokens that a prediction may look back over; 0 is as many as the run was trained with.")
    ] = 0,
    stride: Annotated[int, typer.Option(help="Predictions made at a time; fewer look further back. 0 is half the context.")] = 0,
    table: Annotated[str | None, typer.Option(help="Texts with their labels, in a .tsv or .jsonl.")] = None,
    fields: Annotated[str, typer.Option(help="The columns of the text and of the label.")] = "text,label",
    picture: Annotated[Path | None, typer.Option(help="Of --table: draw which labels are taken for which here.")] = None,
    beam: BeamSize = 4,
    length_penalty: Penalty = 0.6,
    thorough: Thorough = False,
    tokenise: Annotated[str, typer.Option(help="sacreBLEU's tokenisation; `none` for text that is tokenised already.")] = "13a",
    output: Annotated[Path | None, typer.Option(help="Also write the translations here.")] = None,
    precision: AnyPrecision = "auto",
    threads: Threads = 0,
    batch_tokens: BatchTokens = 8192,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Translators: BLEU and chrF, by sacreBLEU, with their signatures. Language models: perplexity and bits per byte.
    Classifiers: accuracy and macro F1. Masked models: the perplexity and accuracy at masked words.

    Give --source and --target, or --text, or --table, as the run needs.
    """
    given = [name for name, value in (("--source", source), ("--text", text), ("--table", table)) if value is not None]
    if len(given) != 1 or (source is None) != (target is None):
        raise QkvError("give --source and --target for a translator, --text for a language model, or --table for a classifier")
    if source is not None and target is not None:
        from qkv.train.evaluate import refuse_unknown

        refuse_unknown(tokenise)
        results = _translations(run, source, target, beam_rule(beam, length_penalty, thorough), locals())
    elif text is not None:
        results = _likelihood(run, text, documents, context, stride, device, precision, threads, batch_tokens)
    else:
        assert table is not None
        results = _labels(run, table, fields, picture, device, precision, threads)
    if json:
        print(json_.dumps(results, indent=1))
        return
    for result in results:
        print(f"{result['name']} {result['value']:.{result.get('digits', 2)}f}   {result['signature']}")


def score(
    run: Run,
    source: Annotated[str | None, typer.Option(help="Sentences.")] = None,
    target: Annotated[str | None, typer.Option(help="What is to be scored as their translations.")] = None,
    text: Annotated[str | None, typer.Option(help="Texts, one a line, for a language or a masked model.")] = None,
    length_penalty: Penalty = 0.6,
    precision: AnyPrecision = "auto",
    threads: Threads = 0,
    batch_tokens: BatchTokens = 4096,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """How likely a run finds given text: one number a line.

    A translator's is the score that `qkv translate --scores` reports; a language model's the log-probability of the line and its
    end; a masked model's the sum of the log-probabilities of its tokens, each masked in its turn.
    """
    from qkv.decode.engine import load
    from qkv.decode.translate import Translator

    if (text is None) == (source is None) or (source is None) != (target is None):
        raise QkvError("give --source and --target for a translator, or --text for a language model or a masked model")
    model = load_any(load, run, device, precision, threads)
    if isinstance(model, Translator):
        if source is None or target is None:
            raise QkvError(f"{run} is a translator: give --source and --target")
        sources, targets = _parallel(source, target)
        found = model.score(sources, targets, length_penalty, batch_tokens=batch_tokens)
    else:
        if text is None:
            raise QkvError(f"{run} is no translator: give --text")
        found = model.score([line for lines in chunks(text) for line in lines])
    if json:
        print(json_.dumps(found))
        return
    for value in found:
        print(f"{value:.6f}")


def load_any(load: Any, run: Path, device: str, precision: str, threads: int) -> Any:
    """A run, ready for use by a process that is set up for it."""
    from qkv import device as machine

    machine.prepare(threads)
    return load(run, device=device, precision=precision)


def _translations(run: Path, source: str, target: str, rule: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    from qkv.decode.translate import load
    from qkv.train.evaluate import bleu, chrf

    sources, targets = _parallel(source, target)
    translator = load_any(load, run, options["device"], options["precision"], options["threads"])
    warn_too_long(translator, sources, 0)
    found = [best[0].text for best in translator.translate(sources, rule, batch_tokens=options["batch_tokens"])]
    if options["output"]:
        options["output"].write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
    return [vars(result) for result in (bleu(found, targets, options["tokenise"]), chrf(found, targets))]


def _likelihood(
    run: Path, text: str, documents: str, context: int, stride: int, device: str, precision: str, threads: int, batch_tokens: int
) -> list[dict[str, Any]]:
    from qkv.cli.train import texts_of
    from qkv.decode.engine import load
    from qkv.decode.generate import Writer
    from qkv.decode.read import Reader
    from qkv.train.measure import likelihood, restoration

    where = texts_of([text], documents, documents)
    model = load_any(load, run, device, precision, threads)
    if isinstance(model, Writer):
        return likelihood(model, run, where, context, stride, batch_tokens)
    if isinstance(model, Reader):
        return restoration(model, where, batch_tokens)
    raise QkvError(f"{run} is a translator: give --source and --target")


def _labels(
    run: Path, table: str, fields: str, picture: Path | None, device: str, precision: str, threads: int
) -> list[dict[str, Any]]:
    from qkv.decode.load import finished
    from qkv.decode.read import Reader
    from qkv.spec.data import Labelled
    from qkv.train.measure import labels

    where = Labelled((table,), two_fields(fields, "--fields is TEXT,LABEL"))
    reader = load_any(finished, run, device, precision, threads)
    return labels(Reader(reader), where, picture)


def _parallel(source: str, target: str) -> tuple[list[str], list[str]]:
    from qkv.data.text import read_pairs
    from qkv.spec.data import Files

    pairs = list(read_pairs(Files((source,), (target,))))
    return [s for s, _ in pairs], [t for _, t in pairs]
