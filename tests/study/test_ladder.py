"""A ladder costs what it was planned to cost, and its table is what a law can be fitted to."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.study.conftest import Told, contenders, diverging, language, translator

from qkv.error import QkvError
from qkv.papers.catalogue import named
from qkv.spec.count import flops, parameters, without_embeddings
from qkv.spec.model import Joint
from qkv.spec.run import Cosine, Minutes, Noam
from qkv.spec.size import Sizes, grown
from qkv.spec.study import Apart, Counts, Ladder, Operations, Ratios
from qkv.study.budget import Step
from qkv.study.ladder import COLUMNS, climb, narrowed, table
from qkv.study.plan import START, Footing, Plan, a_step, planned
from qkv.train.run_folder import RECIPE, read_run

SIZES = {name: Sizes(named(name, Joint(300))) for name in ("gpt-tiny", "universal-gpt-tiny")}
FOOTING = Footing(SIZES, Step(2048, 256, 400.0), 100_000)
EACH = 1e-11


def timed(name: str, spec: Any) -> float:
    """A machine with a known pace."""
    return 0.01 + EACH * FOOTING.step.operations(spec)


@pytest.fixture
def both(book: Path) -> Ladder:
    return Ladder(
        contenders(**{name: language(book, name, ()) for name in SIZES}), Operations(1e15), 5, 100.0, Ratios((5.0, 10.0))
    )


def test_a_plan_comes_to_its_budget(both: Ladder) -> None:
    plan = planned(both, FOOTING, timed)
    assert 0.7e15 < plan.operations <= 1e15
    assert len(plan.rungs) == 2 * 5 * 2 and len({rung.name for rung in plan.rungs}) == 20
    for name in SIZES:
        own = [rung for rung in plan.rungs if rung.contender == name]
        counts = sorted({parameters(rung.spec) for rung in own})
        assert len(counts) == 5 and 60 < counts[-1] / counts[0] < 150
        assert all(2 < after / before < 5 for before, after in pairwise(counts)), "evenly spread"
        for rung in own:
            assert rung.operations == pytest.approx(rung.tokens * 3 * flops(rung.spec, 256))
            ratio = rung.tokens / parameters(rung.spec)
            assert min(abs(ratio - 5), abs(ratio - 10)) * parameters(rung.spec) <= 2048 / 2
    for row in table(plan):
        assert row["6ND"] == 6 * row["parameters"] * row["tokens"] and row["parameters_without_embeddings"] < row["parameters"]
        assert row["epochs"] == row["steps"] / 400
    same = planned(replace(both, tokens=Counts((1e6, 3e6))), FOOTING, timed)
    assert {round(rung.tokens / 1e6, 2) for rung in same.rungs} == {1.0, 3.0} and 0.7e15 < same.operations <= 1e15


def test_the_largest_size_may_stand_apart(both: Ladder) -> None:
    plan = planned(replace(both, largest=Apart(4.0)), FOOTING, timed)
    assert 0.7e15 < plan.operations <= 1e15
    for name in SIZES:
        counts = sorted({parameters(rung.spec) for rung in plan.rungs if rung.contender == name})
        *others, last = [after / before for before, after in pairwise(counts)]
        assert len(counts) == 5 and 60 < counts[-1] / counts[0] < 150 and 3 < last < 5
        assert all(1.5 < each < 4.5 for each in others), "25-fold in three steps of about 2.9"
    assert replace(both, largest=Apart(4.0)).heights == pytest.approx([1, 25 ** (1 / 3), 25 ** (2 / 3), 25, 100])
    assert both.heights == pytest.approx([1, 10**0.5, 10, 10**1.5, 100])


def test_a_plan_comes_to_its_time(both: Ladder) -> None:
    plan = planned(replace(both, budget=Minutes(60)), FOOTING, timed)
    assert 0.7 * 3600 < plan.whole <= 3600
    for rung in plan.rungs:
        step = 0.01 + EACH * rung.operations / rung.steps
        assert plan.seconds(rung) == pytest.approx(START + rung.steps * step + 2 * step / 3 * 100_000 / 2048)


def test_what_cannot_be_planned_is_refused(both: Ladder) -> None:
    with pytest.raises(QkvError, match=r"the smallest ladder takes .* operations, and the budget is 1e\+07: allow more"):
        planned(replace(both, budget=Operations(1e7)), FOOTING, timed)
    with pytest.raises(QkvError, match=r"the smallest ladder takes .* seconds, and the budget is 6"):
        planned(replace(both, budget=Minutes(0.1)), FOOTING, timed)
    with pytest.raises(QkvError, match=r"9 sizes within a span of 1\.1, or the numbers of their tokens, are too near"):
        planned(replace(both, sizes=9, span=1.1), FOOTING, timed)
    for wrong in ({"sizes": 1}, {"span": 1.0}, {"contenders": ()}, {"seed": -1}, {"largest": Apart(100.0)}):
        with pytest.raises(QkvError):
            replace(both, **wrong)
    with pytest.raises(
        QkvError, match="a largest size of 3 times the next needs at least 3 sizes and a larger span: not 2 and 100"
    ):
        replace(both, sizes=2, largest=Apart(3.0))
    with pytest.raises(QkvError, match=r"Apart\.times"):
        Apart(1.0)
    for none in ((), (0.0,)):
        with pytest.raises(QkvError, match="numbers are numbers above 0"):
            Counts(none)


def test_a_step_is_timed(book: Path) -> None:
    from qkv.data.cache import default_cache
    from qkv.train.tasks import task_of

    run = language(book)
    assert 0 < a_step(run, grown(named("gpt-tiny", Joint(300)), 16), task_of(run, None, default_cache())) < 60


def test_wider_models_learn_more_slowly() -> None:
    assert narrowed(Cosine(0.1, 5), 4.0) == Cosine(0.05, 5)
    assert narrowed(Noam(), 4.0) == Noam(), "it does so by itself"


def small(book: Path, **fields: Any) -> Ladder:
    return Ladder(contenders(gpt=language(book, changes=(), **fields)), Operations(8e8), 2, 4.0, Ratios((0.5, 1.0)), 3)


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "ladder.csv").read_text().splitlines()))


def test_every_member_is_a_row_and_a_ladder_goes_on_where_it_stopped(book: Path, tmp_path: Path, inline: list[str]) -> None:
    ladder, shown = small(book), list[Plan]()

    class Enough(Told):
        def say(self, line: str) -> None:
            super().say(line)
            if line.startswith("2 of 4"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        climb(ladder, tmp_path / "a", Enough(), shown.append)
    assert len(shown) == 1 and len(inline) == 2 and len(rows(tmp_path / "a")) == 1, "a row as soon as it is measured"
    found = climb(ladder, tmp_path / "a", Told(), shown.append, resume=True)
    assert len(inline) == len(set(inline)) == 4 and shown[0].rungs == shown[1].rungs
    written = rows(tmp_path / "a")
    assert list(written[0]) == COLUMNS and [{n: str(v) for n, v in row.items()} for row in found] == written
    for row, rung in zip(written, shown[0].rungs, strict=True):
        assert row["architecture"] == "gpt" and row["seed"] == "3" and float(row["seconds"]) > 0
        assert int(row["parameters"]) == parameters(rung.spec)
        assert int(row["parameters_without_embeddings"]) == without_embeddings(rung.spec)
        assert float(row["flops"]) == pytest.approx(int(row["tokens"]) * 3 * flops(rung.spec, 32))
        assert float(row["flops"]) == pytest.approx(rung.operations, rel=0.1)
        member = tmp_path / "a" / "members" / f"{row['name']}-3"
        final = json.loads((member / "journal.jsonl").read_text().splitlines()[-1])
        run = read_run(member / RECIPE)
        assert float(row["loss"]) == final["loss"] and isinstance(run.schedule, Cosine)
        assert run.schedule.peak == pytest.approx(0.002 * (128 / rung.spec.width) ** 0.5)
    assert len({(row["data"], row["tokenizer"]) for row in written}) == 1
    with pytest.raises(QkvError, match=r"ladder already; go on with it by --resume"):
        climb(ladder, tmp_path / "a", Told(), shown.append)
    with pytest.raises(QkvError, match=r"begun with other options: span: 4.0 before, 5.0 now"):
        climb(replace(ladder, span=5.0), tmp_path / "a", Told(), shown.append, resume=True)


@pytest.mark.usefixtures("inline")
def test_a_member_that_fails_is_no_row_of_the_table_and_is_said(book: Path, tmp_path: Path) -> None:
    watch = Told()
    found = climb(small(book, schedule=diverging(language(book)).schedule), tmp_path / "a", watch, lambda plan: None)
    report = json.loads((tmp_path / "a" / "ladder.json").read_text())
    assert found == report["rows"] == [] == rows(tmp_path / "a") and len(report["failed"]) == 4
    assert all("is not a number" in reason for reason in report["failed"].values())
    assert sum("failed: the loss of step" in line for line in watch.lines) == 4


@pytest.mark.usefixtures("inline")
def test_pairs_have_a_ladder_too(tmp_path: Path) -> None:
    run = replace(translator(tmp_path), changes=())
    found = climb(
        Ladder(contenders(one=run), Operations(3e9), 2, 3.0, Ratios((0.2,))), tmp_path / "out", Told(), lambda plan: None
    )
    assert len(found) == 2 and found[0]["parameters"] < found[1]["parameters"]
