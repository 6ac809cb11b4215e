"""A fair contest: models or recipes on one text, cut by one tokenizer, at one share of a budget, with the same seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from qkv.data.cache import default_cache
from qkv.error import QkvError
from qkv.look import comparison as picture
from qkv.spec.model import Model
from qkv.spec.run import Minutes, Run, Steps
from qkv.spec.size import nearest_width
from qkv.spec.study import About, Comparison, Contender, Operations, Predictions
from qkv.study.budget import Step, operations, spending, step_of
from qkv.study.contest import Clock, Made, held
from qkv.study.folder import MODELS, agreed, begin, place, put, same_text, slug
from qkv.study.judge import pairs_of, text_of
from qkv.study.member import Ending, Member, curve_of
from qkv.study.report import Report, Row
from qkv.study.significance import p_value
from qkv.train.loop import Watch
from qkv.train.pairs import Translating
from qkv.train.run import describe
from qkv.train.run_folder import differences
from qkv.train.run_folder import held as alone
from qkv.train.task import Task
from qkv.train.tasks import task_of

NAME, PICTURE = "comparison.toml", "comparison.png"
SHARED = ("train", "valid", "objective", "tokenizer", "longest", "batching", "evaluation")


def compare(
    comparison: Comparison, folder: Path, watch: Watch, *, resume: bool = False, threads: int = 0, cluster: Made | None = None
) -> Report:
    """Train and judge every member, or those that are not finished yet, and write down what came of it.

    Raises QkvError where there can be no such contest, Interrupted after all is saved if a signal stopped it.
    """
    refuse_unlike(comparison.contenders)
    for contender in comparison.contenders:
        describe(contender.run, (8, 8))  # what is wrong with a model is said before the text is read
    with alone(folder):
        clock = Clock.going_on(folder / "comparison.json")
        agreed(folder, NAME, comparison, resume)
        task = task_of(comparison.contenders[0].run, None, default_cache())
        for line in task.report.lines():
            watch.say(line)
        step = step_of(task, comparison.contenders[0].run)
        references = _references(comparison, task)
        planned = [(each, *_sized(comparison, each, folder, task)) for each in comparison.contenders]
        members = list(_members(comparison, folder, planned, step, threads))
        resized = {Path(run.model): spec for _, run, spec in planned if isinstance(comparison.size, About)}
        begin(folder, NAME, comparison, resized)
        same_text(folder, task.fingerprints, comparison.test)
        endings: dict[Member, Ending] = {}
        for member, ending in held(members, watch, clock, cluster):
            endings[member] = ending
            clock.read()
            write(Report(tuple(_rows(comparison, endings)), clock), folder)
        rows = tuple(_tested(list(_rows(comparison, endings)), references))
        curves = [picture.Curve(member.name, tuple(curve_of(member))) for member in members]
        picture.draw([curve for curve in curves if curve.points], _title(comparison), folder / PICTURE)
        clock.read()
        report = Report(rows, clock)
        write(report, folder)
        return report


def refuse_unlike(contenders: tuple[Contender, ...]) -> None:
    """Raises QkvError where contenders do not learn the same thing from the same text, cut in the same way."""
    first = contenders[0]
    for other in contenders[1:]:
        for field in SHARED:
            apart = differences(getattr(first.run, field), getattr(other.run, field), field)
            if apart:
                raise QkvError(
                    f"{first.name} and {other.name} are no fair contest, for they differ in more than the model: {apart[0]}. Say "
                    f"the text and how it is cut by options, which count for all"
                )


def _members(
    comparison: Comparison, folder: Path, planned: list[tuple[Contender, Run, Model]], step: Step, threads: int
) -> Iterator[Member]:
    """All members, seed by seed, with as many steps as their share comes to."""
    for seed in comparison.seeds:
        for contender, run, spec in planned:
            run = replace(spending(run, comparison.share, step, spec, contender.name), seed=seed)
            where = place(folder, contender.name, seed)
            yield Member(contender.name, run, where, operations(spec, step.length), comparison.test, threads)


def _sized(comparison: Comparison, contender: Contender, folder: Path, task: Task) -> tuple[Run, Model]:
    """A contender's run and its model in the size that is wanted, which is then a file beside the members."""
    spec = describe(contender.run, task.report.vocabularies)
    if not isinstance(comparison.size, About):
        return contender.run, spec
    try:
        sized = nearest_width(spec, comparison.size.parameters)
    except QkvError as error:
        raise QkvError(f"{contender.name}: {error}") from None
    path = (folder / MODELS / f"{slug(contender.name)}.json").absolute()
    return replace(contender.run, model=str(path), changes=()), sized


def _rows(comparison: Comparison, endings: dict[Member, Ending]) -> Iterator[Row]:
    """A row for each contender of whom something is known, its seeds in order."""
    for contender in comparison.contenders:
        own = sorted((each for each in endings if each.name == contender.name), key=lambda each: each.run.seed)
        if own:
            yield Row(contender.name, tuple(own), tuple(endings[each] for each in own))


def _tested(rows: list[Row], references: list[str]) -> Iterator[Row]:
    """The rows with the p of each member's difference from the first model's of the same seed, where both came to something."""
    first, *others = rows
    base = first.lived_by_seed()
    yield first
    for row in others:
        pairs = [(base[seed], member) for seed, member in row.lived_by_seed().items() if seed in base]
        yield replace(row, ps={other.run.seed: p_value(one, other, references) for one, other in pairs})


def _references(comparison: Comparison, task: Task) -> list[str]:
    """The translations by people that BLEU compares with; none where nothing is translated. Whatever the test text is, it is read
    here for the first time, before anything is trained."""
    first = comparison.contenders[0].run
    if isinstance(task, Translating):
        return [target for _, target in pairs_of(first, comparison.test)]
    text_of(first, comparison.test, task.tokenizers)
    return []


def _title(comparison: Comparison) -> str:
    match comparison.share:
        case Steps(number=number):
            share = f"{number:,} steps each"
        case Predictions(number=number):
            share = f"{number:.3g} tokens each"
        case Operations(number=number):
            share = f"{number:.3g} FLOPs each"
        case Minutes(number=number):
            share = f"{number:g} minutes each"
    size = f", about {comparison.size.parameters:,} parameters" if isinstance(comparison.size, About) else ""
    return f"{len(comparison.contenders)} models, {share}{size}"


def write(report: Report, folder: Path) -> None:
    """What is known by now, in three forms."""
    for name, text in (("csv", report.csv()), ("json", report.json()), ("md", report.markdown())):
        put(folder / f"comparison.{name}", text)
