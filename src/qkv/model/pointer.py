"""From the vectors of the last block to places of the source, and the entries that stand there."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from qkv.attention.call import Call
from qkv.attention.reference import weights
from qkv.model.context import Context, Step
from qkv.model.linear import Linear
from qkv.model.score import Scored
from qkv.model.state import Once
from qkv.spec import model as spec
from qkv.spec.choice import Soft

LEAST = 1e-12  # what stands nowhere in the source is not quite impossible, so that logarithms are numbers


class Pointer(nn.Module):
    """log of the sum of the weights of the places where an entry stands: u = score(q, k), and weights = softmax(u), are all there
    is; nothing is received (Vinyals et al. 2015, equation 3)."""

    def __init__(self, how: spec.Pointing, entries: int, width: int) -> None:
        super().__init__()
        self.entries = entries
        self.q = Linear(width, width, bias=False)
        self.k = Linear(width, width, bias=False)
        self.score = Scored(how.score, 1, width, Soft())

    def forward(self, hidden: Float[Tensor, "R T D"], ctx: Context) -> Float[Tensor, "R T V"]:
        memory = self._memory(ctx)
        call = self._call(hidden, memory)
        found = weights(call)
        if ctx.trace is not None:
            ctx.trace.attention(ctx.path, call)
        rows, length, _ = hidden.shape
        pointed = found.view(rows, length, -1)
        ids = memory.v[:, 0, :, 0].repeat_interleave(rows // len(memory.v), 0)
        said = pointed.new_zeros(rows, length, self.entries).scatter_add(2, ids[:, None].expand_as(pointed), pointed)
        return said.clamp(min=LEAST).log()

    def stepper(self, ctx: Context) -> Step:
        """`forward` for one more token of every row at a time."""
        self._memory(ctx)
        spread, own = ctx.all_rows(shown=False)
        return lambda x: own(self(spread(x)[:, None], ctx)[:, 0])

    def _call(self, hidden: Float[Tensor, "R T D"], memory: Once) -> Call:
        q = self.q(hidden).unflatten(0, (len(memory.k), -1)).flatten(1, 2)[:, None]
        return Call(self.score.queries(q), memory.k, memory.k, keys=memory.sight, **self.score.how)

    def _memory(self, ctx: Context) -> Once:
        """The keys of the source, and its entries as their values."""
        if ctx.state is not None and ctx.path in ctx.state.slots:
            slot = ctx.state.slots[ctx.path]
            assert isinstance(slot, Once)
            return slot
        memory = ctx.memory
        assert memory is not None and memory.ids is not None, "who points knows the tokens of the source"
        once = Once(self.score.keys(self.k(memory.vectors)[:, None]), _values(memory.ids), memory.sight)
        if ctx.state is not None:
            ctx.state.slots[ctx.path] = once
        return once


def _values(ids: Int[Tensor, "B S"]) -> Int[Tensor, "B 1 S 1"]:
    return ids[:, None, :, None].clone()  # sentences that leave are moved over in place
