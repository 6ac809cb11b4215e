"""What was done with the text, said to the person who gave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAMED = 5  # of the pairs left out, so many are named by their numbers


@dataclass(frozen=True)
class Left:
    """Pairs that were left out: how many, and the numbers of the first few, counted from 1 in the order of the text."""

    count: int
    first: tuple[int, ...]

    def __str__(self) -> str:
        named = ", ".join(f"{number:,}" for number in self.first)
        return f"{_pairs(self.count)} (number {named}{', ...' if self.count > len(self.first) else ''})"


@dataclass(frozen=True)
class Kept:
    """What became of the pairs of one text: how many were read and kept, which were left out, and the tokens of what was kept.

    `tokens` and `unknown`, those of them that no entry of the vocabulary stands for, are counts for source and target.
    """

    read: int
    kept: int
    empty: Left
    long: Left
    tokens: tuple[int, int]
    unknown: tuple[int, int]

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Kept:
        """The account that `dataclasses.asdict` took apart, after JSON has made lists of its tuples."""
        fields = dict(plain)
        fields.update({name: Left(plain[name]["count"], tuple(plain[name]["first"])) for name in ("empty", "long")})
        fields.update({name: tuple(plain[name]) for name in ("tokens", "unknown")})
        return cls(**fields)

    def lines(self, name: str, longest: int) -> list[str]:
        """The account of one text."""
        source, target = self.tokens
        said = [f"{name}: {self.kept:,} of {_pairs(self.read)} kept, {source:,} source and {target:,} target tokens"]
        if self.empty.count:
            said.append(f"{name}: left out, because a side is empty: {self.empty}")
        if self.long.count:
            said.append(f"{name}: left out, because a side is longer than {longest} tokens: {self.long}")
        if any(self.unknown):
            shares = [f"{_share(part, whole)} of the {side} tokens" for part, whole, side in self._sides()]
            said.append(f"{name}: unknown to the tokenizer: {' and '.join(shares)}")
        return said

    def _sides(self) -> list[tuple[int, int, str]]:
        return list(zip(self.unknown, self.tokens, ("source", "target"), strict=True))


@dataclass(frozen=True)
class Report:
    """What was done with the text of a run.

    `held_out` pairs of the training text became the validation text (0 where one was given). `shared_pairs` of the training pairs
    also stand in the validation text, and the source side of `shared_sources` of them does. `reused` says that all this was done
    before and is still in `folder`.
    """

    train: Kept
    valid: Kept
    held_out: int
    shared_pairs: int
    shared_sources: int
    vocabularies: tuple[int, int]
    joint: bool
    longest: int
    folder: str
    reused: bool

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Report:
        """The report that `dataclasses.asdict` took apart, after JSON has made lists of its tuples."""
        fields = dict(plain)
        fields.update(train=Kept.from_plain(plain["train"]), valid=Kept.from_plain(plain["valid"]))
        fields.update(vocabularies=tuple(plain["vocabularies"]))
        return cls(**fields)

    def lines(self) -> list[str]:
        """The report, line by line."""
        said = self.train.lines("training text", self.longest)
        if self.held_out:
            whole = self.train.read + self.held_out
            said.insert(0, f"no validation text was given: {self.held_out:,} of {_pairs(whole)} held out for it")
        said += self.valid.lines("validation text", self.longest)
        if self.shared_sources:
            said.append(
                f"warning: also in the validation text: {_pairs(self.shared_pairs)} of the training text, and the source side of "
                f"{_pairs(self.shared_sources)}; validation may look better than it is"
            )
        source, target = self.vocabularies
        said.append(
            f"vocabulary: {source:,} entries for both sides"
            if self.joint
            else f"vocabularies: {source:,} source and {target:,} target entries"
        )
        said.append(f"{'reused what was prepared before' if self.reused else 'prepared'} in {self.folder}")
        return said


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count:,} pairs"


def _share(part: int, whole: int) -> str:
    percent = 100 * part / whole if whole else 0.0
    return "under 0.01%" if 0 < percent < 0.01 else f"{percent:.2f}%"
