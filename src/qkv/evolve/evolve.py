"""The search: children are bred, brought up in processes of their own, written down, and let into the population."""

from __future__ import annotations

import faulthandler
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from qkv.error import QkvError
from qkv.evolve.child import Upbringing, bring_up, prepare, task_for
from qkv.evolve.genome import Parent, beginning, bred
from qkv.evolve.population import FAILED, Member, Population, chance, stages
from qkv.evolve.record import Child, Records, fittest
from qkv.spec.count import parameters
from qkv.spec.search import AnyNumber, AtRandom, Search
from qkv.train.run import describe

LOST = "its process died, twice: it may have hung, or needed more memory than there is"
GRACE = 60.0  # seconds that a child has beyond half as long again as it may take, before its process ends itself
SEED = 0  # the number of the child that is what the search begins with


@dataclass(frozen=True)
class State:
    """How a search is getting on."""

    search: Search
    best: Child | None
    population: int
    hurdles: tuple[float, ...]
    children: int
    failed: int
    steps: int
    seconds: float
    seconds_left: float


@runtime_checkable
class Watch(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None: ...

    def show(self, state: State, child: Child | None) -> None: ...


def local(workers: int) -> Callable[[], Executor]:
    """Processes of this machine, as many as are wanted, each with its share of the threads."""
    threads = max(1, multiprocessing.cpu_count() // workers)

    def made() -> Executor:
        spawned = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, spawned, initializer=prepare, initargs=(threads,))

    return made


@dataclass
class _Way:
    """A search on its way."""

    search: Search
    first: Parent
    records: Records
    watch: Watch
    population: Population
    children: dict[int, Child] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def admit(self, child: Child) -> None:
        """Let a child into the population as it was ready."""
        self.children[child.number] = child
        fitness = FAILED if child.failure or child.fitness is None else child.fitness
        self.population.admit(Member(child.number, fitness, child.steps), child.rivals)

    def state(self, here: int) -> State:
        """How it is getting on; `here` children were brought up since it began or went on."""
        best = fittest(self.children.values())
        spent, seconds = sum(child.steps for child in self.children.values()), time.monotonic() - self.began
        left = self.search.children - len(self.children)
        failed = sum(bool(child.failure) for child in self.children.values())
        each = seconds / here if here else 0.0
        alive = len(self.population.members)
        hurdles = tuple(self.population.hurdles)
        return State(self.search, best, alive, hurdles, len(self.children), failed, spent, seconds, left * each)

    def over(self, waiting: int) -> bool:
        """Whether no more children are to be begun, with so many on their way."""
        spent = sum(child.steps for child in self.children.values())
        return len(self.children) + waiting >= self.search.children or bool(self.search.steps and spent >= self.search.steps)


@dataclass(frozen=True)
class _Begun:
    """A child on its way."""

    number: int
    parent: int | None
    rivals: tuple[int, ...]
    model: Parent
    stages: tuple[tuple[int, float], ...]
    hurdles: tuple[float, ...]


def evolve(
    search: Search,
    folder: Path,
    watch: Watch,
    *,
    workers: int = 1,
    resume: bool = False,
    executor: Callable[[], Executor] | None = None,
) -> Child:
    """Search to the end; the best child, which stands in the folder, too. Raises QkvError where no search can begin, or no child
    lived."""
    task = task_for(search.run)
    first = beginning(describe(search.run, task.report.vocabularies))
    if not isinstance(search.parameters, AnyNumber):
        bred(first, search.mutation, search.parameters, chance(search, SEED, "range"))  # says at once where there is none
    records = Records(folder, search, resume)
    try:
        way = _Way(search, first, records, watch, Population(search))
        for child in records:
            way.admit(child)
        if way.children:
            watch.say(f"goes on after {len(way.children)} children")
        _bring_up_all(way, workers, executor or local(workers))
        best = way.state(0).best
        if best is None:
            raise QkvError(f"none of {len(way.children)} children lived: see their failures in {records.path}")
        records.crown(best)
        return best
    finally:
        records.close()


def _bring_up_all(way: _Way, workers: int, made: Callable[[], Executor]) -> None:
    pool, begun, here = made(), dict[Future[Upbringing], _Begun](), 0
    again: list[_Begun] = []  # those whose process died once: they are tried one at a time
    suspected = set[int]()
    try:
        while begun or again or not way.over(0):
            numbers = _numbers(way, {each.number for each in (*begun.values(), *again)})
            while not again and len(begun) < workers and not way.over(len(begun)):
                child = _breed(way, next(numbers), {each.model for each in begun.values()})
                begun[_submitted(pool, way.search, child)] = child
            if again and not begun:
                child = again.pop(0)
                begun[_submitted(pool, way.search, child)] = child
            ready, _ = wait(begun, return_when=FIRST_COMPLETED)
            broken = False
            for future in sorted(ready, key=lambda each: begun[each].number):
                child = begun.pop(future)
                try:
                    found = future.result()
                except BrokenProcessPool:
                    broken = True
                    if child.number not in suspected:
                        suspected.add(child.number)
                        again.append(child)
                        continue
                    found = Upbringing((), 0.0, LOST)
                except Exception as error:  # a cluster has its own ways to lose a worker
                    found = Upbringing((), 0.0, f"{type(error).__name__}: {error}")
                here += 1
                _settle(way, child, found, here)
            if broken:
                again += [each for each in begun.values() if each.number not in {other.number for other in again}]
                suspected |= {each.number for each in begun.values()}
                begun.clear()
                pool.shutdown(wait=False)
                pool = made()
    finally:
        pool.shutdown(wait=False)


def _submitted(pool: Executor, search: Search, child: _Begun) -> Future[Upbringing]:
    try:
        return pool.submit(_watched, search, child.model, child.stages)
    except BrokenProcessPool as error:  # another's process died just now: as if this one had been lost with it
        lost = Future[Upbringing]()
        lost.set_exception(error)
        return lost


def _watched(search: Search, model: Parent, found: tuple[tuple[int, float], ...]) -> Upbringing:
    """A child brought up in another process, which ends itself if the child hangs where nothing else can end it."""
    if search.minutes:
        faulthandler.dump_traceback_later(90 * search.minutes + GRACE, exit=True)
    try:
        return bring_up(search.run, model, found, search.longest, search.minutes)
    finally:
        if search.minutes:
            faulthandler.cancel_dump_traceback_later()


def _numbers(way: _Way, taken: set[int]) -> Iterator[int]:
    """The numbers that no child has yet, from the lowest."""
    number = 0
    while True:
        if number not in way.children and number not in taken:
            yield number
        number += 1


def _breed(way: _Way, number: int, waiting: set[Parent]) -> _Begun:
    """The child of a number: what the search begins with; what is changed in it while the population is filled up; later, what is
    changed in the fittest of some members. No model is trained twice."""
    search, dice = way.search, chance(way.search, number, "mutation")
    known = waiting | {child.model for child in way.children.values()}
    rivals: tuple[int, ...] = ()
    parent: int | None = None
    if number == SEED:
        model = way.first
    elif isinstance(search.selection, AtRandom):
        model = bred(way.first, 1.0, search.parameters, dice, known)
    elif way.population.full():
        sample = way.population.sample(number)
        rivals = tuple(member.number for member in sample)
        chosen = way.population.parent(number)
        assert chosen is not None
        parent = chosen.number
        model = bred(way.children[parent].model, search.mutation, search.parameters, dice, known)
    else:
        model, parent = bred(way.first, search.mutation, search.parameters, dice, known), SEED
    hurdles = tuple(way.population.hurdles)
    return _Begun(number, parent, rivals, model, tuple(stages(search, hurdles)), hurdles)


def _settle(way: _Way, begun: _Begun, found: Upbringing, here: int) -> None:
    """Write a child down, then let it in."""
    reached = found.stages[-1] if found.stages else (0, None)
    child = Child(
        number=begun.number,
        place=len(way.children),
        parent=begun.parent,
        rivals=begun.rivals,
        model=begun.model,
        parameters=parameters(begun.model),
        seed=way.search.run.seed,
        fitness=None if found.failure else reached[1],
        steps=reached[0],
        stages=found.stages,
        hurdles=begun.hurdles,
        seconds=found.seconds,
        failure=found.failure,
    )
    way.records.add(child)
    way.admit(child)
    way.watch.show(way.state(here), child)
