"""Small models as Hugging Face has them, with tokenizers trained here; and small ones of ours."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.conftest import Ask, asked, quiet

__all__ = ["quiet"]

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'qkv[huggingface]'")

from tokenizers import ByteLevelBPETokenizer  # noqa: E402
from tokenizers.implementations import BertWordPieceTokenizer  # noqa: E402

from qkv.data.symbols import MASK, SENTINELS  # noqa: E402
from qkv.data.tokenizer import Tokenizer  # noqa: E402
from qkv.interop.huggingface.spm import read_spm  # noqa: E402
from qkv.model.transformer import build  # noqa: E402
from qkv.spec import plain  # noqa: E402
from qkv.spec.data import AtMost  # noqa: E402
from qkv.spec.data import Tokenizer as TokenizerSpec  # noqa: E402
from qkv.spec.model import Joint, Model, Separate, Vocabulary  # noqa: E402
from qkv.store import Stored  # noqa: E402

WORDS = "the a dog cat man woman child runs walks sleeps reads over under green red small old field street house and with".split()
FOREIGN = "der die ein Hund Katze Mann läuft über Straße grün klein alt Feld Haus und mit Kind schläft liest Frau".split()
SENTENCES = (
    "A dog runs over the green field.",
    "Two men (old) are reading 3 books, aren't they?",
    "Ein Hund läuft über die Straße.",
    "  the  cat\tsleeps ",
    "über naïve niño 日本 😀 café",
    "x",
)
LETTERS = "".join(sorted({letter for sentence in SENTENCES[:4] for letter in sentence if letter.strip()}))
SIZES = {"width": 32, "heads": 4, "depth": 2}


def corpus(words: list[str], seed: int) -> list[str]:
    """Made sentences."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.randint(3, 9))).capitalize() + draw.choice(".!?,") for _ in range(400)]


@pytest.fixture
def ask() -> Ask:
    """The command line."""
    return asked


def stirred(module: torch.nn.Module, by: float = 0.3) -> torch.nn.Module:
    """The module with no weight as initialised, zeros and ones among them."""
    generator = torch.Generator().manual_seed(7)
    for tensor in [*module.parameters(), *(each for name, each in module.named_buffers() if "logits_bias" in name)]:
        if tensor.requires_grad or (tensor.dim() == 2 and tensor.shape[0] == 1):
            tensor.data += by * torch.randn(tensor.shape, generator=generator)
    return module.eval()


Pieces = Callable[[Path], int]


def bytes_of(folder: Path, special: list[str]) -> int:
    """vocab.json and merges.txt."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(corpus(WORDS + FOREIGN, 1), vocab_size=330, special_tokens=special, show_progress=False)
    tokenizer.save_model(str(folder))
    return tokenizer.get_vocab_size()


def words_of(folder: Path) -> int:
    """vocab.txt."""
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(corpus(WORDS + FOREIGN, 1), vocab_size=200, show_progress=False)
    tokenizer.save_model(str(folder))
    return tokenizer.get_vocab_size()


def spm_of(path: Path, words: list[str], seed: int, **more: Any) -> None:
    """A unigram model of SentencePiece."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra: pip install 'qkv[huggingface]'")
    text = path.parent / "text"
    text.write_text("\n".join(corpus(words, seed)), encoding="utf-8")
    how = {"vocab_size": 170, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1, "required_chars": LETTERS} | more
    sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=str(path.with_suffix("")), **how)
    path.with_suffix(".vocab").unlink()
    path.with_suffix(".model").rename(path)
    text.unlink()


def marian_pieces(folder: Path) -> int:
    """source.spm, target.spm and vocab.json, where pieces of both have numbers in no order."""
    spm_of(folder / "source.spm", WORDS, 1)
    spm_of(folder / "target.spm", FOREIGN, 2, required_chars=LETTERS + "ñ")
    both = set(read_spm(folder / "source.spm").scores()) | set(read_spm(folder / "target.spm").scores())
    names = ["</s>", "<unk>", *sorted(both), ">>deu<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "de"}))
    return len(names)


@dataclass(frozen=True)
class Kind:
    """How a small model of an architecture is made there."""

    config: str
    model: str
    auto: str
    pieces: Callable[[Path], int]
    settings: Callable[[int], dict[str, Any]]


def _t5_pieces(folder: Path) -> int:
    spm_of(folder / "spiece.model", WORDS + FOREIGN, 1, vocab_size=190, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 100}))
    return len(read_spm(folder / "spiece.model").pieces) + 100


def _two_sides(hidden: int = 48) -> dict[str, Any]:
    sides = ("encoder", "decoder")
    return {
        "d_model": 32,
        **{f"{side}_layers": 2 for side in sides},
        **{f"{side}_attention_heads": 4 for side in sides},
        **{f"{side}_ffn_dim": hidden for side in sides},
        "max_position_embeddings": 64,
    }


KINDS = {
    "gpt2": Kind(
        "GPT2Config",
        "GPT2LMHeadModel",
        "AutoModelForCausalLM",
        lambda folder: bytes_of(folder, ["<|endoftext|>"]),
        lambda size: {
            "vocab_size": size,
            "n_positions": 64,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    ),
    "bert": Kind(
        "BertConfig",
        "BertForMaskedLM",
        "AutoModelForMaskedLM",
        words_of,
        lambda size: {
            "vocab_size": size,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
        },
    ),
    "marian": Kind(
        "MarianConfig",
        "MarianMTModel",
        "AutoModelForSeq2SeqLM",
        marian_pieces,
        lambda size: {
            "vocab_size": size,
            **_two_sides(),
            "activation_function": "swish",
            "scale_embedding": True,
            "pad_token_id": size - 1,
            "decoder_start_token_id": size - 1,
            "eos_token_id": 0,
            "forced_eos_token_id": None,
        },
    ),
    "t5": Kind(
        "T5Config",
        "T5ForConditionalGeneration",
        "AutoModelForSeq2SeqLM",
        _t5_pieces,
        lambda size: {
            "vocab_size": size + 28,  # as released: the matrix is larger than the vocabulary
            "d_model": 32,
            "d_kv": 6,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
    "bart": Kind(
        "BartConfig",
        "BartForConditionalGeneration",
        "AutoModelForSeq2SeqLM",
        lambda folder: bytes_of(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
        lambda size: {"vocab_size": size, **_two_sides(), "forced_bos_token_id": 0, "forced_eos_token_id": None},
    ),
}


def make(kind: str, folder: Path, model: str | None = None, **changes: Any) -> Any:
    """Write a model of a kind into a folder, with the files of its tokenizer; the model."""
    how = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    settings = how.settings(how.pieces(folder)) | changes
    torch.manual_seed(3)
    made = stirred(getattr(transformers, model or how.model)(getattr(transformers, how.config)(**settings)))
    made.save_pretrained(folder)
    return made


@dataclass(frozen=True)
class There:
    """A model of Hugging Face's, and its folder."""

    kind: str
    folder: Path
    model: Any


@pytest.fixture(scope="session", params=list(KINDS))
def there(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> There:
    """A model of each kind; nobody alters its folder."""
    folder = tmp_path_factory.mktemp("there") / request.param
    return There(request.param, folder, make(request.param, folder))


MakeStored = Callable[..., Stored]


@pytest.fixture(scope="session")
def make_stored() -> MakeStored:
    """Makes a model of ours for a tokenizer of ours, with changes to its description; no weight is as initialised."""
    trained: dict[tuple[str, tuple[str, ...]], tuple[Tokenizer, Tokenizer]] = {}

    def made(paper: Callable[..., Model], *changes: str, cut: str = "bpe", separate: bool = False, **more: Any) -> Stored:
        extra = {"bert": (MASK,), "bart": (MASK,), "t5": SENTINELS}.get(paper.__name__, ())
        how = TokenizerSpec(cut, AtMost(400), extra=extra)
        if (cut, extra) not in trained:
            joint = Tokenizer.train(how, corpus(WORDS + FOREIGN, 1) + list(SENTENCES))
            trained[cut, extra] = joint, Tokenizer.train(how, corpus(FOREIGN, 2))
        source, target = trained[cut, extra]
        target = target if separate else source
        vocabulary: Vocabulary = Separate(source.size, target.size) if separate else Joint(source.size)
        spec = paper(vocabulary, **SIZES | more)
        for change in changes:
            spec = plain.change(spec, change)
        return Stored(stirred(build(spec, 5)), source, target)

    return made
