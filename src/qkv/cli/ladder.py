"""`qkv scale run`: a ladder of sizes and token counts."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.console import Watcher, duration, warn
from qkv.cli.evolve import options_given
from qkv.cli.study import Cluster, alike, begun, given, numbers
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
)
from qkv.cli.use import Json
from qkv.error import QkvError

MAY_CHANGE = ("out", "resume", "threads", "cluster", "json")  # between a ladder and its going on
SIZE = {"member": ("name", ""), "parameters": ("parameters", ",")}
SPENT = {"tokens": ("tokens", ",.0f"), "FLOPs": ("flops", ".3g")}
PLAN = {
    **SIZE,
    "width": ("width", ""),
    **SPENT,
    "6ND": ("6ND", ".3g"),
    "steps": ("steps", ","),
    "epochs": ("epochs", ".2f"),
    "about": ("seconds", "time"),
}
RESULT = {
    **SIZE,
    "without embeddings": ("parameters_without_embeddings", ","),
    **SPENT,
    "loss": ("loss", ".4f"),
    "time": ("seconds", "time"),
}


def run(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="The folder of the ladder.")],
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="A named model, or a file, in all its sizes; several are laddered beside each other."),
    ] = None,
    source: Parallel = None,
    target: Parallel = None,
    valid_source: Same = None,
    valid_target: Same = None,
    pairs: Tables = None,
    valid_pairs: Same = None,
    fields: Fields = None,
    text: Texts = None,
    valid_text: Same = None,
    documents: Documents = None,
    set_: Set = None,
    tokenizer: Tokenizer = None,
    vocabulary: Vocabulary = None,
    separate: Separate = False,
    longest: Longest = None,
    batch_tokens: BatchTokens = None,
    budget: Annotated[
        float | None, typer.Option(help="Floating operations of all members together, such as 1e15, counted in full.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes of all members together, one after the other.")] = None,
    sizes: Annotated[int, typer.Option(help="How many sizes there are of each model.")] = 6,
    span: Annotated[float, typer.Option(help="How many times the parameters of the smallest the largest has.")] = 100.0,
    apart: Annotated[
        float | None,
        typer.Option(help="How many times those of the next size the largest has; as many as the others unless said."),
    ] = None,
    tokens_per_parameter: Annotated[
        str | None, typer.Option(help="The tokens that each size is trained on, over its parameters; 5,10,20 unless said.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Or the tokens that every size is trained on, such as 1e6,3e6,1e7.")] = None,
    seed: Annotated[int, typer.Option(help="Decides initial values, order and dropout.")] = 1,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = 0,
    cluster: Cluster = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the plan, and do nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the ladder in OUT.")] = False,
    json: Json = False,
) -> None:
    """Train a model in several sizes, each on several numbers of tokens, for what a budget comes to; gpt-tiny or transformer-tiny
    unless models are named.

    Sizes are made by changing width, depth, heads and hidden widths in proportion. The plan, with its cost and about how long it
    takes, is shown before anything starts. Every member is a run in OUT/members with a cosine as long as itself; OUT/ladder.csv
    has a row for each as soon as it is trained, for `qkv scale fit`.
    """
    from qkv import device as machine
    from qkv.study.folder import read_study
    from qkv.study.ladder import NAME, TABLE, climb, plan_of, prepared
    from qkv.train.cluster import by_dask
    from qkv.train.loop import Interrupted

    options = locals()
    if plan and resume:
        raise QkvError("--plan shows what a new ladder would be, and a ladder that goes on has its plan: leave out --resume")
    ladder = read_study(out, NAME) if resume and not options_given(context, MAY_CHANGE) else _ladder(models or [], options)
    machine.prepare(threads)  # so that the steps which are timed are like those which are made
    with Watcher() as watch:
        if plan:
            found = plan_of(ladder, prepared(ladder, watch))
            print(json_.dumps(_rows(found), indent=1) if json else _said(found))
            return
        try:
            made = None if cluster is None else by_dask(cluster)
            rows = climb(ladder, out, watch, _show, resume=resume, threads=threads, cluster=made)
        except Interrupted as stop:
            warn(f"stopped by a signal; everything is saved: go on with `qkv scale run {out} --resume`")
            raise typer.Exit(128 + stop.number) from None
    if json:
        print(json_.dumps(rows, indent=1))
        return
    print(_table(rows, RESULT), end="")
    print(out / TABLE)


def _ladder(models: list[str], options: dict[str, Any]) -> Any:
    """The ladder that the options describe."""
    from qkv.spec.run import Minutes
    from qkv.spec.study import Apart, Contender, Evenly, Ladder, Operations

    if (options["budget"] is None) == (options["minutes"] is None):
        raise QkvError("say what the whole ladder may cost: either --budget, in floating operations, or --minutes")
    text = given(options | dict.fromkeys(("test_source", "test_target", "test_pairs", "test_text", "tokenise")))
    names = models or ["transformer-tiny" if text.translates else "gpt-tiny"]
    runs = alike([begun(name, text) for name in names], text, options | {"tokenise": None}, options["seed"])
    contenders = tuple(
        Contender(Path(name).stem if name.endswith(".json") else name, each) for name, each in zip(names, runs, strict=True)
    )
    whole = Operations(options["budget"]) if options["minutes"] is None else Minutes(options["minutes"])
    largest = Evenly() if options["apart"] is None else Apart(options["apart"])
    return Ladder(contenders, whole, options["sizes"], options["span"], _tokens(options), options["seed"], largest)


def _tokens(options: dict[str, Any]) -> Any:
    """On how many tokens each size is trained."""
    from qkv.spec.study import Counts, Ratios

    ratios, counts = options["tokens_per_parameter"], options["tokens"]
    if ratios is not None and counts is not None:
        raise QkvError("give --tokens, the same for every size, or --tokens-per-parameter: not both")
    if counts is not None:
        return Counts(numbers(counts, "--tokens", float))
    return Ratios() if ratios is None else Ratios(numbers(ratios, "--tokens-per-parameter", float))


def _rows(plan: Any) -> list[dict[str, Any]]:
    from qkv.study.ladder import table

    return table(plan)


def _show(plan: Any) -> None:
    print(_said(plan), file=sys.stderr)


def _said(plan: Any) -> str:
    """A plan in words: a row for each member, and what all of them cost."""
    from qkv.study.plan import REPEATED

    rows = _rows(plan)
    whole = f"{len(rows)} members, {plan.operations:.3g} FLOPs, about {duration(plan.whole)} one after the other on this machine"
    often = sum(row["epochs"] > REPEATED for row in rows)
    warning = (
        f"\nwarning: {often} of them read the text more than {REPEATED} times, which teaches less than as much new text would: "
        f"a law that is fitted to them says less of the size than of the text"
    )
    return f"{_table(rows, PLAN)}{whole}{warning if often else ''}"


def _table(rows: list[dict[str, Any]], columns: dict[str, tuple[str, str]]) -> str:
    """Rows as a table, its columns by name: which number each shows, and how."""
    from qkv.study.report import aligned

    cells = [[duration(row[name]) if how == "time" else format(row[name], how) for name, how in columns.values()] for row in rows]
    return aligned([list(columns), *cells])
