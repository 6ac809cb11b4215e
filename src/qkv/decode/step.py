"""The only door from decoding to the model: what is read first goes in whole, then one token of every hypothesis at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.attention.sight import Late, Padded, Plain, Sight
from qkv.data.symbols import Symbols
from qkv.model.context import Memory
from qkv.model.state import State
from qkv.model.transformer import DecoderOnly, EncoderDecoder

Step = Callable[[Int[Tensor, " R"]], Float[Tensor, "R D"]]


class Session:
    """One decoding: equally many hypotheses for each of the sentences, all of the same length."""

    def __init__(
        self,
        logits: Callable[[Float[Tensor, "R D"]], Float[Tensor, "R V"]],
        state: State,
        stepper: Callable[[Sight], Step],
        sight: Sight = Plain(),
    ) -> None:
        self._logits, self._state, self._stepper, self._sight = logits, state, stepper, sight
        self._step = stepper(sight)

    def step(self, tokens: Int[Tensor, " R"], alive: Int[Tensor, " A"] | None = None) -> Float[Tensor, "A V"]:
        """Logits for what follows, given the last token of every hypothesis; or, where only these are alive, for each of them."""
        self._state.leave(alive, len(tokens))
        return self._logits(self._step(tokens if alive is None else tokens[alive]))

    def hidden(self, tokens: Int[Tensor, " R"]) -> Float[Tensor, "R D"]:
        """The vectors of which `step` makes logits, for all."""
        self._state.leave(None, len(tokens))
        return self._step(tokens)

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """What `step` makes of vectors."""
        return self._logits(hidden)

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Hypothesis r goes on from where hypothesis rows[r] of the same sentence stands."""
        self._state.reorder(rows)

    def keep(self, sentences: Int[Tensor, " B"], beam: int) -> None:
        """Only these sentences go on."""
        self._state.keep(sentences, beam)
        if isinstance(self._sight, Late):
            assert beam == 1, "hypotheses of one text begin together"
            self._sight = self._sight.keep(sentences)
            self._step = self._stepper(self._sight)


class Opened(NamedTuple):
    """A session that has read all but one token of every row, and that token."""

    session: Session
    last: Int[Tensor, " B"]


def read(model: EncoderDecoder, sources: Sequence[Sequence[int]], pad: int) -> Memory:
    """What the encoder makes of sources of any lengths, each with what frames it."""
    lengths = [len(source) for source in sources]
    longest = max(lengths)
    device = model.output.weight.device
    ids = torch.tensor([[*source, *[pad] * (longest - len(source))] for source in sources], device=device)
    sight = Plain() if min(lengths) == longest else Padded(torch.tensor(lengths, device=device), blank=False)
    return model.encode(ids, sight)


def open_pairs(model: EncoderDecoder, sources: Sequence[Sequence[int]], symbols: Symbols) -> Opened:
    """A decoding of the targets of some sources."""
    state = State()
    memory = read(model, sources, symbols.pad)
    session = Session(model.logits, state, lambda _: model.stepper(memory, state))
    *before, last = (torch.full((len(sources),), token, device=model.output.weight.device) for token in symbols.opening)
    for tokens in before:
        session.hidden(tokens)
    return Opened(session, last)


def open_texts(model: DecoderOnly, prompts: Sequence[Sequence[int]], pad: int) -> Opened:
    """A decoding of what follows some prompts; those that are shorter begin later."""
    longest = max(map(len, prompts))
    device = model.output.weight.device
    ids = torch.tensor([[*[pad] * (longest - len(prompt)), *prompt] for prompt in prompts], device=device)
    starts = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    sight: Sight = Plain() if all(len(prompt) == longest for prompt in prompts) else Late(starts)
    state = State()
    if longest > 1:
        model.decode(ids[:, :-1], sight, state)
    return Opened(Session(model.logits, state, lambda seen: model.stepper(seen, state), sight), ids[:, -1])
