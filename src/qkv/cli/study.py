"""What `qkv compare` and `qkv scale run` share: how their options become runs, all alike but for the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.train import changed, cut_of, pairs_of, said_of, texts_of
from qkv.error import QkvError

Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        "--dask",
        help="The address of a dask scheduler, whose workers train instead: tcp://HOST:8786. They must see --out and the text.",
    ),
]
OWN = ("budget", "seed", "train", "valid", "objective", "start", "evaluation", "checkpoints", "stopping", "model")


@dataclass(frozen=True)
class Given:
    """The text that all members learn from, the text that they are validated on, and what they learn; and the text that they are
    tested on, where there is some."""

    train: Any
    valid: Any
    test: Any
    translates: bool
    wanted: str  # the options that give the text

    @property
    def kind(self) -> str:
        """The kind of tokenizer, where none is named."""
        return "bpe" if self.translates else "bytes"


def given(options: dict[str, Any]) -> Given:
    """The text that options name. Raises QkvError where they name text of two kinds."""
    fields, documents = options["fields"], options["documents"]
    pairs, texts = {}, {}
    for name, before in (("train", ""), ("valid", "valid_"), ("test", "test_")):
        source, target, table, text = (options[f"{before}{each}"] for each in ("source", "target", "pairs", "text"))
        pairs[name] = pairs_of(source, target, table, fields)
        texts[name] = texts_of(text, documents, "whole")
    if any(pairs.values()) and any(texts.values()):
        raise QkvError("give pairs to translate (--source and --target, or --pairs), or --text to write on: not both")
    translates = any(pairs.values())
    chosen = pairs if translates else texts
    wanted = "--source and --target, --pairs and --fields, or --text"
    return Given(chosen["train"], chosen["valid"], chosen["test"], translates, wanted)


def begun(model: str, text: Given) -> Any:
    """The run of a named model on some text, as that model is trained unless something else is said."""
    from qkv.papers.catalogue import entry
    from qkv.spec.data import Tokenizer
    from qkv.spec.objective import Generate, Translate
    from qkv.spec.run import Run

    known = entry(model)  # a name that nobody knows is said first
    if text.train is None:
        raise QkvError(f"no training text: give {text.wanted}, or a --recipe that names it")
    if model.endswith(".json"):
        model = str(Path(model).absolute())
    objective = Translate() if text.translates else Generate()
    return Run(model, text.train, objective=objective, tokenizer=Tokenizer(text.kind), **vars(known.practice))


def alike(runs: Sequence[Any], text: Given, options: dict[str, Any], seed: int) -> list[Any]:
    """Runs that learn from the same text, cut in the same way, in the same batches: as options say, or else as the first does."""
    from dataclasses import replace

    from qkv.spec.data import HeldOut

    first = runs[0]
    cut = cut_of(options["tokenizer"], options["vocabulary"]) | said_of(joint=False if options["separate"] else None)
    shared = {
        "tokenizer": replace(first.tokenizer, **cut),
        "batching": replace(first.batching, **said_of(tokens=options["batch_tokens"])),
        "longest": options["longest"] or first.longest,
        "evaluation": replace(first.evaluation, **said_of(tokenise=options["tokenise"])),
    }
    shared |= said_of(device=options["device"], precision=options["precision"])
    if text.train is not None:
        shared |= {"train": text.train, "valid": text.valid or HeldOut()}
    elif text.valid is not None:
        shared |= {"valid": text.valid}
    found = []
    for run in runs:
        own = shared if text.train is not None else {name: value for name, value in shared.items() if name != "tokenizer" or cut}
        run = changed(replace(run, **own), refused_own(options["set_"] or []))
        if isinstance(run.valid, HeldOut):  # all seeds are validated on the same text
            run = replace(run, valid=replace(run.valid, seed=seed))
        found.append(run)
    return found


def refused_own(settings: list[str]) -> list[str]:
    """The settings. Raises QkvError for one of what a study decides on itself."""
    for setting in settings:
        place = setting.partition("=")[0].partition(".")[0].strip()
        if place in OWN:
            raise QkvError(f"--set {setting}: a study decides on the {place} of its members itself")
    return settings


def share_of(options: dict[str, Any]) -> Any:
    """What every member may spend. Raises QkvError where that is not said, or said twice."""
    from qkv.spec.run import Minutes, Steps
    from qkv.spec.study import Operations, Predictions

    kinds: dict[str, Any] = {"steps": Steps, "tokens": Predictions, "flops": Operations, "minutes": Minutes}
    said = [kind(options[name]) for name, kind in kinds.items() if options[name] is not None]
    if len(said) != 1:
        what = "the members have one budget" if said else "nothing says how long the members are trained"
        raise QkvError(f"{what}: give one of --steps, --tokens, --flops and --minutes")
    return said[0]


def numbers(text: str, option: str, kind: type = int) -> tuple[Any, ...]:
    """Numbers, parted by commas."""
    try:
        return tuple(kind(each.replace("_", "")) for each in text.split(","))
    except ValueError:
        what, example = ("whole numbers", "1,2,3") if kind is int else ("numbers", "5,10,20")
        raise QkvError(f"{option} is a list of {what}, such as {example}, not {text!r}") from None
