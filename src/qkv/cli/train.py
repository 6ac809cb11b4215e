"""`qkv train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.console import Watcher, warn
from qkv.error import QkvError, unknown

MODEL = "transformer-small"  # where none is named

Text = Annotated[
    list[str] | None, typer.Option(help="Plain text or .gz, a sentence a line; several files are read one after the other.")
]


def translate(
    out: Annotated[Path, typer.Option(help="The run folder.")],
    model: Annotated[str | None, typer.Option(help=f"A named model, {MODEL} if none is; `qkv models` lists them.")] = None,
    source: Text = None,
    target: Text = None,
    valid_source: Text = None,
    valid_target: Text = None,
    pairs: Annotated[list[str] | None, typer.Option(help="Both sides in one .tsv or .jsonl (or .gz).")] = None,
    valid_pairs: Annotated[list[str] | None, typer.Option(help="The same for validation.")] = None,
    fields: Annotated[str | None, typer.Option(help="The two columns of --pairs: names, or numbers from 1.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe by name or file; a run's run.toml is one.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change one place, as in schedule='Noam(warmup=2000)'.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="bpe, unigram, bytes or characters.")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Entries, exactly; without it at most 10000.")] = None,
    separate: Annotated[bool, typer.Option("--separate", help="A vocabulary for each side.")] = False,
    longest: Annotated[int | None, typer.Option(help="Longer pairs, in tokens, are left out.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train for so many steps.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Train for so many passes over the text.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train for so long.")] = None,
    batch_tokens: Annotated[int | None, typer.Option(help="Positions of a batch on either side.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches a step adds up.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides initial values, order and dropout.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves it to PyTorch.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write events to RUN/tensorboard.")] = False,
) -> None:
    """Train an encoder-decoder to translate.

    Give the text as --source and --target, or as --pairs. Without validation text 1% of the pairs is held out.
    """
    from qkv import device as machine
    from qkv.papers.catalogue import entry
    from qkv.spec import run as spec
    from qkv.spec.data import Exactly
    from qkv.train.loop import Interrupted
    from qkv.train.run import train
    from qkv.train.run_folder import RECIPE, read_run

    if resume and (out / RECIPE).is_file():
        base: spec.Run | None = read_run(out / RECIPE)
    else:
        base = read_run(find_recipe(recipe)) if recipe else None
    texts = {"train": _text(source, target, pairs, fields), "valid": _text(valid_source, valid_target, valid_pairs, fields)}
    given: dict[str, Any] = {name: text for name, text in texts.items() if text is not None}
    given |= _given(
        model=model, longest=longest, seed=seed, device=device, precision=precision, budget=_budget(steps, epochs, minutes)
    )
    if base is None:
        if resume and "train" not in given:
            raise QkvError(f"there is no run in {out} to go on with")
        if "train" not in given:
            raise QkvError("no training text: give --source and --target, or --pairs and --fields, or a --recipe that names them")
        name = given.get("model", MODEL)
        base = spec.Run(name, given["train"], **vars(entry(name).practice))
    cut = _given(
        kind=tokenizer, vocabulary=Exactly(vocabulary) if vocabulary is not None else None, joint=False if separate else None
    )
    batching = _given(tokens=batch_tokens, accumulate=accumulate)
    given |= {"tokenizer": _replaced(base.tokenizer, cut), "batching": _replaced(base.batching, batching)}
    run = _changed(_replaced(base, given), set_ or [])

    machine.prepare(threads)
    mirror = None
    if tensorboard:
        from qkv.train.tensorboard import Board

        mirror = Board(out / "tensorboard")
    with Watcher() as watch:
        try:
            train(run, out, watch, resume=resume, mirror=mirror)
        except Interrupted as stop:
            warn(f"stopped by a signal; everything is saved: go on with `qkv train translate --out {out} --resume`")
            raise typer.Exit(128 + stop.number) from None


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


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _replaced(value: Any, fields: dict[str, Any]) -> Any:
    from dataclasses import replace

    return replace(value, **fields)


def _changed(run: Any, settings: list[str]) -> Any:
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


def _text(source: list[str] | None, target: list[str] | None, pairs: list[str] | None, fields: str | None) -> Any:
    from qkv.spec.data import Files, Pairs

    if pairs:
        if source or target:
            raise QkvError("give the text either as a source and a target file or as pairs, not both")
        names = tuple((fields or "").split(","))
        if len(names) != 2 or not all(names):
            raise QkvError("--pairs needs --fields SOURCE,TARGET: the names of the two columns, or their numbers from 1")
        return Pairs(_absolute(pairs), (names[0].strip(), names[1].strip()))
    if bool(source) != bool(target):
        raise QkvError(f"a {'source' if source else 'target'} file was given, but no {'target' if source else 'source'} file")
    return Files(_absolute(source), _absolute(target)) if source and target else None


def _absolute(names: list[str]) -> tuple[str, ...]:
    """So that run.toml means the same from any folder."""
    return tuple(str(Path(name).absolute()) for name in names)


def _budget(steps: int | None, epochs: int | None, minutes: float | None) -> Any:
    from qkv.spec.run import Epochs, Minutes, Steps

    given: list[tuple[Any, float | None]] = [(Steps, steps), (Epochs, epochs), (Minutes, minutes)]
    chosen = [kind(value) for kind, value in given if value is not None]
    if len(chosen) > 1:
        raise QkvError("give one of --steps, --epochs and --minutes")
    return chosen[0] if chosen else None
