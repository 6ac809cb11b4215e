"""A ladder of sizes and of token counts: planned, trained, and written down row by row for a law to be fitted to."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from qkv.data.cache import default_cache
from qkv.spec import plain
from qkv.spec.count import parameters, without_embeddings
from qkv.spec.run import Noam, Schedule, Steps
from qkv.spec.size import Sizes
from qkv.spec.study import Ladder, Unjudged
from qkv.study.budget import operations, spending, step_of
from qkv.study.compare import refuse_unlike
from qkv.study.contest import Clock, Made, held
from qkv.study.folder import MODELS, agreed, begin, place, put, same_text, slug
from qkv.study.member import Ending, Failed, Member, Outcome
from qkv.study.plan import Footing, Pace, Plan, Rung, a_step, planned
from qkv.train.loop import Watch
from qkv.train.pairs import Translating
from qkv.train.run import describe
from qkv.train.run_folder import held as alone
from qkv.train.task import Task
from qkv.train.tasks import task_of

NAME, PLAN, TABLE, REPORT = "ladder.toml", "plan.json", "ladder.csv", "ladder.json"
POINTS = 1  # validations while a member is trained: its last loss is what counts
COLUMNS = "name,architecture,parameters,parameters_without_embeddings,tokens,loss,flops,seed,data,tokenizer,seconds".split(",")


def plan_of(ladder: Ladder, task: Task) -> Plan:
    """The ladder that the budget comes to; how long it takes is measured by some steps. Raises QkvError where it comes to
    none."""
    runs = {each.name: each.run for each in ladder.contenders}
    specs = {name: describe(run, task.report.vocabularies) for name, run in runs.items()}
    first = ladder.contenders[0].run
    footing = Footing({name: Sizes(spec) for name, spec in specs.items()}, step_of(task, first), _validated(task))
    return planned(ladder, footing, lambda name, spec: a_step(runs[name], spec, task))


def prepared(ladder: Ladder, watch: Watch) -> Task:
    """The text of a ladder, read; what is wrong with its models is said before."""
    refuse_unlike(ladder.contenders)
    for contender in ladder.contenders:
        describe(contender.run, (8, 8))
    task = task_of(ladder.contenders[0].run, None, default_cache())
    for line in task.report.lines():
        watch.say(line)
    return task


def climb(
    ladder: Ladder,
    folder: Path,
    watch: Watch,
    show: Callable[[Plan], None],
    *,
    resume: bool = False,
    threads: int = 0,
    cluster: Made | None = None,
) -> list[dict[str, Any]]:
    """Train every member, or those that are not finished yet; the rows of the table. The plan is shown before anything starts.

    Raises QkvError where there is no such ladder, Interrupted after all is saved if a signal stopped it.
    """
    with alone(folder):
        clock = Clock.going_on(folder / REPORT)
        agreed(folder, NAME, ladder, resume)
        task = prepared(ladder, watch)
        if not (folder / PLAN).is_file():
            plan = plan_of(ladder, task)
            begin(folder, NAME, ladder, {_model(folder, rung): rung.spec for rung in plan.rungs})
            _write_plan(folder / PLAN, plan)
        plan = _read_plan(folder / PLAN, Footing({}, step_of(task, ladder.contenders[0].run), _validated(task)))
        same_text(folder, task.fingerprints, Unjudged())
        show(plan)
        marks = _fingerprints(task)
        found: dict[str, Ending] = {}
        rungs = {rung.name: rung for rung in plan.rungs}
        members = [_member(ladder, rung, folder, plan, threads) for rung in plan.rungs]
        for member, ending in held(members, watch, clock, cluster):
            found[member.name] = ending
            clock.read()
            _write(folder, rungs, found, ladder.seed, marks, clock)
        clock.read()
        return _write(folder, rungs, found, ladder.seed, marks, clock)


def narrowed(schedule: Schedule, share: float) -> Schedule:
    """The schedule of a model so many times as wide: its highest rate falls with the root of the width, as in equation 3 of
    Vaswani et al. 2017, where it does so by itself."""
    if isinstance(schedule, Noam):
        return schedule
    return replace(schedule, peak=schedule.peak * share**-0.5)


def _member(ladder: Ladder, rung: Rung, folder: Path, plan: Plan, threads: int) -> Member:
    (run,) = (each.run for each in ladder.contenders if each.name == rung.contender)
    step = plan.footing.step
    base = describe(run, (8, 8)).width
    schedule = narrowed(run.schedule, rung.spec.width / base)
    run = replace(run, model=str(_model(folder, rung)), changes=(), schedule=schedule, seed=ladder.seed)
    run = spending(run, Steps(rung.steps), step, rung.spec, rung.name, POINTS)
    where = place(folder, rung.name, ladder.seed)
    return Member(rung.name, run, where, operations(rung.spec, step.length), Unjudged(), threads)


def _model(folder: Path, rung: Rung) -> Path:
    """Where the model of a rung is written; all rungs of one size share it."""
    return (folder / MODELS / f"{slug(rung.contender)}-{parameters(rung.spec)}.json").absolute()


def _validated(task: Task) -> int:
    """How many tokens the validation text predicts."""
    side: Any = task.prepared.valid  # pyright: ignore[reportAttributeAccessIssue]
    side = side.target if isinstance(task, Translating) else side
    return int(side.lengths.sum()) + len(side)


def _fingerprints(task: Task) -> dict[str, str]:
    """What tells one text, and one way to cut it, from another."""
    cut = "".join(dict.fromkeys(each.fingerprint for each in task.tokenizers))
    return {name: _short(text) for name, text in (("data", json.dumps(task.fingerprints, sort_keys=True)), ("tokenizer", cut))}


def _short(text: str) -> str:
    return blake2b(text.encode(), digest_size=6).hexdigest()


def _row(rung: Rung, outcome: Outcome, seed: int, marks: dict[str, str]) -> dict[str, Any]:
    known = {name: getattr(outcome, name) for name in COLUMNS if hasattr(outcome, name)}
    known |= {"name": rung.name, "architecture": rung.contender, "seed": seed, **marks}
    return {name: known[name] for name in COLUMNS}


def _write(
    folder: Path, rungs: dict[str, Rung], found: dict[str, Ending], seed: int, marks: dict[str, str], clock: Clock
) -> list[dict[str, Any]]:
    """The rows that are known by now, in the order of the plan; in the table, and in JSON with the failures and the seconds."""
    known = [(rung, found[name]) for name, rung in rungs.items() if name in found]
    rows = [_row(rung, ending, seed, marks) for rung, ending in known if isinstance(ending, Outcome)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *([row[name] for name in COLUMNS] for row in rows)])
    put(folder / TABLE, text.getvalue())
    failed = {rung.name: ending.reason for rung, ending in known if isinstance(ending, Failed)}
    put(folder / REPORT, json.dumps({"rows": rows, "failed": failed, "seconds": clock.plain()}, indent=1) + "\n")
    return rows


def _write_plan(path: Path, plan: Plan) -> None:
    rungs = [vars(rung) | {"spec": plain.to_plain(rung.spec)} for rung in plan.rungs]
    put(path, json.dumps({"rungs": rungs, "paces": {name: vars(pace) for name, pace in plan.paces.items()}}, indent=1) + "\n")


def _read_plan(path: Path, footing: Footing) -> Plan:
    written = json.loads(path.read_text(encoding="utf-8"))
    rungs = tuple(Rung(**each | {"spec": plain.from_plain(each["spec"])}) for each in written["rungs"])
    return Plan(rungs, {name: Pace(**pace) for name, pace in written["paces"].items()}, footing)


def table(plan: Plan) -> list[dict[str, Any]]:
    """The plan as rows: what each member is, what it costs, and about how long it takes."""
    rows = []
    for rung in plan.rungs:
        spec, count = rung.spec, parameters(rung.spec)
        rows.append(
            {
                "name": rung.name,
                "architecture": rung.contender,
                "parameters": count,
                "parameters_without_embeddings": without_embeddings(spec),
                "width": spec.width,
                "tokens": rung.tokens,
                "epochs": rung.steps / plan.footing.step.epoch,
                "steps": rung.steps,
                "flops": rung.operations,
                "6ND": 6 * count * rung.tokens,
                "seconds": plan.seconds(rung),
            }
        )
    return rows
