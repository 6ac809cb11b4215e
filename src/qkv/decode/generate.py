"""A trained language model as something one can use: prompts in, texts out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.decode import likelihood
from qkv.decode.beam import write_on
from qkv.decode.contrast import Contrastive, contrasted
from qkv.decode.diverse import Diverse, diverse
from qkv.decode.likelihood import Window, equally_long, places, surprises
from qkv.decode.load import misused
from qkv.decode.peak import Peak
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


CONTEXT = 8  # tokens of a prompt that decide how what follows is spelled: one of them at least says some text
How = Greedy | Sample | Beam | Diverse | Contrastive | Speculative


@dataclass(frozen=True)
class Order:
    """How something is to be written."""

    how: How
    rules: tuple[Rule, ...]
    length: int
    stop: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.length < 1:
            raise QkvError(f"a continuation has at least 1 token, not {self.length}")
        if "" in self.stop:
            raise QkvError("a stop string has at least 1 character: nothing at all stands at the beginning of every text")


@dataclass(frozen=True)
class Continuation:
    """What was written after a prompt; `finished` says whether it ended by itself, or by a stop string."""

    text: str
    tokens: tuple[int, ...]
    finished: bool
    score: float = math.nan  # what a beam valued it at


@dataclass(frozen=True)
class LastWord:
    """How much the last word of a text surprises, in nats, and whether it is what the model would say."""

    surprise: float
    said: bool


class Writer:
    """A decoder with its tokenizer. `qkv.load(run).generate(["Once upon"])`."""

    def __init__(self, stored: Stored) -> None:
        if not isinstance(stored.model, DecoderOnly):
            raise misused(stored.model, "does not write on from a prompt")
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
        has more tokens than the model has places, and for more continuations than the way of writing has.
        """
        given, order = [self.given(prompt) for prompt in prompts], Order(how, self._all(rules), length, tuple(stop))
        _refuse_count(count, how)
        if isinstance(how, Beam | Diverse):
            return self._searched(given, order, count)
        if isinstance(how, Contrastive | Speculative):
            return [[self._alone(ids, order, key_of(place, copy)) for copy in range(count)] for place, ids in enumerate(given)]
        jobs = [(place, copy) for place in range(len(given)) for copy in range(count)]
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
        order = Order(how, self._all(rules), length, tuple(stop))
        page = Page(self, [given], [key_of(0, 0)], order)
        for _ in range(self._room(given, length)):
            (token,) = page.next()
            if token == self.symbols.end:
                break
            tokens.append(token)
            text = self._said(given, tokens)
            if any(each in text for each in stop):
                break
            certain = _certain(text, stop)
            if len(certain) > len(shown):
                yield certain[len(shown) :]
                shown = certain
        text = _before(self._said(given, tokens), stop)[0]
        if len(text) > len(shown):
            yield text[len(shown) :]

    @torch.inference_mode()
    def score(self, texts: Sequence[str], batch_tokens: int = 8192) -> list[float]:
        """log P of each text and of its end, in nats; of a text with more tokens than places, each token after the first half of
        them has that half to go by."""
        encoded = self.tokenizer.encode(list(texts))
        found = [0.0] * len(encoded)
        short = [place for place, ids in enumerate(encoded) if len(ids) < self.places]
        for group in equally_long(short, [len(ids) + 1 for ids in encoded], batch_tokens):
            predicted = likelihood.predicted(self.model, [encoded[place] for place in group], self.symbols)
            for place, surprise in zip(group, predicted.surprise.sum(1).tolist(), strict=True):
                found[place] = -surprise
        for place in sorted(set(range(len(encoded))) - set(short)):
            found[place] = self._score(encoded[place])
        return found

    @torch.inference_mode()
    def last_words(self, passages: Sequence[tuple[str, str]], batch_tokens: int = 8192) -> list[LastWord]:
        """Of each text with a word after it: -log P of the word in nats, and whether the model would say just this word, token by
        token the likeliest. A text is what is left of it where the model has no places for more."""
        rows, counts = [], []
        contexts = self.tokenizer.encode([context for context, _ in passages])
        wholes = self.tokenizer.encode([f"{context} {word}" for context, word in passages])
        for before, whole in zip(contexts, wholes, strict=True):
            common = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
            kept = whole[-int(min(self.places - 1, len(whole))) :]
            rows.append(kept)
            counts.append(len(whole) - common)
        found = [LastWord(0.0, False)] * len(rows)
        for group in equally_long(list(range(len(rows))), [len(row) + 1 for row in rows], batch_tokens):
            predicted = likelihood.predicted(self.model, [rows[place] for place in group], self.symbols)
            for row, place in enumerate(group):
                word = slice(len(rows[place]) - counts[place], len(rows[place]))
                found[place] = LastWord(predicted.surprise[row, word].sum().item(), bool(predicted.likeliest[row, word].all()))
        return found

    def _score(self, ids: Sequence[int]) -> float:
        context = int(min(self.places, len(ids) + 1))
        window = Window(context, context if context > len(ids) else max(1, context // 2))
        return -surprises(self.model, ids, self.symbols, window).sum().item()

    @cached_property
    def peak(self) -> Peak:
        """The likeliest token without all scores."""
        return Peak(self.model)

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

    def _written(self, given: list[list[int]], keys: list[int], order: Order) -> list[Continuation]:
        """A batch of prompts, written on token by token until all are done; those that are leave it."""
        page = Page(self, given, keys, order)
        tokens: list[list[int]] = [[] for _ in given]
        done: dict[int, Continuation] = {}
        going = list(range(len(given)))
        while going:
            for row, token in zip(going, page.next(), strict=True):
                tokens[row].append(token)
                if (ended := self._ended(given[row], tokens[row], order)) is not None:
                    done[row] = ended
            left = [place for place, row in enumerate(going) if row not in done]
            if 0 < len(left) < len(going):
                page.keep(left)
            going = [going[place] for place in left]
        return [done[row] for row in range(len(given))]

    def _ended(self, given: Sequence[int], tokens: list[int], order: Order) -> Continuation | None:
        """The continuation if these tokens end it."""
        if tokens[-1] == self.symbols.end:
            return self._read(given, tokens[:-1], True, order.stop)
        if len(tokens) >= self._room(given, order.length):
            return self._read(given, tokens, False, order.stop)
        if order.stop and _before(self._said(given, tokens), order.stop)[1]:
            return self._read(given, tokens, True, order.stop)
        return None

    def _read(
        self, given: Sequence[int], tokens: Sequence[int], finished: bool, stop: Sequence[str], score: float = math.nan
    ) -> Continuation:
        text, stopped = _before(self._said(given, tokens), stop)
        return Continuation(text, tuple(tokens), finished or stopped, score)

    def _said(self, given: Sequence[int], tokens: Sequence[int]) -> str:
        """What tokens say after those that were given: these decide whether the first one is said with a space before it."""
        return self.tokenizer.decode_after(given[-CONTEXT:], tokens)

    def _all(self, rules: Sequence[Rule]) -> tuple[Rule, ...]:
        """The rules of a call after the one that always holds: no token that stands for no text, but the end."""
        return (Ban(tuple(sorted(self.symbols.special - {self.symbols.end}))), *rules)

    def _searched(self, given: list[list[int]], order: Order, count: int) -> list[list[Continuation]]:
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
                results[place] = [
                    self._read(given[place], each.tokens, each.finished, order.stop, each.score) for each in hypotheses
                ]
        return results

    def _alone(self, ids: list[int], order: Order, key: int) -> Continuation:
        """One prompt by a way that goes through one at a time."""
        tokens: list[int] = []
        if isinstance(order.how, Contrastive):
            source = contrasted(self.model, ids, order.how, order.rules)
        else:
            assert isinstance(order.how, Speculative)
            source = speculated(self.model, ids, order.how, order.rules, key)
        for token in source:
            tokens.append(token)
            if (ended := self._ended(ids, tokens, order)) is not None:
                return ended
        raise AssertionError("a source of tokens never ends")


class Page:
    """Texts that are written on beside each other, a token of each at a time; of each so many were written on earlier pages."""

    @torch.inference_mode()
    def __init__(
        self, writer: Writer, given: Sequence[Sequence[int]], keys: Sequence[int], order: Order, written: int = 0
    ) -> None:
        self._session, self._last = open_texts(writer.model, given, writer.symbols.pad)
        self._order, self._keys, self._step = order, list(keys), written
        self._choose = self._choice(writer, len(given))
        self._looks = len(order.rules) > 1  # the rule that is always there looks at no history
        longest = max(map(len, given))
        self._history = torch.tensor([[*[PADDING] * (longest - len(ids)), *ids] for ids in given], device=self._last.device)

    @torch.inference_mode()
    def next(self) -> list[int]:
        """The next token of every text."""
        self._last = self._choose(self._session.hidden(self._last))
        self._step += 1
        if self._looks:
            self._history = torch.cat([self._history, self._last[:, None]], 1)
        return self._last.tolist()

    def _choice(self, writer: Writer, rows: int) -> Callable[[Float[Tensor, "R D"]], Int[Tensor, " R"]]:
        """How the next tokens come of what the model makes of the last ones."""
        order, device = self._order, self._last.device
        bans = [rule for rule in order.rules if isinstance(rule, Ban)]
        plain = isinstance(order.how, Greedy) and len(bans) == len(order.rules)
        if not plain or not Peak.serves(writer.model, rows, order.length):
            return self._of_all
        entries = writer.model.output.weight.shape[0]
        allowed = torch.stack([ban.others(entries, device) for ban in bans]).all(0)
        return lambda hidden: writer.peak(hidden, allowed)

    def _of_all(self, hidden: Float[Tensor, "R D"]) -> Int[Tensor, " R"]:
        """The next tokens, chosen among all by the rules."""
        how, logits = self._order.how, apply_all(self._order.rules, self._session.logits(hidden), self._history)
        return draw(logits, Dice(how.seed).uniform(self._keys, self._step)) if isinstance(how, Sample) else greedy(logits)

    @torch.inference_mode()
    def keep(self, places: list[int]) -> None:
        """Only the texts in these places go on."""
        kept = torch.tensor(places, device=self._last.device)
        self._session.keep(kept, 1)
        self._last, self._history = self._last[kept], self._history[kept]
        self._keys = [self._keys[place] for place in places]


def _refuse_count(count: int, how: How) -> None:
    """Raises QkvError for no continuation, and for more of them than a way of writing comes to."""
    match how:
        case Beam(beam=most) | Diverse(groups=most):
            pass
        case Greedy() | Contrastive():
            most = 1
        case _:
            most = count
    if count < 1:
        raise QkvError(f"a prompt has at least 1 continuation, not {count}")
    if count > most:
        raise QkvError(f"{type(how).__name__} comes to {most} continuation{'s' * (most > 1)} of a prompt, not to {count}")


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
