"""The command `qkv`: its verbs, each imported when it is called, so that `qkv --help` answers without waiting for torch."""

from __future__ import annotations

import sys

import typer

from qkv.cli import (
    attend,
    compare,
    demo,
    evaluate,
    evolve,
    export,
    generate,
    import_,
    inspect,
    ladder,
    look,
    read,
    scale,
    train,
    use,
)
from qkv.cli.console import hush
from qkv.error import QkvError, QkvFailure

app = typer.Typer(
    help="The transformer family: train it on your own text, use it, look into it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
training = typer.Typer(help="Train a model into a run folder.", no_args_is_help=True, rich_markup_mode=None)
looking = typer.Typer(help="Pictures of what a model does.", no_args_is_help=True, rich_markup_mode=None)
scaling = typer.Typer(
    help="How loss falls with size: a ladder of models, and its power law.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(training, name="train")
for verb in (train.translate, train.generate, train.fill, train.denoise, train.classify):
    training.command()(verb)
app.command()(use.translate)
app.command()(generate.generate)
app.command()(read.fill)
app.command()(read.embed)
app.command()(read.classify)
app.command()(evaluate.evaluate)
app.command()(evaluate.score)
app.command()(compare.compare)
app.command()(evolve.evolve)
app.add_typer(scaling, name="scale")
scaling.command("run")(ladder.run)
scaling.command("fit")(scale.fit)
scaling.command("predict")(scale.predict)
app.command()(attend.attend)
app.add_typer(looking, name="look")
looking.command("heads")(look.heads)
looking.command("ponder")(look.ponder)
looking.command("pattern")(look.pattern)
looking.command("positions")(look.positions)
looking.command("cell")(look.cell)
looking.command("search")(look.search)
app.command()(inspect.models)
app.command()(inspect.verify)
app.command()(inspect.doctor)
app.command("import")(import_.import_)
app.command()(export.export)
app.command()(demo.demo)


def main() -> None:
    """Run a command: exit code 2 for a wrong call or bad input, 1 for a failure, and no traceback for either."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a reader who is gone is no error
    except QkvFailure as error:
        _stop(error, 1)
    except QkvError as error:
        _stop(error, 2)
    except BrokenPipeError:
        hush()
        sys.exit(0)
    except OSError as error:
        _stop(QkvFailure(f"{error.filename or 'output'}: {error.strerror or error}"), 1)


def _stop(error: QkvError, code: int) -> None:
    print(f"qkv: {error}", file=sys.stderr)
    sys.exit(code)
