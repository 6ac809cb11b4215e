"""Every named model: its name, its paper, how it is made for a vocabulary, and how it is trained unless one says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from qkv.error import QkvError, unknown
from qkv.papers import bahdanau, bart, bert, evolved, gpt, luong, pointer, sparse, t5, transformer, universal
from qkv.spec import plain
from qkv.spec.data import AtMost
from qkv.spec.model import (
    AllThree,
    DecoderOnly,
    EncoderDecoder,
    EncoderOnly,
    Joint,
    Model,
    SourceAndTarget,
    TargetAndOutput,
    Vocabulary,
)
from qkv.spec.run import Adam, Batching, Checkpoints, Clip, Cosine, Noam, NoClip, Schedule


@dataclass(frozen=True)
class Practice:
    """How a model is trained where nothing else is said: by default as in Vaswani et al. 2017, section 5.3."""

    schedule: Schedule = Noam()
    batching: Batching = Batching()
    checkpoints: Checkpoints = Checkpoints()
    optimiser: Adam = Adam()
    clip: NoClip | Clip = NoClip()
    smoothing: float = 0.1
    longest: int = 256


@dataclass(frozen=True)
class Entry:
    """A named model."""

    make: Callable[[Vocabulary], Model]
    paper: str
    practice: Practice = Practice()


# an hour on a laptop is some thousand steps: the paper's 4000 of warm-up would be most of them
AN_HOUR = Practice(Cosine(peak=0.003, warmup=500), Batching(2048), Checkpoints(every=250, keep=6, average=AtMost(6)))
CLIPPED = replace(AN_HOUR, clip=Clip(1.0))  # what is recurrent has gradients that grow from token to token
POINTS = replace(CLIPPED, smoothing=0.0)  # what stands nowhere in the source is not even nearly possible
DECAYED = Adam(beta2=0.95, epsilon=1e-8, decay=0.1)


def _language(peak: float, longest: int, tokens: int, warmup: int = 200) -> Practice:
    """How language models are trained: no smoothing, weight decay, clipped gradients, a cosine over the run."""
    return Practice(Cosine(peak=peak, warmup=warmup, last=0.1), Batching(tokens), Checkpoints(), DECAYED, Clip(1.0), 0.0, longest)


def _sparse(peak: float, longest: int, tokens: int, warmup: int = 5000) -> Practice:
    """How Child et al. 2019, section 6, train: weight decay of 0.01, clipped gradients, a cosine over the run."""
    optimiser = Adam(beta2=0.95, epsilon=1e-8, decay=0.01)
    return Practice(Cosine(peak, warmup), Batching(tokens), Checkpoints(), optimiser, Clip(1.0), 0.0, longest)


CATALOGUE: dict[str, Entry] = {
    "transformer-tiny": Entry(transformer.transformer_tiny, "after Wu et al. 2021", AN_HOUR),
    "transformer-small": Entry(transformer.transformer_small, "after Vaswani et al. 2017"),
    "transformer-base": Entry(transformer.transformer_base, "Vaswani et al. 2017"),
    "transformer-big": Entry(transformer.transformer_big, "Vaswani et al. 2017"),
    "universal-tiny": Entry(universal.universal_tiny, "after Dehghani et al. 2018", AN_HOUR),
    "universal-small": Entry(universal.universal_small, "Dehghani et al. 2018"),
    "universal-base": Entry(universal.universal_base, "Dehghani et al. 2018"),
    "evolved-tiny": Entry(evolved.evolved_tiny, "So et al. 2019", AN_HOUR),
    "evolved-base": Entry(evolved.evolved_base, "So et al. 2019"),
    "evolved-big": Entry(evolved.evolved_big, "So et al. 2019"),
    "evolved-deep": Entry(evolved.evolved_deep, "So et al. 2019"),
    "universal-evolved-tiny": Entry(evolved.universal_evolved_tiny, "after So et al. 2019", AN_HOUR),
    "bahdanau-tiny": Entry(bahdanau.bahdanau_tiny, "after Bahdanau et al. 2014", CLIPPED),
    "luong-tiny": Entry(luong.luong_tiny, "after Luong et al. 2015", CLIPPED),
    "luong-base": Entry(luong.luong_base, "Luong et al. 2015", CLIPPED),
    "pointer-tiny": Entry(pointer.pointer_tiny, "after Vinyals et al. 2015", POINTS),
    "pointer-base": Entry(pointer.pointer, "Vinyals et al. 2015", POINTS),
    "gpt-tiny": Entry(gpt.gpt_tiny, "after Radford et al. 2019", _language(0.002, 256, 2048)),
    "gpt-mini": Entry(gpt.gpt_mini, "after Radford et al. 2019", _language(0.001, 256, 4096)),
    "universal-gpt-tiny": Entry(universal.universal_gpt_tiny, "after Dehghani et al. 2018", _language(0.001, 256, 2048)),
    "evolved-gpt-tiny": Entry(evolved.evolved_gpt_tiny, "after So et al. 2019", _language(0.001, 256, 2048)),
    "universal-bert-tiny": Entry(universal.universal_bert_tiny, "after Dehghani et al. 2018", _language(0.001, 128, 4096)),
    "sparse-tiny": Entry(sparse.sparse_tiny, "after Child et al. 2019", _sparse(0.001, 2048, 8192, 200)),
    "sparse-digits": Entry(sparse.sparse_digits, "after Child et al. 2019", _sparse(0.002, 784, 12544, 200)),
    "sparse-cifar10": Entry(sparse.sparse_cifar10, "Child et al. 2019", _sparse(0.00035, 3072, 49152)),
    "sparse-enwik8": Entry(sparse.sparse_enwik8, "Child et al. 2019", _sparse(0.00035, 12288, 98304)),
    "sparse-imagenet64": Entry(sparse.sparse_imagenet64, "Child et al. 2019", _sparse(0.00035, 12288, 196608)),
    "gpt2-small": Entry(gpt.gpt2_small, "Radford et al. 2019", _language(0.0006, 1024, 16384, 2000)),
    "gpt2-medium": Entry(gpt.gpt2_medium, "Radford et al. 2019", _language(0.0003, 1024, 16384, 2000)),
    "gpt2-large": Entry(gpt.gpt2_large, "Radford et al. 2019", _language(0.00025, 1024, 16384, 2000)),
    "gpt2-xl": Entry(gpt.gpt2_xl, "Radford et al. 2019", _language(0.0002, 1024, 16384, 2000)),
    "bert-tiny": Entry(bert.bert_tiny, "Turc et al. 2019", _language(0.001, 128, 4096)),
    "bert-mini": Entry(bert.bert_mini, "Turc et al. 2019", _language(0.001, 128, 4096)),
    "bert-small": Entry(bert.bert_small, "Turc et al. 2019", _language(0.0005, 128, 8192, 1000)),
    "bert-base": Entry(bert.bert_base, "Devlin et al. 2018", _language(0.0001, 512, 16384, 10000)),
    "bert-large": Entry(bert.bert_large, "Devlin et al. 2018", _language(0.0001, 512, 16384, 10000)),
    "t5-tiny": Entry(t5.t5_tiny, "after Raffel et al. 2019", AN_HOUR),
    "t5-small": Entry(t5.t5_small, "Raffel et al. 2019"),
    "t5-base": Entry(t5.t5_base, "Raffel et al. 2019"),
    "t5-large": Entry(t5.t5_large, "Raffel et al. 2019"),
    "bart-tiny": Entry(bart.bart_tiny, "after Lewis et al. 2019", _language(0.001, 256, 2048)),
    "bart-base": Entry(bart.bart_base, "Lewis et al. 2019", _language(0.0003, 512, 16384, 2000)),
    "bart-large": Entry(bart.bart_large, "Lewis et al. 2019", _language(0.0003, 512, 16384, 2000)),
}


def entry(name: str) -> Entry:
    """What is known of the model of that name, or of one that a file describes, as the `model.json` of a run does. Raises
    QkvError with the nearest name if there is neither."""
    if name not in CATALOGUE and Path(name).suffix == ".json":
        return _described(Path(name))
    if name not in CATALOGUE:
        raise unknown("model", name, CATALOGUE)
    return CATALOGUE[name]


def _described(path: Path) -> Entry:
    """A model from a file, for any vocabulary; trained as those for an hour on a laptop are."""
    try:
        spec = plain.from_plain(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise QkvError(f"{path} cannot be read: {error}") from None
    if not isinstance(spec, EncoderDecoder | DecoderOnly | EncoderOnly):
        raise QkvError(f"{path} describes no encoder-decoder, no decoder and no encoder, but {type(spec).__name__}")

    def made(vocabulary: Vocabulary) -> Model:
        if not isinstance(spec, EncoderDecoder):
            return replace(spec, vocabulary=Joint(vocabulary.target))
        apart = isinstance(spec.tie, AllThree | SourceAndTarget) and not isinstance(vocabulary, Joint)
        return replace(spec, vocabulary=vocabulary, tie=TargetAndOutput() if apart else spec.tie)

    return Entry(made, str(path), AN_HOUR if isinstance(spec, EncoderDecoder) else _language(0.001, 256, 2048))


def named(name: str, vocabulary: Vocabulary) -> Model:
    """The model of that name for a vocabulary. Raises QkvError with the nearest name if there is none."""
    return entry(name).make(vocabulary)
