"""What a member of a study may spend, as steps of its own; and the run that spends just that, its cosine as long as itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qkv.error import QkvError
from qkv.spec.count import flops
from qkv.spec.data import Exactly
from qkv.spec.model import Model
from qkv.spec.run import Cosine, Evaluation, Minutes, Noam, Run, Schedule, Steps, ToTheEnd
from qkv.spec.study import Operations, Predictions, Share
from qkv.train.pairs import Translating
from qkv.train.task import Task
from qkv.train.texts import Generating

POINTS = 10  # of a learning curve; checkpoints of a run
WARMUP = 10  # a warm-up is no longer than one in so many steps
THERE_AND_BACK = 3  # the way back costs twice the way there (Hoffmann et al. 2022, appendix F)


@dataclass(frozen=True)
class Step:
    """A step of training on some text, in the mean of an epoch: how many tokens it predicts, and how long the texts are in which
    they stand, source and target alike where there are two."""

    tokens: float
    length: int
    epoch: float  # steps of one

    def operations(self, spec: Model) -> float:
        """What one step of a model costs: an embedding is looked up and costs nothing, all other products are counted."""
        return self.tokens * operations(spec, self.length)


def operations(spec: Model, length: int) -> float:
    """What it costs to learn from one token in a text of some length, counted in full; of a pair, from one on each side."""
    return THERE_AND_BACK * flops(spec, length)


def step_of(task: Task, run: Run) -> Step:
    """A step of a run on its text. Raises QkvError for what is trained neither to translate nor to write on."""
    plan: Any = task.plan(0)
    match task:
        case Translating():
            source, target = (side.lengths + 1 for side in (task.prepared.train.source, task.prepared.train.target))
            predicted, length = float(target.sum()), round((source.mean() + target.mean()) / 2)
        case Generating():
            length = int(min(plan.length, plan.size))
            predicted = float(length * sum(len(plan[index]) for index in range(len(plan))))
        case _:
            raise QkvError(
                f"studies are of translators and of language models, and {run.model} is trained by {run.objective}: it has no "
                f"place among them"
            )
    number = len(plan) / run.batching.accumulate
    return Step(predicted / number, length, number)


def steps_for(share: Steps | Predictions | Operations, step: Step, spec: Model, name: str) -> int:
    """How many steps of a model come nearest to its share. Raises QkvError where that is less than one."""
    match share:
        case Steps(number=number):
            return number
        case Predictions(number=number):
            one, what = step.tokens, "tokens"
        case Operations(number=number):
            one, what = step.operations(spec), "operations"
    if number < one / 2:
        raise QkvError(f"{number:.3g} {what} are less than a step of {name}, which takes {one:.3g}")
    return max(1, round(number / one))


def spending(run: Run, share: Share, step: Step, spec: Model, name: str, points: int = POINTS) -> Run:
    """The run that spends its share: its last step is the end of its cosine, and its last weights are the model; it is validated
    so many times.

    A schedule that knows no end becomes a cosine from its highest rate.
    """
    run = replace(run, stopping=ToTheEnd(), checkpoints=replace(run.checkpoints, keep=1, average=Exactly(1)))
    run = replace(run, evaluation=replace(run.evaluation, sentences=0))
    if isinstance(share, Minutes):  # the run itself finds out how many steps these are
        return replace(run, budget=share)
    steps = steps_for(share, step, spec, name)
    return replace(
        run,
        budget=Steps(steps),
        schedule=matched(run.schedule, steps, spec.width),
        evaluation=Evaluation(-(-steps // points), 0, run.evaluation.tokenise),
        checkpoints=replace(run.checkpoints, every=-(-steps // POINTS)),
    )


def matched(schedule: Schedule, steps: int, width: int) -> Cosine:
    """The cosine that a run of so many steps of a model of some width has in the place of its schedule."""
    if isinstance(schedule, Noam):
        schedule = Cosine(schedule.factor * (width * schedule.warmup) ** -0.5, schedule.warmup)
    return replace(schedule, warmup=min(schedule.warmup, max(1, steps // WARMUP)))
