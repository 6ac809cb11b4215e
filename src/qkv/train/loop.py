"""The training loop: what happens between two sentences of text and a model.

A run depends on nothing but its description, its text and its seed: the order of batches and the masks of dropout are
functions of (seed, step), so that a run that was interrupted goes on as if it never had been.
"""

from __future__ import annotations

import math
import signal
import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from qkv import device as machine
from qkv.error import QkvFailure
from qkv.model.dropout import Noise
from qkv.model.trace import Trace
from qkv.model.transformer import AnyModel, build, recompute
from qkv.spec.model import Model as Spec
from qkv.spec.run import Clip, Epochs, From, Minutes, Patience, Run, Steps
from qkv.store import inherit, load, put_weights, weights_of
from qkv.train import checkpoint as checkpoints
from qkv.train import choices, ponder
from qkv.train.checkpoint import Checkpoint, Progress
from qkv.train.journal import Journal
from qkv.train.loss import Smoothing
from qkv.train.optimiser import moments, optimiser, put_moments
from qkv.train.run_folder import write_run
from qkv.train.schedule import learning_rate
from qkv.train.task import Example, Task

LOG_EVERY = 20
UNKNOWN = 2**31  # steps, while nobody knows how many there will be
FIX_AFTER = 0.05  # the share of `Minutes` after which the number of steps is fixed
SPARE = 0.02  # the share kept free for the end of the run
MENDING = "what was saved before is kept. A lower learning rate, a longer warm-up or clip=Clip(1.0) may help"


@runtime_checkable
class Watch(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None: ...

    def step(self, step: int, steps: int, loss: float, tokens_per_second: float, seconds_left: float) -> None: ...


class Silent:
    """A Watch that says nothing."""

    def say(self, line: str) -> None:
        pass

    def step(self, step: int, steps: int, loss: float, tokens_per_second: float, seconds_left: float) -> None:
        pass


class Interrupted(Exception):
    """A signal asked the run to save and stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class Ground:
    """What a run stands on; the model is as it is before the first step."""

    run: Run
    folder: Path
    model: AnyModel
    task: Task
    where: machine.Device


class Loop:
    """A run in progress."""

    def __init__(self, ground: Ground, journal: Journal, watch: Watch) -> None:
        self.ground, self.run, self.journal, self.watch = ground, ground.run, journal, watch
        self.model = ground.model.to(ground.where.device)
        self.adam = optimiser(self.run.optimiser, self.model)
        self.progress = Progress(build=machine.build_of_machine())
        self.plan = ground.task.plan(0)
        self._began = time.monotonic()
        self._spoke = (0, self._began)  # tokens then, and when: of the last speed told
        self._evaluation_seconds = 0.0
        self._durations: deque[float] = deque(maxlen=1000)  # seconds of the last steps
        match self.run.budget:
            case Steps(number=number):
                self.progress.steps = number
            case Epochs(number=number):
                self.progress.steps = math.ceil(number * len(self.plan) / self.run.batching.accumulate)
            case Minutes(steps=steps):
                self.progress.steps = steps

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint."""
        own = self.progress.build
        put_weights(self.model, saved.weights, self.ground.folder)
        put_moments(self.adam, self.model, saved.moments)
        if saved.progress.build != own:
            self.watch.say(
                f"this machine differs from the one before ({saved.progress.build} then, {own} now): the order of the data "
                f"is the same, bits may differ"
            )
        self.progress = replace(saved.progress, build=own, steps=saved.progress.steps or self.progress.steps)
        self.plan = self.ground.task.plan(self.progress.epoch)
        self._spoke = (self.progress.tokens, time.monotonic())
        self.journal.cut(self.progress.journal)

    def warn(self) -> None:
        """Say what a person would want to know as soon as the number of steps is known, not after them."""
        schedule, steps = self.run.schedule, self.progress.steps
        if 0 < steps <= schedule.warmup:
            self.watch.say(
                f"warning: the run has {steps:,} steps, all of them in the warm-up of {schedule.warmup:,}: it will hardly learn. "
                f"Train longer, or shorten it by --set schedule.warmup={max(1, steps // 10)}"
            )

    def finish(self) -> str:
        """Train to the end of the run; why it ended. Raises Interrupted after saving, if a signal came."""
        with _signals() as came:
            if self.progress.owed:
                self.progress.owed = False
                self._regularly()
            while not self._over() and not self._out_of_patience():
                self.step()
                if came:
                    self.progress.owed = True
                    self.save()
                    raise Interrupted(came[0])
                self._regularly()
            if not self._over():
                self.save()
                return f"the validation loss has not improved for {self.progress.since_best} evaluations"
        return f"all {self.progress.steps:,} steps are made"

    def step(self) -> None:
        """One step of the optimiser, over `accumulate` batches, each token with the same weight."""
        progress = self.progress
        step = progress.step + 1
        rate = learning_rate(self.run.schedule, step, self._horizon(step), self.model.spec.width)
        for group in self.adam.param_groups:
            group["lr"] = rate
        batches = [self._next_batch() for _ in range(self.run.batching.accumulate)]
        tokens = sum(batch.tokens for batch in batches)
        plain = self._gradients(batches, tokens, step)
        if not math.isfinite(plain):
            raise QkvFailure(
                f"the loss of step {step} is not a number (epoch {progress.epoch}, batch {progress.batch - 1} of "
                f"{len(self.plan)}); {MENDING}"
            )
        if isinstance(self.run.clip, Clip):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.run.clip.norm)
        self.adam.step()
        progress.step = step
        progress.tokens += tokens
        self._log(plain, tokens, rate)

    def _horizon(self, step: int) -> int:
        """The length of the run as far as a schedule may know it at this step, now and when it is trained again."""
        budget = self.run.budget
        unknown = isinstance(budget, Minutes) and (not budget.steps or step <= budget.since)
        return UNKNOWN if unknown else self.progress.steps

    def _gradients(self, batches: list[Example], tokens: int, step: int) -> float:
        """Set the gradient of the mean loss per token over all batches, of what pondering costs, and of what was drawn; give back
        the sum of their plain losses."""
        self.adam.zero_grad(set_to_none=True)
        where = self.ground.where
        total = torch.zeros((), dtype=torch.float64, device=where.device)
        spec = self.model.spec
        positions, tells = ponder.positions(spec, batches), bool(ponder.rules(spec)) or choices.draws(spec)
        for place, batch in enumerate(batches):
            noise = Noise(self.run.seed, step * len(batches) + place, self.run.roaming, self.run.places if self.run.spread else 0)
            with torch.autocast(where.device.type, where.precision, enabled=where.precision != torch.float32):
                trace = Trace(lambda path: False) if tells else None
                smoothed, plain = self.ground.task.losses(
                    self.model, batch, Smoothing(self.run.smoothing), noise, where.precision, trace
                )
            loss = smoothed / tokens
            if trace is not None:
                loss = loss + ponder.cost(spec, trace, batch, positions) + choices.cost(trace, batch, tokens)
            loss.backward()
            total += plain
        return total.item()

    def _next_batch(self) -> Example:
        progress = self.progress
        if progress.batch >= len(self.plan):
            progress.epoch, progress.batch = progress.epoch + 1, 0
            self.plan = self.ground.task.plan(progress.epoch)
        batch = self.ground.task.batch(self.plan, progress.batch, progress.epoch)
        progress.batch += 1
        return batch.to(self.ground.where.device)

    def _over(self) -> bool:
        return 0 < self.progress.steps <= self.progress.step

    def _log(self, plain: float, tokens: int, rate: float) -> None:
        progress = self.progress
        progress.unlogged_loss += plain
        progress.unlogged_tokens += tokens
        now = time.monotonic()
        self._durations.append(now - self._began)
        progress.seconds += now - self._began
        self._began = now
        if progress.step % LOG_EVERY and not self._over():
            return
        loss = progress.unlogged_loss / progress.unlogged_tokens
        speed = (progress.tokens - self._spoke[0]) / (now - self._spoke[1])
        progress.unlogged_loss, progress.unlogged_tokens = 0.0, 0
        self._spoke = (progress.tokens, now)
        self.journal.write(
            "step",
            step=progress.step,
            epoch=progress.epoch,
            loss=loss,
            rate=rate,
            tokens=progress.tokens,
            tokens_per_second=round(speed),
            seconds=round(progress.seconds, 2),
        )
        self.watch.step(progress.step, progress.steps, loss, speed, self._seconds_left())

    def _seconds_left(self) -> float:
        if isinstance(self.run.budget, Minutes) and not self.progress.steps:
            return max(0.0, 60 * self.run.budget.number - self.progress.seconds)
        return (self.progress.steps - self.progress.step) * self.progress.seconds / self.progress.step

    def _regularly(self) -> None:
        """What happens every so many steps: evaluation, a checkpoint, and once, the fixing of the number of steps."""
        step = self.progress.step
        fixing = (
            isinstance(self.run.budget, Minutes)
            and not self.progress.steps
            and self.progress.seconds > FIX_AFTER * 60 * self.run.budget.number
        )
        if step % self.run.evaluation.every == 0 or fixing or self._over():
            self.evaluate()
        if fixing:
            self._fix_steps()
        if step % self.run.checkpoints.every == 0 or self._over():
            self.save()

    def _fix_steps(self) -> None:
        """From here on the run has a number of steps, so that it can be trained again exactly."""
        assert isinstance(self.run.budget, Minutes)
        progress = self.progress
        total = 60 * self.run.budget.number * (1 - SPARE)
        # the median: the first steps are slower, and so are those during which something else had the machine
        a_step = statistics.median(self._durations) + self._evaluation_seconds / self.run.evaluation.every
        progress.steps = progress.step + max(1, int((total - progress.seconds) / a_step))
        self.run = replace(self.run, budget=replace(self.run.budget, steps=progress.steps, since=progress.step))
        write_run(self.ground.folder, self.run)
        self.journal.write("steps", step=progress.step, steps=progress.steps, seconds=round(progress.seconds, 2))
        self.watch.say(
            f"{self.run.budget.number:g} minutes are {progress.steps:,} steps at this speed; the run now has that many"
        )
        self.warn()

    def evaluate(self) -> None:
        """How good the model is on the validation text is told and written down."""
        start = time.monotonic()
        fields = self.ground.task.measure(self.model)
        progress = self.progress
        if not math.isfinite(fields["loss"]):
            raise QkvFailure(f"the validation loss of step {progress.step} is not a number; {MENDING}")
        if fields["loss"] < progress.best:
            progress.best, progress.since_best = fields["loss"], 0
        else:
            progress.since_best += 1
        self._evaluation_seconds = time.monotonic() - start
        self._pass_time()
        self.journal.write("evaluation", step=progress.step, seconds=round(progress.seconds, 2), **fields)
        self.watch.say(f"step {progress.step:,}: {said(fields)}")
        for warning in ponder.collapsed(self.model.spec, fields):
            self.watch.say(warning)

    def _pass_time(self) -> None:
        """Time spent on evaluation and saving is the run's time, but not part of its speed."""
        now = time.monotonic()
        self.progress.seconds += now - self._began
        self._spoke = (self._spoke[0], self._spoke[1] + now - self._began)
        self._began = now

    def save(self) -> None:
        """Write a checkpoint. Raises QkvFailure rather than keep weights that are not numbers."""
        for name, weight in weights_of(self.model).items():
            if not torch.isfinite(weight).all():
                raise QkvFailure(f"after step {self.progress.step} {name} is not made of numbers; {MENDING}")
        self._pass_time()
        self.journal.sync()
        self.progress.journal = self.journal.length
        how = self.run.checkpoints
        checkpoints.save(
            self.ground.folder,
            Checkpoint(self.progress, weights_of(self.model), moments(self.adam, self.model)),
            how.keep,
            how.every,
        )
        self._pass_time()

    def _out_of_patience(self) -> bool:
        return isinstance(self.run.stopping, Patience) and self.progress.since_best >= self.run.stopping.evaluations


MEASURES = {
    "loss": "validation loss {:.4f}",
    "perplexity": "perplexity {:.2f}",
    "bits_per_byte": "{:.3f} bits per byte",
    "bits_per_dimension": "{:.3f} bits per dimension",
    "accuracy": "{:.1%} right",
    "macro_f1": "macro F1 {:.3f}",
    "bleu": "BLEU {:.2f}",
    "characters": "{:.1%} of characters right",
    "sequences": "{:.1%} of answers",
}


def said(fields: dict[str, Any]) -> str:
    """A measurement in words."""
    measured = [words.format(fields[name]) for name, words in MEASURES.items() if name in fields]
    return ", ".join([*measured, *ponder.said(fields)])


def begun(run: Run, spec: Spec) -> AnyModel:
    """The model of a run before its first step. Raises QkvError where the one that it starts from does not fit."""
    model = build(spec, run.seed)
    if isinstance(run.start, From):
        inherit(model, load(run.start.run).model)
    if run.recompute:
        recompute(model)
    return model


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C are noted, to be answered at the end of the step; outside, they do what they did before."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
