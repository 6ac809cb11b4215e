"""`qkv evaluate` and `qkv score`: how good a run is, and how likely it finds given text, by what its shape can do."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.train import two_fields
from qkv.cli.use import (
    BatchTokens,
    BeamSize,
    Device,
    Json,
    Penalty,
    Precision,
    Prune,
    Run,
    Thorough,
    Threads,
    beam_rule,
    chunks,
    loaded,
    sink,
    warn_too_long,
)
from qkv.error import QkvError

SEED = 3  # of what is drawn from a world; 1 and 2 are for training and validation
TextFile = Annotated[str | None, typer.Option(help="Text to be told how likely it is: for language models.")]


def evaluate(
    run: Run,
    source: Annotated[str | None, typer.Option(help="Sentences to translate.")] = None,
    target: Annotated[str | None, typer.Option(help="Their translations by people.")] = None,
    text: TextFile = None,
    bytes_: Annotated[str | None, typer.Option("--bytes", help="A file of any bytes, for a run that learned from bytes.")] = None,
    images: Annotated[str | None, typer.Option(help="Pictures, or a folder of them, for a run that learned from some.")] = None,
    sounds: Annotated[str | None, typer.Option(help="A WAV, or a folder of them, for a run that learned from some.")] = None,
    minimal_pairs: Annotated[
        str | None, typer.Option(help="Sentences and what is wrong in their stead, in a .tsv, for a language model.")
    ] = None,
    last_words: Annotated[
        str | None, typer.Option(help="Passages whose last word is to be said, in a .jsonl, for a language model.")
    ] = None,
    documents: Annotated[str, typer.Option(help="What in --text is a document: whole files, lines or paragraphs.")] = "whole",
    context: Annotated[
        int, typer.Option(help="Tokens that a prediction may look back over; 0 is as many as the run was trained with.")
    ] = 0,
    stride: Annotated[int, typer.Option(help="Predictions made at a time; fewer look further back. 0 is half the context.")] = 0,
    world: Annotated[str | None, typer.Option(help="Questions of an algorithmic world, such as 'Copy(longest=400)'.")] = None,
    number: Annotated[int, typer.Option(help="Questions that are drawn from --world.")] = 1000,
    table: Annotated[str | None, typer.Option(help="Texts with their labels, in a .tsv or .jsonl.")] = None,
    stories: Annotated[str | None, typer.Option(help="Stories with questions and answers, in a file of bAbI.")] = None,
    fields: Annotated[str, typer.Option(help="The columns of the text and of the label.")] = "text,label",
    picture: Annotated[
        Path | None, typer.Option(help="Of --table, --stories: draw here which labels are taken for which.")
    ] = None,
    beam: BeamSize = 4,
    length_penalty: Penalty = 0.6,
    thorough: Thorough = False,
    prune: Prune = 0.0,
    tokenise: Annotated[str, typer.Option(help="sacreBLEU's tokenisation; `none` for text that is tokenised already.")] = "13a",
    output: Annotated[Path | None, typer.Option(help="Also write the translations here.")] = None,
    precision: Precision = "auto",
    threads: Threads = 0,
    batch_tokens: BatchTokens = 8192,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Translators: BLEU and chrF, by sacreBLEU, with their signatures. Language models: perplexity and bits per byte; of
    pictures and sounds, bits per dimension.
    Classifiers: accuracy and macro F1. Masked models: the perplexity and accuracy at masked words.

    Give --source and --target, or --text, or --table, as the run needs. Further: --world asks a translator of an algorithmic
    world; --stories asks a classifier about stories (bAbI); --minimal-pairs tells in how many pairs a language model prefers the
    grammatical sentence (Marvin and Linzen), --last-words how many last words of passages it would say (LAMBADA). With
    --precision int8 everything is measured in fp32, too, and the change is said.
    """
    ways = {"--source": source, "--world": world, "--text": text, "--table": table, "--stories": stories}
    ways |= {"--bytes": bytes_, "--images": images, "--sounds": sounds}
    ways |= {"--minimal-pairs": minimal_pairs, "--last-words": last_words}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1 or (source is None) != (target is None):
        raise QkvError(
            "give --source and --target or --world for a translator, --text for a masked model, --text, --minimal-pairs or "
            "--last-words for a language model, --bytes, --images or --sounds for one of bytes, or --table or --stories for a "
            "classifier"
        )
    if source is not None:
        from qkv.train.evaluate import refuse_unknown

        refuse_unknown(tokenise)
    options = locals()
    results = _measured(run, given[0], options)
    if precision == "int8":
        exact = _measured(run, given[0], options | {"precision": "fp32", "output": None, "picture": None})
        results = [_beside(*pair) for pair in zip(results, exact, strict=True)]
    if json:
        print(json_.dumps(results, indent=1))
        return
    for result in results:
        print(f"{result['name']} {_shown(result, 'value')}   {result['signature']}{_change(result)}")


def score(
    run: Run,
    source: Annotated[str | None, typer.Option(help="Sentences.")] = None,
    target: Annotated[str | None, typer.Option(help="What is to be scored as their translations.")] = None,
    text: Annotated[str | None, typer.Option(help="Texts, one a line, for a language or a masked model.")] = None,
    length_penalty: Penalty = 0.6,
    precision: Precision = "auto",
    threads: Threads = 0,
    batch_tokens: BatchTokens = 4096,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """How likely a run finds given text: one number a line.

    A translator's is the score that `qkv translate --scores` reports; a language model's the log-probability of the line and its
    end; a masked model's the sum of the log-probabilities of its tokens, each masked in its turn.
    """
    from qkv.decode.engine import usable
    from qkv.decode.translate import Translator

    if (text is None) == (source is None) or (source is None) != (target is None):
        raise QkvError("give --source and --target for a translator, or --text for a language model or a masked model")
    model = usable(loaded(run, device, precision, threads))
    if isinstance(model, Translator):
        if source is None or target is None:
            raise QkvError(f"{run} is a translator: give --source and --target")
        sources, targets = _parallel(source, target)
        found = model.score(sources, targets, length_penalty, batch_tokens=batch_tokens)
    elif text is None:
        raise QkvError(f"{run} is no translator: give --text")
    else:
        found = model.score([line for lines in chunks(text) for line in lines])
    if json:
        print(json_.dumps(found))
        return
    for value in found:
        print(f"{value:.6f}")


def _measured(run: Path, given: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """What is to be measured of a run, which must be of a shape that goes with the text that was given."""
    from qkv.decode.load import SHAPES
    from qkv.model.transformer import Classifier, DecoderOnly, EncoderDecoder, EncoderOnly

    stored = loaded(run, options["device"], options["precision"], options["threads"])
    ways: dict[type, dict[str, Any]] = {
        EncoderDecoder: {"--source": _translations, "--world": _answers},
        DecoderOnly: {"--text": _likelihood, "--minimal-pairs": _agreement, "--last-words": _last_words}
        | dict.fromkeys(("--bytes", "--images", "--sounds"), _bits),
        EncoderOnly: {"--text": _restoration},
        Classifier: {"--table": _labels, "--stories": _labels},
    }
    known = ways[type(stored.model)]
    if given not in known:
        wanted = " or ".join("--source and --target" if name == "--source" else name for name in known)
        raise QkvError(f"{run} is {SHAPES[type(stored.model)][0]}: give {wanted}")
    return known[given](stored, options)


def _translations(stored: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    from qkv.decode.translate import Translator
    from qkv.train.evaluate import bleu, chrf

    sources, targets = _parallel(options["source"], options["target"])
    rule = beam_rule(options["beam"], options["length_penalty"], options["thorough"], options["prune"])
    translator = Translator(stored)
    warn_too_long(translator, sources, 0)
    found = [best[0].text for best in translator.translate(sources, rule, batch_tokens=options["batch_tokens"])]
    if options["output"]:
        with sink(options["output"]) as out:
            out.writelines(f"{line}\n" for line in found)
    return [vars(result) for result in (bleu(found, targets, options["tokenise"]), chrf(found, targets))]


def _answers(stored: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    from qkv.cli.train import drawn_from
    from qkv.decode.translate import Translator
    from qkv.train.measure import answers

    drawn = drawn_from(options["world"], options["number"], SEED)
    return answers(Translator(stored), drawn, options["batch_tokens"])


def _agreement(stored: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    from qkv.decode.generate import Writer
    from qkv.train.measure import agreement

    return agreement(Writer(stored), options["minimal_pairs"], options["batch_tokens"])


def _last_words(stored: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    from qkv.decode.generate import Writer
    from qkv.train.measure import last_words

    return last_words(Writer(stored), options["last_words"], options["batch_tokens"])


def _likelihood(stored: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    from qkv.cli.raw import OPTIONS
    from qkv.decode.generate import Writer
    from qkv.spec.data import Pictures, Sounds
    from qkv.train.measure import likelihood
    from qkv.train.run_folder import form_of

    form = form_of(options["run"])
    if isinstance(form, Pictures | Sounds):
        raise QkvError(f"{options['run']} learned from {form}: give {OPTIONS[type(form).__name__]}")
    wide = options["context"], options["stride"]
    return likelihood(Writer(stored), options["run"], _texts(options), *wide, options["batch_tokens"])


def _bits(stored: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    from qkv.cli.raw import OPTIONS, absolute
    from qkv.decode.generate import Writer
    from qkv.spec.data import Bytes
    from qkv.train.measure import bits
    from qkv.train.run_folder import form_of

    named = {"--bytes": options["bytes_"], "--images": options["images"], "--sounds": options["sounds"]}
    run, form = options["run"], form_of(options["run"])
    if form is None:
        raise QkvError(f"{run} did not learn from bytes: give --text")
    file = named[OPTIONS[type(form).__name__]]
    if file is None:
        raise QkvError(f"{run} learned from {form}: give {OPTIONS[type(form).__name__]}")
    where = Bytes(absolute([file]), form)
    return bits(Writer(stored), run, where, options["context"], options["stride"], options["batch_tokens"])


def _restoration(stored: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    from qkv.decode.read import Reader
    from qkv.train.measure import restoration

    return restoration(Reader(stored), _texts(options))


def _labels(stored: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    from qkv.decode.read import Reader
    from qkv.spec.data import Labelled, Stories
    from qkv.train.measure import labels

    if options["stories"] is not None:
        where: Labelled | Stories = Stories((options["stories"],))
    else:
        where = Labelled((options["table"],), two_fields(options["fields"], "--fields is TEXT,LABEL"))
    return labels(Reader(stored), where, options["picture"])


def _texts(options: dict[str, Any]) -> Any:
    from qkv.cli.train import texts_of

    return texts_of([options["text"]], options["documents"], options["documents"])


def _beside(rounded: dict[str, Any], exact: dict[str, Any]) -> dict[str, Any]:
    """What was measured in int8, with what it is in fp32 and the change in per cent, if there was anything to change."""
    before, now = exact["value"], rounded["value"]
    return rounded | {"fp32": before, "change_in_percent": 100 * (now / before - 1) if before else None}


def _shown(result: dict[str, Any], name: str) -> str:
    return f"{result[name]:.{result.get('digits', 2)}f}"


def _change(result: dict[str, Any]) -> str:
    if "fp32" not in result:
        return ""
    change = result["change_in_percent"]
    said = "" if change is None else f", which int8 changes by {change:+.2f}%"
    return f"   (fp32: {_shown(result, 'fp32')}{said})"


def _parallel(source: str, target: str) -> tuple[list[str], list[str]]:
    from qkv.data.text import read_pairs
    from qkv.spec.data import Files

    pairs = list(read_pairs(Files((source,), (target,))))
    return [s for s, _ in pairs], [t for _, t in pairs]
