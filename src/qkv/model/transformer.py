"""The wholes, and `build`: from a description to a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from qkv import device as machine
from qkv.attention.sight import Plain, Sight
from qkv.model.context import Context, Memory
from qkv.model.depth import Stack, deep
from qkv.model.dropout import Noise
from qkv.model.embedding import Embedding, Entries, Table
from qkv.model.initialise import initialise
from qkv.model.linear import InEightBits, Linear, packed
from qkv.model.output import Output, Spelling
from qkv.model.pointer import Pointer
from qkv.model.pooling import pooled
from qkv.model.position import counted_back
from qkv.model.recurrence import Recurrence
from qkv.model.state import State
from qkv.model.trace import Trace
from qkv.spec import model as spec

PLAIN, POINTER = spec.Output(), "pointer"  # of who points: how entries are scored else, and the path


class EncoderDecoder(nn.Module):
    """An encoder that reads the source, and a decoder that writes the target, attending to the encoder's memory."""

    def __init__(self, spec_: spec.EncoderDecoder) -> None:
        super().__init__()
        self.spec = spec_
        width, target = spec_.width, spec_.vocabulary.target
        self.target = Embedding(spec_.embedding, target, width)
        self.source = Embedding(spec_.embedding, spec_.vocabulary.source, width)
        self.tie()
        self.encoder = deep(spec_.encoder, width)
        self.decoder = deep(spec_.decoder, width)
        if isinstance(spec_.output, spec.Pointing):
            self.pointer, self.output, self.head = (
                Pointer(spec_.output, target, width),
                Entries(target),
                Output(PLAIN, target, width),
            )
            return
        own = isinstance(spec_.tie, spec.Untied | spec.SourceAndTarget)
        self.pointer, self.output = None, Table(target, width) if own else self.target
        self.head = Output(spec_.output, target, width)

    def tie(self) -> None:
        """Let the two embeddings have one matrix, if they are to; what else they have is always their own."""
        if isinstance(self.spec.tie, spec.AllThree | spec.SourceAndTarget):
            self.source.weight = self.target.weight

    def encode(self, source: Int[Tensor, "B S"], sight: Sight, noise: Noise | None = None, trace: Trace | None = None) -> Memory:
        """What the encoder makes of the source; dropout where there is noise, none where there is not."""
        ctx = Context(sight, noise=noise, trace=trace).at("encoder")
        return Memory(self.encoder(self.source(source, ctx), ctx), sight, source)

    def decode(
        self,
        target: Int[Tensor, "R T"],
        memory: Memory,
        state: State | None = None,
        noise: Noise | None = None,
        trace: Trace | None = None,
    ) -> Float[Tensor, "R T _"]:
        """What the decoder makes of the target so far, each position of those before it and of the memory: a vector, or, of who
        points, a score for every entry.

        With a state the target holds only the tokens that the state has not seen, and its rows are hypotheses of the memory's
        sentences. Padding stands at the end of a target, in the future of every token: the pattern hides it, no mask is needed.
        """
        first = 0 if state is None else state.length
        ctx = Context(Plain(), first, memory, state, trace, noise).at("decoder")
        hidden = self.decoder(self.target(target, ctx), ctx)
        if self.pointer is not None:
            hidden = self.pointer(hidden, ctx.at(POINTER))
        if state is not None:
            state.length += target.shape[1]
        return hidden

    def stepper(self, memory: Memory, state: State) -> Callable[[Int[Tensor, " R"]], Float[Tensor, "R D"]]:
        """`decode` for one more token of every row at a time, without gradient, noise or trace..."""
        ctx = Context(Plain(), memory=memory, state=state).at("decoder")
        through = _stepper(self.target, self.decoder, ctx)
        if self.pointer is None:
            return through
        pointed = self.pointer.stepper(ctx.at(POINTER))
        return lambda tokens: pointed(through(tokens))

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """A score for every entry of the target vocabulary."""
        return self.head.logits(hidden, self.output)

    def forward(
        self, source: Int[Tensor, "B S"], sight: Sight, target: Int[Tensor, "B T"], noise: Noise | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits for the token after each token of the target."""
        return self.logits(self.decode(target, self.encode(source, sight, noise), noise=noise))


class DecoderOnly(nn.Module):
    """A decoder by itself: it writes on from what it has read."""

    def __init__(self, spec_: spec.DecoderOnly) -> None:
        super().__init__()
        self.spec = spec_
        width, entries = spec_.width, spec_.vocabulary.size
        self.target = Embedding(spec_.embedding, entries, width)
        self.decoder = deep(spec_.decoder, width)
        self.output = self.target if isinstance(spec_.tie, spec.Tied) else Table(entries, width)
        self.head = Output(spec_.output, entries, width)

    def decode(
        self,
        target: Int[Tensor, "R T"],
        sight: Sight,
        state: State | None = None,
        noise: Noise | None = None,
        trace: Trace | None = None,
    ) -> Float[Tensor, "R T D"]:
        """What the decoder makes of a text so far, each position of those before it. With a state the target holds only the
        tokens that the state has not seen."""
        first = 0 if state is None else state.length
        ctx = Context(sight, first, state=state, trace=trace, noise=noise).at("decoder")
        hidden = self.decoder(self.target(target, ctx), ctx)
        if state is not None:
            state.length += target.shape[1]
        return hidden

    def stepper(self, sight: Sight, state: State) -> Callable[[Int[Tensor, " R"]], Float[Tensor, "R D"]]:
        """`decode` for one more token of every row at a time, without gradient, noise or trace."""
        return _stepper(self.target, self.decoder, Context(sight, state=state).at("decoder"))

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """A score for every entry of the vocabulary."""
        return self.head.logits(hidden, self.output)

    def forward(self, target: Int[Tensor, "B T"], sight: Sight, noise: Noise | None = None) -> Float[Tensor, "B T V"]:
        """Logits for the token after each token."""
        return self.logits(self.decode(target, sight, noise=noise))


class EncoderOnly(nn.Module):
    """An encoder by itself: it sees a whole text, and says what may stand at each place."""

    def __init__(self, spec_: spec.EncoderOnly) -> None:
        super().__init__()
        self.spec = spec_
        width, entries = spec_.width, spec_.vocabulary.size
        self.source = Embedding(spec_.embedding, entries, width)
        self.encoder = deep(spec_.encoder, width)
        self.output = self.source if isinstance(spec_.tie, spec.Tied) else Table(entries, width)
        self.head = Output(spec_.output, entries, width)

    def encode(
        self, source: Int[Tensor, "B S"], sight: Sight, noise: Noise | None = None, trace: Trace | None = None
    ) -> Float[Tensor, "B S D"]:
        """What the encoder makes of a text, place by place."""
        ctx = Context(sight, noise=noise, trace=trace).at("encoder")
        return self.encoder(self.source(source, ctx), ctx)

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """A score for every entry of the vocabulary."""
        return self.head.logits(hidden, self.output)

    def forward(self, source: Int[Tensor, "B S"], sight: Sight, noise: Noise | None = None) -> Float[Tensor, "B S V"]:
        """Logits for the token at each place."""
        return self.logits(self.encode(source, sight, noise))


class Classifier(nn.Module):
    """An encoder whose pooled vector tells the label of a text, by maps of its own or by the words of the labels."""

    def __init__(self, spec_: spec.Classifier) -> None:
        super().__init__()
        self.spec = spec_
        width = spec_.width
        self.source = Embedding(spec_.embedding, spec_.vocabulary.size, width)
        self.encoder = deep(spec_.encoder, width)
        self.pooler, self.labels, self.spelling = None, None, None
        if isinstance(spec_.answer, spec.Mapped):
            self.pooler, self.labels = Linear(width, width), Linear(width, len(spec_.labels))
        else:
            self.spelling = Spelling(spec_.answer, width)

    def encode(
        self, source: Int[Tensor, "B S *words"], sight: Sight, noise: Noise | None = None, trace: Trace | None = None
    ) -> Float[Tensor, "B S D"]:
        """What the encoder makes of a text, place by place."""
        unit = self.spec.embedding.unit
        if isinstance(unit, spec.Sentences) and isinstance(unit.counted, spec.FromTheEnd):
            sight = counted_back(source, sight, spec.known_places(self.spec), unit.counted.gaps, noise)
        ctx = Context(sight, noise=noise, trace=trace).at("encoder")
        return self.encoder(self.source(source, ctx), ctx)

    def forward(
        self, source: Int[Tensor, "B S *words"], sight: Sight, noise: Noise | None = None, trace: Trace | None = None
    ) -> Float[Tensor, "B L"]:
        """Logits for every label."""
        vector = pooled(self.spec.pooling, self.encode(source, sight, noise, trace), sight)
        if self.pooler is not None:
            vector = torch.tanh(self.pooler(vector))
        if noise is not None and self.spec.dropout:
            vector = vector * noise.mask(vector, self.spec.dropout, ("labels",))
        if self.labels is not None:
            return self.labels(vector)
        assert self.spelling is not None, "labels have maps or words"
        return functional.linear(vector, self.spelling().to(vector.dtype))


AnyModel = EncoderDecoder | DecoderOnly | EncoderOnly | Classifier


def _stepper(table: Embedding, decoder: Stack | Recurrence, ctx: Context) -> Callable[[Int[Tensor, " R"]], Float[Tensor, "R D"]]:
    """All that can be looked up is looked up now, once: a step of a small model must not drown in Python."""
    state = ctx.state
    assert state is not None, "a step remembers"
    through = decoder.stepper(ctx)

    def step(tokens: Int[Tensor, " R"]) -> Float[Tensor, "R D"]:
        hidden = through(table(tokens[:, None], Context(ctx.sight, state.length))[:, 0])
        state.length += 1
        return hidden

    return step


def recompute(model: AnyModel) -> None:
    """Let the blocks of stacks be computed anew on the way back, rather than keep what they have in between: less memory, for a
    third more of the time."""
    for module in model.modules():
        if isinstance(module, Stack):
            module.recomputes = True


def pack(model: AnyModel) -> None:
    """Lay out the weights of a finished model for use on this CPU; they must not change afterwards, and are held twice.

    Nothing is done where it would not help: on a GPU, without oneDNN, in a precision that it has not.
    """
    for module in model.modules():
        if isinstance(module, Linear) and machine.packs(module.weight):
            module.packed = packed(module.weight, module.bias)
    if not isinstance(model, Classifier) and not isinstance(model.output, Entries) and machine.packs(model.output.weight):
        model.output.packed = packed(model.output.weight)


def quantise(model: AnyModel) -> None:
    """Keep the weights of linear maps and of the output in eight bits, for inference on this CPU; activations are rounded to
    eight bits as they come, each product in whole numbers. Norms, embeddings and attention stay as they are.

    Raises QkvError where PyTorch has no such products.
    """
    for module in model.modules():
        if isinstance(module, Linear):
            module.packed = InEightBits(module.weight, module.bias)
    if not isinstance(model, Classifier) and not isinstance(model.output, Entries):
        model.output.packed = InEightBits(model.output.weight)


@overload
def build(spec_: spec.EncoderDecoder, seed: int = 0) -> EncoderDecoder: ...
@overload
def build(spec_: spec.DecoderOnly, seed: int = 0) -> DecoderOnly: ...
@overload
def build(spec_: spec.EncoderOnly, seed: int = 0) -> EncoderOnly: ...
@overload
def build(spec_: spec.Classifier, seed: int = 0) -> Classifier: ...
@overload
def build(spec_: spec.Model, seed: int = 0) -> AnyModel: ...
def build(spec_: spec.Model, seed: int = 0) -> AnyModel:
    """The module of a description, with initial values that are a pure function of the seed."""
    with torch.device("meta"):
        match spec_:
            case spec.EncoderDecoder():
                model = EncoderDecoder(spec_)
            case spec.DecoderOnly():
                model = DecoderOnly(spec_)
            case spec.EncoderOnly():
                model = EncoderOnly(spec_)
            case spec.Classifier():
                model = Classifier(spec_)
    model = model.to_empty(device="cpu")
    if isinstance(model, EncoderDecoder):
        model.tie()  # which no module survives that is moved away from "meta"
    initialise(model, spec_.initial, seed)
    return model
