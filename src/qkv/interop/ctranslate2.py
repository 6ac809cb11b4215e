"""Export to CTranslate2, a fast engine for inference only, and the proof that both say the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from qkv.data.tokenizer import Tokenizer
from qkv.decode.translate import Translator, log_probabilities
from qkv.error import QkvError
from qkv.model.attention import Attention, MemoryAttention
from qkv.model.block import Block, Residual
from qkv.model.depth import Stack
from qkv.model.feedforward import FeedForward
from qkv.model.position import sinusoids
from qkv.spec.model import EncoderDecoder
from qkv.spec.part import (
    Attention as AttentionSpec,
)
from qkv.spec.part import (
    FeedForward as FeedForwardSpec,
)
from qkv.spec.part import (
    MemoryAttention as MemoryAttentionSpec,
)
from qkv.spec.part import (
    PreNorm,
)
from qkv.spec.pattern import Causal, Full
from qkv.store import save_tokenizers

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
    heads = _accept(described)
    pre_norm = isinstance(described.encoder.blocks[0].norm, PreNorm)
    spec = specs.TransformerSpec.from_config((described.encoder.depth, described.decoder.depth), heads, pre_norm=pre_norm)
    for side, stack, embedding in ((spec.encoder, model.encoder, model.source), (spec.decoder, model.decoder, model.target)):
        _stack(side, stack)
        side.scale_embeddings = described.embedding.scale
        side.position_encodings.encodings = sinusoids(described.embedding.position, POSITIONS, described.width).float().numpy()
        table = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
        table.weight = _numbers(embedding.weight)
    spec.decoder.projection.weight = _numbers(model.output.weight)
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
        ours = log_probabilities(translator.model, [[*read, Tokenizer.eos]], [[*written, Tokenizer.eos]])[0]
        worst = max(worst, abs(ours - sum(result.log_probs)) / (len(written) + 1))
    return worst


def _accept(described: EncoderDecoder) -> int:
    """The number of heads of a model that CTranslate2 can hold. Raises QkvError, saying what it wants, for any other."""
    blocks = {*described.encoder.blocks, *described.decoder.blocks}
    heads = {s.heads for block in blocks for s in block.sublayers if isinstance(s, AttentionSpec | MemoryAttentionSpec)}
    if len({type(block.norm) for block in blocks}) > 1 or len({block.norm.epsilon for block in blocks}) > 1 or len(heads) > 1:
        raise QkvError("CTranslate2 wants one kind of norm and one number of heads in all blocks of a model")
    for stack, row, pattern in (
        (described.encoder, (AttentionSpec, FeedForwardSpec), Full()),
        (described.decoder, (AttentionSpec, MemoryAttentionSpec, FeedForwardSpec), Causal()),
    ):
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
    return heads.pop()


def _stack(side: Any, stack: Stack) -> None:
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
                    _linear(linear, ours)
            case FeedForward() as feed_forward:
                place = layer.ffn
                _linear(place.linear_0, feed_forward.into)
                _linear(place.linear_1, feed_forward.out)
            case other:
                raise AssertionError(f"{type(other).__name__} should have been refused")
        _norm(place.layer_norm, residual.norm)


def _linear(place: Any, linear: nn.Linear) -> None:
    place.weight = _numbers(linear.weight)
    if linear.bias is not None:
        place.bias = _numbers(linear.bias)


def _norm(place: Any, norm: nn.LayerNorm) -> None:
    place.gamma, place.beta = _numbers(norm.weight), _numbers(norm.bias)


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
