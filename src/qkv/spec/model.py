"""Whole models as values: every place named. Counting, saving, drawing and converting read the value; only `qkv.model` builds
it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

from qkv.error import QkvError
from qkv.spec.cell import Cell
from qkv.spec.part import (
    Activation,
    Attention,
    Depth,
    MemoryAttention,
    Recurrence,
    Recurrent,
    Unit,
    head_width,
    positive,
    recurrent_width,
    refuse_dropout,
)
from qkv.spec.pooling import MeanToken, Pooling
from qkv.spec.position import Coordinates, Factorised, Learned, Position, Sinusoid, Trained
from qkv.spec.score import Additive, Score


@dataclass(frozen=True)
class NoNorm:
    """Vectors as they are."""


@dataclass(frozen=True)
class Normed:
    """A layer norm."""

    epsilon: float = 1e-5


@dataclass(frozen=True)
class Tokens:
    """Every position is a token."""


@dataclass(frozen=True)
class FromTheStart:
    """The first sentence stands at place 0."""


@dataclass(frozen=True)
class FromTheEnd:
    """The last sentence stands at place 0, and the one before it at 1: what was said last is most often asked for. In training a
    place is left out with the probability `gaps`, or a model would know its stories by their places (Sukhbaatar et al. 2015,
    section 4.1: temporal encoding, and random noise). So counted are places whose vectors are added, not distances."""

    gaps: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.gaps < 1:
            raise QkvError(f"FromTheEnd.gaps is a probability below 1, not {self.gaps!r}")


@dataclass(frozen=True)
class AllSentences:
    """A text is read from its first sentence on."""


@dataclass(frozen=True)
class Sentences:
    """Every position is a sentence, which is a line of at most `longest` words: the sum of their vectors, each multiplied by a
    trained mask for the place of the word (Dehghani et al. 2018, section 3.1, after Sukhbaatar et al. 2015 and Henaff et al.
    2016).

    Of a text the last `recent` sentences are read, the question among them: what was said long ago is seldom asked for, and the
    fewer there are, the sooner is learned which of them matter (the released code reads the last 70, in one task 130).
    """

    longest: int = 32
    counted: FromTheStart | FromTheEnd = FromTheStart()
    recent: int | AllSentences = AllSentences()

    def __post_init__(self) -> None:
        for name in ("longest", *(["recent"] if not isinstance(self.recent, AllSentences) else [])):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise QkvError(f"Sentences.{name} must be a whole number of at least 1, not {value!r}")


@dataclass(frozen=True)
class Embedding:
    """Token vectors: times sqrt(width) if scaled, plus positions, then norm, then dropout (Vaswani et al. 2017, sections 3.4 and
    5.4; the norm is BERT's and BART's).

    `segments` is the number of vectors that say which part of the input a token belongs to (Devlin et al. 2018, section 3); all
    tokens belong to the first part unless something else is said.
    """

    position: Position = Sinusoid()
    scale: bool = True
    dropout: float = 0.0
    norm: NoNorm | Normed = NoNorm()
    segments: int = 0
    unit: Tokens | Sentences = Tokens()

    def __post_init__(self) -> None:
        refuse_dropout(self, self.dropout)
        if self.segments < 0:
            raise QkvError(f"Embedding.segments is a number of parts of an input, 0 where it has none, not {self.segments!r}")


@dataclass(frozen=True)
class Straight:
    """The vectors of the last block as they are."""


@dataclass(frozen=True)
class Transform:
    """norm(activation(linear(x))): what BERT does to a vector before it is compared with every word."""

    activation: Activation
    epsilon: float = 1e-5


@dataclass(frozen=True)
class Output:
    """From the vectors of the last block to a score for every entry of the vocabulary.

    Scaled, the scores are multiplied by width^-0.5 (T5, whose embedding is not scaled); `offset` is a number for each entry.
    """

    transform: Straight | Transform = Straight()
    scaled: bool = False
    offset: bool = False


@dataclass(frozen=True)
class Pointing:
    """In place of a score for each entry one for each place of the source: an entry is as likely as the places at which it stands
    there, together (Vinyals et al. 2015, Pointer Networks, section 2.3). What stands nowhere in the source is never said."""

    score: Score = Additive()


@dataclass(frozen=True)
class Glorot:
    """Xavier uniform maps, embeddings of deviation width^-0.5, as in the released code of Vaswani et al. 2017."""


@dataclass(frozen=True)
class Orthogonal:
    """Maps that keep angles and lengths, of queries and of values (Saxe et al. 2013): likeness is then the cosine itself and not
    what random maps leave of it.

    A normed vector has the score `sharpness` with itself in each head, on average where there are several; of what is received
    the share `taken` is added. So that nothing blurs it, the vectors of words are orthogonal where there are no more of them
    than they are wide, trained signals of places and steps begin a tenth as long, and whatever else is added to the residual
    stream as 0. In the share `ordered` of all channels the masks of the words of sentences begin as 1 or -1 at random: the order
    of words is told there from the start, and in all others not at all.
    """

    sharpness: float = 16.0
    taken: float = 0.5
    ordered: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.ordered <= 1:
            raise QkvError(f"Orthogonal.ordered is a share of the channels, from 0 to 1, not {self.ordered!r}")
        for name in ("sharpness", "taken"):
            if not getattr(self, name) > 0:
                raise QkvError(f"Orthogonal.{name} is greater than 0, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class AllHeads:
    """All heads of an attention."""


@dataclass(frozen=True)
class Likeness:
    """As `Glorot`, but attention begins by likeness: keys are mapped as queries are, and what is received is mapped back by the
    transpose of the map of the values. A position attends at first to what is like it, and takes on more of that: few examples
    cannot teach it (near to Trockman and Kolter 2023, Mimetic Initialization, where these products are about the identity, that
    of values and output with a minus). With `maps=Orthogonal()` they are the identity but for their size.

    Only the first `heads` of each attention begin so; what others receive is nothing at first, and theirs to learn."""

    maps: Glorot | Orthogonal = Glorot()
    heads: int | AllHeads = AllHeads()

    def __post_init__(self) -> None:
        if isinstance(self.heads, int):
            positive(self, "heads")


@dataclass(frozen=True)
class Normal:
    """Everything normal with one deviation; maps back onto the residual stream are divided by sqrt(their number) if they shrink
    (Radford et al. 2019, GPT-2, section 2.3; BERT without shrinking)."""

    deviation: float = 0.02
    shrink: bool = True

    def __post_init__(self) -> None:
        if not self.deviation >= 0:
            raise QkvError(f"Normal.deviation is not negative: {self.deviation!r}")


@dataclass(frozen=True)
class FanIn:
    """Maps of deviation (number of inputs)^-0.5, embeddings of deviation 1, and queries that make up for scores without a scale
    (Raffel et al. 2019, T5, as released)."""


@dataclass(frozen=True)
class Reduced:
    """Maps of deviation factor x (number of inputs)^-0.5, embeddings of factor x width^-0.5, places of factor x (width x number
    of tables)^-0.5; maps back onto the residual stream are divided by the root of their number, and an output map of its own
    begins with zeros (Child et al. 2019, sections 5.2 and 6)."""

    factor: float = 0.125

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise QkvError(f"Reduced.factor must be more than 0, such as 0.125, not {self.factor!r}")


Initial = Glorot | Likeness | Normal | FanIn | Reduced


@dataclass(frozen=True)
class AllThree:
    """Source embedding, target embedding and output map are one matrix; both sides share one vocabulary."""


@dataclass(frozen=True)
class SourceAndTarget:
    """Source and target embedding are one matrix, the output map has its own; both sides share one vocabulary."""


@dataclass(frozen=True)
class TargetAndOutput:
    """Target embedding and output map are one matrix; the source has its own."""


@dataclass(frozen=True)
class Tied:
    """Embedding and output map are one matrix, in a model with one side."""


@dataclass(frozen=True)
class Untied:
    """Embeddings and output map are matrices of their own."""


Tie = AllThree | SourceAndTarget | TargetAndOutput | Untied


@dataclass(frozen=True)
class Joint:
    """One vocabulary, for both sides where there are two; special symbols count among its entries."""

    size: int

    def __post_init__(self) -> None:
        _more_than_specials(self.size)

    @property
    def source(self) -> int:
        return self.size

    @property
    def target(self) -> int:
        return self.size


@dataclass(frozen=True)
class Separate:
    """A vocabulary for each side; the special symbols count among the entries of both."""

    source: int
    target: int

    def __post_init__(self) -> None:
        _more_than_specials(min(self.source, self.target))


Vocabulary = Joint | Separate


def _more_than_specials(size: int) -> None:
    if size < 5:
        raise QkvError(f"a vocabulary needs the four special symbols and at least one entry more, not {size}")


def _refuse(stack: Depth, width: int, place: str, memory: bool, future: bool) -> None:
    """Raises QkvError where there is no width, heads cannot share it, or a sublayer sees what is not there."""
    if width < 1:
        raise QkvError(f"a model has a width of at least 1, not {width!r}")
    for block in stack.blocks:
        if isinstance(block, Cell):
            block.widths(width)
        else:
            _refuse_widths(block, width)
    for sublayer in (s for block in stack.blocks for s in block.sublayers):
        if isinstance(sublayer, Attention | MemoryAttention):
            head_width(sublayer, width)
        asks = isinstance(sublayer, MemoryAttention) or (isinstance(sublayer, Recurrent) and sublayer.remembers)
        if asks and not memory:
            raise QkvError(f"{type(sublayer).__name__} stands in the {place}, where there is no memory")
        pattern = getattr(sublayer, "pattern", None)
        if pattern is not None and not future and pattern.ahead:
            raise QkvError(f"{pattern} sees the future, in a decoder that is to predict it: use Causal(), Causal() & ...")


def _refuse_widths(block: Unit, width: int) -> None:
    """Raises QkvError where the sublayers of a block cannot be as wide as the model."""
    for sublayer in block.sublayers:
        if isinstance(sublayer, Recurrent):
            recurrent_width(sublayer, width, width)


def _refuse_sentences(embedding: Embedding) -> None:
    """Raises QkvError where a model that says tokens is to read whole sentences."""
    if isinstance(embedding.unit, Sentences):
        raise QkvError(f"{embedding.unit} is for a Classifier: other models say tokens, and read them")


@dataclass(frozen=True)
class EncoderDecoder:
    """An encoder that reads the source and a decoder that writes the target, attending to the encoder's memory."""

    vocabulary: Vocabulary
    width: int
    embedding: Embedding
    encoder: Depth
    decoder: Depth
    tie: Tie = AllThree()
    output: Output | Pointing = Output()
    initial: Initial = Glorot()

    def __post_init__(self) -> None:
        if isinstance(self.tie, AllThree | SourceAndTarget) and not isinstance(self.vocabulary, Joint):
            raise QkvError(
                f"{type(self.tie).__name__}() ties both sides to one vocabulary, but there is one for each: {self.vocabulary}; "
                f"use TargetAndOutput()"
            )
        if isinstance(self.output, Pointing) and not isinstance(self.tie, AllThree):
            raise QkvError(
                f"Pointing() says entries of the source: one vocabulary for both sides, tie=AllThree(), not {self.tie}"
            )
        _refuse_sentences(self.embedding)
        _refuse(self.encoder, self.width, "encoder", memory=False, future=True)
        _refuse(self.decoder, self.width, "decoder", memory=True, future=False)


@dataclass(frozen=True)
class DecoderOnly:
    """A decoder without an encoder: it writes on from what it has read (GPT)."""

    vocabulary: Joint
    width: int
    embedding: Embedding
    decoder: Depth
    tie: Tied | Untied = Tied()
    output: Output = Output()
    initial: Initial = Normal()

    def __post_init__(self) -> None:
        _refuse_sentences(self.embedding)
        _refuse(self.decoder, self.width, "decoder of a model without an encoder", memory=False, future=False)


@dataclass(frozen=True)
class EncoderOnly:
    """An encoder without a decoder: it sees a whole text and fills in what is masked (BERT)."""

    vocabulary: Joint
    width: int
    embedding: Embedding
    encoder: Depth
    tie: Tied | Untied = Tied()
    output: Output = Output()
    initial: Initial = Normal(shrink=False)

    def __post_init__(self) -> None:
        _refuse_sentences(self.embedding)
        _refuse(self.encoder, self.width, "encoder", memory=False, future=True)


@dataclass(frozen=True)
class Mapped:
    """linear(dropout(tanh(linear(pooled)))) (Devlin et al. 2018, section 4)."""


@dataclass(frozen=True)
class Spelled:
    """dropout(pooled) times the sum of the vectors of a label's words, which serve here alone: a way of two steps need not be
    learned apart from others that begin alike. From the second on the words of a label are multiplied by a trained mask for their
    place, as those of `Sentences` are: north and then west is another way than west and then north. `words` are the entries of
    each label, filled in as the run begins."""

    words: tuple[tuple[int, ...], ...] = ()

    @property
    def longest(self) -> int:
        """How many words the longest label has."""
        return max(map(len, self.words), default=1)

    @property
    def entries(self) -> list[int]:
        """The entries of all words, each once."""
        return sorted({word for said in self.words for word in said})


@dataclass(frozen=True)
class Classifier:
    """An encoder whose pooled vector tells a text's label."""

    vocabulary: Joint
    width: int
    embedding: Embedding
    encoder: Depth
    labels: tuple[str, ...]
    pooling: Pooling = MeanToken()
    dropout: float = 0.1
    initial: Initial = Normal(shrink=False)
    answer: Mapped | Spelled = Mapped()

    def __post_init__(self) -> None:
        _refuse(self.encoder, self.width, "encoder", memory=False, future=True)
        refuse_dropout(self, self.dropout)
        if isinstance(self.answer, Spelled) and self.answer.words and not self._spells(self.answer.words):
            raise QkvError(
                f"each of the {len(self.labels)} labels is spelled by some entries of the vocabulary, not {self.answer}"
            )
        if isinstance(self.answer, Spelled) and len(set(self.answer.words)) < len(self.answer.words):
            raise QkvError(f"two labels are spelled by the same entries, and nothing tells them apart: {self.answer}")
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise QkvError(f"a classifier needs at least two labels, all different, not {self.labels!r}")

    def _spells(self, words: tuple[tuple[int, ...], ...]) -> bool:
        known = range(self.vocabulary.size)
        return len(words) == len(self.labels) and all(some and all(word in known for word in some) for some in words)


Model = EncoderDecoder | DecoderOnly | EncoderOnly | Classifier
AnyModel = TypeVar("AnyModel", bound=Model)


def sides(model: Model) -> dict[str, Depth]:
    """The encoder, the decoder, or both, by name."""
    return {name: getattr(model, name) for name in ("encoder", "decoder") if hasattr(model, name)}


def known_places(model: Model) -> int | float:
    """How many tokens a text can have at most: as many as there are trained places, wherever these act."""
    signals = [depth.signal for depth in sides(model).values() if isinstance(depth, Recurrence)]
    said = [model.embedding.position, *(signal.place for signal in signals if isinstance(signal, Coordinates))]
    return min((position.longest for position in said if isinstance(position, Trained)), default=math.inf)


def with_places(model: AnyModel, longest: int) -> AnyModel:
    """The same model with so many trained places, wherever it has any."""

    def placed(position: Position) -> Position:
        match position:
            case Learned():
                return Learned(longest)
            case Factorised(sizes=(_, *rest)):
                return Factorised((-(-longest // math.prod(rest)), *rest))
            case _:
                return position

    def signalled(depth: Depth) -> Depth:
        if not isinstance(depth, Recurrence) or not isinstance(depth.signal, Coordinates):
            return depth
        return replace(depth, signal=replace(depth.signal, place=placed(depth.signal.place)))

    embedding = replace(model.embedding, position=placed(model.embedding.position))
    return replace(model, embedding=embedding, **{name: signalled(depth) for name, depth in sides(model).items()})
