"""Positions as tensors: tables to add to embeddings, angles to turn queries and keys by, biases to add to scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from qkv.attention.sight import Padded, Placed, Sight
from qkv.error import QkvError
from qkv.model.dropout import Noise
from qkv.spec import position as spec
from qkv.spec.position import ALiBi, Coordinates, Factorised, Learned, LearnedStep, Relative, Rotary, Sinusoid, vectors

Bias = Callable[[int, int, int], Float[Tensor, "1 H T S"]]
"""What is added to the scores of T queries, the first of them at a position, against S keys from position 0 on."""


def sinusoids(spec: Sinusoid, length: int, width: int) -> Float[Tensor, "length width"]:
    """PE[pos, 2i] = sin(pos / base^(2i/width)), PE[pos, 2i+1] = cos(the same) (Vaswani et al. 2017, section 3.5), computed in
    fp64."""
    channel = torch.arange(0, width, 2, dtype=torch.float64)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * spec.base ** (-channel / width)
    table = torch.empty(length, width, dtype=torch.float64)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : width // 2]
    return table


def shift(spec: Sinusoid, distance: int, width: int) -> Float[Tensor, "width width"]:
    """The linear map M of a distance, the same for every place: PE[pos + distance] = PE[pos] M (Vaswani et al. 2017, section
    3.5).

    It turns each pair of a sine and a cosine by the angle that the distance makes at their frequency. Raises QkvError for an odd
    width, whose last sine has no cosine beside it.
    """
    if width % 2:
        raise QkvError(f"with a width of {width} the last sine has no cosine beside it, and no map shifts it")
    angle = distance * spec.base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    pairs = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    return torch.block_diag(*pairs)


def trained_vectors(position: spec.Position, width: int) -> nn.Parameter | None:
    """Memory for the vectors of a position that is trained."""
    count = vectors(position)
    return nn.Parameter(torch.empty(count, width)) if count else None


class Places:
    """A vector for the place of each token: from a trained table, or from a table of sinusoids that grows."""

    def __init__(self, position: spec.Position, width: int) -> None:
        self.position, self.width = position, width
        self._sinusoids = torch.empty(0, width)  # not a buffer, since it is no part of what was learned

    def __call__(
        self,
        trained: Tensor | None,
        like: Tensor,
        sight: Sight,
        first: int,
        length: int,
        noise: Noise | None = None,
        base: int = 0,
    ) -> Float[Tensor, "... T D"] | None:
        """Vectors for tokens that stand at first .. first+length-1, or where their row says, (B, T, D), in training where noise
        moves them from there; None where places say nothing. `base` is what the first place is called where sinusoids are taken
        of it."""
        places = sight.places(first, length)
        # where rows have places of their own, whoever laid them out has measured them
        if places is None and isinstance(self.position, Learned | Factorised) and first + length > self.position.longest:
            raise QkvError(
                f"the model knows {self.position.longest} places, and a text has {first + length} tokens: give it less"
            )
        moved = noise.moved if noise is not None and noise.roaming else None
        if places is None and (moved is not None or isinstance(self.position, Factorised)):
            places = torch.arange(first, first + length, device=like.device)
        if places is not None and moved is not None:
            places = moved(places)
        match self.position:
            case Sinusoid() as position:
                # places that are counted back may each leave one out before them
                farthest = first + length if noise is None else max(2 * (first + length), noise.spread) + noise.roaming
                table = self._table(position, base + farthest, like)[base:]
            case Learned():
                assert trained is not None
                table = trained
            case Factorised(sizes=sizes):
                assert trained is not None and places is not None
                return _of_digits(trained, sizes, places)
            case _:
                return None
        return table[first : first + length] if places is None else functional.embedding(places, table)

    def _table(self, position: Sinusoid, length: int, like: Tensor) -> Float[Tensor, "longer D"]:
        table = self._sinusoids
        if length > len(table) or table.device != like.device or table.dtype != like.dtype:
            table = self._sinusoids = sinusoids(position, max(64, 2 * length), self.width).to(like)
        return table


def _of_digits(trained: Float[Tensor, "vectors D"], sizes: tuple[int, ...], places: Int[Tensor, "..."]) -> Float[Tensor, "... D"]:
    """The sum of the vectors of all digits of places, of which the last digit counts fastest."""
    total, last, below = None, len(trained), 1
    for size in reversed(sizes):
        last -= size
        of_digit = functional.embedding(places // below % size + last, trained)
        total = of_digit if total is None else total + of_digit
        below *= size
    assert total is not None, "a place has at least one digit"
    return total


def counted_back(source: Int[Tensor, "B S *words"], sight: Sight, known: int | float, gaps: float, noise: Noise | None) -> Placed:
    """The same sight, with places that are counted from the last token of each row back, which stands at 0. In training a place
    is left out with the probability `gaps`; gaps take nobody beyond the last place that is known.

    Raises QkvError for rows with more tokens than places are known.
    """
    rows, length = source.shape[:2]
    if length > known:
        raise QkvError(f"the model knows {known} places, and a text has {length} sentences: give it less")
    lengths = sight.lengths if isinstance(sight, Padded) else torch.full((rows,), length, device=source.device)
    places = (lengths[:, None] - 1 - torch.arange(length, device=source.device)).clamp(min=0)
    if noise is not None and gaps:
        left_out = noise.mask(places.to(torch.float32), gaps, ("places",)) == 0
        left_out[:, 0] = False  # the last token stands at 0 itself
        places = places + left_out.cumsum(1).gather(1, places)
        places = places.clamp(max=int(known) - 1) if math.isfinite(known) else places
    return Placed(lengths, blank=False, pos=places)


class Signal(nn.Module):
    """What is added to the state of a recurrence at each step: a vector for the place and one for the step (Dehghani et al. 2018,
    section 2.1, equations 6 and 7)."""

    def __init__(self, signal: spec.Signal, steps: int, width: int) -> None:
        super().__init__()
        self.spec, self._count = signal, steps
        place = signal.place if isinstance(signal, Coordinates) else spec.NoPosition()
        trained = isinstance(signal, Coordinates) and isinstance(signal.step, LearnedStep)
        self.places = trained_vectors(place, width)
        self.steps = nn.Parameter(torch.empty(steps, width)) if trained else None
        self._places = Places(place, width)
        self._sinusoids = torch.empty(0, width)

    def forward(
        self, sight: Sight, first: int, length: int, like: Tensor, noise: Noise | None = None
    ) -> Callable[[int], Float[Tensor, "... T D"] | None]:
        """The signal at every step, counted from 0, for tokens from a position on; it has the precision of `like`. In training
        noise may move positions."""
        if not isinstance(self.spec, Coordinates):
            return lambda step: None
        places, steps = self._places(self.places, like, sight, first, length, noise, base=1), self._steps(self.spec, like)
        return lambda step: steps[step : step + 1] if places is None else places + steps[step]

    def _steps(self, coordinates: Coordinates, like: Tensor) -> Float[Tensor, "steps D"]:
        if self.steps is not None:
            return self.steps
        assert isinstance(coordinates.step, Sinusoid)
        table = self._sinusoids
        if not len(table) or table.device != like.device or table.dtype != like.dtype:
            table = self._sinusoids = sinusoids(coordinates.step, self._count + 1, like.shape[-1])[1:].to(like)
        return table


class Turn:
    """Turns queries and keys by where they stand (Su et al. 2021, equation 34); the angles are a table that grows."""

    def __init__(self, spec: Rotary, width: int) -> None:
        self.spec, self.width = spec, width
        self._table = torch.empty(0, 2, width)

    def __call__(self, x: Float[Tensor, "B H T K"], first: int) -> Float[Tensor, "B H T K"]:
        """The vectors of tokens that stand at first .. first+T-1."""
        cosine, sine = self._at(first, x).unbind(1)
        half = self.width // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * cosine + turned * sine

    def _at(self, first: int, x: Tensor) -> Float[Tensor, "T 2 K"]:
        end, table = first + x.shape[2], self._table
        if end > len(table) or table.device != x.device or table.dtype != x.dtype:
            channel = torch.arange(0, self.width, 2, dtype=torch.float64)
            angle = torch.arange(max(64, 2 * end), dtype=torch.float64)[:, None] * self.spec.base ** (-channel / self.width)
            angle = torch.cat([angle, angle], -1)
            table = self._table = torch.stack([angle.cos(), angle.sin()], 1).to(x)
        return table[first:end]


class LinearBias:
    """-slope x distance for each head (ALiBi); what was made last is kept, since a batch often asks for the same again."""

    def __init__(self, spec: ALiBi, heads: int) -> None:
        self._slopes = spec.of(heads)
        self._last: tuple[tuple[int, int, int], Tensor] | None = None

    def __call__(self, q: Float[Tensor, "B H T K"], first: int, keys: int) -> Float[Tensor, "1 H T S"]:
        """The bias of these queries, where and in the precision in which they are."""
        wanted, last = (first, q.shape[2], keys), self._last
        if last is not None and last[0] == wanted and last[1].dtype == q.dtype and last[1].device == q.device:
            return last[1]
        here = torch.arange(first, first + q.shape[2], device=q.device)
        distance = (here[:, None] - torch.arange(keys, device=q.device)).abs()
        bias = -(torch.tensor(self._slopes, device=q.device)[:, None, None] * distance)[None].to(q.dtype)
        self._last = wanted, bias
        return bias


def buckets(spec: Relative, ahead: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The bucket of a distance, key position minus query position (Raffel et al. 2019, section 2.1, as released)."""
    count = spec.buckets // 2 if spec.two_sided else spec.buckets
    after = (ahead > 0) * count if spec.two_sided else torch.zeros_like(ahead)
    distance = ahead.abs() if spec.two_sided else (-ahead).clamp(min=0)
    exact = count // 2
    # in fp32, as released: in fp64 a distance on the edge of a bucket may fall on its other side
    ratio = (distance.clamp(min=1).float() / exact).log() / math.log(spec.farthest / exact)
    far = (exact + (ratio * (count - exact)).long()).clamp(max=count - 1)
    return after + torch.where(distance < exact, distance, far)


class RelativeBias(nn.Module):
    """A trained number for each head and each bucket of distances (T5)."""

    def __init__(self, spec: Relative, heads: int) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(spec.buckets, heads))

    def during_a_pass(self) -> Bias:
        """The bias for the layers of one pass, which ask for the same one after the other; the gradient flows back through it."""
        made: dict[tuple[int, int, int], Tensor] = {}

        def bias(first: int, queries: int, keys: int) -> Float[Tensor, "1 H T S"]:
            wanted = (first, queries, keys)
            if wanted not in made:
                made.clear()
                made[wanted] = self(*wanted)
            return made[wanted]

        return bias

    def forward(self, first: int, queries: int, keys: int) -> Float[Tensor, "1 H T S"]:
        # a row of all distances, of which each query sees its own stretch
        device = self.weight.device
        ahead = torch.arange(-(first + queries - 1), keys - first, device=device)
        row = self.weight[buckets(self.spec, ahead)]
        if queries == 1:
            return row.t()[None, :, None, :]
        places = torch.arange(queries - 1, -1, -1, device=device)[:, None] + torch.arange(keys, device=device)
        return row[places].permute(2, 0, 1)[None]
