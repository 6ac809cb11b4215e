"""Export to CTranslate2, a fast engine for inference only, and the proof that both say the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from qkv.decode.translate import Translator, log_probabilities
from qkv.error import QkvError
from qkv.interop.fit import Fit
from qkv.model.attention import Attention, MemoryAttention
from qkv.model.block import Block, Residual
from qkv.model.depth import Stack
from qkv.model.feedforward import FeedForward
from qkv.model.position import sinusoids
from qkv.model.recurrence import Recurrence
from qkv.spec.cell import Cell
from qkv.spec.model import Embedding, EncoderDecoder, Output
from qkv.spec.part import Attention as AttentionSpec
from qkv.spec.part import FeedForward as FeedForwardSpec
from qkv.spec.part import LayerNorm, PreNorm, Recurrent
from qkv.spec.part import MemoryAttention as MemoryAttentionSpec
from qkv.spec.part import SeparableFeedForward as SeparableFeedForwardSpec
from qkv.spec.part import Sublayer as SublayerSpec
from qkv.spec.pattern import Causal, Full
from qkv.spec.position import NoBias, Sinusoid
from qkv.store import save_tokenizers

FIT = Fit("CTranslate2")
POSITIONS = 2048  # the table is written out; longer sentences than this CTranslate2 cannot place


def library() -> Any:
    """The module `ctranslate2`. Raises QkvError with the command that installs it."""
    try:
        import ctranslate2
    except ImportError:
        raise QkvError("CTranslate2 is not installed: pip install 'qkv[ctranslate2]'") from None
    return ctranslate2


def export(translator: Translator, folder: Path) -> None:
    """Write the model as a CTranslate2 folder with our tokenizers beside it. Raises QkvError for a model that CTranslate2
    cannot hold."""
    if folder.exists() and any(folder.iterdir()):
        raise QkvError(f"{folder} is not empty; give another folder")
    specs = library().specs
    model, described = translator.model, translator.model.spec
    heads, position = _accept(described)
    depths = tuple(len(depth.tiled()) for depth in (described.encoder, described.decoder))
    pre_norm = isinstance(described.encoder.blocks[0].norm, PreNorm)
    spec = specs.TransformerSpec.from_config(depths, heads, pre_norm=pre_norm)
    for side, stack, embedding in ((spec.encoder, model.encoder, model.source), (spec.decoder, model.decoder, model.target)):
        put_stack(side, stack)
        side.scale_embeddings = described.embedding.scale
        side.position_encodings.encodings = sinusoids(position, POSITIONS, described.width).float().numpy()
        table = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
        table.weight = numbers(embedding.weight)
    spec.decoder.projection.weight = numbers(model.output.weight)
    spec.register_source_vocabulary(translator.source.entries())
    spec.register_target_vocabulary(translator.target.entries())
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<s>", "</s>", "<unk>"
    spec.config.decoder_start_token = "<s>"
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = described.encoder.blocks[0].norm.epsilon
    spec.validate()
    spec.optimize()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        spec.save(str(folder))
        save_tokenizers(folder, translator.source, translator.target)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise QkvError(f"{folder} cannot be written: {error.strerror}") from None


def parity(translator: Translator, folder: Path, pairs: Sequence[tuple[list[int], list[int]]]) -> float:
    """The largest difference, over pairs of id lists without end symbols, between our log-probability of a target token and
    CTranslate2's (nats)."""
    engine = library().Translator(str(folder), device="cpu", compute_type="float32")
    source, target = translator.source.entries(), translator.target.entries()
    theirs = engine.score_batch([[source[i] for i in s] for s, _ in pairs], [[target[i] for i in t] for _, t in pairs])
    worst = 0.0
    for (read, written), result in zip(pairs, theirs, strict=True):
        symbols = translator.symbols
        ours = log_probabilities(translator.model, [symbols.read(read)], [[*written, symbols.end]], symbols)[0]
        worst = max(worst, abs(ours - sum(result.log_probs)) / (len(written) + 1))
    return worst


def _accept(described: EncoderDecoder) -> tuple[int, Sinusoid]:
    """The number of heads and the positions of a model that CTranslate2 can hold. Raises QkvError, saying what it wants, for any
    other."""
    stacks = FIT.own(described.encoder), FIT.own(described.decoder)
    position, blocks = described.embedding.position, {block for stack in stacks for block in stack.blocks}
    if any(isinstance(block, Cell) for block in blocks):
        raise QkvError("CTranslate2 wants blocks of sublayers in a row, and not cells")
    _refuse_strange(described, [s for block in blocks for s in block.sublayers])
    heads = {s.heads for block in blocks for s in block.sublayers if isinstance(s, AttentionSpec | MemoryAttentionSpec)}
    if any(not isinstance(block.norm.by, LayerNorm) for block in blocks):
        raise QkvError("CTranslate2 wants LayerNorm() in an encoder-decoder")
    if len({type(block.norm) for block in blocks}) > 1 or len({block.norm.epsilon for block in blocks}) > 1 or len(heads) > 1:
        raise QkvError("CTranslate2 wants one kind of norm and one number of heads in all blocks of a model")
    rows = (AttentionSpec, FeedForwardSpec), (AttentionSpec, MemoryAttentionSpec, FeedForwardSpec)
    for stack, row, pattern in zip(stacks, rows, (Full(), Causal()), strict=True):
        for block in stack.blocks:
            if tuple(map(type, block.sublayers)) != row:
                raise QkvError(
                    "CTranslate2 wants attention, in the decoder memory attention, and a feed-forward, in this order, in "
                    "every block"
                )
            first = block.sublayers[0]
            if isinstance(first, AttentionSpec) and first.pattern != pattern:
                raise QkvError(
                    f"CTranslate2 wants attention with the pattern Full() in the encoder and Causal() in the decoder, not {first}"
                )
    assert isinstance(position, Sinusoid)
    return heads.pop(), position


def _refuse_strange(described: EncoderDecoder, sublayers: list[SublayerSpec]) -> None:
    """Raises QkvError for choices that Vaswani et al. did not make."""
    plain = Embedding(Sinusoid(), described.embedding.scale, described.embedding.dropout)
    strange: list[object] = [] if isinstance(described.embedding.position, Sinusoid) else [described.embedding.position]
    if not strange and replace(described.embedding, position=Sinusoid()) != plain:
        strange.append(described.embedding)
    stacks = FIT.own(described.encoder), FIT.own(described.decoder)
    strange += [stack.bias for stack in stacks if not isinstance(stack.bias, NoBias)]
    strange += [described.output] if described.output != Output() else []
    for s in sublayers:
        match s:
            case AttentionSpec(heads=heads, pattern=pattern, offset=offset):
                usual = AttentionSpec(heads, pattern, offset)
            case MemoryAttentionSpec(heads=heads, offset=offset):
                usual = MemoryAttentionSpec(heads, offset)
            case FeedForwardSpec(hidden=hidden):
                usual = FeedForwardSpec(hidden)
            case SeparableFeedForwardSpec():
                usual = FeedForwardSpec(s.hidden)
            case Recurrent():
                usual = AttentionSpec(1)
        strange += [s] if s != usual else []
    if strange:
        raise QkvError(f"CTranslate2 wants a Transformer as Vaswani et al. described it, which {strange[0]} is no part of")


def put_stack(side: Any, stack: Stack | Recurrence) -> None:
    assert isinstance(stack, Stack), "what is written was accepted before"
    if isinstance(stack.norm, nn.LayerNorm):
        _norm(side.layer_norm, stack.norm)
    for layer, block in zip(side.layer, stack.blocks, strict=True):
        assert isinstance(block, Block)
        _block(layer, block)


def _block(layer: Any, block: Block) -> None:
    for residual in block.sublayers:
        assert isinstance(residual, Residual)
        match residual.sublayer:
            case Attention() as attention:
                place = layer.self_attention
                _linear(place.linear[0], attention.qkv)
                _linear(place.linear[1], attention.out)
            case MemoryAttention() as attention:
                place = layer.attention
                for linear, ours in zip(place.linear, (attention.q, attention.kv, attention.out), strict=True):
                    assert ours is not None, "what is written was accepted before"
                    _linear(linear, ours)
            case FeedForward() as feed_forward:
                place = layer.ffn
                _linear(place.linear_0, feed_forward.into)
                _linear(place.linear_1, feed_forward.out)
            case other:
                raise AssertionError(f"{type(other).__name__} should have been refused")
        _norm(place.layer_norm, residual.norm)


def _linear(place: Any, linear: nn.Linear) -> None:
    place.weight = numbers(linear.weight)
    if linear.bias is not None:
        place.bias = numbers(linear.bias)


def _norm(place: Any, norm: nn.LayerNorm | nn.RMSNorm) -> None:
    assert isinstance(norm, nn.LayerNorm)
    place.gamma, place.beta = numbers(norm.weight), numbers(norm.bias)


def numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
