"""How the next token of a text is drawn: the rules that say which tokens may be chosen, and dice that depend on nothing else.

A rule takes one row of logits for each text, and the tokens of that text so far, and gives back logits in which whatever may
not be chosen is -inf. Rules are applied in the order in which they are given; promises about tokens (`Ban`, `Allow`,
`Constrained`) belong before the rules that narrow the choice, which may otherwise leave nothing that is promised.

Texts of different lengths share a history that is filled up at its left with `PADDING`, which no rule takes for a token. What
a row comes to does not depend on the other rows, nor on how many there are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from qkv.decode.rule import best
from qkv.error import QkvError, QkvFailure

PADDING = -1  # stands in a history where a shorter text has no token yet
LARGEST = 1e30  # factors up to here, and down to its inverse, are neither infinite nor 0 in any precision that we compute in
WORD = 2**64  # seeds, keys and steps are below
BUCKETS, BUCKETS_PER_NAT = 512, 16  # few tokens of a large vocabulary share a bucket, and the last is for all that lie far off


@runtime_checkable
class Rule(Protocol):
    """What may be chosen, given the logits and the history of each text.

    It never changes its input, and a row that had a token to choose still has one afterwards.
    """

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits with -inf for what may not be chosen."""
        ...


def apply_all(rules: Sequence[Rule], logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
    """What the rules leave, one after the other, in fp32 or better: half precision would round again with every rule."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    for rule in rules:
        logits = rule.apply(logits, history)
    return logits


@dataclass(frozen=True)
class Temperature:
    """Logits divided by a temperature: below 1 the likely tokens become likelier, above 1 all come nearer to each other."""

    value: float

    def __post_init__(self) -> None:
        if self.value == 0:
            raise QkvError("a temperature is above 0, not 0: to choose the most likely token every time, choose greedily")
        _check_factor("a temperature", self.value)

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits over the temperature."""
        peaks = logits.amax(1, keepdim=True)
        # where the largest becomes infinite, nothing but the distances from it can be told, and nothing else matters
        beyond = peaks.isfinite() & (peaks / self.value).isinf()
        return torch.where(beyond, logits - peaks, logits) / self.value


@dataclass(frozen=True)
class TopK:
    """The `count` most likely tokens (Fan et al. 2018), and whatever is as likely as the last of them."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise QkvError(f"at least 1 of the most likely tokens is kept, not {self.count}")

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits without those below the last that is kept."""
        values, _ = best(logits, min(self.count, logits.shape[1]))
        return _without(logits, logits < values[:, -1:])


@dataclass(frozen=True)
class TopP:
    """The nucleus: the smallest set of most likely tokens whose mass reaches `mass` (Holtzman et al. 2020, section 3.1).

    Of tokens that are equally likely, those that come first in the vocabulary go in first.
    """

    mass: float

    def __post_init__(self) -> None:
        _check_part("the mass of a nucleus", self.mass)

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits of the nucleus."""
        distances = logits.amax(1, keepdim=True).double() - logits
        return _without(logits, ~_nearest(distances, _probabilities(logits), self.mass))


@dataclass(frozen=True)
class MinP:
    """The tokens that are at least `share` times as likely as the most likely one (Nguyen et al. 2024)."""

    share: float

    def __post_init__(self) -> None:
        _check_part("the share of the most likely token's probability", self.share)

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits without those of the tokens that are less likely."""
        probabilities = _probabilities(logits)
        return _without(logits, probabilities < self.share * probabilities.amax(1, keepdim=True))


@dataclass(frozen=True)
class Typical:
    """The tokens whose surprise is nearest to what is to be expected, the entropy: the smallest set of them whose mass reaches
    `mass` (Meister et al. 2023), and whatever is as near as the last of them."""

    mass: float

    def __post_init__(self) -> None:
        _check_part("the mass of the typical tokens", self.mass)

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits of the typical tokens."""
        probabilities = _probabilities(logits)
        surprise = -logits.log_softmax(1, dtype=torch.float64)
        distances = (surprise - _entropy(probabilities)).abs()
        kept = _nearest(distances, probabilities, self.mass)
        farthest = distances.masked_fill(~kept, -math.inf).amax(1, keepdim=True)
        return _without(logits, distances > farthest)


@dataclass(frozen=True)
class Repetition:
    """A penalty on every token that has been in the text (Keskar et al. 2019, section 4.1); below 1 it is an encouragement.

    Positive logits are divided by it. Negative ones are multiplied, where the paper's formula would divide and so raise them.
    """

    penalty: float

    def __post_init__(self) -> None:
        _check_factor("a penalty on repetition", self.penalty)

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits, lowered where the token is in the history."""
        rows, tokens = (_among(history, logits) & logits.isfinite()).nonzero(as_tuple=True)
        before = logits[rows, tokens]
        after = torch.where(before < 0, before * self.penalty, before / self.penalty)
        limits = torch.finfo(logits.dtype)  # a penalty forbids nothing, however large
        return logits.index_put((rows, tokens), after.clamp(limits.min, limits.max))


@dataclass(frozen=True)
class NoRepeat:
    """No `size` tokens in a row twice in a text, its prompt included (Paulus et al. 2018, section 2.5).

    It asks for nothing impossible: where every token left would repeat something, all of them stay.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise QkvError(f"what is not to be repeated has at least 1 token, not {self.size}")

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits without those of tokens that would complete a repetition."""
        length = history.shape[1]
        if length < self.size:
            return logits
        ending = history[:, length - self.size + 1 :]
        windows = history.unfold(1, self.size, 1)
        # where the ending begins with padding, the text is too short to repeat anything: only what padding follows is equal
        again = (windows[:, :, :-1] == ending[:, None]).all(2)
        followers = windows[:, :, -1].masked_fill(~again, PADDING)
        left = _without(logits, _among(followers, logits))
        return torch.where(_empty(left), logits, left)


@dataclass(frozen=True)
class Ban:
    """Never these tokens. Where the rules before it left no others, all others are equally likely."""

    tokens: tuple[int, ...]

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits of all other tokens."""
        return _only(logits, self.others(logits.shape[1], logits.device))

    def others(self, entries: int, device: torch.device) -> Bool[Tensor, " V"]:
        """Which of so many tokens are not banned."""
        return _but(tuple(self.tokens), entries, device)


@dataclass(frozen=True)
class Allow:
    """Only these tokens. Where the rules before it left none of them, all of them are equally likely."""

    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.tokens:
            raise QkvError("no token is allowed: name at least 1")

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits of these tokens."""
        return _only(logits, _listed(tuple(self.tokens), logits.shape[1], logits.device))


@dataclass(frozen=True)
class Constrained:
    """Only the tokens that a function allows after the tokens of a text so far, its prompt included.

    Where the rules before it left none of them, all of them are equally likely.
    """

    allowed: Callable[[tuple[int, ...]], Sequence[int]]

    def apply(self, logits: Float[Tensor, "R V"], history: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        """The logits of what is allowed after each history."""
        rows = [self._after(tuple(token for token in row if token != PADDING)) for row in history.tolist()]
        return _only(logits, torch.stack([_listed(tuple(row), logits.shape[1], logits.device) for row in rows]))

    def _after(self, tokens: tuple[int, ...]) -> Sequence[int]:
        allowed = self.allowed(tokens)
        if not len(allowed):
            raise QkvError(f"the constraint allows no token after {list(tokens)}: at least 1 must be allowed, if only the end")
        return allowed


@dataclass(frozen=True)
class Dice:
    """Random numbers from a counter: each is a function of the seed, of the key of its row and of the step, and of nothing else.

    Philox (Salmon et al. 2011) with the seed and the row's key for its key, and the step for its counter: there is no state to
    keep, and no two of (seed, key, step) share a block of random bits.
    """

    seed: int

    def __post_init__(self) -> None:
        _check_word("a seed", self.seed)

    def uniform(self, keys: Sequence[int], step: int) -> Float64[Tensor, " R"]:
        """A number for each row, by its own key: at least 0 and below 1, of 53 random bits."""
        _check_word("a step", step)
        counter = np.array([step, 0, 0, 0], np.uint64)
        words = [self._word(key, counter) for key in keys]
        return torch.tensor([(word >> 11) * 2.0**-53 for word in words], dtype=torch.float64)

    def _word(self, key: int, counter: np.ndarray) -> int:
        _check_word("the key of a row", key)
        return int(np.random.Philox(key=np.array([self.seed, key], np.uint64), counter=counter).random_raw())


def draw(logits: Float[Tensor, "R V"], uniforms: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
    """The token of each row at which the summed probabilities first exceed the row's number, which is at least 0 and below 1.

    A number that is uniform makes every token as likely as its logit says, to 53 bits; one of probability 0 is never drawn.
    """
    _check_choice(logits.amax(1))
    strange = uniforms[~((uniforms >= 0) & (uniforms < 1))]
    if len(strange):
        raise QkvError(f"a token is drawn by a number that is at least 0 and below 1, not by {strange[0].item()}")
    odds = (logits - logits.amax(1, keepdim=True).double()).exp_()
    impossible = odds == 0
    # the sum at an impossible token is 0, and so exceeds no number, however the sums are rounded
    sums = odds.cumsum_(1).masked_fill_(impossible, 0.0)
    wanted = uniforms.to(logits.device)[:, None] * sums.amax(1, keepdim=True)  # below the largest, even when rounded
    return (sums > wanted).to(torch.uint8).argmax(1)  # the first of those that exceed it


def greedy(logits: Float[Tensor, "R V"]) -> Int[Tensor, " R"]:
    """The most likely token of each row; of several, the first in the vocabulary."""
    peaks, tokens = logits.max(1)
    _check_choice(peaks)
    return tokens


def _probabilities(logits: Float[Tensor, "R V"]) -> Float64[Tensor, "R V"]:
    return logits.softmax(1, dtype=torch.float64)


def _entropy(probabilities: Float64[Tensor, "R V"]) -> Float64[Tensor, "R 1"]:
    """The surprise to be expected, summed one token after the other: `sum` would round differently where a row is alone and
    several threads share it."""
    return torch.special.entr(probabilities).cumsum(1)[:, -1:]


def _nearest(distances: Float64[Tensor, "R V"], probabilities: Float64[Tensor, "R V"], mass: float) -> Bool[Tensor, "R V"]:
    """The fewest tokens, the nearest first, whose mass reaches `mass`; of the equally near, the first in the vocabulary.

    Tokens are put into buckets by their distance, and only the bucket in which the mass is reached is sorted: some times faster
    than to sort them all. Mass is counted from the far end, where it is smallest, so that a mass of 1 loses no token.
    """
    buckets = (distances * BUCKETS_PER_NAT).nan_to_num().clamp(max=BUCKETS - 1).long()
    onwards = _onwards(probabilities.new_zeros(len(buckets), BUCKETS + 1).scatter_add(1, buckets, probabilities))
    border = torch.maximum((onwards > 1 - mass).sum(1, keepdim=True) - 1, buckets.amin(1, keepdim=True))
    undecided = buckets == border
    rows, tokens = undecided.nonzero(as_tuple=True)
    columns = undecided.cumsum(1)[rows, tokens] - 1  # side by side, in the order of the vocabulary
    shape = len(buckets), int(columns.amax()) + 1
    near = distances.new_full(shape, math.inf).index_put((rows, columns), distances[rows, tokens])
    parts = probabilities.new_zeros(shape).index_put((rows, columns), probabilities[rows, tokens])
    needed = _first(near, parts, onwards.gather(1, border + 1), mass)
    return (buckets < border).index_put((rows, tokens), needed[rows, columns])


def _first(
    distances: Float64[Tensor, "R N"], probabilities: Float64[Tensor, "R N"], beyond: Float64[Tensor, "R 1"], mass: float
) -> Bool[Tensor, "R N"]:
    """The nearest tokens of a bucket, at least one, until no more than `1 - mass` is left in it and beyond it."""
    order = distances.argsort(dim=1, stable=True)
    needed = _onwards(probabilities.gather(1, order)) + beyond > 1 - mass
    needed[:, 0] = True
    return needed.scatter(1, order, needed)


def _onwards(parts: Float64[Tensor, "R N"]) -> Float64[Tensor, "R N"]:
    """The sum of each entry and all that follow it."""
    return parts.flip(1).cumsum(1).flip(1)


def _among(tokens: Int[Tensor, "R N"], logits: Float[Tensor, "R V"]) -> Bool[Tensor, "R V"]:
    """Which tokens of the vocabulary are among some of each row, of which `PADDING` is none."""
    rows, entries = logits.shape
    strange = tokens[(tokens < PADDING) | (tokens >= entries)]
    if len(strange):
        raise QkvError(
            f"the history holds {int(strange[0])}, which is neither {PADDING} (padding) nor a token: {_known(entries)}"
        )
    marks = torch.zeros(rows, entries + 1, dtype=torch.bool, device=logits.device)
    return marks.scatter_(1, tokens.long() - PADDING, True)[:, 1:]  # padding marks the column before the first


@functools.lru_cache(16)
def _listed(tokens: tuple[int, ...], entries: int, device: torch.device) -> Bool[Tensor, " V"]:
    """Which tokens of the vocabulary are listed."""
    strange = [token for token in tokens if not 0 <= token < entries]
    if strange:
        raise QkvError(f"{strange[0]} is listed, which is not a token: {_known(entries)}")
    marks = torch.zeros(entries, dtype=torch.bool)
    marks[torch.tensor(tokens, dtype=torch.int64)] = True
    return marks.to(device)


@functools.lru_cache(16)
def _but(tokens: tuple[int, ...], entries: int, device: torch.device) -> Bool[Tensor, " V"]:
    """Which tokens of the vocabulary are not listed, one at least."""
    others = ~_listed(tokens, entries, device)
    if not others.any():
        raise QkvError(f"all {entries} tokens of the vocabulary are banned: leave at least 1 to choose")
    return others


def _known(entries: int) -> str:
    return f"those of this model are 0 to {entries - 1}"


def _without(logits: Float[Tensor, "R V"], forbidden: Bool[Tensor, "..."]) -> Float[Tensor, "R V"]:
    return logits.masked_fill(forbidden, -math.inf)


def _empty(logits: Float[Tensor, "R V"]) -> Bool[Tensor, "R 1"]:
    return logits.amax(1, keepdim=True) == -math.inf


def _only(logits: Float[Tensor, "R V"], allowed: Bool[Tensor, "..."]) -> Float[Tensor, "R V"]:
    """The logits of what is allowed; where none is left of it, although something was left, all of it has the same chance."""
    left = _without(logits, ~allowed)
    nothing = _empty(left)
    if not nothing.any():
        return left
    return torch.where(nothing & ~_empty(logits) & allowed, 0.0, left)


def _check_factor(what: str, value: float) -> None:
    if not 1 / LARGEST <= value <= LARGEST:
        raise QkvError(f"{what} is a number above 0, from {1 / LARGEST:g} to {LARGEST:g}, not {value}")


def _check_part(what: str, value: float) -> None:
    if not 0 < value <= 1:
        raise QkvError(f"{what} is above 0 and at most 1, not {value}")


def _check_word(what: str, value: int) -> None:
    if not 0 <= value < WORD:
        raise QkvError(f"{what} is a whole number from 0 to {WORD - 1}, not {value}")


def _check_choice(peaks: Float[Tensor, " R"]) -> None:
    """Raises QkvFailure where the largest logit of a row is no number."""
    wrong = (~peaks.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise QkvFailure(
            f"no token of row {wrong[0]} can be chosen: the largest of its logits is {peaks[wrong[0]].item()} and should be a "
            f"finite number; -inf means that nothing is left to choose, anything else that the model computes no numbers"
        )
