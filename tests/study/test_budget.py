"""A budget as steps, and a cosine as long as its run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.study.conftest import language, translator

from qkv.data.cache import default_cache
from qkv.error import QkvError
from qkv.papers.catalogue import named
from qkv.spec.count import flops
from qkv.spec.model import Joint
from qkv.spec.run import Cosine, Noam, Steps
from qkv.spec.study import Operations, Predictions
from qkv.study.budget import Step, matched, step_of, steps_for
from qkv.train.schedule import learning_rate
from qkv.train.tasks import task_of

STEP = Step(tokens=1000, length=50, epoch=10)
MODELS = ("gpt-tiny", "universal-gpt-tiny", "sparse-tiny", "evolved-gpt-tiny", "transformer-tiny")


@given(operations=st.floats(1e12, 1e15), name=st.sampled_from(MODELS))
def test_a_share_is_spent_to_within_half_a_step(operations: float, name: str) -> None:
    spec = named(name, Joint(100))
    steps = steps_for(Operations(operations), STEP, spec, name)
    assert abs(steps * STEP.operations(spec) - operations) <= STEP.operations(spec) / 2
    assert STEP.operations(spec) == 1000 * 3 * flops(spec, 50)
    assert steps_for(Predictions(steps * 1000), STEP, spec, name) == steps_for(Steps(steps), STEP, spec, name) == steps


def test_less_than_a_step_is_refused() -> None:
    with pytest.raises(QkvError, match=r"100 tokens are less than a step of one, which takes 1e\+03"):
        steps_for(Predictions(100), STEP, named("gpt-tiny", Joint(100)), "one")


def test_a_schedule_ends_with_its_run() -> None:
    assert matched(Cosine(0.1, 200, 0.1), 5000, 64) == Cosine(0.1, 200, 0.1)
    assert matched(Cosine(0.1, 200, 0.1), 50, 64) == Cosine(0.1, 5, 0.1)
    noam = matched(Noam(400, 2.0), 10_000, 64)
    assert noam.peak == pytest.approx(learning_rate(Noam(400, 2.0), 400, 10_000, 64)), "from its highest rate"
    assert learning_rate(noam, 10_000, 10_000, 64) == pytest.approx(0)
    assert matched(Cosine(0.1, 200), 3, 64).warmup == 1


def test_a_step_is_what_the_batches_of_an_epoch_are_in_the_mean(book: Path, tmp_path: Path) -> None:
    for run in (language(book), translator(tmp_path)):
        task = task_of(run, None, default_cache())
        plan = task.plan(0)
        made = [task.batch(plan, index, 0) for index in range(len(plan))]
        step = step_of(task, run)
        assert step.tokens == pytest.approx(sum(batch.tokens for batch in made) / len(made)) and step.epoch == len(plan)
    lengths = [len(line) + 1 for line in (tmp_path / "a").read_text().splitlines()]
    assert abs(step.length - sum(lengths) / len(lengths)) < 2
