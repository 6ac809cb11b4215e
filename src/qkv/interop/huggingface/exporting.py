"""A model of ours as a folder that `transformers` reads: config.json, generation_config.json, weights and tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import safetensors.torch

from qkv.error import QkvError
from qkv.interop.huggingface.architecture import Architecture
from qkv.interop.huggingface.config import CONFIG, GENERATION, write_json
from qkv.interop.huggingface.kinds import fitting
from qkv.interop.huggingface.names import sent_out
from qkv.interop.huggingface.tokenizer import TARGET
from qkv.interop.huggingface.weights import SAFE
from qkv.interop.huggingface.written import write_tokenizer
from qkv.spec.model import DecoderOnly, EncoderDecoder, Model
from qkv.spec.position import Learned
from qkv.store import Stored, weights_of

LONGEST = 512  # tokens that are generated at most where the model knows any number of places


def export(stored: Stored, folder: Path) -> Architecture:
    """Write a model as the architecture that it is a member of.

    Raises QkvError for a model that this cannot hold, naming the part that does not fit, and for a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise QkvError(f"{folder} is not empty; give another folder")
    spec = stored.model.spec
    architecture = fitting(spec)
    config = architecture.configured(spec) | _special(stored)
    pairs = architecture.pairs(spec)
    tensors = sent_out(pairs, weights_of(stored.model))
    tensors |= {copy: tensors[name].clone() for copy, name in architecture.copies(spec).items()}
    begun = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / CONFIG,
            {"architectures": [architecture.classes[0]], "model_type": architecture.model_type, **config, "dtype": "float32"},
        )
        if isinstance(spec, EncoderDecoder | DecoderOnly):
            write_json(folder / GENERATION, _generation(stored))
        safetensors.torch.save_file(tensors, folder / SAFE, metadata={"format": "pt"})
        (folder / SAFE).chmod((folder / CONFIG).stat().st_mode)  # the library lets nobody but the owner read it
        _tokenizers(stored, folder)
    except (OSError, safetensors.SafetensorError) as error:
        if begun:
            shutil.rmtree(folder, ignore_errors=True)
        raise QkvError(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return architecture


def _tokenizers(stored: Stored, folder: Path) -> None:
    """The tokenizer, and that of the target in a folder of its own where it is another."""
    places, writes = _places(stored.model.spec), isinstance(stored.model.spec, DecoderOnly)
    write_tokenizer(folder, stored.source, places, writes)
    if stored.source is not stored.target:
        (folder / TARGET).mkdir()
        write_tokenizer(folder / TARGET, stored.target, places, writes)


def _places(spec: Model) -> int | None:
    position = spec.embedding.position
    return position.longest if isinstance(position, Learned) else None


def _special(stored: Stored) -> dict[str, Any]:
    """The numbers of special entries, as a config.json has them."""
    symbols = stored.target.symbols
    config: dict[str, Any] = {
        "bos_token_id": symbols.start,
        "eos_token_id": symbols.end,
        "pad_token_id": stored.source.symbols.pad,
    }
    if isinstance(stored.model.spec, EncoderDecoder):
        # none is forced: what is cut off at its greatest length has no end here
        config |= {"decoder_start_token_id": symbols.opening[0], "forced_eos_token_id": None}
    return config


def _generation(stored: Stored) -> dict[str, Any]:
    """How text is generated: as we do it, greedily unless something else is asked for."""
    spec, symbols = stored.model.spec, stored.target.symbols
    config = _special(stored)
    if isinstance(spec, DecoderOnly):
        never = symbols.special - {symbols.end}
        config |= {"max_length": _places(spec) or LONGEST}  # the prompt among it
    else:
        never = {symbols.pad, symbols.start} - {symbols.end}
        config |= {"max_new_tokens": (_places(spec) or LONGEST + 1) - 1}
        more = symbols.opening[1:]
        assert len(more) < 2, "no tokenizer opens a text with more than two tokens"
        config |= {"forced_bos_token_id": more[0]} if more else {}
    never = sorted(number for number in never if number < spec.vocabulary.target)
    return config | {
        "num_beams": 1,
        "do_sample": False,
        # where they are banned, before anything is forced
        **({"bad_words_ids": [[number] for number in never]} if never else {}),
    }
