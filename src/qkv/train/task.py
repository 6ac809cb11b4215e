"""What a run is trained to do: its batches, its loss, and how good a model is at it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.data.batch import Given
from qkv.data.tokenizer import Tokenizers
from qkv.model.dropout import Noise
from qkv.model.embedding import Entries
from qkv.model.trace import Trace
from qkv.model.transformer import DecoderOnly, EncoderDecoder, EncoderOnly
from qkv.train.loss import Smoothing, of_each, of_scores, smoothed_cross_entropy

Losses = tuple[Float[Tensor, ""], Float[Tensor, ""]]
"""The smoothed loss, which has a gradient, and the plain one; both summed over what a batch predicts, in nats."""


@runtime_checkable
class Example(Protocol):
    """A batch; `tokens` is how many predictions its loss is the sum of, `sides` what each side of a model is given."""

    @property
    def tokens(self) -> int: ...

    @property
    def sides(self) -> dict[str, Given]: ...

    def to(self, device: torch.device | str) -> Any: ...


@runtime_checkable
class Plan(Protocol):
    """The batches of one epoch, and the share of padding among their positions."""

    @property
    def padding(self) -> float: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@runtime_checkable
class Report(Protocol):
    """What was done with the text, in lines."""

    @property
    def vocabularies(self) -> tuple[int, int]: ...

    def lines(self) -> list[str]: ...


@runtime_checkable
class Task(Protocol):
    """One objective on one text."""

    @property
    def report(self) -> Report: ...

    tokenizers: Tokenizers
    fingerprints: dict[str, str]

    def plan(self, epoch: int) -> Plan:
        """The batches of an epoch, a pure function of the run's seed and the epoch."""
        ...

    def batch(self, plan: Any, index: int, epoch: int) -> Example:
        """One of them."""
        ...

    def losses(
        self,
        model: Any,
        batch: Any,
        smoothing: Smoothing,
        noise: Noise | None,
        precision: torch.dtype,
        trace: Trace | None = None,
    ) -> Losses:
        """The loss of a batch; a trace takes note of what goes on inside."""
        ...

    def validation_loss(self, model: Any) -> float:
        """The plain loss per prediction on the validation text, without dropout."""
        ...

    def measure(self, model: Any) -> dict[str, Any]:
        """How good a model is on the validation text: the plain loss per prediction as `loss`, and whatever else."""
        ...


def of_vectors(
    model: EncoderDecoder | DecoderOnly | EncoderOnly,
    vectors: Float[Tensor, "N D"],
    truth: Int[Tensor, " N"],
    smoothing: Smoothing,
    precision: torch.dtype = torch.float32,
) -> Losses:
    """The loss of a model whose last block gave these vectors, where these tokens were to be said."""
    if isinstance(model.output, Entries):
        return of_scores(vectors, truth, smoothing)
    weight, offset = model.output.weight, model.head.offset
    return smoothed_cross_entropy(model.head.ready(vectors).to(weight.dtype), weight, truth, smoothing, precision, offset)


def each_of_vectors(
    model: EncoderDecoder, vectors: Float[Tensor, "N D"], truth: Int[Tensor, " N"], precision: torch.dtype = torch.float32
) -> Float[Tensor, " N"]:
    """The plain loss of each prediction, in nats, without a gradient."""
    if isinstance(model.output, Entries):
        return -vectors.detach().log_softmax(-1).gather(1, truth[:, None])[:, 0]
    weight, offset = model.output.weight, model.head.offset
    return of_each(model.head.ready(vectors).to(weight.dtype), weight, truth, precision, offset)
