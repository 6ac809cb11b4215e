"""The tokenizer of a model folder from Hugging Face as one of ours, with the same numbers for the same text.

It is read from a tokenizer.json, or made of the files that stood in for one before: vocab.json and merges.txt (GPT-2, BART),
vocab.txt (BERT), spiece.model (T5), source.spm, target.spm and vocab.json (Marian). Nothing of `transformers` is needed.

Entries that no text may be cut into, and that only fill up a vocabulary, have names that begin with NUL, which no text holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from qkv.data.symbols import Symbols
from qkv.data.tokenizer import SPACE, Tokenizer
from qkv.error import QkvError
from qkv.interop.huggingface.architecture import Architecture
from qkv.interop.huggingface.config import TOKENIZER, read_json
from qkv.interop.huggingface.settings import Settings
from qkv.interop.huggingface.spm import SentencePiece, read_spm
from qkv.spec.model import Model

NEVER = "\0"  # how entries begin that no text is cut into
SPLIT = "split_special_tokens"  # what says that special entries are not found in text
FAST, SPECIAL, TARGET = "tokenizer.json", "special_tokens_map.json", "target"
ROLES = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")
RARE = 9.0  # how much less likely than all pieces a character is that is none of them; SentencePiece takes 10 for an unknown one
SENTINEL = re.compile(r"<extra_(id_)?\d+>")
SENTINELS = 100  # of a T5 without a tokenizer.json

Wrapped = tokenizers.Tokenizer


@dataclass(frozen=True)
class Found:
    """The tokenizers of both sides (the same object twice where there is one), whether the folder had any, and what is to be
    said of them."""

    source: Tokenizer
    target: Tokenizer
    tokenized: bool
    notes: tuple[str, ...]


def tokenizers_of(folder: Path, settings: Settings, architecture: Architecture, spec: Model) -> Found:
    """The tokenizers of a folder, with as many entries as the model has; one of numbers where it has none.

    Raises QkvError where files of a tokenizer are missing or damaged, or it belongs to another model.
    """
    sizes = spec.vocabulary.source, spec.vocabulary.target
    kind = architecture.model_type
    try:
        wrapped, notes = _wrapped(folder, kind, sizes)
    except QkvError:
        raise
    except Exception as error:  # the library raises nothing more special
        raise QkvError(f"the tokenizer in {folder} cannot be read ({error}): download the folder again") from None
    if not wrapped:
        return _numbers(sizes, settings, kind)
    made: list[Tokenizer] = []
    for each, size, side in zip(wrapped, sizes, ("source", "target"), strict=False):
        whole, more = _fitted(each, size, folder)
        notes += more
        of_side = folder / TARGET if side == "target" and (folder / TARGET).is_dir() else folder
        made.append(Tokenizer.foreign(whole, _symbols(whole, settings, of_side, kind)))
    return Found(made[0], made[-1], True, tuple(notes))


def _wrapped(folder: Path, kind: str, sizes: tuple[int, int]) -> tuple[list[Wrapped], list[str]]:
    """One tokenizer, or one for each side, or none where there are no files of any."""
    if (folder / "source.spm").is_file() or (folder / "target.spm").is_file():
        return _marian(folder, sizes)
    if (folder / FAST).is_file():
        sides = [folder, *([folder / TARGET] if (folder / TARGET / FAST).is_file() else [])]
        return [_fast(side) for side in sides], []
    wanted = _FILES[kind]
    there = [name for name in wanted if (folder / name).is_file()]
    if len(there) == len(wanted):
        return [_MADE[kind](folder)], []
    if there or (folder / TOKENIZER).is_file() or (folder / SPECIAL).is_file():
        lost = ", ".join(name for name in wanted if name not in there)
        raise QkvError(f"{folder} has parts of a tokenizer, but neither {FAST} nor {lost}: the download is not whole; repeat it")
    return [], []


def _fast(folder: Path) -> Wrapped:
    """A tokenizer.json, without the habit of cutting texts off or filling them up."""
    wrapped = Wrapped.from_file(str(folder / FAST))
    if read_json(folder / TOKENIZER).get(SPLIT):
        plain = json.loads(wrapped.to_str())
        ordinary = wrapped.get_vocab(with_added_tokens=False)
        plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] not in ordinary]
        wrapped = Wrapped.from_str(json.dumps(plain, ensure_ascii=False))
    wrapped.no_truncation()
    wrapped.no_padding()
    return wrapped


def _bytes(folder: Path, framed: bool) -> Wrapped:
    """Byte-level BPE of vocab.json and merges.txt."""
    config = read_json(folder / TOKENIZER)
    wrapped = Wrapped(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    wrapped.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space", False)))
    wrapped.decoder = decoders.ByteLevel()
    _special(wrapped, ("<s>", "<pad>", "</s>", "<unk>") if framed else ("<|endoftext|>",))
    if framed:
        mask = [AddedToken("<mask>", lstrip=True, normalized=False)] if wrapped.token_to_id("<mask>") is not None else []
        wrapped.add_special_tokens(mask)
        _frame(wrapped, ("<s>",), "</s>")
    return wrapped


def _words(folder: Path) -> Wrapped:
    """WordPiece of vocab.txt."""
    config = read_json(folder / TOKENIZER)
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    wrapped = Wrapped(models.WordPiece({line.rstrip(): number for number, line in enumerate(lines)}, unk_token="[UNK]"))
    wrapped.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    wrapped.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wrapped.decoder = decoders.WordPiece()
    _special(wrapped, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    _frame(wrapped, ("[CLS]",), "[SEP]")
    return wrapped


def _spiece(folder: Path) -> Wrapped:
    """Unigram of spiece.model, and sentinels after it that count down."""
    model = read_spm(folder / "spiece.model")
    extra = read_json(folder / TOKENIZER).get("extra_ids", SENTINELS)
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(extra))]
    entries = [(piece.text, piece.score) for piece in model.pieces] + [(name, 0.0) for name in sentinels]
    wrapped = _unigram(model, entries, "<unk>", decoders.Metaspace(SPACE))
    _special(wrapped, ("<pad>", "</s>", "<unk>", *sentinels))
    _frame(wrapped, (), "</s>")
    return wrapped


def _marian(folder: Path, sizes: tuple[int, int]) -> tuple[list[Wrapped], list[str]]:
    """Two unigram models, whose pieces have the numbers that vocab.json gives them."""
    own = "target_vocab.json" if (folder / "target_vocab.json").is_file() else "vocab.json"
    lost = [name for name in ("source.spm", "target.spm", "vocab.json") if not (folder / name).is_file()]
    if lost:
        raise QkvError(f"{folder} has parts of a tokenizer, but no {', '.join(lost)}: the download is not whole; repeat it")
    made, notes = [], []
    for name, vocabulary, size in zip(("source.spm", "target.spm"), ("vocab.json", own), sizes, strict=True):
        model, numbers = read_spm(folder / name), read_json(folder / vocabulary)
        if "<unk>" not in numbers or sorted(numbers.values()) != list(range(len(numbers))):
            raise QkvError(
                f"{folder / vocabulary} should give {size} entries, <unk> among them, the numbers from 0 on: download it again"
            )
        scores = model.scores()
        strange = sorted(scores.keys() - numbers.keys())
        if strange:
            notes.append(
                f"{len(strange)} pieces of {name}, such as {strange[0]!r}, are not in {vocabulary}: what transformers takes for "
                f"unknown there is cut into smaller pieces here"
            )
        codes = tuple(entry for entry in numbers if entry.startswith(">>") and entry.endswith("<<"))
        special = tuple(entry for entry in ("</s>", "<unk>", "<pad>", *codes) if entry in numbers)
        entries = [_entry(name, scores, special) for name in sorted(numbers, key=numbers.__getitem__)]
        decoder = decoders.Sequence([decoders.Replace(NEVER, ""), decoders.Metaspace(SPACE)])
        wrapped = _unigram(model, entries, "<unk>", decoder)
        _special(wrapped, special)
        _frame(wrapped, (), "</s>")
        made.append(wrapped)
    return made, notes


def _entry(name: str, scores: Mapping[str, float], special: tuple[str, ...]) -> tuple[str, float]:
    """An entry of vocab.json in the tokenizer of one side. A character that only the other side knows is found, too, where there
    is nothing better."""
    if name in scores:
        return name, scores[name]
    if len(name) == 1:
        return name, min(scores.values()) - RARE
    return name if name in special else NEVER + name, 0.0


def _unigram(model: SentencePiece, entries: list[tuple[str, float]], unknown: str, decoder: Any) -> Wrapped:
    place = next((number for number, (name, _) in enumerate(entries) if name == unknown), None)
    if place is None:
        raise QkvError(f"the tokenizer has no {unknown!r}, which stands for what it does not know: download it again")
    wrapped = Wrapped(models.Unigram(entries, unk_id=place))
    wrapped.normalizer, wrapped.pre_tokenizer, wrapped.decoder = model.normalizer, model.pre_tokenizer, decoder
    return wrapped


_FILES: dict[str, tuple[str, ...]] = {
    "gpt2": ("vocab.json", "merges.txt"),
    "bart": ("vocab.json", "merges.txt"),
    "bert": ("vocab.txt",),
    "t5": ("spiece.model",),
    "marian": ("source.spm", "target.spm", "vocab.json"),  # read elsewhere: there are two of them
    "pegasus": (FAST,),
}
_MADE: dict[str, Callable[[Path], Wrapped]] = {
    "gpt2": lambda folder: _bytes(folder, framed=False),
    "bart": lambda folder: _bytes(folder, framed=True),
    "bert": _words,
    "t5": _spiece,
}


def _special(wrapped: Wrapped, names: tuple[str, ...]) -> None:
    """Entries of the vocabulary that are found in text whole, and left out of text again."""
    there = wrapped.get_vocab()
    wrapped.add_special_tokens([AddedToken(name, normalized=False) for name in names if name in there])


def _frame(wrapped: Wrapped, before: tuple[str, ...], after: str) -> None:
    """What stands around a text."""
    numbers = {name: wrapped.token_to_id(name) for name in (*before, after)}
    known = [(name, number) for name, number in numbers.items() if number is not None]
    if len(known) == len(numbers):
        wrapped.post_processor = processors.TemplateProcessing(single=[*before, "$A", after], special_tokens=known)


def _fitted(wrapped: Wrapped, size: int, folder: Path) -> tuple[Wrapped, list[str]]:
    """The tokenizer with exactly so many entries: those that a model has beside them are given names that no text holds, special
    ones that it has not are left out. Raises QkvError where the model lacks entries that text is cut into."""
    plain = json.loads(wrapped.to_str())
    named = {number: name for name, number in wrapped.get_vocab(with_added_tokens=True).items()}
    if sorted(named) == list(range(size)):
        return wrapped, []
    added = {token["id"]: token["content"] for token in plain["added_tokens"]}
    beyond = [named[number] for number in sorted(named) if number >= size]
    ordinary = [name for name in beyond if name not in added.values()]
    if ordinary:
        raise QkvError(
            f"the tokenizer in {folder} has {len(named)} entries, and its model {size}: it belongs to another model; download "
            f"the folder again"
        )
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["id"] < size]
    vocabulary = plain["model"]["vocab"]
    names = [named.get(number, f"{NEVER}{number}") for number in range(size)]
    if isinstance(vocabulary, dict):
        plain["model"]["vocab"] = {name: number for number, name in enumerate(names)}
    else:
        scores = dict(map(tuple, vocabulary))
        plain["model"]["vocab"] = [[name, scores.get(name, 0.0)] for name in names]
    notes = []
    if beyond:
        notes.append(f"the model has no vector for {', '.join(map(repr, beyond[:3]))}, which the tokenizer has: left out")
    return Wrapped.from_str(json.dumps(plain, ensure_ascii=False)), notes


def _symbols(wrapped: Wrapped, settings: Settings, folder: Path, kind: str) -> Symbols:
    """The parts that special entries play. Raises QkvError where a tokenizer has nothing that ends a text."""
    roles = _roles(wrapped, folder)
    vocabulary = wrapped.get_vocab(with_added_tokens=True)
    before, after = _framing(wrapped)
    end = after[0] if after else roles.get("eos", roles.get("sep", _number(settings, "eos_token_id")))
    if end is None or end >= len(vocabulary):
        raise QkvError(f"the tokenizer in {folder} has nothing that ends a text: name it as eos_token in {folder / TOKENIZER}")
    start = before[0] if before else roles.get("bos", roles.get("cls", end))
    pad = roles.get("pad", _number(settings, "pad_token_id"))
    if pad is None or pad >= len(vocabulary):
        pad = end
    opening = before
    if kind in ("marian", "pegasus", "t5", "bart"):
        first = _number(settings, "decoder_start_token_id")
        first = pad if first is None or first >= len(vocabulary) else first
        # BART has learned to say the start of a text itself, after the end of one that it is given
        opening = (first, *(number for number in before[:1] if number != first)) if kind == "bart" else (first,)
        start = start if kind == "bart" else first
    added = [token["id"] for token in json.loads(wrapped.to_str())["added_tokens"] if token["special"]]
    filling = [number for name, number in vocabulary.items() if name.startswith(NEVER) and name[1:] == str(number)]
    sentinels = tuple(sorted(number for name, number in vocabulary.items() if SENTINEL.fullmatch(name)))
    masks = (roles["mask"],) if "mask" in roles else ()
    played = {pad, start, end, *masks, *sentinels}
    unknown = roles.get("unk", end)
    return Symbols(
        pad,
        start,
        end,
        unknown,
        masks,
        sentinels,
        before if kind != "gpt2" else (),
        opening,
        tuple(sorted({*added, *filling} - played - {unknown})),
    )


def _framing(wrapped: Wrapped) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before a text, and after it."""
    text = "a"
    alone, framed = (wrapped.encode(text, add_special_tokens=each).ids for each in (False, True))
    for first in range(len(framed) - len(alone) + 1):
        if framed[first : first + len(alone)] == alone:
            return tuple(framed[:first]), tuple(framed[first + len(alone) :])
    return (), ()


def _roles(wrapped: Wrapped, folder: Path) -> dict[str, int]:
    """The special entries that the folder names, or that have the names of all times."""
    named = read_json(folder / SPECIAL) | read_json(folder / TOKENIZER)
    usual: Mapping[str, str] = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    brackets = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    found: dict[str, int] = {}
    for role in ROLES:
        said = named.get(f"{role}_token")
        content = said.get("content") if isinstance(said, dict) else said
        for name in (content, brackets.get(role), usual.get(role)):
            number = wrapped.token_to_id(name) if isinstance(name, str) else None
            if number is not None:
                found[role] = number
                break
    return found


def _number(settings: Settings, name: str) -> int | None:
    """The number of a special entry, the first where there are several."""
    value = settings.get(name)
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _numbers(sizes: tuple[int, int], settings: Settings, kind: str) -> Found:
    """Where a folder has no tokenizer, text for its model is the numbers of entries, with spaces between."""
    made = []
    for size in dict.fromkeys(sizes):
        wrapped = Wrapped(models.WordLevel({str(number): number for number in range(size)}, unk_token="0"))
        wrapped.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        end = min(_number(settings, "eos_token_id") or 0, size - 1)
        pad = min(_number(settings, "pad_token_id") or 0, size - 1)
        first = _number(settings, "decoder_start_token_id")
        opening = (min(pad if first is None else first, size - 1),)
        made.append(Tokenizer.foreign(wrapped, Symbols(pad, end, end, 0, opening=() if kind == "gpt2" else opening)))
    return Found(
        made[0],
        made[-1],
        False,
        ("there is no tokenizer in the folder: a text for this run is the numbers of entries, with spaces between",),
    )
