"""`qkv evolve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.console import duration
from qkv.error import QkvError

MAY_CHANGE = ("out", "resume", "workers", "cluster")  # between a search and its going on


def evolve(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The folder of the search.")],
    recipe: Annotated[
        str | None, typer.Option(help="A recipe of `qkv train`, by name or file, such as RUN/run.toml: how children are trained.")
    ] = None,
    steps: Annotated[str, typer.Option(help="Steps of each stage, with a hurdle after each but the last.")] = "60,60,120",
    per_hurdle: Annotated[int, typer.Option(help="Children until the next hurdle is set.")] = 30,
    children: Annotated[int, typer.Option(help="Children in all.")] = 150,
    budget: Annotated[int, typer.Option(help="Steps of all children together, after which none is begun; 0 for any.")] = 0,
    population: Annotated[int, typer.Option(help="Members of the population.")] = 30,
    tournament: Annotated[int, typer.Option(help="Members among which a parent is chosen.")] = 10,
    mutation: Annotated[float, typer.Option(help="How probable it is that a field of a child is drawn anew.")] = 0.025,
    parameters: Annotated[str | None, typer.Option(help="How many parameters a child has: LEAST,MOST.")] = None,
    control: Annotated[
        str | None, typer.Option(help="`no-hurdles`: all children make all steps; `random`: all are drawn by chance.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long a child may take; 0 is for ever.")] = 0.0,
    workers: Annotated[int, typer.Option(help="Children that are trained beside each other; 0 is one for each CPU.")] = 0,
    cluster: Annotated[
        str | None, typer.Option(help="The address of a dask scheduler, whose workers train instead: tcp://HOST:8786.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change one place of the recipe, or of its model.")] = None,
    seed: Annotated[int, typer.Option(help="Decides who is chosen, and what is changed.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in --out.")] = False,
) -> None:
    """Search for a better architecture: cells are changed by chance and trained, and the fittest are changed again.

    It begins with the model of the recipe, whose norms stand before the sublayers. Every child is on disk as soon as it is ready;
    the best one is written to OUT/best.json, which `qkv train --model OUT/best.json` takes.
    """
    import os

    from qkv import device as machine
    from qkv.evolve.evolve import evolve as search_on
    from qkv.evolve.record import BEST, read_search
    from qkv.train.cluster import by_dask

    if resume:
        if said := options_given(context, MAY_CHANGE):
            raise QkvError(f"a search that goes on keeps its options: leave out {', '.join(said)}")
        search = read_search(out)
    elif recipe is None:
        raise QkvError("say how children are trained: --recipe NAME, a recipe of `qkv train` or the run.toml of a run")
    else:
        stages = _numbers(steps, "--steps")
        chosen = {"steps": stages, "per_hurdle": per_hurdle, "population": population, "tournament": tournament}
        search = _search(recipe, set_ or [], control, chosen, mutation, parameters, children, budget, minutes, seed)
    workers = workers or os.cpu_count() or 1
    machine.prepare(1)
    executor = None if cluster is None else by_dask(cluster)
    with _Board() as board:
        best = search_on(search, out, board, workers=workers, resume=resume, executor=executor)
    print(f"the best child is number {best.number}: fitness {best.fitness:.4f} after {best.steps} steps")
    print(out / BEST)


def options_given(context: typer.Context, but: tuple[str, ...]) -> list[str]:
    """The options that were given, but these."""
    found = []
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is not None and source.name == "COMMANDLINE" and option.name not in but:
            found.append(option.opts[0])
    return found


def _search(
    recipe: str,
    settings: list[str],
    control: str | None,
    how: dict[str, Any],
    mutation: float,
    parameters: str | None,
    children: int,
    budget: int,
    minutes: float,
    seed: int,
) -> Any:
    """The search that the options describe."""
    from dataclasses import replace

    from qkv.cli.train import changed, find_recipe
    from qkv.spec.run import Evaluation
    from qkv.spec.search import AnyNumber, AtRandom, Between, Hurdles, NoHurdles, Search, Tournament
    from qkv.train.run_folder import read_run

    if control not in (None, "no-hurdles", "random"):
        raise QkvError(f"--control is no-hurdles or random, not {control!r}")
    run = changed(read_run(find_recipe(recipe)), settings)
    # children are judged by their loss alone: nothing is translated for them
    run = replace(run, evaluation=Evaluation(run.evaluation.every, 0))
    wanted: Any = AnyNumber()
    if parameters is not None:
        bounds = _numbers(parameters, "--parameters")
        if len(bounds) != 2:
            raise QkvError(f"--parameters is LEAST,MOST, not {parameters!r}")
        wanted = Between(*bounds)
    training = Hurdles(how["steps"], how["per_hurdle"]) if control is None else NoHurdles(sum(how["steps"]))
    selection = AtRandom() if control == "random" else Tournament(how["population"], how["tournament"])
    return Search(run, training, selection, mutation, wanted, children, budget, minutes, seed)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(each.replace("_", "")) for each in text.split(","))
    except ValueError:
        raise QkvError(f"{option} is a list of whole numbers, such as 60,60,120, not {text!r}") from None


class _Board:
    """Says how a search is getting on: a table on a terminal, below the last children, and lines elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Any = None

    def __enter__(self) -> _Board:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *what: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)

    def show(self, state: Any, child: Any) -> None:
        fared = f"failed: {child.failure}" if child.failure else f"fitness {child.fitness:.4f} after {child.steps} steps"
        self.say(f"child {child.number}: {fared}, {child.parameters:,} parameters, {child.seconds:.0f} s")
        if self._live is None:
            self.say("  " + "; ".join(f"{name} {value}" for name, value in _facts(state).items()))
            return
        from rich.table import Table

        table = Table(show_header=False, box=None)
        for name, value in _facts(state).items():
            table.add_row(name, value)
        self._live.update(table, refresh=True)


def _facts(state: Any) -> dict[str, str]:
    """How a search is getting on, fact by fact."""
    best = "none yet" if state.best is None else f"{state.best.fitness:.4f}, child {state.best.number}"
    return {
        "best": best,
        "children": f"{state.children} of {state.search.children}, {state.failed} failed",
        "population": str(state.population),
        "hurdles": ", ".join(f"{each:.4f}" for each in state.hurdles) or "none yet",
        "steps": f"{state.steps:,}",
        "time left": duration(state.seconds_left),
    }
