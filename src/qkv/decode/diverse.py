"""Diverse beam search: groups of hypotheses that keep away from each other (Vijayakumar et al. 2016, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.data.symbols import Symbols
from qkv.decode.beam import Hypothesis
from qkv.decode.rule import Beam
from qkv.decode.sample import Rule, apply_all
from qkv.decode.step import open_texts
from qkv.error import QkvError
from qkv.model.transformer import DecoderOnly

Value = Callable[[float, int], float]
"""What a hypothesis of some log-probability and length is worth."""


@dataclass(frozen=True)
class Diverse:
    """`groups` beams of `beam` hypotheses each; at every step a token is worth `strength` less for each hypothesis of an earlier
    group that says it, or ends, there (Hamming diversity, section 5.1). The penalty stays part of what a hypothesis is worth."""

    groups: int = 3
    beam: int = 1
    strength: float = 0.5
    length_penalty: float = 0.6

    def __post_init__(self) -> None:
        if self.groups < 1 or self.beam < 1 or self.strength < 0:
            raise QkvError(f"diverse beams are at least 1 group of at least 1 hypothesis, kept apart by 0 or more: not {self}")


@dataclass
class _Group:
    """The hypotheses of one group, each row's tokens and what it is worth."""

    worth: Float[Tensor, " beam"]
    tokens: Int[Tensor, "beam T"]
    finished: list[Hypothesis]


@torch.inference_mode()
def diverse(
    model: DecoderOnly, prompt: Sequence[int], symbols: Symbols, how: Diverse, most: int, rules: Sequence[Rule] = ()
) -> list[Hypothesis]:
    """The continuations of a prompt, at most `most` tokens long: the best of each group, in the order of the groups."""
    rows, beam = how.groups * how.beam, how.beam
    value = Beam(length_penalty=how.length_penalty).value
    session, last = open_texts(model, [prompt], symbols.pad)
    given = torch.tensor([list(prompt)], device=last.device)
    if len(prompt) > 1:
        session.reorder(torch.zeros(rows, dtype=torch.int64, device=last.device))
    start = torch.full((beam,), -math.inf, device=last.device)
    start[0] = 0.0  # all say the same so far
    groups = [_Group(start.clone(), last.new_empty(beam, 0), []) for _ in range(how.groups)]
    tokens = last.expand(rows)
    for length in range(1, most + 1):
        history = torch.cat([given.expand(rows, -1), torch.cat([group.tokens for group in groups])], 1)
        logarithms = apply_all(rules, session.step(tokens), history).log_softmax(1)
        origins, chosen = [], []
        said = torch.zeros(logarithms.shape[1], device=last.device)
        for number, group in enumerate(groups):
            own, before = logarithms[number * beam : (number + 1) * beam] - how.strength * said, len(group.finished)
            places, new = _advance(group, own, symbols.end, length, beam, value)
            if before < beam:  # a group that is done says nothing more
                said.index_add_(0, new, torch.ones(beam, device=last.device))
                said[symbols.end] += len(group.finished) - before
            origins.append(places + number * beam)
            chosen.append(new)
        session.reorder(torch.cat(origins))
        tokens = torch.cat(chosen)
        if all(len(group.finished) >= beam for group in groups):
            break
    return [_best(group, value) for group in groups]


def _advance(
    group: _Group, logarithms: Float[Tensor, "beam V"], end: int, length: int, beam: int, value: Value
) -> tuple[Int[Tensor, " beam"], Int[Tensor, " beam"]]:
    """One step of a group: the rows that its new hypotheses go on from, and their tokens."""
    candidates = (group.worth[:, None] + logarithms).flatten()
    worth, places = candidates.topk(min(2 * beam, len(candidates)))
    rows, tokens = places // logarithms.shape[1], places % logarithms.shape[1]
    for rank in range(min(beam, len(tokens))):
        if tokens[rank] == end and worth[rank] > -math.inf and len(group.finished) < beam:
            amount = worth[rank].item()
            group.finished.append(Hypothesis(value(amount, length), tuple(group.tokens[rows[rank]].tolist()), amount, True))
    going = worth.masked_fill(tokens == end, -math.inf).topk(beam).indices
    group.worth = worth[going].masked_fill(tokens[going] == end, -math.inf)
    group.tokens = torch.cat([group.tokens[rows[going]], tokens[going][:, None]], 1)
    return rows[going], tokens[going]


def _best(group: _Group, value: Value) -> Hypothesis:
    """The best of a group: of those that ended, else of those at the greatest length."""
    if group.finished:
        return max(group.finished)
    best = int(group.worth.argmax())
    amount = group.worth[best].item()
    tokens = tuple(group.tokens[best].tolist())
    return Hypothesis(value(amount, len(tokens)), tokens, amount, False)
