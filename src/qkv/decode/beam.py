"""Beam search over many sentences at once (Vaswani et al. 2017, section 6.1).

Every sentence is searched as if it were alone: at each step its `beam` hypotheses propose their 2 x beam best continuations
together. Those among the first `beam` that end are finished; the first `beam` that do not end go on. A sentence is done when
it has `beam` finished hypotheses, when none that goes on could still come to be worth more than the worst of those that will
be returned, or at its greatest length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.decode.rule import Beam, best
from qkv.decode.step import Session, read
from qkv.model.transformer import EncoderDecoder


@dataclass(frozen=True)
class Symbols:
    """The special entries of a vocabulary that decoding must know."""

    pad: int
    bos: int
    eos: int


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
    """The `count` best hypotheses of each source, best first; the sources end with their end symbol."""
    return _Search(model, sources, symbols, rule, count).run()


class _Search:
    def __init__(self, model: EncoderDecoder, sources: Sequence[Sequence[int]], symbols: Symbols, rule: Beam, count: int) -> None:
        self.symbols, self.rule, self.count = symbols, rule, min(count, rule.beam)
        self.session = Session(model, read(model, sources, symbols.pad))
        self.device = model.output.weight.device
        self.results: list[list[Hypothesis]] = [[] for _ in sources]
        self.active = [_Sentence(i, min(rule.most, len(source) + rule.extra)) for i, source in enumerate(sources)]
        self.logarithms = torch.full((len(sources), rule.beam), -math.inf, device=self.device)
        self.logarithms[:, 0] = 0.0  # all hypotheses of a sentence are equal at first: one of them counts
        self.history = torch.empty(len(sources), rule.beam, 0, dtype=torch.int64, device=self.device)

    def run(self) -> list[list[Hypothesis]]:
        """Step until every sentence is done."""
        tokens = torch.full((len(self.active) * self.rule.beam,), self.symbols.bos, device=self.device)
        length = 0
        while self.active:
            length += 1
            logarithms, chosen, origins = self._propose(self.session.step(tokens), length)
            self._finish(logarithms, chosen, origins, length)
            tokens = self._advance(logarithms, chosen, origins)
            done = [i for i, sentence in enumerate(self.active) if self._done(sentence, i, length)]
            if done:
                tokens = self._retire(done, tokens, length)
        return self.results

    def _propose(self, logits: Float[Tensor, "R V"], length: int) -> tuple[Tensor, Tensor, Tensor]:
        """The 2 x beam best continuations of each sentence: log-probability, token, and the hypothesis it goes on from; (B, 2
        beam)."""
        sentences, beam = len(self.active), self.rule.beam
        forbidden = [self.symbols.pad, self.symbols.bos, *([self.symbols.eos] if length <= self.rule.least else [])]
        kept = logits[:, forbidden]
        logits[:, forbidden] = -math.inf
        values, tokens = best(logits, min(2 * beam, logits.shape[1]))
        logits[:, forbidden] = kept  # never chosen, but part of what the model says
        peak = torch.maximum(values[:, :1], kept.amax(1, keepdim=True))
        normaliser = logits.sub_(peak).exp_().sum(1, keepdim=True, dtype=torch.float32).log_()
        candidates = (self.logarithms.view(-1, 1) + ((values - peak).float() - normaliser)).view(sentences, -1)
        logarithms, places = candidates.topk(min(2 * beam, candidates.shape[1]), dim=1)
        return logarithms, tokens.view(sentences, -1).gather(1, places), places // values.shape[1]

    def _finish(self, logarithms: Tensor, chosen: Tensor, origins: Tensor, length: int) -> None:
        """Take note of the hypotheses that end with this step."""
        beam = self.rule.beam
        ended = (chosen[:, :beam] == self.symbols.eos) & (logarithms[:, :beam] > -math.inf)
        for i, slot in ended.nonzero().tolist():
            logarithm = logarithms[i, slot].item()
            tokens = tuple(self.history[i, origins[i, slot]].tolist())
            self.active[i].finished.append(Hypothesis(self.rule.value(logarithm, length), tokens, logarithm, True))

    def _advance(self, logarithms: Tensor, chosen: Tensor, origins: Tensor) -> Int[Tensor, " R"]:
        """The best continuations that do not end become the hypotheses of the next step."""
        beam = self.rule.beam
        going = logarithms.masked_fill(chosen == self.symbols.eos, -math.inf)
        self.logarithms, places = (
            going.topk(beam, dim=1) if going.shape[1] > beam else (going, torch.arange(beam).expand_as(going))
        )
        origins, tokens = origins.gather(1, places), chosen.gather(1, places)
        kept = self.history.gather(1, origins[:, :, None].expand(-1, -1, self.history.shape[2]))
        self.history = torch.cat([kept, tokens[:, :, None]], 2)
        if beam > 1:
            first = torch.arange(0, len(origins) * beam, beam, device=self.device)
            self.session.reorder((origins + first[:, None]).flatten())
        return tokens.flatten()

    def _done(self, sentence: _Sentence, index: int, length: int) -> bool:
        if len(sentence.finished) >= self.rule.beam or length >= sentence.most:
            return True
        if len(sentence.finished) < self.count:
            return self.logarithms[index, 0].item() == -math.inf
        # a log-probability only falls, and is worth most over the largest penalty that it can come to be divided by
        penalty = self.rule.penalty(sentence.most if self.rule.length_penalty > 0 else length + 1)
        worst = sorted(sentence.finished, reverse=True)[self.count - 1].score
        return self.logarithms[index, 0].item() / penalty <= worst

    def _retire(self, done: list[int], tokens: Tensor, length: int) -> Tensor:
        """Sentences that are done leave the batch."""
        for i in done:
            sentence = self.active[i]
            found = sorted(sentence.finished, reverse=True) or self._unfinished(i, sentence.most)
            self.results[sentence.place] = found[: self.count]
        gone = set(done)
        left = [i for i in range(len(self.active)) if i not in gone]
        self.active = [self.active[i] for i in left]
        if not left:
            return tokens
        kept = torch.tensor(left, device=self.device)
        self.session.keep(kept, self.rule.beam)
        self.logarithms, self.history = self.logarithms[kept], self.history[kept]
        return tokens.view(-1, self.rule.beam)[kept].flatten()

    def _unfinished(self, index: int, most: int) -> list[Hypothesis]:
        """What stands at the greatest length where nothing has ended."""
        found = []
        for logarithm, tokens in zip(self.logarithms[index].tolist(), self.history[index].tolist(), strict=True):
            if logarithm > -math.inf:
                found.append(Hypothesis(self.rule.value(logarithm, len(tokens)), tuple(tokens), logarithm, False))
        return sorted(found, reverse=True)
