"""The architectures that are known, by what a config.json says, and by what a model of ours is."""

from __future__ import annotations

from pathlib import Path

from qkv.error import QkvError, unknown
from qkv.interop.fit import Fit
from qkv.interop.huggingface.architecture import Architecture
from qkv.interop.huggingface.bart import BART
from qkv.interop.huggingface.bert import BERT, BERT_CLASSIFIER
from qkv.interop.huggingface.config import CONFIG, Plain
from qkv.interop.huggingface.gpt2 import GPT2
from qkv.interop.huggingface.marian import MARIAN, PEGASUS
from qkv.interop.huggingface.t5 import T5
from qkv.spec.model import Classifier, DecoderOnly, EncoderDecoder, EncoderOnly, Model, sides
from qkv.spec.part import PreNorm
from qkv.spec.position import Factorised, Learned, NoPosition, Sinusoid

KNOWN = (GPT2, BERT, BERT_CLASSIFIER, MARIAN, PEGASUS, T5, BART)


def named(config: Plain, folder: Path) -> Architecture:
    """What a config.json says the model is. Raises QkvError for what is not known here, with the nearest that is."""
    model_type = config.get("model_type")
    types = sorted({each.model_type for each in KNOWN})
    if not isinstance(model_type, str):
        raise QkvError(f"{folder / CONFIG} says no model_type: qkv imports {', '.join(types)}")
    if model_type not in types:
        raise unknown(f"model_type in {folder / CONFIG}", model_type, types)
    alike = [each for each in KNOWN if each.model_type == model_type]
    said = config.get("architectures") or [alike[0].classes[0]]
    for each in alike:
        if said[0] in each.classes:
            return each
    known = [name for each in alike for name in each.classes]
    raise unknown(f"architecture in {folder / CONFIG}", str(said[0]), known)


def fitting(spec: Model) -> Architecture:
    """The architecture whose members are like this model; it may yet refuse it. Raises QkvError for a recurrence, which none of
    them has."""
    for depth in sides(spec).values():
        Fit("transformers").own(depth)
    match spec:
        case DecoderOnly():
            return GPT2
        case EncoderOnly():
            return BERT
        case Classifier():
            return BERT_CLASSIFIER
        case EncoderDecoder():
            match spec.embedding.position:
                case Sinusoid():
                    norms = [block.norm for stack in (spec.encoder, spec.decoder) for block in stack.blocks]
                    return PEGASUS if all(isinstance(norm, PreNorm) for norm in norms) else MARIAN
                case Learned() | Factorised():
                    return BART
                case NoPosition():
                    return T5
