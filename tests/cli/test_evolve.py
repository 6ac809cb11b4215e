"""The search: who is chosen and who goes, hurdles as in the paper's listing, records that outlive anything, and nothing lost."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.conftest import Ask, Runs, refused

from qkv.attention.sight import Plain
from qkv.cli.train import changed
from qkv.error import QkvError
from qkv.evolve import evolve as engine
from qkv.evolve.child import Upbringing
from qkv.evolve.genome import WIDTHS, as_cell, beginning, bred, differences, layers, mutated
from qkv.evolve.population import Member, Population, stages
from qkv.evolve.record import NAME, Records
from qkv.model.transformer import build
from qkv.papers.catalogue import named
from qkv.papers.evolved import decoder, encoder
from qkv.papers.transformer import transformer
from qkv.spec.cell import Branch, Cell, Dead
from qkv.spec.count import parameters
from qkv.spec.model import EncoderDecoder, Joint, sides
from qkv.spec.part import Block, FeedForward, PostNorm, PreNorm
from qkv.spec.pattern import Causal, Full
from qkv.spec.search import AnyNumber, AtRandom, Between, Hurdles, NoHurdles, Search, Tournament
from qkv.train.cluster import by_dask
from qkv.train.run_folder import read_run

FIRST: Any = beginning(transformer(Joint(30), width=16, hidden=64, heads=4, depth=2, norm=PreNorm()))


def test_the_search_begins_with_the_transformer() -> None:
    """The same function, and as many parameters: its norms before, its feed-forward two nodes."""
    vanilla = transformer(Joint(30), width=16, hidden=64, heads=4, depth=2, norm=PreNorm(), dropout=0.0)
    cells = beginning(vanilla)
    assert parameters(cells) == parameters(vanilla)
    one, other = build(vanilla, 1).double().eval(), build(cells, 2).double().eval()
    # both are built in one order, part by part; in a cell a norm stands before the layer that it is for
    weights = {}
    for name in other.state_dict():
        its = name
        for mine, the in (("branches.0.", "sublayers.0."), ("branches.2.", "sublayers.1."), ("branches.4.", "sublayers.2.")):
            its = its.replace(mine, the)
        weights[name] = its
    renamed = {}
    for name, its in weights.items():
        side, last = name.partition(".")[0], "sublayers.2." if name.startswith("decoder") else "sublayers.1."
        into, out = ("branches.4.", "branches.6.") if side == "decoder" else ("branches.2.", "branches.4.")
        if into in name:
            its = name.replace(into, last).replace("sublayer.out", "sublayer.into")
        elif out in name:
            its = name.replace(out, last)
        renamed[name] = one.state_dict()[its]
    other.load_state_dict(renamed)
    source, target = (torch.randint(0, 30, (2, 7), generator=torch.Generator().manual_seed(each)) for each in (0, 1))
    torch.testing.assert_close(
        other.decode(target, other.encode(source, Plain())), one.decode(target, one.encode(source, Plain())), rtol=0, atol=1e-10
    )


def test_what_cells_cannot_say_is_refused() -> None:
    with pytest.raises(QkvError, match="norms before the sublayers"):
        beginning(transformer(Joint(30), norm=PostNorm()))
    with pytest.raises(QkvError, match="is a stack, not Recurrence"):
        beginning(named("universal-evolved-tiny", Joint(30)))
    with pytest.raises(QkvError, match="has no place in a cell"):
        as_cell(Block(FeedForward(8, gated=True), norm=PreNorm()), 8)


@given(seed=st.integers(0, 2**30))
def test_what_is_bred_can_be_built_and_is_of_the_vocabulary(seed: int) -> None:
    child = bred(FIRST, 0.1, AnyNumber(), Random(seed))
    assert child != FIRST and list(differences(FIRST, child))
    for name, depth in sides(child).items():
        known = layers(Full() if name == "encoder" else Causal(), name == "decoder")
        before = {each for block in sides(FIRST)[name].blocks for each in block.sublayers}
        for block in depth.blocks:
            assert isinstance(block, Cell) and 1 <= len(depth.tiled()) <= 6
            for number, node in enumerate(block.nodes):
                for branch in node.branches:
                    assert branch.input <= number or isinstance(branch.layer, Dead)
                    assert branch.layer in known or branch.layer in before
    assert sum(each.numel() for each in build(child, 0).parameters()) == parameters(child)


def test_every_field_changes_as_often_as_it_should() -> None:
    """2,000 fields of which each may become any of its values: with a rate of 1 none stays but by chance."""
    model = replace(FIRST, encoder=FIRST.encoder, decoder=FIRST.decoder)
    counts, tries = {"norm": 0, "activation": 0, "input": 0}, 0
    for seed in range(300):
        try:
            child = mutated(model, 0.2, Random(seed))
        except QkvError:
            continue
        for node, was in zip(child.decoder.blocks[0].nodes, model.decoder.blocks[0].nodes, strict=True):  # pyright: ignore
            tries += 1
            for field in counts:
                counts[field] += getattr(node.left, field) != getattr(was.left, field)
    assert abs(counts["norm"] / tries - 0.2 / 2) < 0.03
    assert abs(counts["activation"] / tries - 0.2 * 2 / 3) < 0.03
    same = [mutated(model, 1e-9, Random(seed)) for seed in range(20)]
    assert all(each == model for each in same)
    assert {1.0, 0.5, 2.0, 4.0} <= set(WIDTHS), "the widths of the published cells"


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_the_published_cells_are_in_the_space(side: str) -> None:
    cell = {"encoder": encoder, "decoder": decoder}[side](8)
    known = layers(Full() if side == "encoder" else Causal(), side == "decoder")
    for branch in (each for node in cell.nodes for each in node.alive):
        assert branch.layer in known and (branch.width in WIDTHS or branch.width == Branch().width)


def test_a_range_is_kept_and_one_that_nothing_meets_is_refused() -> None:
    count = parameters(FIRST)
    for seed in range(20):
        assert count <= parameters(bred(FIRST, 0.1, Between(count, count + 5000), Random(seed))) <= count + 5000
    with pytest.raises(QkvError, match=r"none can be built and is Between\(least=1, most=2\); the last was refused"):
        bred(FIRST, 0.1, Between(1, 2), Random(0))


def listing(search: Search, fitness: Callable[[int, int], float], number: int) -> tuple[list[tuple[float, int]], list[float]]:
    """Progressive dynamic hurdles as So et al. 2019 list them, for children whose fitness is given: of each its fitness and
    steps, and the hurdles. Selection plays no part here: the population is as large as the number of children."""
    assert isinstance(search.training, Hurdles)
    s, hurdles, found = search.training.steps, list[float](), list[tuple[float, int]]()
    for child in range(number):
        steps, i = s[0], 0
        f = fitness(child, steps)
        while i < len(hurdles) and f > hurdles[i]:
            i += 1
            steps += s[i]
            f = fitness(child, steps)
        found.append((f, steps))
        if len(found) % search.training.children == 0 and len(hurdles) < len(s) - 1:
            most = max(steps for _, steps in found)
            longest = [f for f, steps in found if steps == most]
            hurdles.append(sum(longest) / len(longest))
    return found, hurdles


class Inline(Executor):
    """Does at once what it is given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Quiet:
    def __init__(self) -> None:
        self.shown: list[Any] = []

    def say(self, line: str) -> None:
        pass

    def show(self, state: Any, child: Any) -> None:
        self.shown.append((state, child))


def worth(model: Any, steps: int) -> float:
    """A fitness that depends on the model alone, and grows with the steps."""
    return Random(repr(model)).gauss(0, 1) - 100 / steps


@pytest.fixture
def search(runs: Runs) -> Search:
    run = replace(read_run(runs.language / "run.toml"), changes=("width=16", "*.heads=4", "*.hidden=32"))
    return Search(run, Hurdles((10, 10, 20), 6), Tournament(8, 3), 0.1, children=30)


@pytest.fixture
def brought_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Children are not trained, but judged by `worth`; the steps of each are noted."""
    made: list[int] = []

    def fake(search: Search, model: Any, found: Any) -> Upbringing:
        done, fitness = 0, list[tuple[int, float]]()
        for steps, hurdle in found:
            done += steps
            fitness.append((done, worth(model, done)))
            if not fitness[-1][1] > hurdle:
                break
        made.append(done)
        return Upbringing(tuple(fitness), 0.0)

    monkeypatch.setattr(engine, "_watched", fake)
    return made


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """All that is known of children but how long they took."""
    with sqlite3.connect(folder / NAME) as base:
        return base.execute(
            "SELECT number, parent, rivals, model, fitness, steps, stages, hurdles FROM child ORDER BY place"
        ).fetchall()


@pytest.mark.usefixtures("brought_up")
def test_hurdles_are_those_of_the_listing(search: Search, tmp_path: Path) -> None:
    search = replace(search, selection=Tournament(30, 30))
    engine.evolve(search, tmp_path / "a", Quiet(), executor=Inline)
    records = Records(tmp_path / "a", search, resume=True)
    children = list(records)
    found, hurdles = listing(search, lambda child, steps: worth(children[child].model, steps), 30)
    assert [(child.fitness, child.steps) for child in children] == found
    assert children[-1].hurdles == tuple(hurdles) and len(hurdles) == 2
    assert len({child.steps for child in children}) == 3, "some fell at each hurdle, and some passed both"
    records.close()


@given(data=st.data())
def test_the_least_fit_of_a_sample_makes_way_for_a_child_of_its_fittest(data: st.DataObject) -> None:
    run: Any = None
    with mock.patch.object(Search, "__post_init__", lambda self: None):
        search = Search(run, NoHurdles(5), Tournament(6, 3), children=99, seed=data.draw(st.integers(0, 99)))
    population = Population(search)
    for number in range(20):
        full = population.full()
        assert full == (number >= 6)
        before = {member.number: member.fitness for member in population.members}
        rivals = [member.number for member in population.sample(number)] if full else []
        if full:
            parent = population.parent(number)
            assert parent is not None and parent.fitness == max(before[each] for each in rivals) and len(rivals) == 3
        gone = population.admit(Member(number, data.draw(st.floats(-9, 0)), 5), rivals)
        assert (gone is None) == (not full)
        if gone is not None:
            assert gone in rivals and before[gone] == min(before[each] for each in rivals)
        assert len(population.members) == min(6, number + 1)
    assert stages(search, ()) == [(5, math.inf)]


@pytest.mark.parametrize("cut", [1, 7, 13, 29])
def test_an_interrupted_search_is_the_same(search: Search, tmp_path: Path, brought_up: list[int], cut: int) -> None:
    """It stops at any child, and goes on as if it never had."""
    engine.evolve(search, tmp_path / "whole", Quiet(), executor=Inline)

    class Enough(Quiet):
        def show(self, state: Any, child: Any) -> None:
            super().show(state, child)
            if len(self.shown) == cut:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.evolve(search, tmp_path / "cut", Enough(), executor=Inline)
    assert len(rows(tmp_path / "cut")) == cut
    brought_up.clear()
    best = engine.evolve(search, tmp_path / "cut", Quiet(), resume=True, executor=Inline)
    assert len(brought_up) == 30 - cut, "no child is trained twice"
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert best.fitness == max(child[4] for child in rows(tmp_path / "whole") if child[0] in {best.number})


@pytest.mark.usefixtures("brought_up")
def test_no_model_is_trained_twice_and_controls_are_what_they_say(search: Search, tmp_path: Path) -> None:
    engine.evolve(search, tmp_path / "a", Quiet(), executor=Inline)
    models = [row[3] for row in rows(tmp_path / "a")]
    assert len(set(models)) == len(models) == 30
    engine.evolve(replace(search, training=NoHurdles(40)), tmp_path / "b", Quiet(), executor=Inline)
    assert {row[5] for row in rows(tmp_path / "b")} == {40}
    engine.evolve(replace(search, selection=AtRandom(), training=NoHurdles(40)), tmp_path / "c", Quiet(), executor=Inline)
    assert all(row[1] is None and row[2] == "[]" for row in rows(tmp_path / "c"))
    watch = Quiet()
    engine.evolve(replace(search, steps=100), tmp_path / "d", watch, executor=Inline)
    assert 100 <= watch.shown[-1][0].steps < 140, "the last child is brought up to its end"


def test_what_fails_is_written_down_and_the_search_goes_on(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(search: Search, model: Any, found: Any) -> Upbringing:
        if Random(repr(model)).random() < 0.3:
            return Upbringing(((10, -3.0),), 0.1, "QkvFailure: the loss of step 12 is not a number")
        return Upbringing(((10, worth(model, 10)),), 0.1)

    monkeypatch.setattr(engine, "_watched", fake)
    watch = Quiet()
    best = engine.evolve(search, tmp_path / "a", watch, executor=Inline)
    state = watch.shown[-1][0]
    failed = [child for _, child in watch.shown if child.failure]
    assert best.fitness is not None and not best.failure and len(failed) == state.failed > 2
    assert all(child.fitness is None for child in failed)


def test_a_search_of_another_kind_is_not_gone_on_with(search: Search, tmp_path: Path, brought_up: list[int]) -> None:
    engine.evolve(search, tmp_path / "a", Quiet(), executor=Inline)
    with pytest.raises(QkvError, match="holds a search already"):
        engine.evolve(search, tmp_path / "a", Quiet(), executor=Inline)
    with pytest.raises(QkvError, match="begun with other options"):
        engine.evolve(replace(search, mutation=0.2), tmp_path / "a", Quiet(), resume=True, executor=Inline)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / NAME).write_text("no database at all, but some text that is long enough to be read as one")
    with pytest.raises(QkvError, match="holds no records of a search"):
        engine.evolve(search, tmp_path / "b", Quiet(), resume=True, executor=Inline)
    with pytest.raises(QkvError, match="none can be built and is Between"):
        engine.evolve(replace(search, parameters=Between(1, 2)), tmp_path / "c", Quiet(), executor=Inline)
    assert not (tmp_path / "c").exists()


QUICK = "--steps 3,3 --per-hurdle 3 --population 4 --tournament 2 --mutation 0.1".split()


def test_a_person_searches_and_trains_what_is_found(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "search"
    recipe = ("--recipe", str(runs.language / "run.toml"), "--set", "schedule.warmup=1")
    answer = ask("evolve", *recipe, "--out", str(out), *QUICK, "--children", "6", "--workers", "2")
    assert answer.code == 0, answer.err
    first, path = answer.out.splitlines()
    assert first.startswith("the best child is number ") and path == str(out / "best.json")
    assert "children 6 of 6, 0 failed; population 4;" in answer.err
    found = rows(out)
    assert sorted(row[0] for row in found) == list(range(6)) and all(row[4] is not None for row in found)
    assert ask("evolve", "--out", str(out), "--resume").out == answer.out, "there is nothing left to do"
    again = ask("train", "generate", "--text", str(runs.text), "--model", path, "--out", str(tmp_path / "run"), "--steps", "2")
    assert again.code == 0, again.err
    lineage = ask("look", "search", str(out)).out.splitlines()
    assert lineage[0].startswith(f"child {first.split()[5].rstrip(':')}: fitness ") and lineage[-1] == str(out / "search.png")
    assert [line for line in lineage if line.startswith("child ")][-1].startswith("child 0: ")
    assert ask("look", "cell", path, "--out", str(tmp_path / "cell.png")).code == 0
    refused(ask("evolve", *recipe, "--out", str(out), *QUICK), "holds a search already")
    refused(ask("look", "search", str(tmp_path)), "there is no search in")
    refused(ask("evolve", "--out", str(tmp_path / "none"), "--resume"), "there is no search in")
    other = ("--children", "150", "--minutes", "0", "--workers", "1", *recipe)  # some as they were, or as they are by themselves
    answer = ask("evolve", "--out", str(out), "--resume", *other)
    refused(answer, "keeps its options: leave out --recipe, --children, --minutes, --set")
    refused(ask("evolve", "--out", str(tmp_path / "none")), "--recipe NAME")
    refused(ask("evolve", *recipe, "--out", str(tmp_path / "none"), "--parameters", "5"), "--parameters is LEAST,MOST")
    refused(ask("evolve", *recipe, "--out", str(tmp_path / "none"), "--steps", "a,b"), "--steps is a list of whole numbers")
    refused(ask("evolve", *recipe, "--out", str(tmp_path / "none"), "--control", "x"), "no-hurdles or random")
    refused(ask("evolve", *recipe, "--out", str(tmp_path / "none"), "--parameters", "1,2"), "none can be built")


@pytest.mark.parametrize("task", ["translate", "denoise", "fill", "classify"])
def test_any_task_is_searched_for(ask: Ask, runs: Runs, tmp_path: Path, task: str) -> None:
    """Its recipe is a run of one step; norms stand before the sublayers."""
    pairs = tmp_path / "pairs.tsv"
    lines = runs.text.read_text().splitlines()
    pairs.write_text("source\ttarget\n" + "".join(f"{line}\t{line.upper()}\n" for line in lines))
    given = {
        "translate": ["--pairs", str(pairs), "--fields", "source,target", "--model", "transformer-tiny"],
        "denoise": ["--text", str(runs.text), "--documents", "lines", "--model", "bart-tiny"],
        "fill": ["--text", str(runs.text), "--documents", "lines", "--model", "bert-tiny"],
        "classify": ["--table", str(runs.table), "--model", "bert-tiny"],
    }
    small = "--set width=16 --set *.depth=1 --set *.hidden=32 --set *.heads=2 --steps 1".split()
    begun = ask("train", task, *given[task], *small, "--set", "*.norm=PreNorm()", "--out", str(tmp_path / "run"))
    assert begun.code == 0, begun.err
    answer = ask(
        "evolve", "--recipe", str(tmp_path / "run" / "run.toml"), "--out", str(tmp_path / "a"), *QUICK, "--children", "3"
    )
    assert answer.code == 0, answer.err
    assert len(rows(tmp_path / "a")) == 3 and not [row for row in rows(tmp_path / "a") if row[4] is None], answer.err


def test_kill_9_loses_the_children_in_flight_and_nothing_else(
    runs: Runs, tmp_path: Path, python: tuple[list[str], dict[str, str]], ask: Ask
) -> None:
    """One worker; the same seed then gives the same search as one that was left alone."""
    recipe = ("--recipe", str(runs.language / "run.toml"), "--set", "schedule.warmup=1", "--workers", "1", "--children", "6")
    whole = tmp_path / "whole"
    assert ask("evolve", *recipe, "--out", str(whole), *QUICK).code == 0
    start, environment = python
    out = tmp_path / "killed"
    script = f"from qkv.cli.main import app; app({['evolve', *recipe, '--out', str(out), *QUICK]!r})"
    process = subprocess.Popen(
        [*start, f"if __name__ == '__main__':\n    {script}"], env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not ((out / NAME).exists() and _count(out) >= 2):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 2 <= _count(out) < 6
    assert ask("evolve", "--out", str(out), "--resume", "--workers", "1").code == 0
    assert rows(out) == rows(whole)


def test_a_cluster_brings_children_up_and_may_lose_a_worker(runs: Runs, tmp_path: Path, ask: Ask) -> None:
    """Two workers of a dask cluster on this machine, of which one is killed in mid-search."""
    distributed = pytest.importorskip("distributed")
    run = changed(read_run(runs.language / "run.toml"), ["schedule.warmup=1", "evaluation=Evaluation(500,0)"])
    search = Search(run, Hurdles((3, 3), 3), Tournament(4, 2), 0.1, children=6)
    with distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:

        class Killing(Quiet):
            def show(self, state: Any, child: Any) -> None:
                super().show(state, child)
                if len(self.shown) == 2:
                    os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)

        watch = Killing()
        best = engine.evolve(search, tmp_path / "a", watch, workers=2, executor=by_dask(cluster.scheduler_address))
    assert best.fitness is not None
    assert sorted(row[0] for row in rows(tmp_path / "a")) == list(range(6))
    assert not [child.failure for _, child in watch.shown if child.failure], "what a lost worker had is done by another"
    recipe = ("--recipe", str(runs.language / "run.toml"), "--out", str(tmp_path / "b"))
    refused(ask("evolve", *recipe, "--cluster", "nowhere at all"), "no dask scheduler at nowhere at all")


def _count(folder: Path) -> int:
    try:
        with sqlite3.connect(folder / NAME) as base:
            return base.execute("SELECT COUNT(*) FROM child").fetchone()[0]
    except sqlite3.DatabaseError:
        return 0


@pytest.mark.parametrize("end", ["killed", "hangs"])
def test_a_child_whose_process_dies_is_tried_once_more(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Two processes; some children end their own, or hang until it ends itself: these are recorded as lost, and their neighbours
    are not."""
    monkeypatch.setattr(engine, "_watched", _killed if end == "killed" else _hung)
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where other processes find this module
    watch = Quiet()
    engine.evolve(replace(search, children=6, minutes=0.01), tmp_path / "a", watch, workers=2)
    failed = [child for _, child in watch.shown if child.failure]
    assert [child.failure for child in failed] == [engine.LOST] * len(failed) and 1 <= len(failed) <= 5
    assert {child.number for child in failed} == {child.number for _, child in watch.shown if _dies(child.model)}


def test_a_pool_that_breaks_before_a_child_is_handed_to_it_loses_none(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may end between two submissions; the second is refused then."""
    refusals = [False, True, False, False, True]

    class Broken(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            if refusals and refusals.pop(0):
                raise BrokenProcessPool("a process terminated abruptly")
            return super().submit(*args, **kwargs)

    monkeypatch.setattr(engine, "_watched", lambda search, model, found: _lives(model, found))
    watch = Quiet()
    engine.evolve(replace(search, children=6), tmp_path / "a", watch, workers=2, executor=lambda: Broken(2))
    assert not refusals and [child.failure for _, child in watch.shown] == [""] * 6
    assert sorted(child.number for _, child in watch.shown) == list(range(6))


def _dies(model: Any) -> bool:
    return Random(repr(model)).random() < 0.4


def _lives(model: EncoderDecoder, found: Any) -> Upbringing:
    return Upbringing(((found[0][0], worth(model, found[0][0])),), 0.0)


def _killed(search: Search, model: EncoderDecoder, found: Any) -> Upbringing:
    if _dies(model):
        os.kill(os.getpid(), signal.SIGKILL)
    return _lives(model, found)


def _hung(search: Search, model: EncoderDecoder, found: Any) -> Upbringing:
    """What watches a child in its process, where bringing it up takes for ever."""

    def bring_up(*_: Any) -> Upbringing:
        while _dies(model):
            time.sleep(1)
        return _lives(model, found)

    with mock.patch.multiple(engine, GRACE=0.5, bring_up=bring_up):
        return engine._watched(search, model, found)
