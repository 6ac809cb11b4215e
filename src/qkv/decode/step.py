"""The only door from decoding to the model: sources in, then one row of logits for each hypothesis at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.attention.sight import Padded, Plain
from qkv.model.context import Memory
from qkv.model.state import State
from qkv.model.transformer import EncoderDecoder


def read(model: EncoderDecoder, sources: Sequence[Sequence[int]], pad: int) -> Memory:
    """What the encoder makes of sources of any lengths, each ending with its end symbol."""
    lengths = [len(source) for source in sources]
    longest = max(lengths)
    device = model.output.weight.device
    ids = torch.tensor([[*source, *[pad] * (longest - len(source))] for source in sources], device=device)
    sight = Plain() if min(lengths) == longest else Padded(torch.tensor(lengths, device=device), blank=False)
    return model.encode(ids, sight)


class Session:
    """One decoding: `beam` hypotheses for each of the sentences, all of the same length."""

    def __init__(self, model: EncoderDecoder, memory: Memory) -> None:
        self._logits = model.logits
        self._state = State()
        self._step = model.stepper(memory, self._state)

    def step(self, tokens: Int[Tensor, " R"]) -> Float[Tensor, "R V"]:
        """Logits for what follows, given the last token of every hypothesis."""
        return self._logits(self._step(tokens))

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Hypothesis r goes on from where hypothesis rows[r] of the same sentence stands."""
        self._state.reorder(rows)

    def keep(self, sentences: Int[Tensor, " B"], beam: int) -> None:
        """Only these sentences go on."""
        self._state.keep(sentences, beam)
