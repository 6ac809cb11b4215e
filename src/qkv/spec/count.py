"""Parameters, operations and cache bytes, counted from the value alone: nothing is built.

A multiply-add is two operations; norms, activations, softmax and sums are not counted, as is the custom.
"""

from __future__ import annotations

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
    Sentences,
    SourceAndTarget,
    TargetAndOutput,
    Tied,
    Transform,
    Untied,
    sides,
)
from qkv.spec.part import (
    Attention,
    Block,
    Depth,
    FeedForward,
    LayerNorm,
    MemoryAttention,
    Norm,
    PreNorm,
    Recurrence,
    SeparableFeedForward,
    Stack,
    Sublayer,
    head_width,
    key_width,
    kv_heads,
)
from qkv.spec.pattern import by_head, keys_seen
from qkv.spec.position import Coordinates, LearnedStep, Relative, vectors


def parameters(model: Model) -> int:
    """Trained numbers, tied matrices once."""
    width = model.width
    stacks = sum(_stack_parameters(stack, width) for stack in sides(model).values())
    if isinstance(model, Classifier):
        head = _linear(width, width, True) + _linear(width, len(model.labels), True)
        return model.vocabulary.size * width + _beside_tokens(model.embedding, width) + stacks + head
    tables = 2 if isinstance(model, EncoderDecoder) else 1
    output = _output_parameters(model.output, width, model.vocabulary.target)
    return _rows(model) * width + tables * _beside_tokens(model.embedding, width) + stacks + output


def flops(model: Model, length: int = 32) -> int:
    """Operations of one forward pass over one token, in a text `length` tokens long; with two sides, over one source and one
    target token in a pair of sentences of that length each. A recurrence makes all its steps."""
    width = model.width
    blocks = sum(
        _sublayer_flops(s, width, length) for stack in sides(model).values() for block in stack.tiled() for s in block.sublayers
    )
    if isinstance(model, Classifier):
        return blocks
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
    for sublayer in (s for block in decoder.tiled() for s in block.sublayers):
        if isinstance(sublayer, Attention):
            each = key_width(sublayer, model.width) + head_width(sublayer, model.width)
            for count, pattern in by_head(sublayer.pattern, kv_heads(sublayer)):
                held += count * each * sum(bool(pattern.keeps(j, length)) for j in range(length))
        elif isinstance(sublayer, SeparableFeedForward):
            tails += (sublayer.first - 1) * model.width + (sublayer.second - 1) * sublayer.hidden
    # all steps of a recurrence ask one and the same projected memory
    for sublayer in (s for block in (decoder.tiled() if isinstance(decoder, Stack) else decoder.blocks) for s in block.sublayers):
        if isinstance(sublayer, MemoryAttention):
            numbers += 2 * sublayer.heads * head_width(sublayer, model.width)
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


def _output_parameters(output: Output, width: int, entries: int) -> int:
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


def _block_parameters(block: Block, width: int) -> int:
    return sum(_sublayer_parameters(s, width) + _norm_parameters(block.norm, width) for s in block.sublayers)


def _linear(inputs: int, outputs: int, offset: bool) -> int:
    return inputs * outputs + (outputs if offset else 0)


def _sublayer_parameters(sublayer: Sublayer, width: int) -> int:
    match sublayer:
        case Attention(offset=offset):
            wide, key = head_width(sublayer, width), key_width(sublayer, width)
            asked = sublayer.heads * key + kv_heads(sublayer) * (key + wide)
            return _linear(width, asked, offset) + _linear(sublayer.heads * wide, width, offset)
        case MemoryAttention(offset=offset):
            wide = sublayer.heads * head_width(sublayer, width)
            return 3 * _linear(width, wide, offset) + _linear(wide, width, offset)
        case FeedForward(hidden=hidden, offset=offset, gated=gated):
            return (2 if gated else 1) * _linear(width, hidden, offset) + _linear(hidden, width, offset)
        case SeparableFeedForward(hidden=hidden, first=first, second=second, offset=offset):
            return first * width + _linear(width, hidden, offset) + second * hidden + _linear(hidden, width, offset)


def _sublayer_flops(sublayer: Sublayer, width: int, length: int) -> int:
    match sublayer:
        case Attention(heads=heads, pattern=pattern):
            wide, key, served = head_width(sublayer, width), key_width(sublayer, width), kv_heads(sublayer)
            seen = sum(count * keys_seen(each, length) for count, each in by_head(pattern, heads))
            return 2 * width * (heads + served) * (key + wide) + 2 * seen * (key + wide)
        case MemoryAttention():
            wide = sublayer.heads * head_width(sublayer, width)
            return 2 * width * 4 * wide + 2 * 2 * length * wide
        case FeedForward(hidden=hidden, gated=gated):
            return 2 * (3 if gated else 2) * width * hidden
        case SeparableFeedForward(hidden=hidden, first=first, second=second):
            return 2 * (first * width + second * hidden + 2 * width * hidden)
