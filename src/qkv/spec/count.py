"""Parameters, operations and cache bytes, counted from the value alone: nothing is built.

A multiply-add is two operations; norms, activations, softmax and sums are not counted, as is the custom.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from qkv.spec.cell import (
    Branch,
    Cell,
    Convolution,
    Dead,
    Dense,
    Depthwise,
    Gate,
    Identity,
    Lightweight,
    Separable,
    branch_width,
)
from qkv.spec.choice import predicts
from qkv.spec.halt import Halt
from qkv.spec.model import (
    AllThree,
    Classifier,
    DecoderOnly,
    Embedding,
    EncoderDecoder,
    EncoderOnly,
    Model,
    Normed,
    Output,
    Pointing,
    Sentences,
    SourceAndTarget,
    Spelled,
    TargetAndOutput,
    Tied,
    Transform,
    Untied,
    sides,
)
from qkv.spec.part import (
    GRU,
    Attention,
    Depth,
    FeedForward,
    LayerNorm,
    MemoryAttention,
    Norm,
    PreNorm,
    Projected,
    Recurrence,
    Recurrent,
    SeparableFeedForward,
    Stack,
    Sublayer,
    Unit,
    Zeros,
    head_width,
    key_width,
    kv_heads,
    recurrent_width,
)
from qkv.spec.pattern import Full, by_head, keys_seen
from qkv.spec.position import Coordinates, LearnedStep, Relative, vectors
from qkv.spec.score import General, folded_width, learns


def parameters(model: Model) -> int:
    """Trained numbers, tied matrices once."""
    width = model.width
    stacks = sum(_stack_parameters(stack, width) for stack in sides(model).values())
    if isinstance(model, Classifier):
        if isinstance(model.answer, Spelled):
            head = (len(model.answer.entries) + model.answer.longest - 1) * width
        else:
            head = _linear(width, width, True) + _linear(width, len(model.labels), True)
        return model.vocabulary.size * width + _beside_tokens(model.embedding, width) + stacks + head
    tables = 2 if isinstance(model, EncoderDecoder) else 1
    output = _output_parameters(model.output, width, model.vocabulary.target)
    return _rows(model) * width + tables * _beside_tokens(model.embedding, width) + stacks + output


def without_embeddings(model: Model) -> int:
    """Trained numbers but those of the vectors of tokens, places and segments, and of an output map of its own: the N of Kaplan
    et al. 2020, with norms and offsets, which they leave out."""
    width, embedding = model.width, model.embedding
    tables = 2 if isinstance(model, EncoderDecoder) else 1
    rows = model.vocabulary.size if isinstance(model, Classifier) else _rows(model)
    return parameters(model) - (rows + tables * (vectors(embedding.position) + embedding.segments)) * width


def flops(model: Model, length: int = 32) -> int:
    """Operations of one forward pass over one token, in a text `length` tokens long; with two sides, over one source and one
    target token in a pair of sentences of that length each. A recurrence makes all its steps."""
    width = model.width
    blocks = sum(_unit_flops(block, width, length) for stack in sides(model).values() for block in stack.tiled())
    if isinstance(model, Classifier):
        return blocks
    if isinstance(model.output, Pointing):
        return blocks + 2 * 2 * width * width + 2 * length * width
    transform = 2 * width * width if isinstance(model.output.transform, Transform) else 0
    return blocks + transform + 2 * width * model.vocabulary.target


def cache_bytes(model: Model, length: int = 32, bytes_per_number: int = 4) -> int:
    """What decoding one hypothesis of `length` tokens remembers, its share of the memory of a source of equal length among it;
    nothing where nothing is decoded."""
    if not isinstance(model, EncoderDecoder | DecoderOnly):
        return 0
    numbers = 0
    tails = 0  # of convolutions, the same for any length
    held = 0  # of self-attention, which may forget
    decoder = model.decoder
    for cell in (block for block in decoder.tiled() if isinstance(block, Cell)):
        tails += sum(_tail(branch.layer) * inputs for branch, inputs, _ in _branches(cell, model.width))
    for recurrent, outputs in _recurrents(decoder, model.width):
        numbers += _state(recurrent, outputs, model.width)
    for sublayer in (s for block in decoder.tiled() for s in block.sublayers):
        if isinstance(sublayer, Attention):
            each = folded_width(sublayer.score, key_width(sublayer, model.width)) + head_width(sublayer, model.width)
            for count, pattern in by_head(sublayer.pattern, kv_heads(sublayer)):
                held += count * each * sum(bool(pattern.keeps(j, length)) for j in range(length))
        elif isinstance(sublayer, SeparableFeedForward):
            tails += (sublayer.first - 1) * model.width + (sublayer.second - 1) * sublayer.hidden
    # all steps of a recurrence ask one and the same projected memory
    for sublayer in (s for block in (decoder.tiled() if isinstance(decoder, Stack) else decoder.blocks) for s in block.sublayers):
        asks = sublayer.asks if isinstance(sublayer, Recurrent) else sublayer
        if isinstance(asks, MemoryAttention):
            numbers += 2 * asks.heads * head_width(asks, model.width)
    return (numbers * length + held + tails) * bytes_per_number


def _rows(model: EncoderDecoder | DecoderOnly | EncoderOnly) -> int:
    """The rows of all matrices that have a row for each entry of a vocabulary."""
    source, target = model.vocabulary.source, model.vocabulary.target
    match model.tie:
        case AllThree() | Tied():
            return target
        case SourceAndTarget():
            return 2 * target
        case TargetAndOutput():
            return source + target
        case Untied():
            return (source if isinstance(model, EncoderDecoder) else 0) + 2 * target


def _beside_tokens(embedding: Embedding, width: int) -> int:
    """What an embedding has besides a vector for each token."""
    places = vectors(embedding.position)
    norm = 2 * width if isinstance(embedding.norm, Normed) else 0
    words = embedding.unit.longest if isinstance(embedding.unit, Sentences) else 0
    return (places + embedding.segments + words) * width + norm


def _output_parameters(output: Output | Pointing, width: int, entries: int) -> int:
    if isinstance(output, Pointing):
        return 2 * width * width + sum(math.prod(shape) for shape in learns(output.score, 1, width).values())
    transform = _linear(width, width, True) + 2 * width if isinstance(output.transform, Transform) else 0
    return transform + (entries if output.offset else 0)


def _stack_parameters(stack: Depth, width: int) -> int:
    if isinstance(stack, Recurrence):
        return _recurrence_parameters(stack, width)
    total = sum(_block_parameters(block, width) for block in stack.tiled())
    last = stack.tiled()[-1].norm
    total += _norm_parameters(last, width) if isinstance(last, PreNorm) else 0
    return total + (stack.bias.buckets * stack.heads().pop() if isinstance(stack.bias, Relative) else 0)


def _recurrence_parameters(recurrence: Recurrence, width: int) -> int:
    norm, signal = recurrence.block.norm, recurrence.signal
    total = _block_parameters(recurrence.block, width) + (_norm_parameters(norm, width) if isinstance(norm, PreNorm) else 0)
    if isinstance(signal, Coordinates):
        total += vectors(signal.place) * width
        total += recurrence.steps * width if isinstance(signal.step, LearnedStep) else 0
    return total + (_linear(width, 1, True) if isinstance(recurrence.halt, Halt) else 0)


def _norm_parameters(norm: Norm, width: int) -> int:
    return 2 * width if isinstance(norm.by, LayerNorm) else width


def _block_parameters(block: Unit, width: int) -> int:
    if isinstance(block, Cell):
        return _cell_parameters(block, width)
    return sum(_sublayer_parameters(s, width) + _norm_parameters(block.norm, width) for s in block.sublayers)


def _linear(inputs: int, outputs: int, offset: bool) -> int:
    return inputs * outputs + (outputs if offset else 0)


def _sublayer_parameters(sublayer: Sublayer, width: int) -> int:
    match sublayer:
        case Attention(offset=offset):
            wide, key = head_width(sublayer, width), key_width(sublayer, width)
            asked = sublayer.heads * key + kv_heads(sublayer) * (key + wide)
            maps = _linear(width, asked, offset) + _linear(sublayer.heads * wide, width, offset)
            return maps + _score_parameters(sublayer, key)
        case MemoryAttention(offset=offset):
            each = head_width(sublayer, width)
            wide = sublayer.heads * each
            if not isinstance(sublayer.maps, Projected):
                return _score_parameters(sublayer, each)
            return 3 * _linear(width, wide, offset) + _linear(wide, width, offset) + _score_parameters(sublayer, each)
        case FeedForward(hidden=hidden, offset=offset, gated=gated):
            return (2 if gated else 1) * _linear(width, hidden, offset) + _linear(hidden, width, offset)
        case SeparableFeedForward(hidden=hidden, first=first, second=second, offset=offset):
            return first * width + _linear(width, hidden, offset) + second * hidden + _linear(hidden, width, offset)
        case Recurrent():
            return _recurrent_parameters(sublayer, width, width, width)


def _recurrent_parameters(recurrent: Recurrent, inputs: int, outputs: int, width: int) -> int:
    hidden, asks = recurrent_width(recurrent, outputs, width), recurrent.asks
    gates = _gates(recurrent) * hidden
    total = (2 if isinstance(recurrent.pattern, Full) else 1) * (_linear(inputs, gates, True) + _linear(hidden, gates, True))
    if isinstance(asks, MemoryAttention):
        total += _linear(hidden, gates, False) + _asking_parameters(asks, hidden, hidden, width)
    return total + (0 if isinstance(recurrent.start, Zeros) else _linear(width, _state(recurrent, outputs, width), True))


def _asking_parameters(layer: Attention | MemoryAttention, inputs: int, outputs: int, width: int) -> int:
    """Those of attention from one width to another."""
    if isinstance(layer, MemoryAttention) and not isinstance(layer.maps, Projected):
        return _sublayer_parameters(layer, width)
    beside = (inputs - width) * _asking(layer, width) + (outputs - width) * layer.heads * head_width(layer, width)
    return _sublayer_parameters(layer, width) + beside + (outputs - width if layer.offset else 0)


def _gates(recurrent: Recurrent) -> int:
    return 3 if isinstance(recurrent.unit, GRU) else 4


def _state(recurrent: Recurrent, outputs: int, width: int) -> int:
    """The numbers of a state."""
    return recurrent_width(recurrent, outputs, width) * (1 if isinstance(recurrent.unit, GRU) else 2)


def _recurrents(depth: Depth, width: int) -> Iterator[tuple[Recurrent, int]]:
    """The recurrent sublayers as they are met, and how wide what comes out of each is."""
    for unit in depth.tiled():
        if isinstance(unit, Cell):
            yield from (
                (branch.layer, outputs) for branch, _, outputs in _branches(unit, width) if isinstance(branch.layer, Recurrent)
            )
        else:
            yield from ((each, width) for each in unit.sublayers if isinstance(each, Recurrent))


def _score_parameters(sublayer: Attention | MemoryAttention, width: int) -> int:
    own = learns(sublayer.score, sublayer.heads, width) | predicts(sublayer.choice, sublayer.heads, width)
    return sum(math.prod(shape) for shape in own.values())


def _unit_flops(unit: Unit, width: int, length: int) -> int:
    if not isinstance(unit, Cell):
        return sum(_sublayer_flops(s, width, length) for s in unit.sublayers)
    wide = max(unit.widths(width)[number] for number in unit.loose)
    total = 2 * wide * width if wide != width else 0
    for branch, inputs, outputs in _branches(unit, width):
        match branch.layer:
            case Attention() | MemoryAttention() as layer:
                total += _asking_flops(layer, inputs, outputs, width, length)
            case Recurrent() as layer:
                total += _recurrent_flops(layer, inputs, outputs, width, length)
            case Dense() | Gate() as layer:
                total += (4 if isinstance(layer, Gate) else 2) * inputs * outputs
            case Convolution(reach=reach):
                total += 2 * reach * inputs * outputs
            case Separable(reach=reach):
                total += 2 * reach * inputs + 2 * inputs * outputs
            case Depthwise(reach=reach) | Lightweight(reach=reach):
                total += 2 * reach * inputs
            case Identity() | Dead():
                pass
    return total


def _cell_parameters(cell: Cell, width: int) -> int:
    wide = max(cell.widths(width)[number] for number in cell.loose)
    total = _linear(wide, width, True) if wide != width else 0
    total -= sum(_norm_parameters(cell.norm, cell.widths(width)[node.left.input]) for node in cell.nodes if node.shared)
    for branch, inputs, outputs in _branches(cell, width):
        total += _norm_parameters(cell.norm, inputs) if branch.norm else 0
        match branch.layer:
            case Attention() | MemoryAttention() as layer:
                total += _asking_parameters(layer, inputs, outputs, width)
            case Recurrent() as layer:
                total += _recurrent_parameters(layer, inputs, outputs, width)
            case Dense(offset=offset):
                total += _linear(inputs, outputs, offset)
            case Gate(offset=offset):
                total += 2 * _linear(inputs, outputs, offset)
            case Convolution(reach=reach, offset=offset):
                total += _linear(reach * inputs, outputs, offset)
            case Separable(reach=reach, offset=offset):
                total += reach * inputs + _linear(inputs, outputs, offset)
            case Depthwise(reach=reach):
                total += reach * inputs
            case Lightweight(reach=reach, shared=shared):
                total += reach * inputs // shared
            case Identity() | Dead():
                pass
    return total


def _branches(cell: Cell, width: int) -> Iterator[tuple[Branch, int, int]]:
    """The branches that there are, how wide what comes into each is, and what goes out."""
    widths = cell.widths(width)
    for branch in (branch for node in cell.nodes for branch in node.alive):
        yield branch, widths[branch.input], branch_width(branch, widths[branch.input], width)


def _asking(layer: Attention | MemoryAttention, width: int) -> int:
    """The numbers that attention makes of what comes in: of memory attention, queries alone."""
    if isinstance(layer, MemoryAttention):
        return layer.heads * head_width(layer, width)
    key = key_width(layer, width)
    return layer.heads * key + kv_heads(layer) * (key + head_width(layer, width))


def _tail(layer: object) -> int:
    """The inputs that a convolution remembers."""
    match layer:
        case Convolution(reach=reach, rate=rate):
            return (reach - 1) * rate
        case Separable(reach=reach) | Depthwise(reach=reach) | Lightweight(reach=reach):
            return reach - 1
        case _:
            return 0


def _score_flops(sublayer: Attention | MemoryAttention, width: int) -> int:
    """What a query takes beyond the maps that make it and a product with each key."""
    of_score = 2 * sublayer.heads * width * width if isinstance(sublayer.score, General) else 0
    maps = predicts(sublayer.choice, sublayer.heads, width)
    return of_score + 2 * sum(math.prod(shape) for shape in maps.values())


def _sublayer_flops(sublayer: Sublayer, width: int, length: int) -> int:
    match sublayer:
        case Attention(heads=heads, pattern=pattern):
            wide, key, served = head_width(sublayer, width), key_width(sublayer, width), kv_heads(sublayer)
            seen = sum(count * keys_seen(each, length) for count, each in by_head(pattern, heads))
            return 2 * width * (heads + served) * (key + wide) + 2 * seen * (key + wide) + _score_flops(sublayer, key)
        case MemoryAttention():
            each = head_width(sublayer, width)
            wide = sublayer.heads * each
            if not isinstance(sublayer.maps, Projected):
                return 2 * 2 * length * wide + _score_flops(sublayer, each)
            return 2 * width * 4 * wide + 2 * 2 * length * wide + _score_flops(sublayer, each)
        case FeedForward(hidden=hidden, gated=gated):
            return 2 * (3 if gated else 2) * width * hidden
        case SeparableFeedForward(hidden=hidden, first=first, second=second):
            return 2 * (first * width + second * hidden + 2 * width * hidden)
        case Recurrent():
            return _recurrent_flops(sublayer, width, width, width, length)


def _asking_flops(layer: Attention | MemoryAttention, inputs: int, outputs: int, width: int, length: int) -> int:
    """Those of attention from one width to another."""
    if isinstance(layer, MemoryAttention) and not isinstance(layer.maps, Projected):
        return _sublayer_flops(layer, width, length)
    beside = (inputs - width) * _asking(layer, width) + (outputs - width) * layer.heads * head_width(layer, width)
    return _sublayer_flops(layer, width, length) + 2 * beside


def _recurrent_flops(recurrent: Recurrent, inputs: int, outputs: int, width: int, length: int) -> int:
    hidden, asks = recurrent_width(recurrent, outputs, width), recurrent.asks
    gates, ways = _gates(recurrent) * hidden, 2 if isinstance(recurrent.pattern, Full) else 1
    total = 2 * ways * gates * (inputs + hidden)
    if isinstance(asks, MemoryAttention):
        total += 2 * gates * hidden + _asking_flops(asks, hidden, hidden, width, length)
    return total
