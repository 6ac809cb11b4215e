"""`qkv train`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli import raw
from qkv.cli.console import Watcher, warn
from qkv.error import QkvError, unknown

Out = Annotated[Path, typer.Option(help="The run folder.")]
Model = Annotated[str | None, typer.Option(help="A named model, as `qkv models` lists them, or a file such as RUN/model.json.")]
Parallel = Annotated[
    list[str] | None, typer.Option(help="Plain text or .gz, a sentence a line; several files are read one after the other.")
]
Texts = Annotated[list[str] | None, typer.Option(help="Plain text or .gz; may be given several times.")]
Same = Annotated[list[str] | None, typer.Option(help="The same for validation.")]
Tables = Annotated[list[str] | None, typer.Option(help="A .tsv or .jsonl (or .gz); may be given several times.")]
Documents = Annotated[
    str | None, typer.Option(help="What is a document: `whole` files, `lines`, or `paragraphs` parted by empty lines.")
]
From = Annotated[
    str | None, typer.Option("--from", help="Start from a finished run: all of its model, or its encoder, and its tokenizers.")
]
Recipe = Annotated[str | None, typer.Option(help="A recipe by name or file; a run's run.toml is one.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change one place, as in schedule='Noam(warmup=2000)'.")]
Tokenizer = Annotated[str | None, typer.Option(help="bpe, unigram, bytes or characters.")]
Vocabulary = Annotated[int | None, typer.Option(help="Entries, exactly; without it at most 10000.")]
Longest = Annotated[int | None, typer.Option(help="The longest text, or piece of one, in tokens.")]
NumberOfSteps = Annotated[int | None, typer.Option(help="Train for so many steps.")]
NumberOfEpochs = Annotated[int | None, typer.Option(help="Train for so many passes over the text.")]
NumberOfMinutes = Annotated[float | None, typer.Option(help="Train for so long.")]
BatchTokens = Annotated[int | None, typer.Option(help="Positions of a batch on either side.")]
Accumulate = Annotated[int | None, typer.Option(help="Batches a step adds up.")]
TextAndLabel = Annotated[str, typer.Option(help="The columns of the text and of the label: names, or numbers from 1.")]
Fields = Annotated[str | None, typer.Option(help="The two columns of --pairs: names, or numbers from 1.")]
Separate = Annotated[bool, typer.Option("--separate", help="A vocabulary for each side.")]
Seed = Annotated[int | None, typer.Option(help="Decides initial values, order and dropout.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 leaves it to PyTorch.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Also write events to RUN/tensorboard.")]


def translate(
    out: Out,
    model: Model = None,
    source: Parallel = None,
    target: Parallel = None,
    valid_source: Parallel = None,
    valid_target: Parallel = None,
    pairs: Annotated[list[str] | None, typer.Option(help="Both sides in one .tsv or .jsonl (or .gz).")] = None,
    valid_pairs: Annotated[list[str] | None, typer.Option(help="The same for validation.")] = None,
    fields: Fields = None,
    world: Annotated[str | None, typer.Option(help="Pairs of an algorithmic world, such as 'Copy(longest=40)'.")] = None,
    valid_world: Annotated[str | None, typer.Option(help="The same for validation.")] = None,
    number: Annotated[int, typer.Option(help="Pairs that are drawn from --world; a tenth of it from --valid-world.")] = 100_000,
    start: From = None,
    recipe: Recipe = None,
    set_: Set = None,
    tokenizer: Tokenizer = None,
    vocabulary: Vocabulary = None,
    separate: Separate = False,
    longest: Annotated[int | None, typer.Option(help="Longer pairs, in tokens, are left out.")] = None,
    steps: NumberOfSteps = None,
    epochs: NumberOfEpochs = None,
    minutes: NumberOfMinutes = None,
    batch_tokens: BatchTokens = None,
    accumulate: Accumulate = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = 0,
    resume: Resume = False,
    tensorboard: Tensorboard = False,
) -> None:
    """Train an encoder-decoder to translate; transformer-small unless another model is named.

    Give the text as --source and --target, or as --pairs. Without validation text 1% of the pairs is held out. With --world the
    pairs are questions and answers that are drawn on the spot: Copy, Reverse, Double and Addition of digits, and the programs
    AddProgram, Program and Control; Sorting and ConvexHull, whose answers are words of their questions. The tokenizer is then
    `characters`, or `words` of these two, unless another is named.
    """
    from qkv.spec.objective import Translate

    texts = {"train": pairs_of(source, target, pairs, fields), "valid": pairs_of(valid_source, valid_target, valid_pairs, fields)}
    for name, said, drawn in (("train", world, (number, 1)), ("valid", valid_world, (max(1, number // 10), 2))):
        if said is not None:
            if texts[name] is not None:
                raise QkvError("give the text in files or as a world, not both")
            texts[name] = drawn_from(said, *drawn)
    kind = "bpe" if world is None else _pieces(texts["train"])
    wanted = "--source and --target, --pairs and --fields, or --world"
    call = Call("translate", "transformer-small", Translate(), wanted, texts, out, resume, threads, tensorboard, kind=kind)
    cut = cut_of(tokenizer, vocabulary) | said_of(joint=False if separate else None)
    _train(call, model, start, recipe, set_, cut, locals())


def generate(
    out: Out,
    model: Model = None,
    text: Texts = None,
    valid_text: Texts = None,
    documents: Documents = None,
    bytes_: raw.Files = None,
    valid_bytes: Same = None,
    images: raw.Images = None,
    valid_images: Same = None,
    sounds: raw.Sounds = None,
    valid_sounds: Same = None,
    rate: raw.Rate = None,
    start: From = None,
    recipe: Recipe = None,
    set_: Set = None,
    tokenizer: Tokenizer = None,
    vocabulary: Vocabulary = None,
    longest: Longest = None,
    steps: NumberOfSteps = None,
    epochs: NumberOfEpochs = None,
    minutes: NumberOfMinutes = None,
    batch_tokens: BatchTokens = None,
    accumulate: Accumulate = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = 0,
    resume: Resume = False,
    tensorboard: Tensorboard = False,
) -> None:
    """Train a decoder to write on; gpt-tiny unless another model is named.

    Without validation text 1% of the documents is held out, or the last 1% of the lines of a single one. The tokenizer is
    `bytes` unless another is named: merges of bytes, to which no text is unknown. With --bytes, --images or --sounds there are no
    merges: every byte is a token. A picture is read whole, row by row, so that --longest is its number of bytes.
    """
    from qkv.spec.objective import Generate

    cut = cut_of(tokenizer, vocabulary)
    texts = {"train": texts_of(text, documents, "whole"), "valid": texts_of(valid_text, documents, "whole")}
    named = {"--bytes": bytes_, "--images": images, "--sounds": sounds}
    to_validate = {"--bytes": valid_bytes, "--images": valid_images, "--sounds": valid_sounds}
    given = {"train": raw.bytes_of(named, rate), "valid": raw.bytes_of(to_validate, rate if valid_sounds else None)}
    if any(given.values()):
        if any(texts.values()) or documents is not None or cut:
            raise QkvError("--text, --documents, --tokenizer and --vocabulary are for text, which bytes are not: leave them out")
        texts, cut = given, {} if start is not None else {"kind": "bytes", "vocabulary": _every_byte()}
        longest = longest or _size(given["train"])
    wanted = "--text, --bytes, --images or --sounds"
    call = Call("generate", "gpt-tiny", Generate(), wanted, texts, out, resume, threads, tensorboard, kind="bytes")
    _train(call, model, start, recipe, set_, cut, locals())


def fill(
    out: Out,
    model: Model = None,
    text: Texts = None,
    valid_text: Texts = None,
    documents: Documents = None,
    start: From = None,
    recipe: Recipe = None,
    set_: Set = None,
    tokenizer: Tokenizer = None,
    vocabulary: Vocabulary = None,
    longest: Longest = None,
    steps: NumberOfSteps = None,
    epochs: NumberOfEpochs = None,
    minutes: NumberOfMinutes = None,
    batch_tokens: BatchTokens = None,
    accumulate: Accumulate = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = 0,
    resume: Resume = False,
    tensorboard: Tensorboard = False,
) -> None:
    """Train an encoder to fill in masked words (BERT); bert-tiny unless another model is named.

    Of the tokens 15% are to be restored, of which 80% are masked and 10% replaced; --set objective.share=0.3 changes that. Every
    line is a document unless --documents says otherwise.
    """
    from qkv.data.symbols import MASK
    from qkv.spec.objective import MaskedWords

    texts = {"train": texts_of(text, documents, "lines"), "valid": texts_of(valid_text, documents, "lines")}
    call = Call("fill", "bert-tiny", MaskedWords(), "--text", texts, out, resume, threads, tensorboard, extra=(MASK,))
    _train(call, model, start, recipe, set_, cut_of(tokenizer, vocabulary), locals())


def denoise(
    out: Out,
    model: Model = None,
    text: Texts = None,
    valid_text: Texts = None,
    documents: Documents = None,
    noise: Annotated[str | None, typer.Option(help="spans (T5), if nothing is said, or infill (BART).")] = None,
    start: From = None,
    recipe: Recipe = None,
    set_: Set = None,
    tokenizer: Tokenizer = None,
    vocabulary: Vocabulary = None,
    longest: Longest = None,
    steps: NumberOfSteps = None,
    epochs: NumberOfEpochs = None,
    minutes: NumberOfMinutes = None,
    batch_tokens: BatchTokens = None,
    accumulate: Accumulate = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = 0,
    resume: Resume = False,
    tensorboard: Tensorboard = False,
) -> None:
    """Train an encoder-decoder to restore text (T5, BART), for a later `qkv train translate --from`; t5-tiny unless named.

    With --noise spans, 15% of the tokens are taken out in spans of 3; with infill, 30% are, behind one mask for each span, and
    sentences are out of order. --set objective='Delete(0.15)' or 'Rotate()' say other noises.
    """
    from typing import get_args

    from qkv.data.symbols import MASK, SENTINELS
    from qkv.spec.objective import Infill, Noise, Spans

    noises = {"spans": (Spans(), SENTINELS, "t5-tiny"), "infill": (Infill(), (MASK,), "bart-tiny")}
    if noise is not None and noise not in noises:
        raise unknown("noise", noise, noises)
    objective, extra, default = noises[noise or "spans"]
    teaches = (type(objective),) if noise else get_args(Noise)
    texts = {"train": texts_of(text, documents, "lines"), "valid": texts_of(valid_text, documents, "lines")}
    call = Call("denoise", default, objective, "--text", texts, out, resume, threads, tensorboard, extra=extra, teaches=teaches)
    _train(call, model, start, recipe, set_, cut_of(tokenizer, vocabulary), locals())


def classify(
    out: Out,
    model: Model = None,
    table: Tables = None,
    valid_table: Tables = None,
    fields: Annotated[
        str, typer.Option(help="The columns of the text and of the label: names, or numbers from 1.")
    ] = "text,label",
    stories: Annotated[list[str] | None, typer.Option(help="Stories with questions, in files of bAbI (or .gz).")] = None,
    valid_stories: Annotated[list[str] | None, typer.Option(help="The same for validation.")] = None,
    start: From = None,
    recipe: Recipe = None,
    set_: Set = None,
    tokenizer: Tokenizer = None,
    vocabulary: Vocabulary = None,
    longest: Annotated[
        int | None, typer.Option(help="Longer texts lose their end, stories their beginning; how many did is said.")
    ] = None,
    steps: NumberOfSteps = None,
    epochs: NumberOfEpochs = None,
    minutes: NumberOfMinutes = None,
    batch_tokens: BatchTokens = None,
    accumulate: Accumulate = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = 0,
    resume: Resume = False,
    tensorboard: Tensorboard = False,
) -> None:
    """Train an encoder to tell the label of a text; bert-tiny from scratch unless --from names a run or --model a model.

    --from takes a run of `qkv train fill`, and also the encoder of a translator. With --stories the text is a story and a
    question, sentence by sentence, and the label is the answer; universal-bert-tiny reads it unless another model is named.
    """
    from qkv.spec.objective import Classify
    from qkv.spec.pooling import LastToken

    if stories:
        if table or valid_table:
            raise QkvError("give --table or --stories, not both")
        texts = {"train": stories_of(stories), "valid": stories_of(valid_stories)}
        named = {"kind": "words", "model": "universal-bert-tiny", "objective": Classify(LastToken())}
    else:
        texts = {"train": _tables(table, fields), "valid": _tables(valid_table, fields)}
        named = {"kind": "bpe", "model": "bert-tiny", "objective": Classify()}
    wanted = "--table, or --stories"
    call = Call("classify", wanted=wanted, texts=texts, out=out, resume=resume, threads=threads, tensorboard=tensorboard, **named)
    _train(call, model, start, recipe, set_, cut_of(tokenizer, vocabulary), locals())


@dataclass(frozen=True)
class Call:
    """What one verb of `qkv train` is about."""

    verb: str
    model: str  # where none is named
    objective: Any
    wanted: str  # the options that give the text
    texts: dict[str, Any]
    out: Path
    resume: bool
    threads: int
    tensorboard: bool
    kind: str = "bpe"
    extra: tuple[str, ...] = ()
    teaches: tuple[type, ...] = ()  # objectives that a recipe may have; none means that of the verb


def _train(
    call: Call,
    model: str | None,
    start: str | None,
    recipe: str | None,
    settings: list[str] | None,
    cut: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Run one verb; of its options, those that are named here are the run's."""
    from qkv import device as machine
    from qkv.spec.data import HeldOut
    from qkv.train.loop import Interrupted
    from qkv.train.run import train
    from qkv.train.run_folder import RECIPE, read_run

    given: dict[str, Any] = {name: text for name, text in call.texts.items() if text is not None}
    base: Any = None
    if call.resume and (call.out / RECIPE).is_file():
        base = read_run(call.out / RECIPE)
    elif recipe:
        base = recipe_on(recipe, given)
        if "train" in given and not isinstance(base.valid, HeldOut):  # what it is validated on belongs to its own text
            given = {"valid": HeldOut()} | given
    if model is not None and model.endswith(".json"):
        model = str(Path(model).absolute())  # run.toml means the same from any folder
    given |= said_of(model=model, **{name: options[name] for name in ("longest", "seed", "device", "precision")})
    given |= said_of(budget=_budget(options["steps"], options["epochs"], options["minutes"]))
    brought = {} if start is None else _brought(start, model, cut)
    if base is None:
        base = _begun(call, brought | given)
    elif isinstance(base.objective, call.teaches or type(call.objective)):
        given |= brought
    else:
        raise QkvError(f"{recipe or call.out} trains {type(base.objective).__name__}, which `qkv train {call.verb}` does not")
    batching = said_of(tokens=options["batch_tokens"], accumulate=options["accumulate"])
    given |= {"tokenizer": _replaced(base.tokenizer, cut), "batching": _replaced(base.batching, batching)}
    run = changed(_replaced(base, given), settings or [])

    machine.prepare(call.threads)
    mirror = None
    if call.tensorboard:
        from qkv.train.tensorboard import Board

        mirror = Board(call.out / "tensorboard")
    with Watcher() as watch:
        try:
            train(run, call.out, watch, resume=call.resume, mirror=mirror)
        except Interrupted as stop:
            warn(f"stopped by a signal; everything is saved: go on with `qkv train {call.verb} --out {call.out} --resume`")
            raise typer.Exit(128 + stop.number) from None


def _brought(start: str, model: str | None, cut: dict[str, Any]) -> dict[str, Any]:
    """What a run has from the one that it starts from."""
    from qkv.spec.run import From
    from qkv.train.run_folder import RECIPE, read_run

    if model is not None or cut:
        raise QkvError("--from brings its own model and tokenizers: leave out --model, --tokenizer, --vocabulary and --separate")
    folder = Path(start).absolute()
    known = folder / RECIPE
    return {"start": From(str(folder))} | ({"model": read_run(known).model} if known.is_file() else {})


def _begun(call: Call, given: dict[str, Any]) -> Any:
    """The run that a verb describes where no recipe does."""
    from qkv.papers.catalogue import entry
    from qkv.spec.data import Tokenizer
    from qkv.spec.run import Run
    from qkv.train.run_folder import RECIPE, read_run

    if "train" not in given:
        if call.resume:
            raise QkvError(f"there is no run in {call.out} to go on with")
        raise QkvError(f"no training text: give {call.wanted}, or a --recipe that names it")
    name, start = given.get("model", call.model), given.get("start")
    how: dict[str, Any] = vars(entry(name).practice) | said_of(start=start)
    if start is not None and (Path(start.run) / RECIPE).is_file():
        how["longest"] = read_run(Path(start.run) / RECIPE).longest
    return Run(name, given["train"], objective=call.objective, tokenizer=Tokenizer(call.kind, extra=call.extra), **how)


def find_recipe(name: str) -> Path:
    """A recipe by its file, or by its name among those that come with qkv."""
    if name.endswith(".toml"):
        return Path(name)
    package = Path(__file__).parents[1]
    known = {
        path.stem: path for folder in (package / "recipes", package.parents[1] / "recipes") for path in folder.glob("*.toml")
    }
    if name not in known:
        raise unknown("recipe", name, known)
    return known[name]


def recipe_on(name: str, texts: Collection[str]) -> Any:
    """The run of a recipe. Its own text need not be there where other text takes its place: `train` and what it is validated on,
    or `valid` alone."""
    from qkv.train.run_folder import read_run

    return read_run(find_recipe(name), ("train", "valid") if "train" in texts else texts)


def said_of(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def cut_of(kind: str | None, vocabulary: int | None) -> dict[str, Any]:
    """How text is to be cut, as far as options say."""
    from qkv.spec.data import Exactly

    return said_of(kind=kind, vocabulary=Exactly(vocabulary) if vocabulary is not None else None)


def _every_byte() -> Any:
    """The vocabulary of bytes."""
    from qkv.data.symbols import SPECIALS
    from qkv.spec.data import Exactly

    return Exactly(len(SPECIALS) + 256)


def _size(where: Any) -> int | None:
    """How long all documents of some bytes are, if they are pictures."""
    from qkv.spec.data import Pictures

    return where.form.size if where is not None and isinstance(where.form, Pictures) else None


def _replaced(value: Any, fields: dict[str, Any]) -> Any:
    from dataclasses import replace

    return replace(value, **fields)


def changed(run: Any, settings: list[str]) -> Any:
    """A setting changes the run where it names one of its fields, and else the model."""
    from dataclasses import fields, replace

    from qkv.spec import plain

    places = {f.name for f in fields(run)} - {"changes"}
    for setting in settings:
        if setting.partition("=")[0].partition(".")[0] in places:
            run = plain.change(run, setting)
        elif setting not in run.changes:
            run = replace(run, changes=(*run.changes, setting))
    return run


def pairs_of(source: list[str] | None, target: list[str] | None, pairs: list[str] | None, fields: str | None) -> Any:
    """Parallel text as a value, None where no option names any."""
    from qkv.spec.data import Files, Pairs

    if pairs:
        if source or target:
            raise QkvError("give the text either as a source and a target file or as pairs, not both")
        return Pairs(raw.absolute(pairs), two_fields(fields or "", "--pairs needs --fields SOURCE,TARGET"))
    if bool(source) != bool(target):
        raise QkvError(f"a {'source' if source else 'target'} file was given, but no {'target' if source else 'source'} file")
    return Files(raw.absolute(source), raw.absolute(target)) if source and target else None


def two_fields(fields: str, what: str) -> tuple[str, str]:
    """The two columns of a table, as one option names them."""
    names = tuple(name.strip() for name in fields.split(","))
    if len(names) != 2 or not all(names):
        raise QkvError(f"{what}: the names of the two columns, or their numbers from 1")
    return names[0], names[1]


def texts_of(files: list[str] | None, documents: str | None, default: str) -> Any:
    """Text files as a value, and what in them is a document."""
    from qkv.spec.data import Lines, Paragraphs, Texts, Whole

    kinds: dict[str, Any] = {"whole": Whole(), "lines": Lines(), "paragraphs": Paragraphs()}
    wanted = documents or default
    if wanted not in kinds:
        raise unknown("kind of document", wanted, kinds)
    return Texts(raw.absolute(files), kinds[wanted]) if files else None


def _tables(files: list[str] | None, fields: str) -> Any:
    from qkv.spec.data import Labelled

    return Labelled(raw.absolute(files), two_fields(fields, "--fields is TEXT,LABEL")) if files else None


def stories_of(files: list[str] | None) -> Any:
    """Files of stories as a value."""
    from qkv.spec.data import Stories

    return Stories(raw.absolute(files)) if files else None


def drawn_from(said: str, number: int, seed: int) -> Any:
    """So many pairs of the world that is written in an option."""
    from typing import get_args

    from qkv.spec import plain
    from qkv.spec.world import Drawn, World

    world = plain.parse(said if "(" in said else f"{said}()")
    if not isinstance(world, get_args(World)):
        raise unknown("world", said, [kind.__name__ for kind in get_args(World)])
    return Drawn(world, number, seed)


def _pieces(drawn: Any) -> str:
    """The tokenizer of a world's questions where nothing else is said."""
    from qkv.spec.world import POINTED

    return "words" if isinstance(drawn.world, POINTED) else "characters"


def _budget(steps: int | None, epochs: int | None, minutes: float | None) -> Any:
    from qkv.spec.run import Epochs, Minutes, Steps

    given: list[tuple[Any, float | None]] = [(Steps, steps), (Epochs, epochs), (Minutes, minutes)]
    chosen = [kind(value) for kind, value in given if value is not None]
    if len(chosen) > 1:
        raise QkvError("give one of --steps, --epochs and --minutes")
    return chosen[0] if chosen else None
