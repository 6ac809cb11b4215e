"""A trained model as something one can use: sentences in, sentences out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qkv import device as machine
from qkv.attention.sight import Padded, Plain
from qkv.data.symbols import Symbols
from qkv.decode.beam import Hypothesis, search
from qkv.decode.load import finished, misused
from qkv.decode.rule import Beam
from qkv.error import QkvError
from qkv.model.transformer import EncoderDecoder
from qkv.store import Stored

LONGEST = 1024  # tokens of a source; attention's cost grows with the square


@dataclass(frozen=True)
class Translation:
    """One hypothesis as text; its score is what `Translator.score` gives for it."""

    text: str
    score: float
    finished: bool = True


class Translator:
    """A model with its tokenizers. `qkv.load(run).translate(["A dog runs."])`."""

    def __init__(self, stored: Stored) -> None:
        if not isinstance(stored.model, EncoderDecoder):
            raise misused(stored.model, "does not translate")
        self.model, self.source, self.target = stored.model, stored.source, stored.target

    def translate(
        self,
        lines: Sequence[str],
        rule: Beam = Beam(),
        *,
        batch_tokens: int = 8192,
        count: int = 1,
        note: Callable[[int], None] = lambda done: None,
    ) -> list[list[Translation]]:
        """The `count` best translations of each line, best first. An empty line, or one that is too long, has one empty
        translation.

        `note` is told how many lines are done, each time some are.
        """
        encoded = self.source.encode([line.strip() for line in lines])
        results = [[Translation("", 0.0)] for _ in lines]
        todo = [i for i, ids in enumerate(encoded) if 0 < len(ids) <= LONGEST]
        sources = [self.source.symbols.read(encoded[i]) for i in todo]
        done = len(lines) - len(todo)
        for found in search_all(self.model, sources, self.symbols, rule, count, batch_tokens):
            for place, hypotheses in found.items():
                results[todo[place]] = [self._read(hypothesis) for hypothesis in hypotheses]
            done += len(found)
            note(done)
        return results

    @property
    def symbols(self) -> Symbols:
        """The special entries that decoding must know: those of the target's vocabulary, with the source's padding."""
        return replace(self.target.symbols, pad=self.source.symbols.pad)

    def too_long(self, lines: Iterable[str]) -> list[int]:
        """Which lines, counted from 0, have more tokens than `LONGEST`; they are not translated, and never cut."""
        return [i for i, ids in enumerate(self.source.encode([line.strip() for line in lines])) if len(ids) > LONGEST]

    def score(
        self, sources: Sequence[str], targets: Sequence[str], length_penalty: float = 0.6, *, batch_tokens: int = 4096
    ) -> list[float]:
        """log P(target | source) / ((5 + |target|) / 6) ** length_penalty of each pair, the end symbol counted: what decoding
        reports."""
        scores, rule = [0.0] * len(sources), Beam(length_penalty=length_penalty)
        for group, read, written in self._batches(sources, targets, batch_tokens):
            found = log_probabilities(self.model, read, written, self.symbols)
            for place, logarithm, ids in zip(group, found, written, strict=True):
                scores[place] = rule.value(logarithm, len(ids))
        return scores

    def teacher_forced(
        self, sources: Sequence[str], targets: Sequence[str], *, batch_tokens: int = 4096
    ) -> list[tuple[int, int]]:
        """How many tokens of each target are the likeliest after the truth before them, and how many tokens it has, the end
        symbol counted in both; none of none where the source is empty."""
        counts = [(0, 0)] * len(sources)
        for group, read, written in self._batches(sources, targets, batch_tokens):
            found = likeliest(self.model, read, written, self.symbols)
            for place, right, ids in zip(group, found, written, strict=True):
                counts[place] = (right, len(ids))
        return counts

    def _batches(
        self, sources: Sequence[str], targets: Sequence[str], batch_tokens: int
    ) -> Iterator[tuple[list[int], list[list[int]], list[list[int]]]]:
        """Places of pairs whose source is not empty, with the tokens of both sides, each with its end symbol."""
        if len(sources) != len(targets):
            raise QkvError(f"{len(sources)} sources and {len(targets)} targets cannot be scored in pairs")
        read = self.source.encode([s.strip() for s in sources])
        written = self.target.encode([t.strip() for t in targets])
        todo = [i for i in range(len(sources)) if read[i]]
        for group in batches(todo, [max(len(s), len(t)) + 1 for s, t in zip(read, written, strict=True)], batch_tokens):
            yield (
                group,
                [self.source.symbols.read(read[i]) for i in group],
                [[*written[i], self.target.symbols.end] for i in group],
            )

    def _read(self, hypothesis: Hypothesis) -> Translation:
        return Translation(self.target.decode(hypothesis.tokens), hypothesis.score, hypothesis.finished)


def search_all(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], symbols: Symbols, rule: Beam, count: int, batch_tokens: int
) -> Iterator[dict[int, list[Hypothesis]]]:
    """The `count` best hypotheses of each source, by its place, a batch as soon as it is done; the sources end with their end
    symbol.

    On a CPU several batches are searched beside each other, each by one thread; one batch alone has all threads.
    """
    places, lengths = list(range(len(sources))), list(map(len, sources))
    threads = torch.get_num_threads() if model.output.weight.device.type == "cpu" else 1
    groups = even(places, lengths, batch_tokens // rule.beam, threads)

    def searched(group: list[int]) -> dict[int, list[Hypothesis]]:
        return dict(zip(group, search(model, [sources[i] for i in group], symbols, rule, count), strict=True))

    if len(groups) == 1 or threads == 1:
        yield from map(searched, groups)
        return
    with machine.side_by_side(), ThreadPoolExecutor(threads) as pool:
        pending = [pool.submit(searched, group) for group in groups]
        try:
            for future in as_completed(pending):
                yield future.result()
        finally:
            for future in pending:
                future.cancel()


@torch.inference_mode()
def log_probabilities(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], symbols: Symbols
) -> list[float]:
    """log P(target | source) of each pair of id lists, both ending with their end symbol, in nats."""
    logits, truth, present = _forced(model, sources, targets, symbols)
    of_truth = logits.gather(2, truth[:, :, None])[:, :, 0] - logits.logsumexp(2)
    return (of_truth.double() * present).sum(1).tolist()


@torch.inference_mode()
def likeliest(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], symbols: Symbols
) -> list[int]:
    """How many tokens of each target are the likeliest after the truth before them; id lists as in `log_probabilities`."""
    logits, truth, present = _forced(model, sources, targets, symbols)
    return ((logits.argmax(2) == truth) & present).sum(1).tolist()


def _forced(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], symbols: Symbols
) -> tuple[Float[Tensor, "B T V"], Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Logits at every place of the targets, given the truth before it; the targets, padded; and where they are no padding."""
    device = model.output.weight.device
    source, target = _padded(sources, symbols.pad).to(device), _padded(targets, symbols.pad).to(device)
    lengths = torch.tensor([len(s) for s in sources], device=device)
    sight = Plain() if len(set(map(len, sources))) == 1 else Padded(lengths, blank=False)
    opening = torch.tensor([symbols.opening] * len(targets), device=device)
    logits = model(source, sight, torch.cat([opening, target[:, :-1]], 1))[:, opening.shape[1] - 1 :].float()
    present = torch.arange(target.shape[1], device=device) < torch.tensor([len(t) for t in targets], device=device)[:, None]
    return logits, target, present


def _padded(rows: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])


def batches(places: list[int], lengths: list[int], tokens: int) -> list[list[int]]:
    """Sentences of similar length together, longest first, at most `tokens` positions each with padding (and always one
    sentence)."""
    groups: list[list[int]] = []
    widest = math.inf
    for place in sorted(places, key=lambda i: -lengths[i]):
        if groups and (len(groups[-1]) + 1) * widest <= tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
            widest = lengths[place]
    return groups


def even(places: list[int], lengths: list[int], tokens: int, threads: int) -> list[list[int]]:
    """`batches` of about equally many positions, as many for each thread as for any other, so that none waits at the end."""
    groups = batches(places, lengths, tokens)
    if len(groups) < 2:
        return groups
    count = threads * math.ceil(len(groups) / threads)
    size = sum(len(group) * lengths[group[0]] for group in groups) / count
    while size < tokens:
        smaller = batches(places, lengths, int(size))
        if len(smaller) <= count:
            return smaller
        size *= 1.02
    return groups


def load(run: Path | str, *, device: str = "auto", precision: str = "auto") -> Translator:
    """The finished translator of a run folder. `auto` computes in fp32 on a CPU, and in bf16 on a GPU that has it."""
    return Translator(finished(run, device=device, precision=precision))
