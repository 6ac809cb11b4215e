"""Who may see whom, as one formula on two positions.

`allows(i, j)` works on ints, arrays and tensors alike; the mask, the pieces that a long text is attended to in, what a cache may
forget, the picture and the test are derived from it. True means that a query at position i may see a key at position j.

A pattern says nothing of the future by itself: `Causal() & Local(64)` sees 64 keys, the query's own among them. Those of Child et
al. 2019 are `Causal() & (Local(l) | Stride(l))` and `Causal() & (SameBlock(l) | Summary(l, c))`, where the heads are merged; in
turns they are different blocks of a stack, and with a pattern for each head `PerHead(...)`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from qkv.error import QkvError


def _whole(owner: object) -> None:
    """Raises QkvError where a field of a pattern is no whole number of at least 1; a slot may be 0."""
    for field in fields(owner):  # pyright: ignore[reportArgumentType]
        value, least = getattr(owner, field.name), 0 if field.name == "slot" else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise QkvError(f"{type(owner).__name__}.{field.name} must be a whole number of at least {least}, not {value!r}")


class Joinable:
    """What every pattern is: `a & b` allows what both allow, `a | b` what either does."""

    def __and__(self, other: Any) -> Any:
        return _joined(Both, self, other)

    def __or__(self, other: Any) -> Any:
        return _joined(Either, self, other)

    def keeps(self, j: Any, now: Any) -> Any:
        """Whether a query at `now` or later may still see a key at `j`: what a cache may not forget. Everything, unless a pattern
        says otherwise."""
        return (j == j) & (now == now)


@dataclass(frozen=True)
class Full(Joinable):
    """Every query sees every key."""

    ahead, anchored, blank = True, False, False

    def allows(self, i: Any, j: Any) -> Any:
        return (i == i) & (j == j)

    def spares(self, first: int, keys: int) -> bool:
        """Whether every query from position `first` on sees all keys 0 .. keys-1, so that no mask is needed."""
        return True


@dataclass(frozen=True)
class Causal(Joinable):
    """A query sees the keys that do not lie after it, its own among them (Vaswani et al. 2017, section 3.2.3)."""

    ahead, anchored, blank = False, False, False

    def allows(self, i: Any, j: Any) -> Any:
        return j <= i

    def spares(self, first: int, keys: int) -> bool:
        """Whether every query from position `first` on sees all keys 0 .. keys-1, so that no mask is needed."""
        return first >= keys - 1


class _Sparse(Joinable):
    """A pattern that hides keys however many there are."""

    def spares(self, first: int, keys: int) -> bool:
        """Never: some query, if only a late one, does not see all keys."""
        return False


@dataclass(frozen=True)
class Local(_Sparse):
    """A query sees the keys less than `width` away: causal, `width` of them with its own.

    The first set of the strided pattern of Child et al. 2019, section 4.3, where the formula has `Local(l + 1)` and the released
    code `Local(l)`.
    """

    width: int

    anchored, blank = False, False

    def __post_init__(self) -> None:
        _whole(self)

    @property
    def ahead(self) -> bool:
        return self.width > 1

    def allows(self, i: Any, j: Any) -> Any:
        return abs(i - j) < self.width

    def keeps(self, j: Any, now: Any) -> Any:
        return now - j < self.width


@dataclass(frozen=True)
class Stride(_Sparse):
    """A query sees every `stride`-th key, counted from itself (Child et al. 2019, section 4.3, the second set)."""

    stride: int

    ahead, anchored, blank = True, False, False

    def __post_init__(self) -> None:
        _whole(self)

    def allows(self, i: Any, j: Any) -> Any:
        return (i - j) % self.stride == 0


@dataclass(frozen=True)
class SameBlock(_Sparse):
    """A query sees the keys of its own block, where a text is cut into blocks of `block` positions (Child et al. 2019, section
    4.3, the first set of the fixed pattern)."""

    block: int

    anchored, blank = True, False

    def __post_init__(self) -> None:
        _whole(self)

    @property
    def ahead(self) -> bool:
        return self.block > 1

    def allows(self, i: Any, j: Any) -> Any:
        return i // self.block == j // self.block

    def keeps(self, j: Any, now: Any) -> Any:
        return j // self.block >= now // self.block


@dataclass(frozen=True)
class Summary(_Sparse):
    """A query sees `count` keys of every block of `block` positions: the last ones, or with a higher `slot` those so many times
    `count` before them (Child et al. 2019, section 4.3, the second set of the fixed pattern; slots are for different heads)."""

    block: int
    count: int
    slot: int = 0

    ahead, anchored, blank = True, True, True

    def __post_init__(self) -> None:
        _whole(self)
        if (self.slot + 1) * self.count > self.block:
            raise QkvError(
                f"a block of {self.block} positions has no slot {self.slot} of {self.count}: expected (slot + 1) x count of at "
                f"most {self.block}"
            )

    @property
    def columns(self) -> range:
        """The places in a block that are seen."""
        stop = self.block - self.slot * self.count
        return range(stop - self.count, stop)

    def allows(self, i: Any, j: Any) -> Any:
        place = j % self.block
        return (place >= self.columns.start) & (place < self.columns.stop) & (i == i)

    def keeps(self, j: Any, now: Any) -> Any:
        return self.allows(now, j)


@dataclass(frozen=True)
class Others(Joinable):
    """A query sees every key but its own. Where keys are mapped as queries are, nothing is more like a position than itself: so
    that it attends to others, it must not see itself."""

    ahead, anchored, blank = True, False, True

    def allows(self, i: Any, j: Any) -> Any:
        return i != j

    def spares(self, first: int, keys: int) -> bool:
        """Where no query has a key of its own there."""
        return first >= keys


@dataclass(frozen=True, repr=False)
class Both(Joinable):
    """What both patterns allow: `first & second`."""

    first: Single
    second: Single

    def __post_init__(self) -> None:
        _refuse_heads(self)

    def __repr__(self) -> str:
        return " & ".join(f"({each})" if isinstance(each, Either) else str(each) for each in (self.first, self.second))

    @property
    def ahead(self) -> bool:
        return self.first.ahead and self.second.ahead

    @property
    def anchored(self) -> bool:
        return self.first.anchored or self.second.anchored

    @property
    def blank(self) -> bool:
        return self.first.blank or self.second.blank

    def allows(self, i: Any, j: Any) -> Any:
        return self.first.allows(i, j) & self.second.allows(i, j)

    def spares(self, first: int, keys: int) -> bool:
        """Where both do."""
        return self.first.spares(first, keys) and self.second.spares(first, keys)

    def keeps(self, j: Any, now: Any) -> Any:
        """What both keep, which may be more than is ever seen."""
        return self.first.keeps(j, now) & self.second.keeps(j, now)


@dataclass(frozen=True, repr=False)
class Either(Joinable):
    """What either pattern allows, in one softmax: `first | second` (merged heads, Child et al. 2019, section 5.1)."""

    first: Single
    second: Single

    def __post_init__(self) -> None:
        _refuse_heads(self)

    def __repr__(self) -> str:
        return f"{self.first} | {self.second}"

    @property
    def ahead(self) -> bool:
        return self.first.ahead or self.second.ahead

    @property
    def anchored(self) -> bool:
        return self.first.anchored or self.second.anchored

    @property
    def blank(self) -> bool:
        return self.first.blank and self.second.blank

    def allows(self, i: Any, j: Any) -> Any:
        return self.first.allows(i, j) | self.second.allows(i, j)

    def spares(self, first: int, keys: int) -> bool:
        """Where one of them does by itself."""
        return self.first.spares(first, keys) or self.second.spares(first, keys)

    def keeps(self, j: Any, now: Any) -> Any:
        return self.first.keeps(j, now) | self.second.keeps(j, now)


@dataclass(frozen=True, init=False, repr=False)
class PerHead(Joinable):
    """Different patterns for different heads: the heads are dealt out evenly, the first ones to the first pattern (Child et al.
    2019, section 5.1)."""

    patterns: tuple[Single, ...]

    def __init__(self, *patterns: Single) -> None:
        if not patterns or any(isinstance(each, PerHead) for each in patterns):
            raise QkvError("PerHead(...) takes the patterns of single heads, at least one: PerHead(Local(64), Stride(64))")
        object.__setattr__(self, "patterns", tuple(patterns))

    def __repr__(self) -> str:
        return f"PerHead({', '.join(map(str, self.patterns))})"

    @property
    def ahead(self) -> bool:
        return any(each.ahead for each in self.patterns)

    @property
    def anchored(self) -> bool:
        return any(each.anchored for each in self.patterns)

    def keeps(self, j: Any, now: Any) -> Any:
        found = self.patterns[0].keeps(j, now)
        for each in self.patterns[1:]:
            found = found | each.keeps(j, now)
        return found


Single = Full | Causal | Local | Stride | SameBlock | Summary | Others | Both | Either
Pattern = Single | PerHead
"""Each tells also whether some query sees keys after its own (`ahead`), whether it matters where a text begins (`anchored`), and
whether some query may see nothing, not even itself (`blank`)."""


def by_head(pattern: Pattern, heads: int) -> tuple[tuple[int, Single], ...]:
    """How many heads have which pattern, from the first head to the last. Raises QkvError where they cannot be dealt out."""
    if not isinstance(pattern, PerHead):
        return ((heads, pattern),)
    if heads % len(pattern.patterns):
        raise QkvError(f"{heads} heads cannot be dealt out evenly to {len(pattern.patterns)} patterns: {pattern}")
    return tuple((heads // len(pattern.patterns), each) for each in pattern.patterns)


def forgets(pattern: Single) -> bool:
    """Whether there are keys that no query sees any more from some later position on."""
    match pattern:
        case Local() | SameBlock():
            return True
        case Summary(block=block, count=count):
            return count < block
        case Both(first=first, second=second):
            return forgets(first) or forgets(second)
        case Either(first=first, second=second):
            return forgets(first) and forgets(second)
        case _:
            return False


def keys_seen(pattern: Single, length: int) -> int:
    """How many keys of a text the last query sees at most; joined sets are counted apart."""
    match pattern:
        case Local(width=width):
            return min(width, length)
        case Stride(stride=stride):
            return -(-length // stride)
        case SameBlock(block=block):
            return min(block, length)
        case Summary(block=block, count=count):
            return min(-(-length // block) * count, length)
        case Others():
            return length - 1
        case Both(first=first, second=second):
            return min(keys_seen(first, length), keys_seen(second, length))
        case Either(first=first, second=second):
            return min(keys_seen(first, length) + keys_seen(second, length), length)
        case _:
            return length


def periods(pattern: Pattern) -> set[int]:
    """The strides and the lengths of blocks in a pattern: what a text should be longer than."""
    match pattern:
        case Both(first=first, second=second) | Either(first=first, second=second):
            return periods(first) | periods(second)
        case PerHead(patterns=patterns):
            return set().union(*map(periods, patterns))
        case Stride(stride=length) | SameBlock(block=length) | Summary(block=length):
            return {length}
        case _:
            return set()


def _joined(how: type, one: Any, other: Any) -> Any:
    """Two patterns as one, head by head where one of them is different in different heads."""
    if not isinstance(other, Joinable):
        return NotImplemented
    if isinstance(one, PerHead) and isinstance(other, PerHead):
        if len(one.patterns) != len(other.patterns):
            raise QkvError(f"{one} and {other} have different numbers of patterns, and cannot be joined head by head")
        return PerHead(*(how(mine, its) for mine, its in zip(one.patterns, other.patterns, strict=True)))
    if isinstance(one, PerHead):
        return PerHead(*(how(mine, other) for mine in one.patterns))
    if isinstance(other, PerHead):
        return PerHead(*(how(one, its) for its in other.patterns))
    return how(one, other)


def _refuse_heads(pair: Both | Either) -> None:
    if isinstance(pair.first, PerHead) or isinstance(pair.second, PerHead):
        raise QkvError("patterns of different heads are joined by & and |, not inside a pattern of one head")
