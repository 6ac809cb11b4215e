"""Beam search over many sentences at once (Vaswani et al. 2017, section 6.1).

Every sentence is searched as if it were alone: at each step its `beam` hypotheses propose their 2 x beam best continuations
together. Those among the first `beam` that end are finished; the first `beam` that do not end go on. A sentence is done when
it has `beam` finished hypotheses, when there is no hope (as the rule understands it) that one that goes on comes to be worth
more than the worst of those that will be returned, or at its greatest length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from qkv.data.symbols import Symbols
from qkv.decode.likelihood import places
from qkv.decode.rule import Beam, best
from qkv.decode.sample import Rule, apply_all
from qkv.decode.step import Opened, open_pairs, open_texts
from qkv.model.transformer import DecoderOnly, EncoderDecoder


@dataclass(frozen=True, order=True)
class Hypothesis:
    """A candidate: its score, which is its log-probability over the length penalty, and its tokens without the end symbol."""

    score: float
    tokens: tuple[int, ...] = field(compare=False)
    logarithm: float = field(compare=False)
    finished: bool = field(compare=False)


@dataclass
class _Sentence:
    """What is known of one sentence in the course of the search."""

    place: int
    most: int
    finished: list[Hypothesis] = field(default_factory=list)


@torch.inference_mode()
def search(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], symbols: Symbols, rule: Beam = Beam(), count: int = 1
) -> list[list[Hypothesis]]:
    """The `count` best hypotheses of each source, best first, none longer than the model has places for; the sources have what
    frames them."""
    room = places(model) + 1 - len(symbols.opening)  # the last token that is said is never read
    most = [int(min(rule.most, len(source) + rule.extra, room)) for source in sources]
    return _Search(open_pairs(model, sources, symbols), symbols, rule, count, most).run()


@torch.inference_mode()
def write_on(
    model: DecoderOnly,
    prompts: Sequence[Sequence[int]],
    symbols: Symbols,
    rule: Beam = Beam(),
    count: int = 1,
    rules: Sequence[Rule] = (),
) -> list[list[Hypothesis]]:
    """The `count` best continuations of each prompt, of `rule.most` tokens at most; the prompts are equally long."""
    assert len(set(map(len, prompts))) == 1, "hypotheses of a batch begin together"
    given = torch.tensor([list(prompt) for prompt in prompts], device=model.output.weight.device)
    opened = open_texts(model, prompts, symbols.pad)
    return _Search(opened, symbols, rule, count, [rule.most] * len(prompts), rules, given).run()


class _Search:
    def __init__(
        self,
        opened: Opened,
        symbols: Symbols,
        rule: Beam,
        count: int,
        most: Sequence[int],
        rules: Sequence[Rule] = (),
        given: Int[Tensor, "B P"] | None = None,
    ) -> None:
        self.end, self.rule, self.count, self.rules = symbols.end, rule, min(count, rule.beam), rules
        self.session, self.first = opened
        self.device = self.first.device
        never = [symbol for symbol in (symbols.pad, symbols.start) if symbol != symbols.end]
        self.never, self.early = (
            torch.tensor(those, device=self.device, dtype=torch.int64) for those in (never, [*never, self.end])
        )
        self.results: list[list[Hypothesis]] = [[] for _ in most]
        self.active = [_Sentence(place, length) for place, length in enumerate(most)]
        # one hypothesis for each sentence, which says nothing yet; after the first step there are `beam`, in no order
        self.logarithms = torch.zeros(len(most), 1, device=self.device)
        self.history = torch.empty(len(most), 1, 0, dtype=torch.int64, device=self.device)
        self.given = self.first.new_empty(len(most), 0) if given is None else given  # what rules see before the history

    def run(self) -> list[list[Hypothesis]]:
        """Step until every sentence is done."""
        tokens = self.first
        length = 0
        while self.active:
            length += 1
            alive = self._alive()
            logits = self.session.step(tokens, alive)
            logarithms, chosen, origins = self._propose(self._ruled(logits, alive), alive, length)
            self._finish(logarithms, chosen, origins, length)
            tokens = self._advance(logarithms, chosen, origins)
            leading = self.logarithms.amax(1).tolist()
            done = [i for i, sentence in enumerate(self.active) if self._done(sentence, leading[i], length)]
            if done:
                tokens = self._retire(done, tokens)
        return self.results

    def _alive(self) -> Int[Tensor, " A"] | None:
        """The hypotheses that somebody may go on from; None where none was dropped."""
        if self.rule.prune == math.inf:
            return None
        alive = (self.logarithms > -math.inf).flatten().nonzero().flatten()
        return alive if len(alive) < self.logarithms.numel() else None

    def _ruled(self, logits: Float[Tensor, "A V"], alive: Int[Tensor, " A"] | None) -> Float[Tensor, "A V"]:
        if not self.rules:
            return logits
        given = self.given[:, None].expand(-1, self.history.shape[1], -1)
        before = torch.cat([given, self.history], 2).flatten(0, 1)
        return apply_all(self.rules, logits, before if alive is None else before[alive])

    def _propose(
        self, logits: Float[Tensor, "A V"], alive: Int[Tensor, " A"] | None, length: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The 2 x beam best continuations of each sentence, best first: log-probability, token, and the hypothesis it goes on
        from; (B, 2 beam)."""
        sentences, wanted = len(self.active), 2 * self.rule.beam
        probabilities = logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
        never = self.early if length <= self.rule.least else self.never
        probabilities.index_fill_(1, never, 0.0)  # never chosen, but part of what the model says
        values, tokens = best(probabilities, min(wanted, logits.shape[1]))
        if alive is not None:  # nothing goes on from what was dropped
            rows = (self.logarithms.numel(), values.shape[1])
            values, tokens = (each.new_zeros(rows).index_copy_(0, alive, each) for each in (values, tokens))
        candidates = (self.logarithms.view(-1, 1) + values.log()).view(sentences, -1)
        logarithms, places = candidates.topk(min(wanted, candidates.shape[1]), dim=1)
        chosen, origins = tokens.view(sentences, -1).gather(1, places), places // values.shape[1]
        lacking = (0, wanted - places.shape[1])  # where the vocabulary is smaller than the beam
        if lacking[1]:
            logarithms = functional.pad(logarithms, lacking, value=-math.inf)
            chosen, origins = functional.pad(chosen, lacking), functional.pad(origins, lacking)
        return logarithms, chosen, origins

    def _finish(self, logarithms: Tensor, chosen: Tensor, origins: Tensor, length: int) -> None:
        """Take note of the hypotheses that end with this step."""
        beam = self.rule.beam
        ended = (chosen[:, :beam] == self.end) & (logarithms[:, :beam] > -math.inf)
        for i, place in ended.nonzero().tolist():
            logarithm = logarithms[i, place].item()
            tokens = tuple(self.history[i, origins[i, place]].tolist())
            self.active[i].finished.append(Hypothesis(self.rule.value(logarithm, length), tokens, logarithm, True))

    def _advance(self, logarithms: Tensor, chosen: Tensor, origins: Tensor) -> Int[Tensor, " R"]:
        """The best continuations that do not end become the hypotheses of the next step."""
        sentences, before = self.logarithms.shape
        going, places = logarithms.masked_fill(chosen == self.end, -math.inf).topk(self.rule.beam, dim=1)
        if self.rule.prune < math.inf:
            going = going.masked_fill(going < going[:, :1] - self.rule.prune, -math.inf)
        origins = origins.gather(1, places)
        if before == self.rule.beam:
            order = staying(origins)
            going, places, origins = (each.gather(1, order) for each in (going, places, origins))
        tokens = chosen.gather(1, places)
        kept = self.history.gather(1, origins[:, :, None].expand(-1, -1, self.history.shape[2]))
        self.logarithms, self.history = going, torch.cat([kept, tokens[:, :, None]], 2)
        if self.rule.beam > 1:
            first = torch.arange(0, sentences * before, before, device=self.device)
            self.session.reorder((origins + first[:, None]).flatten())
        return tokens.flatten()

    def _done(self, sentence: _Sentence, leading: float, length: int) -> bool:
        """Whether a sentence is done, of whose hypotheses the best has the log-probability `leading`."""
        if len(sentence.finished) >= self.rule.beam or length >= sentence.most:
            return True
        if len(sentence.finished) < self.count:
            return leading == -math.inf
        worst = sorted(sentence.finished, reverse=True)[self.count - 1].score
        return self.rule.hope(leading, length, sentence.most) <= worst

    def _retire(self, done: list[int], tokens: Tensor) -> Tensor:
        """Sentences that are done leave the batch, and the last ones take their places."""
        for i in done:
            sentence = self.active[i]
            found = sorted(sentence.finished, reverse=True) or self._unfinished(i)
            self.results[sentence.place] = found[: self.count]
        gone = set(done)
        left = len(self.active) - len(gone)
        if not left:
            self.active = []
            return tokens
        last = [i for i in range(left, len(self.active)) if i not in gone]
        places = [last.pop() if i in gone else i for i in range(left)]
        self.active = [self.active[i] for i in places]
        kept = torch.tensor(places, device=self.device)
        self.session.keep(kept, self.rule.beam)
        self.logarithms, self.history, self.given = self.logarithms[kept], self.history[kept], self.given[kept]
        return tokens.view(-1, self.rule.beam)[kept].flatten()

    def _unfinished(self, index: int) -> list[Hypothesis]:
        """What stands at the greatest length where nothing has ended."""
        found = []
        for logarithm, tokens in zip(self.logarithms[index].tolist(), self.history[index].tolist(), strict=True):
            if logarithm > -math.inf:
                found.append(Hypothesis(self.rule.value(logarithm, len(tokens)), tuple(tokens), logarithm, False))
        return sorted(found, reverse=True)


def staying(origins: Int[Tensor, "B beam"]) -> Int[Tensor, "B beam"]:
    """An order of continuations in which as many as can take the place of the hypothesis that they go on from, so that little
    of what is remembered has to move: `order[b, r]` is the continuation that takes row r."""
    earlier = (origins[:, :, None] == origins[:, None, :]).tril(-1).any(2)  # another from the same hypothesis came before
    taken = torch.zeros_like(origins).scatter_(1, origins, 1)
    free = taken.argsort(dim=1, stable=True)  # the rows that nobody stays in come first
    rows = torch.where(earlier, free.gather(1, (earlier.cumsum(1) - 1).clamp(min=0)), origins)
    return rows.argsort(1)
