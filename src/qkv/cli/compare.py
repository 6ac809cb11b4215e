"""`qkv compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.console import Watcher, warn
from qkv.cli.evolve import options_given
from qkv.cli.study import Cluster, alike, begun, given, numbers, refused_own, share_of
from qkv.cli.train import (
    BatchTokens,
    Device,
    Documents,
    Fields,
    Longest,
    Parallel,
    Precision,
    Same,
    Separate,
    Set,
    Tables,
    Texts,
    Threads,
    Tokenizer,
    Vocabulary,
    changed,
    recipe_on,
    said_of,
)
from qkv.cli.use import Json
from qkv.error import QkvError

MAY_CHANGE = ("out", "resume", "threads", "cluster", "json")  # between a comparison and its going on
Test = Annotated[list[str] | None, typer.Option(help="The same, to judge the finished models by; else by validation text.")]


def compare(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The folder of the comparison.")],
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models by name or file, the first of which all others are tested against. Changes may follow one, parted by "
            "semicolons: 'gpt-tiny; decoder.depth=2'."
        ),
    ] = None,
    recipes: Annotated[list[str] | None, typer.Option("--recipe", help="A recipe, by name or file, as one more model.")] = None,
    source: Parallel = None,
    target: Parallel = None,
    valid_source: Same = None,
    valid_target: Same = None,
    test_source: Test = None,
    test_target: Test = None,
    pairs: Tables = None,
    valid_pairs: Same = None,
    test_pairs: Test = None,
    fields: Fields = None,
    text: Texts = None,
    valid_text: Same = None,
    test_text: Test = None,
    documents: Documents = None,
    set_: Set = None,
    tokenizer: Tokenizer = None,
    vocabulary: Vocabulary = None,
    separate: Separate = False,
    longest: Longest = None,
    batch_tokens: BatchTokens = None,
    tokenise: Annotated[
        str | None, typer.Option(help="sacreBLEU's tokenisation; `none` for text that is tokenised already.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="The budget: so many steps each.")] = None,
    tokens: Annotated[float | None, typer.Option(help="The budget: so many tokens predicted by each, such as 1e6.")] = None,
    flops: Annotated[float | None, typer.Option(help="The budget: so many floating operations each, such as 1e13.")] = None,
    minutes: Annotated[float | None, typer.Option(help="The budget: so many minutes each.")] = None,
    parameters: Annotated[
        int | None, typer.Option(help="Scale the width of each model until it has about so many parameters.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Train every model once with each of these seeds.")] = "1",
    device: Device = None,
    precision: Precision = None,
    threads: Threads = 0,
    cluster: Cluster = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the comparison in --out.")] = False,
    json: Json = False,
) -> None:
    """Compare models or recipes on one text, cut by one tokenizer, at one budget, with several seeds.

    Every member is a run in OUT/members, trained in a process of its own, with a cosine as long as its training. What of the text
    and its batches no option says is that of the first model. OUT/comparison.md is the table that is printed, .csv and .json hold
    all its digits, comparison.png the learning curves.
    """
    from qkv.study.compare import NAME
    from qkv.study.compare import compare as hold
    from qkv.study.folder import read_study
    from qkv.train.cluster import by_dask
    from qkv.train.loop import Interrupted

    if resume and not options_given(context, MAY_CHANGE):
        comparison = read_study(out, NAME)
    else:
        comparison = _comparison(models or [], recipes or [], locals())
    with Watcher() as watch:
        try:
            made = None if cluster is None else by_dask(cluster)
            report = hold(comparison, out, watch, resume=resume, threads=threads, cluster=made)
        except Interrupted as stop:
            warn(f"stopped by a signal; everything is saved: go on with `qkv compare --out {out} --resume`")
            raise typer.Exit(128 + stop.number) from None
    print(report.json() if json else report.markdown(), end="")


def _comparison(models: list[str], recipes: list[str], options: dict[str, Any]) -> Any:
    """The contest that the options describe."""
    from qkv.spec.search import AnyNumber
    from qkv.spec.study import About, Comparison, Contender, OnValidation

    if not models and not recipes:
        raise QkvError("name at least one model, as `qkv models` lists them, or a --recipe")
    share, chosen = share_of(options), given(options)
    seeds = numbers(options["seeds"], "--seeds")
    names, runs = [], []
    for each in models:
        name, *changes = (part.strip() for part in each.split(";"))
        names.append(_name(name, changes))
        runs.append(changed(begun(name, chosen), refused_own([change for change in changes if change])))
    for each in recipes:
        names.append(Path(each).stem)
        runs.append(recipe_on(each, said_of(train=chosen.train, valid=chosen.valid)))
    runs = alike(runs, chosen, options, min(seeds))
    parameters = options["parameters"]
    size = AnyNumber() if parameters is None else About(parameters)
    contenders = tuple(map(Contender, names, runs))
    return Comparison(contenders, share, size, seeds, chosen.test or OnValidation())


def _name(model: str, changes: list[str]) -> str:
    """What a model is called in the table."""
    stem = Path(model).stem if model.endswith(".json") else model
    return "; ".join([stem, *(change for change in changes if change)])
