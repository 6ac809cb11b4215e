"""A training run as a value: enough to train the same model again. It is what `run.toml` and every recipe say."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qkv.error import QkvError, unknown
from qkv.spec.data import AtMost, Bytes, Exactly, Files, Form, HeldOut, Labelled, Pairs, Stories, Texts, Tokenizer
from qkv.spec.objective import Classify, Generate, Objective, Translate
from qkv.spec.world import Drawn


def above(value: object, least: float, *names: str) -> None:
    """Raises QkvError for a value whose fields of these names are not numbers above the least."""
    for name in names:
        number = getattr(value, name)
        if not number > least:
            raise QkvError(f"{type(value).__name__}.{name} must be more than {least:g}, not {number!r}")


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2014, with the constants of Vaswani et al. 2017, section 5.3.

    `decay` is what matrices lose at every step, times the learning rate (Loshchilov and Hutter 2017); offsets and norms lose
    nothing.
    """

    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9
    decay: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.decay < math.inf:
            raise QkvError(f"Adam.decay is a number of at least 0, not {self.decay!r}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise QkvError(f"Adam.{name} is a share of at least 0 and below 1, not {getattr(self, name)!r}")
        above(self, 0, "epsilon")


@dataclass(frozen=True)
class Noam:
    """factor * width^-0.5 * min(step^-0.5, step * warmup^-1.5) (Vaswani et al. 2017, equation 3)."""

    warmup: int = 4000
    factor: float = 1.0

    def __post_init__(self) -> None:
        above(self, 0, "warmup", "factor")


@dataclass(frozen=True)
class Cosine:
    """A straight line up to `peak` over `warmup` steps, then half a cosine down to `last` x peak at the end of the run."""

    peak: float
    warmup: int = 1000
    last: float = 0.0

    def __post_init__(self) -> None:
        above(self, 0, "warmup")
        if self.peak < 0 or self.last < 0:
            raise QkvError(f"a learning rate is not negative, nor is the share of it that is left at the end: not {self}")


Schedule = Noam | Cosine


@dataclass(frozen=True)
class Batching:
    """Batches of at most `tokens` positions on either side, padding included; a step adds up `accumulate` of them."""

    tokens: int = 4096
    accumulate: int = 1

    def __post_init__(self) -> None:
        above(self, 0, "tokens", "accumulate")


@dataclass(frozen=True)
class NoClip:
    """Gradients as they are, as in the paper."""


@dataclass(frozen=True)
class Clip:
    """The norm of all gradients together is held to `norm`."""

    norm: float = 1.0

    def __post_init__(self) -> None:
        above(self, 0, "norm")


@dataclass(frozen=True)
class Steps:
    """Train for a number of optimiser steps."""

    number: int

    def __post_init__(self) -> None:
        above(self, 0, "number")


@dataclass(frozen=True)
class Epochs:
    """Train for a number of passes over the training text."""

    number: int

    def __post_init__(self) -> None:
        above(self, 0, "number")


@dataclass(frozen=True)
class Minutes:
    """Train for a time: the number of steps that fit is fixed early in the run, and written down here.

    While `steps` is 0 it is open; `since` is the step at which it was fixed, up to which a schedule could not know it.
    """

    number: float
    steps: int = 0
    since: int = 0

    def __post_init__(self) -> None:
        above(self, 0, "number")


Budget = Steps | Epochs | Minutes


@dataclass(frozen=True)
class ToTheEnd:
    """Never stop early."""


@dataclass(frozen=True)
class Patience:
    """Stop when the validation loss has not improved for so many evaluations."""

    evaluations: int = 10

    def __post_init__(self) -> None:
        above(self, 0, "evaluations")


Stopping = ToTheEnd | Patience


@dataclass(frozen=True)
class Evaluation:
    """Every so many steps: the validation loss, and the BLEU of the first `sentences` validation pairs, greedily translated
    (0: none).

    `tokenise` is sacreBLEU's: "13a" for natural text, "none" for text that is tokenised already.
    """

    every: int = 500
    sentences: int = 200
    tokenise: str = "13a"

    def __post_init__(self) -> None:
        above(self, 0, "every")
        above(self, -1, "sentences")


@dataclass(frozen=True)
class Checkpoints:
    """A checkpoint every so many steps; the last `keep` stay, and the final model is the average of the last `average` of them:
    of exactly so many, as in Vaswani et al. 2017, section 6.1, or of at most so many, of as many as validate best."""

    every: int = 500
    keep: int = 5
    average: AtMost | Exactly = AtMost(5)

    def __post_init__(self) -> None:
        if not isinstance(self.average, AtMost | Exactly):
            raise QkvError(f"Checkpoints.average must be AtMost(size) or Exactly(size), not {self.average!r}")
        if self.average.size > self.keep or self.every < 1:
            raise QkvError(f"of the checkpoints kept at least one is averaged, and no more than are kept: not {self}")


@dataclass(frozen=True)
class Scratch:
    """The named model with random values."""


@dataclass(frozen=True)
class From:
    """The model of a finished run, as far as the objective can use it: all of it, or its encoder; its tokenizers come with it."""

    run: str


PRECISIONS = ("auto", "fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
FRAME = 2  # places that the symbols at the start and at the end of a text may take


Source = Files | Pairs | Drawn | Texts | Bytes | Labelled | Stories


def text_of(objective: Objective) -> tuple[type, ...]:
    """The kinds of text that an objective learns from."""
    match objective:
        case Translate():
            return Files, Pairs, Drawn
        case Classify():
            return Labelled, Stories
        case Generate():
            return Texts, Bytes
        case _:
            return (Texts,)


@dataclass(frozen=True)
class Run:
    """One training run.

    With `roaming`, the places of a training batch are counted from a random number on, of at most so many, on both sides alike:
    then a model knows places that lie beyond its longest training text (Dehghani et al. 2018, section 3.4). The logarithm of the
    number, with 1 added, is drawn evenly: were it the number itself, the first places would hardly be met. If they are `spread`,
    the places of a batch have gaps as well, wider ones the more seldom, and so tokens far from each other are met too, as they
    stand in a longer text (near to Ruoss et al. 2023, Randomized Positional Encodings). With `recompute` the blocks of a stack
    are computed anew on the way back: less memory, for a third more of the time (Child et al. 2019, section 5.4).
    """

    model: str
    train: Source
    valid: Source | HeldOut = HeldOut()
    objective: Objective = Translate()
    start: Scratch | From = Scratch()
    changes: tuple[str, ...] = ()
    tokenizer: Tokenizer = Tokenizer()
    longest: int = 256
    roaming: int = 0
    spread: bool = False
    batching: Batching = Batching()
    optimiser: Adam = Adam()
    schedule: Schedule = Noam()
    smoothing: float = 0.1
    clip: NoClip | Clip = NoClip()
    budget: Budget = Epochs(10)
    stopping: Stopping = ToTheEnd()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    recompute: bool = False
    precision: str = "auto"
    device: str = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)
        if not 0 <= self.smoothing < 1:
            raise QkvError(f"label smoothing is a share of probability below 1, not {self.smoothing}")
        if self.seed < 0:
            raise QkvError(f"a seed is not negative: {self.seed}")
        if self.roaming < 0:
            raise QkvError(f"roaming is a number of places, 0 where all texts begin at the first: not {self.roaming}")
        if self.roaming and isinstance(self.train, Stories):
            raise QkvError("roaming is for texts of tokens: what moves the places of a story is FromTheEnd(gaps=0.1) of its unit")
        if self.longest < 1:
            raise QkvError(f"the longest sentence has at least one token, not {self.longest}")
        wanted = text_of(self.objective)
        for text in (self.train, self.valid):
            if not isinstance(text, (*wanted, HeldOut)):
                kinds = " or ".join(kind.__name__ for kind in wanted)
                raise QkvError(f"{self.objective} learns from {kinds}, not from {type(text).__name__}")
        if self.form != (self.own_text.form if isinstance(self.own_text, Bytes) else None):
            raise QkvError(f"a run that learns from {self.train} is validated on what has the same form, not on {self.valid}")

    @property
    def form(self) -> Form | None:
        """The form of the bytes that it learns from; None where it learns from text."""
        return self.train.form if isinstance(self.train, Bytes) else None

    @property
    def places(self) -> int:
        """How many places its longest text takes, with the symbols around it."""
        return self.longest + (0 if isinstance(self.objective, Generate) else FRAME)

    @property
    def own_text(self) -> Source:
        """The text that it is validated on, or that it learns from where the first is held out of it."""
        return self.train if isinstance(self.valid, HeldOut) else self.valid
