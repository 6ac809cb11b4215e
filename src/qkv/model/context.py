"""What a sublayer may know besides its input: one small value, handed down and never changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor

from qkv.attention.sight import Sight
from qkv.model.dropout import Noise
from qkv.model.position import Bias
from qkv.model.recurring import Recurring
from qkv.model.state import Path, State
from qkv.model.trace import Trace

Step = Callable[[Float[Tensor, "R D"]], Float[Tensor, "R E"]]  # what a part does to the next token of every row


@dataclass(frozen=True, slots=True)
class Memory:
    """What the encoder hands the decoder."""

    vectors: Float[Tensor, "B S D"]
    sight: Sight
    ids: Int[Tensor, "B S"] | None = None  # the tokens themselves, for those who point at them


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of one pass, as seen from one place in the model."""

    sight: Sight
    first: int = 0
    memory: Memory | None = None
    state: State | None = None
    trace: Trace | None = None
    noise: Noise | None = None
    path: Path = ()
    bias: Bias | None = None  # what the blocks of a stack add to their scores
    recurring: Recurring | None = None  # what the steps of a recurrence share

    def at(self, name: str) -> Context:
        """The same one step further down the path; a path is kept only where somebody asks for it."""
        if self.state is None and self.trace is None and self.noise is None and self.recurring is None:
            return self
        path = (*self.path, name)
        return Context(self.sight, self.first, self.memory, self.state, self.trace, self.noise, path, self.bias, self.recurring)

    def all_rows(self, shown: bool) -> tuple[Step, Step]:
        """From the rows that a step computes to those of all, and back. Where `shown`, a row of a recurrence that has halted has
        what others saw of it."""
        recurring, state = self.recurring, self.state
        if recurring is not None:
            return partial(recurring.shown, self.path) if shown else recurring.spread, recurring.own
        assert state is not None, "a step remembers"
        return state.spread, state.own
