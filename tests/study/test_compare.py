"""A contest is fair, loses nothing, and says the same in all its forms."""

from __future__ import annotations

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from tests.cli.test_evolve import Inline
from tests.study.conftest import DRAW, Told, contenders, diverging, language, translator

from qkv.error import QkvError
from qkv.look import comparison as picture
from qkv.spec.data import Files, Texts
from qkv.spec.run import Batching, Minutes, Run, Steps
from qkv.spec.study import About, Comparison, Contender, Operations, Predictions
from qkv.study import contest, process
from qkv.study.compare import compare
from qkv.study.member import OUTCOME, Failed, Member, bring_up, outcome_of
from qkv.train.loop import Interrupted
from qkv.train.run_folder import RECIPE, read_run

FLOPS = 6e7


@pytest.fixture
def three(book: Path) -> Comparison:
    """Three architectures at equal operations, with two seeds."""
    runs = {
        "gpt-tiny": language(book),
        "evolved-gpt-tiny": language(book, "evolved-gpt-tiny", ("width=16", "*.depth=1")),
        "universal": language(book, "universal-gpt-tiny", ("width=16", "*.steps=2", "*.hidden=32")),
    }
    return Comparison(contenders(**runs), Operations(FLOPS), seeds=(1, 2))


def read(folder: Path) -> tuple[list[dict[str, str]], dict[str, Any], list[list[str]]]:
    """The three forms: CSV, JSON, and the cells of the table."""
    rows = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in (folder / "comparison.md").read_text().splitlines()
    ]
    return rows, json.loads((folder / "comparison.json").read_text()), table


@pytest.mark.usefixtures("inline")
def test_equal_operations_are_equal_within_a_step_and_all_forms_agree(
    three: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "draw", DRAW)
    report = compare(three, tmp_path / "a", Told())
    rows, plain, table = read(tmp_path / "a")
    steps = set[int]()
    for member in plain["members"]:
        assert abs(member["flops"] - FLOPS) <= member["flops"] / member["steps"], "within one step"
        steps.add(member["steps"])
    assert len(plain["members"]) == 6 and len(steps) > 1, "and that is not the same number of steps"
    for row, mine, cells in zip(rows, plain["table"], table[2:], strict=True):
        assert {name: "" if value is None else str(value) for name, value in mine.items()} == row
        said = dict(zip(table[0], cells, strict=True))
        assert said["model"] == row["model"] and int(said["parameters"].replace(",", "")) == int(row["parameters"])
        least, most = float(row["loss_least"]), float(row["loss_most"])
        assert said["validation loss"] == f"{float(row['loss']):.4f} ({least:.4f} to {most:.4f})" and least < most
        losses = [each["loss"] for each in plain["members"] if each["name"] == row["model"]]
        assert float(row["loss"]) == pytest.approx(sum(losses) / 2) and [least, most] == sorted(losses)
    assert [row.name for row in report.rows] == ["gpt-tiny", "evolved-gpt-tiny", "universal"]
    assert rows[0]["p"] == "" and all(0 < float(row["p"]) <= 1 for row in rows[1:])
    with Image.open(tmp_path / "a" / "comparison.png") as image:
        assert image.width > 1000
    for folder in (tmp_path / "a" / "members").iterdir():
        schedule: Any = read_run(folder / RECIPE).schedule
        budget: Any = read_run(folder / RECIPE).budget
        assert schedule.warmup <= max(1, budget.number // 10), "the cosine is as long as the run"


@pytest.mark.usefixtures("inline")
def test_all_seeds_are_judged_by_the_same_text_and_identical_models_are_not_told_apart(book: Path, tmp_path: Path) -> None:
    same = contenders(
        one=language(book), other=language(book), worse=language(book, changes=("width=8", "*.depth=1", "*.heads=1"))
    )
    report = compare(Comparison(same, Predictions(2000), seeds=(3, 4)), tmp_path / "a", Told())
    one, other, worse = report.rows
    assert set(other.ps.values()) == {1.0} and max(worse.ps.values()) < 0.05
    texts = {(member.folder / "text.json").read_text() for row in report.rows for member in row.members}
    sizes = {len(json.loads((m.folder / "stretches.json").read_text())) for row in report.rows for m in row.members}
    assert len(texts) == len(sizes) == 1
    assert [outcome.tokens for outcome in one.lived] == [outcome.tokens for outcome in other.lived]


def test_a_comparison_goes_on_where_it_stopped(three: Comparison, tmp_path: Path, inline: list[str]) -> None:
    three = replace(three, contenders=three.contenders[:2], share=Steps(2))

    class Enough(Told):
        def say(self, line: str) -> None:
            super().say(line)
            if line.startswith("2 of 4"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(three, tmp_path / "a", Enough())
    assert len(inline) == 2
    watch = Told()
    compare(three, tmp_path / "a", watch, resume=True)
    assert len(inline) == len(set(inline)) == 4, "no member is trained twice"
    assert "2 of 4 members are finished" in watch.lines
    whole = json.loads((tmp_path / "a" / "comparison.json").read_text())
    compare(three, tmp_path / "a", Told(), resume=True)
    again = json.loads((tmp_path / "a" / "comparison.json").read_text())
    assert len(inline) == 4 and again["table"] == whole["table"] and again["seconds"]["whole"] > whole["seconds"]["whole"]
    with pytest.raises(QkvError, match="holds a comparison already; go on with it by --resume"):
        compare(three, tmp_path / "a", Told())
    with pytest.raises(QkvError, match=r"other options: seeds: \[1, 2\] before, \[1, 2, 3\] now"):
        compare(replace(three, seeds=(1, 2, 3)), tmp_path / "a", Told(), resume=True)
    with pytest.raises(QkvError, match=r"other options: share"):
        compare(replace(three, share=Steps(9)), tmp_path / "a", Told(), resume=True)
    other = Contender("evolved-gpt-tiny", replace(three.contenders[1].run, smoothing=0.1))
    with pytest.raises(QkvError, match=r"other options: contenders\.1\.run\.smoothing: 0\.0 before, 0\.1 now"):
        compare(replace(three, contenders=(three.contenders[0], other)), tmp_path / "a", Told(), resume=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(QkvError, match="is not empty and holds no comparison"):
        compare(three, tmp_path / "b", Told())


def test_a_cluster_trains_what_is_left_and_may_lose_a_member(
    book: Path, tmp_path: Path, inline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(member: Member) -> Any:
        if member.name == "lost":
            raise RuntimeError("a worker was lost")
        return contest.brought_up(member, Told())

    monkeypatch.setattr(contest, "brought_up_elsewhere", elsewhere)
    runs = contenders(one=language(book), lost=language(book), other=language(book))
    report = compare(Comparison(runs, Steps(2)), tmp_path / "a", Told(), cluster=Inline)
    assert [row.failures for row in report.rows] == ["", "seed 1: RuntimeError: a worker was lost", ""]
    assert report.rows[2].ps == {1: 1.0} and 0 < report.clock.members <= report.clock.whole
    compare(Comparison(runs, Steps(2)), tmp_path / "a", Told(), resume=True, cluster=Inline)
    assert sorted(inline) == ["one, seed 1", "other, seed 1"], "what is finished is not sent anywhere"


def test_a_failed_member_is_a_row_that_says_so_and_is_tried_again(book: Path, tmp_path: Path, inline: list[str]) -> None:
    both = contenders(fine=language(book), bad=diverging(language(book)))
    comparison = Comparison(both, Steps(6))
    report = compare(comparison, tmp_path / "a", Told())
    rows, plain, table = read(tmp_path / "a")
    assert "is not a number" in rows[1]["failed"] and rows[1]["loss"] == "" and rows[0]["failed"] == ""
    assert table[0][-1] == "failed" and "is not a number" in table[3][-1] and plain["table"][1]["seeds"] == 0
    assert not report.rows[1].ps
    compare(comparison, tmp_path / "a", Told(), resume=True)
    assert inline.count("bad, seed 1") == 2 and inline.count("fine, seed 1") == 1
    # where the first fails, nothing is tested against it, and the others stand
    report = compare(Comparison(contenders(bad=both[1].run, fine=both[0].run), Steps(6)), tmp_path / "b", Told())
    assert not report.rows[1].ps and report.rows[1].lived


@pytest.mark.usefixtures("inline")
def test_pairs_are_translated_and_tested(tmp_path: Path) -> None:
    run = translator(tmp_path)
    assert isinstance(run.train, Files)
    comparison = Comparison(contenders(one=run, other=replace(run, changes=("width=8", "*.depth=1"))), Steps(8), test=run.train)
    report = compare(comparison, tmp_path / "out", Told())
    assert report.measures == ["bleu", "chrf", "loss"] and "| sentences/s |" in report.markdown()
    (row,) = (row for row in report.rows if row.name == "other")
    told = json.loads((row.members[0].folder / "told.json").read_text())
    assert len(told) == 80 and row.lived[0].decoding > 0, "the test text, not the validation text"
    lines = Path(run.train.source[0]).read_text()
    Path(run.train.source[0]).write_text(lines.replace("ka", "ko"))
    with pytest.raises(QkvError, match="text is not what"):
        compare(comparison, tmp_path / "out", Told(), resume=True)


@pytest.mark.usefixtures("inline")
def test_equal_parameters(book: Path, tmp_path: Path) -> None:
    runs = contenders(gpt=language(book, changes=()), evolved=language(book, "evolved-gpt-tiny", ()))
    report = compare(Comparison(runs, Steps(2), About(200_000)), tmp_path / "a", Told())
    for row, near in zip(report.rows, (0.06, 0.15), strict=True):  # the widths of the cell are further apart
        assert row.lived[0].parameters == pytest.approx(200_000, rel=near)
    with pytest.raises(QkvError, match="gpt: no width brings this model near 5 parameters: the nearest is 4 wide"):
        compare(Comparison(runs, Steps(2), About(5)), tmp_path / "b", Told())


@pytest.mark.usefixtures("inline")
def test_test_text_of_its_own_and_minutes(book: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(book.read_text()[:700].rstrip())
    comparison = Comparison(contenders(one=language(book)), Minutes(0.02), test=Texts((str(other),)))
    report = compare(comparison, tmp_path / "a", Told())
    (row,) = report.rows
    stretches = json.loads((row.members[0].folder / "stretches.json").read_text())
    assert sum(count for _, count in stretches) == len(other.read_text()) + 1, "every character, and the end"
    assert set(row.lived[0].scores) == {"bits_per_byte", "perplexity"} and row.lived[0].steps >= 1
    with pytest.raises(QkvError, match="there is no file"):
        compare(replace(comparison, test=Texts((str(tmp_path / "none"),))), tmp_path / "b", Told())


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("batching", {"batching": Batching(999)}, "no fair contest, for they differ in more than the model: batching.tokens"),
    ("longest", {"longest": 31}, "differ in more than the model: longest"),
    ("model", {"model": "gpt-tinny", "changes": ()}, "unknown model 'gpt-tinny': did you mean 'gpt-tiny'"),
    ("shape", {"model": "bert-tiny", "changes": ()}, "bert-tiny is of the shape EncoderOnly, and Generate needs DecoderOnly"),
]


@pytest.mark.parametrize(("fields", "words"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
def test_what_is_no_contest_is_refused_before_anything_is_trained(
    book: Path, tmp_path: Path, inline: list[str], fields: dict[str, Any], words: str
) -> None:
    other: Run = replace(language(book), **fields)
    with pytest.raises(QkvError, match=words):
        compare(Comparison(contenders(one=language(book), other=other), Steps(2)), tmp_path / "a", Told())
    assert not inline and not (tmp_path / "a").exists()


def test_seeds_and_names_are_each_their_own(book: Path, tmp_path: Path) -> None:
    one = contenders(one=language(book))
    for seeds in ((), (1, 1), (-1,)):
        with pytest.raises(QkvError, match="seeds are whole numbers"):
            Comparison(one, Steps(1), seeds=seeds)
    with pytest.raises(QkvError, match="one stands there twice"):
        Comparison(one * 2, Steps(1))
    with pytest.raises(QkvError, match="are less than a step of one"):
        compare(Comparison(one, Operations(10)), tmp_path, Told())


def test_a_process_that_is_killed_is_a_failure_and_one_that_is_stopped_goes_on(book: Path, tmp_path: Path) -> None:
    """Killed at its first logged step, then asked to stop at the next one, by way of us; then it comes to its end."""
    run = replace(language(book), budget=Steps(60), checkpoints=replace(language(book).checkpoints, every=10))
    member = Member("one", run, tmp_path / "run", 1.0, threads=1)

    class Killing(Told):
        def step(self, step: int, *rest: Any) -> None:
            psutil.Process().children()[-1].kill()

    class Stopping(Told):
        def step(self, step: int, *rest: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    ending = process.brought_up(member, Killing())
    assert isinstance(ending, Failed) and "ended by SIGKILL: it may have needed more memory" in ending.reason
    with pytest.raises(Interrupted):
        process.brought_up(member, Stopping())
    assert outcome_of(member.folder) is None
    bring_up(member, Told())
    found = outcome_of(member.folder)
    assert found is not None and found.steps == 60 and found.peak_memory > 2**26 and found.decoding > 0
    (member.folder / OUTCOME).write_text("{")
    with pytest.raises(QkvError, match="delete it, and the member is judged again"):
        outcome_of(member.folder)
