"""`qkv generate`."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.console import warn
from qkv.cli.use import Device, Json, Run, Threads, chunks, loaded, sink
from qkv.error import QkvError


def generate(
    run: Run,
    prompt: Annotated[
        str | None, typer.Argument(help="What to write on from; - reads prompts from standard input, one a line.")
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="A file of prompts, one a line, written on together.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Of a run that learned from pictures or sounds: the PNG or the WAV to write.")
    ] = None,
    complete: Annotated[
        Path | None, typer.Option(help="A picture whose top is kept, or a sound to go on from; the rest is written.")
    ] = None,
    keep: Annotated[
        float | None, typer.Option(help="The share of --complete that is kept: half of a picture, all of a sound unless said.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="Tokens to write at most: 200 unless said; of a sound its samples, one second's.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(help="Continuations of each prompt, or pictures: 1 unless said, or one of each of the --groups."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the dice: the same seed writes the same text.")] = 0,
    greedy: Annotated[bool, typer.Option("--greedy", help="The most likely token every time.")] = False,
    temperature: Annotated[float | None, typer.Option(help="Below 1 the likely become likelier.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many of the likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest that make up this share of probability.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Draw from those at least so likely as this share of the likeliest.")
    ] = None,
    typical: Annotated[float | None, typer.Option(help="Draw from the least surprising surprises, of this share.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1, tokens that were there become less likely.")] = None,
    no_repeat: Annotated[int | None, typer.Option(help="No run of so many tokens twice.")] = None,
    ban: Annotated[
        list[str] | None, typer.Option(help="Text none of whose tokens is to be written; may be given several times.")
    ] = None,
    allow: Annotated[list[str] | None, typer.Option(help="Text of whose tokens alone is to be written, besides the end.")] = None,
    beam: Annotated[int | None, typer.Option(help="Search with so many hypotheses instead of drawing.")] = None,
    length_penalty: Annotated[float, typer.Option(help="Of the beam.")] = 0.6,
    groups: Annotated[int | None, typer.Option(help="Diverse beam search: so many groups of --beam hypotheses.")] = None,
    diversity: Annotated[float, typer.Option(help="How far groups keep away from each other.")] = 0.5,
    contrastive: Annotated[
        float | None, typer.Option(help="Contrastive search with this penalty, among --top-k tokens (4).")
    ] = None,
    draft: Annotated[Path | None, typer.Option(help="A smaller run that proposes tokens: the same distribution, sooner.")] = None,
    ahead: Annotated[int, typer.Option(help="Tokens that the draft proposes at a time.")] = 4,
    stop: Annotated[list[str] | None, typer.Option(help="Write up to this string; may be given several times.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show the text as it comes.")] = False,
    only_new: Annotated[bool, typer.Option("--only-new", help="Leave the prompt out of what is printed.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or int8.")] = "auto",
    threads: Threads = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Write on from a prompt, or from many at once. Without options tokens are drawn as likely as the model finds them.

    A run that learned from pictures writes a PNG, in which --count of them stand beside each other; one that learned from sounds
    writes a WAV.
    """
    from qkv.cli import paint
    from qkv.decode.diverse import Diverse
    from qkv.decode.generate import Greedy, Sample, Writer
    from qkv.decode.load import INT8

    if paint.asked(run, out, complete, keep):
        return paint.write(locals())
    length = 200 if length is None else length
    if prompt is not None and prompts is not None:
        raise QkvError("give one prompt, or a file of them by --prompts, not both")
    writer = Writer(loaded(run, device, precision, threads))
    how = how_of(locals(), writer)
    rules = rules_of(locals(), writer)
    given = _prompts(prompt, prompts)
    if stream and (json or len(given) != 1 or count not in (None, 1) or not isinstance(how, Greedy | Sample)):
        raise QkvError("--stream shows one text as it is drawn: one prompt, no --count, --json, --beam, --contrastive, --draft")
    _warn_little_room(writer, given, length)
    if precision == INT8:
        warn_rounded(run, writer)
    choice = {"length": length, "stop": stop or []}
    with sink(output) as file:
        if stream:
            print("" if only_new else given[0], end="", file=file, flush=True)
            for piece in writer.stream(given[0], how, rules, **choice):
                print(piece, end="", file=file, flush=True)
            print(file=file)
            return
        usual = how.groups if isinstance(how, Diverse) else 1
        found = writer.generate(given, how, rules, count=usual if count is None else count, **choice)
        for number, (each, continuations) in enumerate(zip(given, found, strict=True), 1):
            for continuation in continuations:
                print(_shown(number, "" if only_new else each, continuation, json), file=file)


def _shown(number: int, before: str, continuation: Any, json: bool) -> str:
    text = before + continuation.text
    if not json:
        return text
    record = {"prompt": number, "text": text, "tokens": len(continuation.tokens), "finished": continuation.finished}
    return json_.dumps(record, ensure_ascii=False)


def _warn_little_room(writer: Any, given: list[str], length: int) -> None:
    room = min(writer.places - len(writer.given(each)) for each in given)
    if room < length:
        warn(f"the model knows {writer.places} places: the longest prompt leaves room for {room} tokens, not {length}")


def warn_rounded(run: Path, writer: Any) -> None:
    """Say what the precision costs."""
    from qkv.train.rounding import cost

    found = cost(run, writer)
    unknown = "the text of the run is gone, so nobody knows what int8 costs: `qkv evaluate --text F --precision int8` measures it"
    warn(unknown if found is None else str(found))


def _prompts(prompt: str | None, file: str | None) -> list[str]:
    """The prompts; an empty one where none is given: the model begins by itself."""
    if file is None and prompt != "-":
        return [prompt or ""]
    found = [line for chunk in chunks(file or "-") for line in chunk]
    if not found:
        raise QkvError(f"{file or 'standard input'} holds no prompts: expected one a line")
    return found


def how_of(options: dict[str, Any], writer: Any) -> Any:
    """The one way of choosing tokens that the options describe."""
    from qkv.decode.contrast import Contrastive
    from qkv.decode.diverse import Diverse
    from qkv.decode.generate import Greedy, Sample, Writer
    from qkv.decode.load import finished
    from qkv.decode.rule import Beam
    from qkv.decode.speculate import Speculative

    asked = {"greedy": options["greedy"]} | {name: options[name] is not None for name in ("beam", "contrastive", "draft")}
    ways = [name for name, whether in asked.items() if whether]
    if len(ways) > 1:
        raise QkvError(f"{' and '.join(f'--{name}' for name in ways)} are different ways to choose a token: give one of them")
    if options["groups"] is not None and "beam" not in ways:
        raise QkvError("--groups are groups of beams: give --beam, too, as the number of hypotheses in each")
    if "greedy" in ways:
        return Greedy()
    if "contrastive" in ways:
        return Contrastive(4 if options["top_k"] is None else options["top_k"], options["contrastive"])
    if "draft" in ways:
        stored = finished(options["draft"], device=options["device"], precision=options["precision"])
        if stored.target.fingerprint != writer.tokenizer.fingerprint:
            raise QkvError(f"{options['draft']} has another tokenizer than the run that it is to be the draft of")
        return Speculative(Writer(stored).model, options["ahead"], options["seed"])
    if "beam" not in ways:
        return Sample(options["seed"])
    if options["groups"] is None:
        return Beam(options["beam"], options["length_penalty"])
    return Diverse(options["groups"], options["beam"], options["diversity"], options["length_penalty"])


def rules_of(options: dict[str, Any], writer: Any) -> list[Any]:
    """The rules, promises about tokens first, in the order in which Hugging Face applies its own."""
    from qkv.decode import sample

    made: list[Any] = []
    for name, rule in (("ban", sample.Ban), ("allow", sample.Allow)):
        if options[name]:
            tokens = {token for ids in writer.tokenizer.encode(options[name]) for token in ids}
            made.append(rule(tuple(sorted(tokens | ({writer.symbols.end} if name == "allow" else set())))))
    narrowing = (
        ("repetition_penalty", sample.Repetition),
        ("no_repeat", sample.NoRepeat),
        ("temperature", sample.Temperature),
        ("top_k", sample.TopK),
        ("top_p", sample.TopP),
        ("min_p", sample.MinP),
        ("typical", sample.Typical),
    )
    for name, rule in narrowing:
        if options[name] is not None and not (name == "top_k" and options["contrastive"] is not None):
            made.append(rule(options[name]))
    return made
