"""The wholes, and `build`: from a description to a module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from qkv import device as machine
from qkv.attention.sight import Plain, Sight
from qkv.model.context import Context, Memory
from qkv.model.depth import Stack
from qkv.model.dropout import Noise
from qkv.model.embedding import Embedding
from qkv.model.initialise import initialise
from qkv.model.linear import Linear, packed
from qkv.model.state import State
from qkv.model.trace import Trace
from qkv.spec import model as spec


class EncoderDecoder(nn.Module):
    """An encoder that reads the source, and a decoder that writes the target, attending to the encoder's memory."""

    def __init__(self, spec_: spec.EncoderDecoder) -> None:
        super().__init__()
        self.spec = spec_
        width = spec_.width
        self.target = Embedding(spec_.embedding, spec_.vocabulary.target, width)
        self.source = (
            self.target if isinstance(spec_.tie, spec.AllThree) else Embedding(spec_.embedding, spec_.vocabulary.source, width)
        )
        self.encoder = Stack(spec_.encoder, width)
        self.decoder = Stack(spec_.decoder, width)
        self.output = (
            self.target if not isinstance(spec_.tie, spec.Untied) else Embedding(spec_.embedding, spec_.vocabulary.target, width)
        )

    def encode(self, source: Int[Tensor, "B S"], sight: Sight, noise: Noise | None = None, trace: Trace | None = None) -> Memory:
        """What the encoder makes of the source; dropout where there is noise, none where there is not."""
        ctx = Context(sight, noise=noise, trace=trace).at("encoder")
        return Memory(self.encoder(self.source(source, ctx), ctx), sight)

    def decode(
        self,
        target: Int[Tensor, "R T"],
        memory: Memory,
        state: State | None = None,
        noise: Noise | None = None,
        trace: Trace | None = None,
    ) -> Float[Tensor, "R T D"]:
        """What the decoder makes of the target so far, each position of those before it and of the memory.

        With a state the target holds only the tokens that the state has not seen, and its rows are hypotheses of the memory's
        sentences. Padding stands at the end of a target, in the future of every token: the pattern hides it, no mask is needed.
        """
        first = 0 if state is None else state.length
        ctx = Context(Plain(), first, memory, state, trace, noise).at("decoder")
        hidden = self.decoder(self.target(target, ctx), ctx)
        if state is not None:
            state.length += target.shape[1]
        return hidden

    def stepper(self, memory: Memory, state: State) -> Callable[[Int[Tensor, " R"]], Float[Tensor, "R D"]]:
        """`decode` for one more token of every row at a time, without gradient, noise or trace.

        All that can be looked up is looked up now, once: a step of a small model must not drown in Python.
        """
        ctx = Context(Plain(), memory=memory, state=state).at("decoder")
        through = self.decoder.stepper(ctx)

        def step(tokens: Int[Tensor, " R"]) -> Float[Tensor, "R D"]:
            hidden = through(self.target(tokens[:, None], Context(Plain(), state.length))[:, 0])
            state.length += 1
            return hidden

        return step

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """A score for every entry of the target vocabulary."""
        return self.output.logits(hidden)

    def forward(
        self, source: Int[Tensor, "B S"], sight: Sight, target: Int[Tensor, "B T"], noise: Noise | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits for the token after each token of the target."""
        return self.logits(self.decode(target, self.encode(source, sight, noise), noise=noise))


def pack(model: EncoderDecoder) -> None:
    """Lay out the weights of a finished model for use on this CPU; they must not change afterwards, and are held twice.

    Nothing is done where it would not help: on a GPU, in another precision than fp32, without oneDNN.
    """
    for module in model.modules():
        if isinstance(module, Linear) and machine.packs(module.weight):
            module.packed = packed(module.weight, module.bias)
    if machine.packs(model.output.weight):
        model.output.packed = packed(model.output.weight)


def build(spec_: spec.Model, seed: int = 0) -> EncoderDecoder:
    """The module of a description, with initial values that are a pure function of the seed."""
    with torch.device("meta"):
        model = EncoderDecoder(spec_)
    model = model.to_empty(device="cpu")
    initialise(model, seed)
    return model
