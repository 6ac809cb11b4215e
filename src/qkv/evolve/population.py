"""Who lives, who is changed and who makes way: tournaments (So et al. 2019, section 3.2), and hurdles (section 3.3).

All of it is a function of the records of the children that were made, in their order, and of the seed: so a search that was
interrupted goes on as if it never had been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from qkv.spec.search import Hurdles, Search, Tournament

FAILED = -math.inf


@dataclass(frozen=True)
class Member:
    """A child as its fellows see it: its number, its fitness, and the steps that it was trained for."""

    number: int
    fitness: float
    steps: int


def chance(search: Search, number: int, what: str) -> Random:
    """The dice of a child for one purpose."""
    return Random(f"{search.seed} {number} {what}")


@dataclass
class Population:
    """The members, and the hurdles that were set."""

    search: Search
    members: list[Member] = field(default_factory=list)
    hurdles: list[float] = field(default_factory=list)
    _made: int = 0

    def sample(self, number: int) -> list[Member]:
        """The members among which the parent of a child is chosen, and who makes way for it."""
        assert isinstance(self.search.selection, Tournament)
        return chance(self.search, number, "tournament").sample(self.members, min(self.search.selection.size, len(self.members)))

    def full(self) -> bool:
        """Whether there are as many members as there will be."""
        selection = self.search.selection
        return isinstance(selection, Tournament) and len(self.members) >= selection.population

    def parent(self, number: int) -> Member | None:
        """Who is changed into a child; None while the population is filled up: then it is what the search begins with."""
        return max(self.sample(number), key=_rank) if self.full() else None

    def admit(self, child: Member, rivals: Sequence[int]) -> int | None:
        """Let a child live, and set a hurdle where it is time to; `rivals` are the members among which its parent was chosen. The
        number of who made way for it, if anyone did."""
        gone = None
        if self.full():  # a child that was begun before it was full, or whose rivals are gone, has all for rivals
            living = [member for member in self.members if member.number in set(rivals)] or self.members
            least = min(living, key=_rank)
            self.members.remove(least)
            gone = least.number
        self.members.append(child)
        self._made += 1
        training = self.search.training
        if isinstance(training, Hurdles) and self._made % training.children == 0 and len(self.hurdles) < len(training.steps) - 1:
            self.hurdles.append(self._hurdle())
        return gone

    def _hurdle(self) -> float:
        """The mean fitness of the members that were trained for the most steps."""
        alive = [member for member in self.members if member.fitness > FAILED]
        if not alive:
            return math.inf
        most = max(member.steps for member in alive)
        fitness = [member.fitness for member in alive if member.steps == most]
        return sum(fitness) / len(fitness)


def _rank(member: Member) -> tuple[float, int]:
    """By fitness; of equals the older one."""
    return member.fitness, -member.number


def stages(search: Search, hurdles: Sequence[float]) -> list[tuple[int, float]]:
    """The steps of each stage of a child that begins now, and what its fitness must be above to go on after it."""
    if not isinstance(search.training, Hurdles):
        return [(search.training.steps, math.inf)]
    allowed = search.training.steps[: len(hurdles) + 1]
    return list(zip(allowed, [*hurdles, math.inf], strict=True))
