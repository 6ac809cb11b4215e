"""Parameters, operations and cache bytes, counted from the value alone: nothing is built.

A multiply-add is two operations; norms, activations, softmax and sums are not counted, as is the custom.
"""

from __future__ import annotations

from qkv.spec.model import AllThree, EncoderDecoder, TargetAndOutput, Untied
from qkv.spec.part import Attention, Block, FeedForward, MemoryAttention, PreNorm, Stack, Sublayer


def parameters(model: EncoderDecoder) -> int:
    """Trained numbers, tied matrices once."""
    source, target = model.vocabulary.source, model.vocabulary.target
    match model.tie:
        case AllThree():
            rows = target
        case TargetAndOutput():
            rows = source + target
        case Untied():
            rows = source + 2 * target
    return rows * model.width + sum(_stack_parameters(stack, model.width) for stack in (model.encoder, model.decoder))


def flops(model: EncoderDecoder, length: int = 32) -> int:
    """Operations of one forward pass over one source and one target token, in a pair of sentences `length` tokens long each."""

    def stack_flops(stack: Stack) -> int:
        return sum(_sublayer_flops(s, model.width, length) for block in stack.tiled() for s in block.sublayers)

    return stack_flops(model.encoder) + stack_flops(model.decoder) + 2 * model.width * model.vocabulary.target


def cache_bytes(model: EncoderDecoder, length: int = 32, bytes_per_number: int = 4) -> int:
    """What decoding one hypothesis of `length` tokens remembers, its share of the memory of a source of equal length among it."""
    attentions = sum(isinstance(s, Attention | MemoryAttention) for block in model.decoder.tiled() for s in block.sublayers)
    return attentions * 2 * model.width * length * bytes_per_number


def _stack_parameters(stack: Stack, width: int) -> int:
    total = sum(_block_parameters(block, width) for block in stack.tiled())
    return total + (2 * width if isinstance(stack.tiled()[-1].norm, PreNorm) else 0)


def _block_parameters(block: Block, width: int) -> int:
    return sum(_sublayer_parameters(s, width) + 2 * width for s in block.sublayers)


def _linear(inputs: int, outputs: int, offset: bool) -> int:
    return inputs * outputs + (outputs if offset else 0)


def _sublayer_parameters(sublayer: Sublayer, width: int) -> int:
    match sublayer:
        case Attention(offset=offset) | MemoryAttention(offset=offset):
            return 4 * _linear(width, width, offset)
        case FeedForward(hidden=hidden):
            return _linear(width, hidden, True) + _linear(hidden, width, True)


def _sublayer_flops(sublayer: Sublayer, width: int, length: int) -> int:
    match sublayer:
        case Attention() | MemoryAttention():
            return 2 * 4 * width * width + 2 * 2 * length * width
        case FeedForward(hidden=hidden):
            return 2 * 2 * width * hidden
