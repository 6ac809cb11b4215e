"""A trained language model as something one can use: prompts in, texts out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from qkv.decode.beam import write_on
from qkv.decode.contrast import Contrastive, contrasted
from qkv.decode.diverse import Diverse, diverse
from qkv.decode.likelihood import Window, places, surprises
from qkv.decode.rule import Beam
from qkv.decode.sample import PADDING, Ban, Dice, Rule, apply_all, draw, greedy
from qkv.decode.speculate import Speculative, speculated
from qkv.decode.step import open_texts
from qkv.error import QkvError
from qkv.model.transformer import DecoderOnly
from qkv.store import Stored


@dataclass(frozen=True)
class Greedy:
    """The most likely token every time."""


@dataclass(frozen=True)
class Sample:
    """Tokens drawn as likely as they are; prompt number n of a call has dice of its own, whatever else is in the batch."""

    seed: int = 0


How = Greedy | Sample | Beam | Diverse | Contrastive | Speculative


@dataclass(frozen=True)
class _Order:
    """How something is to be written."""

    how: How
    rules: tuple[Rule, ...]
    length: int
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Continuation:
    """What was written after a prompt; `finished` says whether it ended by itself, or by a stop string."""

    text: str
    tokens: tuple[int, ...]
    finished: bool
    score: float = math.nan  # what a beam valued it at


class Writer:
    """A decoder with its tokenizer. `qkv.load(run).generate(["Once upon"])`."""

    def __init__(self, stored: Stored) -> None:
        if not isinstance(stored.model, DecoderOnly):
            raise QkvError(f"a model of the shape {type(stored.model).__name__} does not write on: that takes a DecoderOnly")
        self.model, self.tokenizer = stored.model, stored.target
        self.symbols, self.places = stored.target.symbols, places(stored.model)

    def generate(
        self,
        prompts: Sequence[str],
        how: How = Sample(),
        rules: Sequence[Rule] = (),
        *,
        length: int = 100,
        stop: Sequence[str] = (),
        count: int = 1,
        batch: int = 32,
    ) -> list[list[Continuation]]:
        """The `count` best continuations of each prompt, of at most `length` tokens; where tokens are drawn, `count` drawn ones.

        Prompts of a batch are written on together, and each comes to what it comes to alone. Raises QkvError for a prompt that
        has more tokens than the model has places.
        """
        given, order = [self.given(prompt) for prompt in prompts], _Order(how, self._all(rules), length, tuple(stop))
        if isinstance(how, Beam | Diverse):
            return self._searched(given, order, count)
        if isinstance(how, Contrastive | Speculative):
            copies = range(count if isinstance(how, Speculative) else 1)
            return [[self._alone(ids, order, key_of(place, copy)) for copy in copies] for place, ids in enumerate(given)]
        jobs = [(place, copy) for place in range(len(given)) for copy in range(count if isinstance(how, Sample) else 1)]
        jobs.sort(key=lambda job: -len(given[job[0]]))
        results: list[list[Continuation]] = [[] for _ in prompts]
        for start in range(0, len(jobs), batch):
            some = jobs[start : start + batch]
            written = self._written([given[place] for place, _ in some], [key_of(*job) for job in some], order)
            for (place, _), continuation in zip(some, written, strict=True):
                results[place].append(continuation)
        return results

    def stream(
        self,
        prompt: str,
        how: Greedy | Sample = Sample(),
        rules: Sequence[Rule] = (),
        *,
        length: int = 100,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """What is written after a prompt, piece by piece as it comes: whole characters, and no more than is certain to stay
        before a stop string."""
        given, shown = self.given(prompt), ""
        tokens: list[int] = []
        order = _Order(how, self._all(rules), length, tuple(stop))
        for new in self._steps([given], [key_of(0, 0)], order, self._room(given, length)):
            if new[0] == self.symbols.end:
                break
            tokens += new
            text = self.tokenizer.decode(tokens)
            if any(each in text for each in stop):
                break
            certain = _certain(text, stop)
            if len(certain) > len(shown):
                yield certain[len(shown) :]
                shown = certain
        text = _before(self.tokenizer.decode(tokens), stop)[0]
        if len(text) > len(shown):
            yield text[len(shown) :]

    def score(self, texts: Sequence[str]) -> list[float]:
        """log P of each text and of its end, in nats; of a text with more tokens than places, each token after the first half of
        them has that half to go by."""
        return [self._score(ids) for ids in self.tokenizer.encode(list(texts))]

    def _score(self, ids: Sequence[int]) -> float:
        context = int(min(self.places, len(ids) + 1))
        window = Window(context, context if context > len(ids) else max(1, context // 2))
        return -surprises(self.model, ids, self.symbols, window).sum().item()

    def given(self, prompt: str) -> list[int]:
        """What the model is given before the first token that it writes."""
        ids = [*self.symbols.opening, *(self.tokenizer.encode([prompt])[0] if prompt else [])] or [self.symbols.start]
        if len(ids) >= self.places:
            raise QkvError(
                f"a prompt of {len(ids)} tokens leaves no room in the {self.places} places that the model knows: shorten it to "
                f"fewer than {self.places}"
            )
        return ids

    def _room(self, given: Sequence[int], length: int) -> int:
        return int(min(length, self.places - len(given)))

    @torch.inference_mode()
    def _written(self, given: list[list[int]], keys: list[int], order: _Order) -> list[Continuation]:
        """A batch of prompts, written on token by token until all are done."""
        tokens: list[list[int]] = [[] for _ in given]
        done: dict[int, Continuation] = {}
        rooms = [self._room(ids, order.length) for ids in given]
        for new in self._steps(given, keys, order, max(rooms)):
            for row, token in enumerate(new):
                if row not in done:
                    tokens[row].append(token)
                    if (ended := self._ended(tokens[row], rooms[row], order.stop)) is not None:
                        done[row] = ended
            if len(done) == len(given):
                break
        return [done[row] if row in done else self._read(tokens[row], False, order.stop) for row in range(len(given))]

    def _ended(self, tokens: list[int], room: int, stop: Sequence[str]) -> Continuation | None:
        """The continuation if these tokens end it."""
        if tokens[-1] == self.symbols.end:
            return self._read(tokens[:-1], True, stop)
        if len(tokens) >= room:
            return self._read(tokens, False, stop)
        if stop and _before(self.tokenizer.decode(tokens), stop)[1]:
            return self._read(tokens, True, stop)
        return None

    def _read(self, tokens: Sequence[int], finished: bool, stop: Sequence[str], score: float = math.nan) -> Continuation:
        text, stopped = _before(self.tokenizer.decode(tokens), stop)
        return Continuation(text, tuple(tokens), finished or stopped, score)

    @torch.inference_mode()
    def _steps(self, given: list[list[int]], keys: list[int], order: _Order, most: int) -> Iterator[list[int]]:
        """The next token of every row, `most` times."""
        session, last = open_texts(self.model, given, self.symbols.pad)
        longest, looking = max(map(len, given)), len(order.rules) > 1  # the rule that is always there looks at no history
        history = torch.tensor([[*[PADDING] * (longest - len(ids)), *ids] for ids in given], device=last.device)
        for step in range(most):
            logits = apply_all(order.rules, session.step(last), history)
            last = draw(logits, Dice(order.how.seed).uniform(keys, step)) if isinstance(order.how, Sample) else greedy(logits)
            if looking:
                history = torch.cat([history, last[:, None]], 1)
            yield last.tolist()

    def _all(self, rules: Sequence[Rule]) -> tuple[Rule, ...]:
        """The rules of a call after the one that always holds: no token that stands for no text, but the end."""
        return (Ban(tuple(sorted(self.symbols.special - {self.symbols.end}))), *rules)

    def _searched(self, given: list[list[int]], order: _Order, count: int) -> list[list[Continuation]]:
        """By beams: prompts of equal length together."""
        results: list[list[Continuation]] = [[] for _ in given]
        by_length = sorted(range(len(given)), key=lambda place: len(given[place]))
        for _, group in groupby(by_length, key=lambda place: len(given[place])):
            places = list(group)
            some = [given[place] for place in places]
            room = self._room(some[0], order.length)
            if isinstance(order.how, Beam):
                found = write_on(self.model, some, self.symbols, order.how.at_most(room), count, order.rules)
            else:
                assert isinstance(order.how, Diverse)
                found = [diverse(self.model, ids, self.symbols, order.how, room, order.rules)[:count] for ids in some]
            for place, hypotheses in zip(places, found, strict=True):
                results[place] = [self._read(each.tokens, each.finished, order.stop, each.score) for each in hypotheses]
        return results

    def _alone(self, ids: list[int], order: _Order, key: int) -> Continuation:
        """One prompt by a way that goes through one at a time."""
        tokens: list[int] = []
        if isinstance(order.how, Contrastive):
            source = contrasted(self.model, ids, order.how, order.rules)
        else:
            assert isinstance(order.how, Speculative)
            source = speculated(self.model, ids, order.how, order.rules, key)
        for token in source:
            tokens.append(token)
            if (ended := self._ended(tokens, self._room(ids, order.length), order.stop)) is not None:
                return ended
        raise AssertionError("a source of tokens never ends")


def key_of(place: int, copy: int) -> int:
    """The key of the dice of a prompt's continuation."""
    return (copy << 32) + place


def _before(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """A text up to the first stop string in it, and whether there is one."""
    places = [text.find(each) for each in stop if each in text]
    return (text[: min(places)], True) if places else (text, False)


def _certain(text: str, stop: Sequence[str]) -> str:
    """The part of a text that more tokens cannot change: no character half said, nothing that may begin a stop string."""
    text = text.rstrip("\ufffd")
    held = max((n for each in stop for n in range(1, len(each)) if text.endswith(each[:n])), default=0)
    return text[: len(text) - held]
