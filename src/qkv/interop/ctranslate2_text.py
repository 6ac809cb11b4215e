"""Export of language models to CTranslate2, and the proof that both engines say the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qkv.decode.generate import Writer
from qkv.decode.likelihood import Window, surprises
from qkv.error import QkvError
from qkv.interop.ctranslate2 import FIT, POSITIONS, library, numbers, put_stack
from qkv.model.position import sinusoids
from qkv.model.transformer import DecoderOnly
from qkv.spec import model as spec
from qkv.spec.part import GELU, Activation, PreNorm, ReLU, SigmoidGELU, Swish, TanhGELU
from qkv.spec.pattern import Causal
from qkv.spec.position import Learned, Sinusoid
from qkv.store import save_tokenizers

ACTIVATIONS: dict[Activation, str] = {
    ReLU(): "RELU",
    GELU(): "GELU",
    TanhGELU(): "GELUTanh",
    SigmoidGELU(): "GELUSigmoid",
    Swish(): "SWISH",
}


def export(writer: Writer, folder: Path) -> None:
    """Write the model as a CTranslate2 folder with our tokenizer beside it.

    Raises QkvError for a model that is no decoder of GPT-2's kind, naming the part that does not fit, and for a folder that is
    not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise QkvError(f"{folder} is not empty; give another folder")
    specs, model = library().specs, writer.model
    described, symbols = model.spec, writer.symbols
    FIT.embedding(described.embedding, norm=False)
    FIT.be("output", described.output, spec.Output(offset=described.output.offset))
    FIT.no_shared_bias(described.decoder)
    row = FIT.stack(described.decoder, described.width, Causal(), PreNorm)
    FIT.even(row, described.width)
    activation = getattr(specs.Activation, FIT.activation(row.activation, ACTIVATIONS))
    made = specs.TransformerDecoderModelSpec.from_config(row.depth, row.heads, pre_norm=True, activation=activation)
    made.decoder.scale_embeddings = described.embedding.scale
    made.decoder.position_encodings.encodings = _places(model)
    made.decoder.embeddings.weight = numbers(model.target.weight)
    made.decoder.projection.weight = numbers(model.output.weight)
    if model.head.offset is not None:
        made.decoder.projection.bias = numbers(model.head.offset)
    put_stack(made.decoder, model.decoder)
    entries = writer.tokenizer.entries()
    made.register_vocabulary(entries)
    made.config.bos_token, made.config.eos_token = entries[symbols.start], entries[symbols.end]
    made.config.unk_token = entries[symbols.unknown]
    made.config.layer_norm_epsilon = row.epsilon
    made.validate()
    made.optimize()
    begun = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made.save(str(folder))
        save_tokenizers(folder, writer.tokenizer, writer.tokenizer)
    except OSError as error:
        if begun:
            shutil.rmtree(folder, ignore_errors=True)
        raise QkvError(f"{folder} cannot be written: {error.strerror}") from None


def parity(writer: Writer, folder: Path, texts: Sequence[Sequence[int]]) -> float:
    """The largest difference, over texts as ids, between our log-probability of a token, or of the end, and CTranslate2's (nats).

    Of a text that is longer than the model knows places, the beginning is compared.
    """
    engine = library().Generator(str(folder), device="cpu", compute_type="float32")
    entries, symbols = writer.tokenizer.entries(), writer.symbols
    most = int(min(writer.places, POSITIONS)) - 1
    worst = 0.0
    for ids in (list(text)[:most] for text in texts):
        whole = [symbols.start, *ids, symbols.end]
        (found,) = engine.score_batch([[entries[number] for number in whole]])
        ours = surprises(writer.model, ids, symbols, Window(len(ids) + 1, len(ids) + 1)).tolist()
        worst = max(worst, *(abs(mine + theirs) for mine, theirs in zip(ours, found.log_probs, strict=True)))
    return worst


def _places(model: DecoderOnly) -> np.ndarray:
    """A vector for each place. Raises QkvError for places that are not added to the embedding."""
    match model.spec.embedding.position:
        case Learned():
            assert model.target.places is not None
            return numbers(model.target.places)
        case Sinusoid() as position:
            return sinusoids(position, POSITIONS, model.spec.width).float().numpy()
        case other:
            FIT.refuse(f"embedding.position={other}", "Learned(...) or Sinusoid()")
