"""All members of a study, one after the other or on a cluster; those that are finished are not trained again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from qkv.study.member import Ending, Failed, Member, outcome_of
from qkv.study.process import brought_up, brought_up_elsewhere
from qkv.train.loop import Watch


@dataclass
class Clock:
    """Seconds that a study took so far, before it was stopped, too, and those of them in which members were trained."""

    whole: float = 0.0
    members: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def going_on(cls, report: Path) -> Clock:
        """What the report of a study says, if there is one; it runs from now on."""
        if not report.is_file():
            return cls()
        seconds = json.loads(report.read_text(encoding="utf-8"))["seconds"]
        return cls(seconds["whole"], seconds["members"])

    def read(self) -> None:
        """It is so late by now."""
        now = time.monotonic()
        self.whole, self._since = self.whole + now - self._since, now

    @property
    def machinery(self) -> float:
        """The share of time in which no member was trained."""
        return 1 - self.members / self.whole if self.whole else 0.0

    def plain(self) -> dict[str, float]:
        """As JSON takes it."""
        return {"whole": self.whole, "members": self.members, "machinery": self.machinery}


Made = Callable[[], Executor]


def held(members: Sequence[Member], watch: Watch, clock: Clock, cluster: Made | None) -> Iterator[tuple[Member, Ending]]:
    """How each member fared, as soon as that is known: first those of which it is known already."""
    todo = []
    for member in members:
        found = outcome_of(member.folder)
        if found is None:
            todo.append(member)
        else:
            yield member, found
    if len(todo) < len(members):
        watch.say(f"{len(members) - len(todo)} of {len(members)} members are finished")
    for number, (member, ending) in enumerate(_brought_up(todo, watch, clock, cluster), len(members) - len(todo) + 1):
        watch.say(f"{number} of {len(members)}, {member.title}: {fared(ending)}")
        yield member, ending


def fared(ending: Ending) -> str:
    """An ending in words."""
    if isinstance(ending, Failed):
        return f"failed: {ending.reason}"
    return f"validation loss {ending.loss:.4f} after {ending.steps:,} steps, {ending.flops:.3g} FLOPs, {ending.seconds:.0f} s"


def _brought_up(todo: list[Member], watch: Watch, clock: Clock, cluster: Made | None) -> Iterator[tuple[Member, Ending]]:
    if cluster is not None:
        yield from _on_cluster(todo, clock, cluster())
        return
    for member in todo:
        start = time.monotonic()
        ending = brought_up(member, watch)
        clock.members += time.monotonic() - start
        yield member, ending


def _on_cluster(todo: list[Member], clock: Clock, pool: Executor) -> Iterator[tuple[Member, Ending]]:
    try:
        pending: dict[Future[Ending], Member] = {pool.submit(brought_up_elsewhere, member): member for member in todo}
        while pending:
            start = time.monotonic()
            ready, _ = wait(pending, return_when=FIRST_COMPLETED)
            clock.members += time.monotonic() - start
            for future in ready:
                yield pending.pop(future), _result(future)
    finally:
        pool.shutdown(wait=False)


def _result(future: Future[Ending]) -> Ending:
    try:
        return future.result()
    except Exception as error:  # a cluster has its own ways to lose a worker
        return Failed(f"{type(error).__name__}: {error}")
