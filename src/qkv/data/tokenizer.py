"""Tokenizers: text to the numbers of its pieces, and back.

A tokenizer is one of Hugging Face `tokenizers` with four special entries at the head of its vocabulary. They are plain entries,
not what that library calls added tokens: text in which somebody wrote "</s>" is cut like any other, and cannot end a sentence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from qkv.data import unigram
from qkv.data.symbols import MASK, SPECIALS, UNKNOWN, Symbols
from qkv.data.text import Pair
from qkv.error import QkvError
from qkv.spec import data as spec

SPACE = "▁"
LINE_END = SPACE + "\n"  # an entry of tokenizers that cut words
# A mark of punctuation or a digit is a word by itself, together with the space before it: "(a), 3.14" is "▁(", "a", ")", ",",
# "▁3", ".", "1", "4". With that space as a piece of its own, text whose punctuation stands free would be a twelfth longer.
ALONE = SPACE + r"?(?:[!-/:-@\[-`{-~]|\p{P}|\p{N})"
# A pair of pieces that was met once says nothing about the language.
LEAST_MERGED = 2
LEAST = {"bytes": "the single bytes", "words": "the end of a line and one word"}  # what a vocabulary must hold


class Tokenizer:
    """Cuts text into pieces from a vocabulary, and numbers them; makes text of numbers again."""

    def __init__(self, wrapped: tokenizers.Tokenizer) -> None:
        """Wrap a tokenizer of Hugging Face. Raises QkvError unless the special entries, and only they, are as we need them."""
        self._wrapped = _owned(wrapped)
        self.symbols = Symbols.of(self._wrapped.get_vocab())
        self._foreign = False

    @classmethod
    def foreign(cls, wrapped: tokenizers.Tokenizer, symbols: Symbols) -> Tokenizer:
        """A tokenizer that came with a model from elsewhere, as it is: its special entries are found in text, too."""
        made = cls.__new__(cls)
        made._wrapped, made.symbols, made._foreign = wrapped, symbols, True
        return made

    @classmethod
    def train(cls, how: spec.Tokenizer, texts: Iterable[str]) -> Tokenizer:
        """Learn a tokenizer from text, which is read once and never held whole; the same text gives the same tokenizer.

        Raises QkvError where there is no text, and where the text does not support the vocabulary asked for.
        """
        try:
            wrapped = _TRAINERS[how.kind](_without(how.vocabulary, len(how.extra)), texts)
        except UnicodeEncodeError as error:
            raise _half_character(error.object) from None
        trained = cls(_extended(wrapped, how.extra))
        if trained.size == len(SPECIALS) + len(how.extra):
            raise QkvError("there is no text to learn a tokenizer from: expected at least one line that is not empty")
        _check_size(trained.size, how)
        return trained

    @classmethod
    def of_bytes(cls, extra: tuple[str, ...] = ()) -> Tokenizer:
        """The tokenizer with an entry for each byte, in their order, and none for several."""
        names = {byte: name for name, byte in _BYTES.items()}
        wrapped = tokenizers.Tokenizer(models.BPE(_numbered([names[byte] for byte in range(256)]), []))
        wrapped.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        wrapped.decoder = decoders.ByteLevel()
        return cls(_extended(wrapped, extra))

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer that `save` wrote. Raises QkvError for a file that is none, and for a foreign tokenizer beside which
        nothing says what its special entries are."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise QkvError(f"there is no tokenizer {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise QkvError(f"the tokenizer {path} cannot be read: {error}") from None
        beside = _beside(path)
        try:
            wrapped = tokenizers.Tokenizer.from_str(text)
            if beside.is_file():
                return cls.foreign(wrapped, Symbols.from_plain(json.loads(beside.read_text(encoding="utf-8"))))
            return cls(wrapped)
        except QkvError as error:
            raise QkvError(f"{path}: {error}") from None
        except Exception as error:  # the library raises nothing more special
            raise QkvError(
                f"{path} is not a tokenizer in the JSON of Hugging Face tokenizers ({error}): name a tokenizer.json"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON. Raises QkvError where that is not possible."""
        try:
            Path(path).write_text(self._wrapped.to_str(pretty=True), encoding="utf-8")
            if self._foreign:
                _beside(path).write_text(json.dumps(self.symbols.plain(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise QkvError(f"the tokenizer cannot be written to {path}: {error.strerror or error}") from None

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The numbers of the pieces of each text, without start or end; many texts at once are cut in parallel."""
        return _encoded(self._wrapped, texts)

    def encode_masked(self, text: str) -> list[int]:
        """The numbers of the pieces of a text in which <mask> stands for a hidden one, and for the space before it where pieces
        begin with theirs. Raises QkvError where there is no entry for a mask."""
        own = str(self._wrapped.id_to_token(self.symbols.mask))
        return _encoded(self.masking, [text.replace(MASK, own)])[0]

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The text of some pieces; special entries, the unknown one among them, are left out."""
        special = self.symbols.special
        return self._wrapped.decode([int(i) for i in ids if int(i) not in special], skip_special_tokens=False)

    def decode_after(self, before: Sequence[int], ids: Iterable[int]) -> str:
        """The text of some pieces that come after others, which decide whether it begins with a space."""
        return self.decode([*before, *ids])[len(self.decode(before)) :]

    def pieces(self, ids: Iterable[int] | np.ndarray) -> list[str]:
        """Each piece by itself, to be read in pictures: a space is "▁", bytes that are not whole characters are hexadecimal."""
        ids = list(ids)
        names = [self._wrapped.id_to_token(int(i)) or f"<{int(i)}?>" for i in ids]
        if isinstance(self._wrapped.decoder, decoders.ByteLevel):
            special = self.symbols.special
            names = [name if int(i) in special else _spelled(name) for i, name in zip(ids, names, strict=True)]
        return [name.replace(" ", SPACE) for name in names]

    def entries(self) -> list[str]:
        """Every entry as the vocabulary has it, in the order of their numbers: what other engines ask for."""
        return [str(self._wrapped.id_to_token(number)) for number in range(self.size)]

    @property
    def spaced(self) -> bool:
        """Whether a piece holds the space before it, rather than that the space is a piece by itself."""
        return not isinstance(self._wrapped.decoder, decoders.Fuse)

    @cached_property
    def masking(self) -> tokenizers.Tokenizer:
        """The library's own, but that it finds masks in text, and no piece after one has a space that is not there."""
        if self._foreign or not self.symbols.masks:
            return self._wrapped
        plain = json.loads(self._wrapped.to_str())
        outer = plain["pre_tokenizer"] or {}
        for cutter in outer.get("pretokenizers", [outer]):
            if cutter.get("type") == "Metaspace":
                cutter["prepend_scheme"] = "first"
        found = tokenizers.Tokenizer.from_str(json.dumps(plain, ensure_ascii=False))
        found.add_special_tokens([AddedToken(MASK, lstrip=self.spaced, normalized=False)])
        return found

    @property
    def line_end(self) -> int:
        """The entry for the end of a line. Raises QkvError where there is none."""
        found = self._wrapped.token_to_id(LINE_END)
        if found is None:
            raise QkvError("sentences end where lines do, and this tokenizer has no entry for a line end: use --tokenizer words")
        return found

    @cached_property
    def byte_entries(self) -> np.ndarray:
        """The entry of every byte, (256,). Raises QkvError for a tokenizer that does not cut text into bytes."""
        found = {byte: self._wrapped.token_to_id(name) for name, byte in _BYTES.items()}
        if not isinstance(self._wrapped.decoder, decoders.ByteLevel) or None in found.values():
            raise QkvError("the tokenizer has no entry for every byte: start from a run that learned from bytes")
        return np.array([found[byte] for byte in range(256)], dtype=np.int64)

    @property
    def size(self) -> int:
        """The number of entries, the special ones among them."""
        return self._wrapped.get_vocab_size(with_added_tokens=True)

    @property
    def wrapped(self) -> tokenizers.Tokenizer:
        """The tokenizer of Hugging Face inside, to be looked at and not changed."""
        return self._wrapped

    @property
    def fingerprint(self) -> str:
        """A hash of all that the tokenizer is."""
        whole = self._wrapped.to_str() + (repr(self.symbols) if self._foreign else "")
        return blake2b(whole.encode(), digest_size=16).hexdigest()


class Tokenizers(NamedTuple):
    """The tokenizers of the two sides; a joint one is the same object twice."""

    source: Tokenizer
    target: Tokenizer


def train_tokenizers(how: spec.Tokenizer, pairs: Callable[[], Iterator[Pair]]) -> Tokenizers:
    """Learn the tokenizers of both sides from pairs, which are asked for anew for each reading: a joint one from all text."""
    if how.joint:
        joint = Tokenizer.train(how, chain.from_iterable(pairs()))
        return Tokenizers(joint, joint)
    return Tokenizers(
        Tokenizer.train(how, (source for source, _ in pairs())),
        Tokenizer.train(how, (target for _, target in pairs())),
    )


# One function for each kind of tokenizer. Where the alphabet alone is larger than allowed, so is what it makes, which is refused.

Vocabulary = spec.AtMost | spec.Exactly


def _without(vocabulary: Vocabulary, entries: int) -> Vocabulary:
    """What is left of a vocabulary beside some entries."""
    if vocabulary.size <= entries:
        raise QkvError(f"a vocabulary of {vocabulary.size} entries has no room for the {entries} that the training needs")
    return replace(vocabulary, size=vocabulary.size - entries)


def _extended(wrapped: tokenizers.Tokenizer, extra: tuple[str, ...]) -> tokenizers.Tokenizer:
    """The tokenizer with entries after all others that no text is cut into."""
    if not extra:
        return wrapped
    plain = json.loads(wrapped.to_str())
    vocabulary = plain["model"]["vocab"]
    for name in extra:
        if name in wrapped.get_vocab():
            raise QkvError(f"the text is cut into the entry {name!r} already, which the training needs for itself")
        if isinstance(vocabulary, dict):
            vocabulary[name] = len(vocabulary)
        else:
            vocabulary.append([name, 0.0])
    return tokenizers.Tokenizer.from_str(json.dumps(plain, ensure_ascii=False))


def _train_bpe(vocabulary: Vocabulary, texts: Iterable[str]) -> tokenizers.Tokenizer:
    wrapped = _worded(models.BPE(unk_token=SPECIALS[UNKNOWN]))
    wrapped.train_from_iterator(texts, _merges(vocabulary))
    return wrapped


def _train_bytes(vocabulary: Vocabulary, texts: Iterable[str]) -> tokenizers.Tokenizer:
    wrapped = tokenizers.Tokenizer(models.BPE())
    wrapped.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    wrapped.decoder = decoders.ByteLevel()
    seen = _Seen(texts)
    wrapped.train_from_iterator(seen, _merges(vocabulary, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    # The alphabet is there without any text; with none, nothing is learned.
    return wrapped if seen.any else tokenizers.Tokenizer(models.BPE(_numbered([]), []))


def _train_unigram(vocabulary: Vocabulary, texts: Iterable[str]) -> tokenizers.Tokenizer:
    wrapped = _worded(models.Unigram())
    words: Counter[str] = Counter()
    for text in texts:
        words.update(text.split(" "))
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for piece, _ in wrapped.pre_tokenizer.pre_tokenize_str(wrapped.normalizer.normalize_str(word)):
            counts[piece] += count
    pieces = unigram.fit(counts, max(0, vocabulary.size - len(SPECIALS)))
    if isinstance(vocabulary, spec.AtMost):
        pieces = [piece for piece in pieces if piece.occurrences >= unigram.FLOOR or len(piece.text) == 1]
    entries = [(name, 0.0) for name in SPECIALS] + [(piece.text, piece.score) for piece in pieces]
    wrapped.model = models.Unigram(entries, unk_id=UNKNOWN)
    return wrapped


def _train_characters(vocabulary: Vocabulary, texts: Iterable[str]) -> tokenizers.Tokenizer:
    normalizer = normalizers.NFC()
    alphabet: set[str] = set()
    for text in texts:
        alphabet.update(text if text.isascii() else normalizer.normalize_str(text))
    # Merging nothing leaves the characters, each an entry.
    wrapped = tokenizers.Tokenizer(models.BPE(_numbered(sorted(alphabet)), [], unk_token=SPECIALS[UNKNOWN]))
    wrapped.normalizer = normalizer
    wrapped.decoder = decoders.Fuse()
    return wrapped


def _train_words(vocabulary: Vocabulary, texts: Iterable[str]) -> tokenizers.Tokenizer:
    wrapped = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIALS[UNKNOWN]))
    spaces = [normalizers.Replace(Regex(r"[^\S\n]+"), " "), normalizers.Replace(Regex(r" ?\n ?"), "\n")]
    wrapped.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip(), *spaces])
    wrapped.pre_tokenizer = pre_tokenizers.Sequence(
        # a word has the space before it, and the end of a line one, too: so no text is cut into a special entry
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")]
    )
    wrapped.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in wrapped.pre_tokenizer.pre_tokenize_str(wrapped.normalizer.normalize_str(text)))
    # in a fixed order: the library's trainer numbers equally frequent words as it pleases
    words = sorted(counts.keys() - {LINE_END}, key=lambda word: (-counts[word], word))
    entries = [LINE_END, *words[: max(1, vocabulary.size - len(SPECIALS) - 1)]] if words else []
    wrapped.model = models.WordLevel(_numbered(entries), unk_token=SPECIALS[UNKNOWN])
    return wrapped


_TRAINERS: dict[str, Callable[[Vocabulary, Iterable[str]], tokenizers.Tokenizer]] = {
    "bpe": _train_bpe,
    "unigram": _train_unigram,
    "bytes": _train_bytes,
    "characters": _train_characters,
    "words": _train_words,
}


class _Seen:
    """Text as it goes by, and whether there was any."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.any = False
        self._texts = texts

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.any = self.any or text != ""
            yield text


def _worded(model: Any) -> tokenizers.Tokenizer:
    """A tokenizer that cuts text into words with the space before them, after composing its characters (NFC)."""
    wrapped = tokenizers.Tokenizer(model)
    wrapped.normalizer = normalizers.NFC()
    wrapped.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(SPACE, prepend_scheme="always"), pre_tokenizers.Split(Regex(ALONE), "isolated")]
    )
    wrapped.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    return wrapped


def _merges(vocabulary: Vocabulary, **more: Any) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocabulary.size, min_frequency=LEAST_MERGED, special_tokens=list(SPECIALS), show_progress=False, **more
    )


def _numbered(entries: list[str]) -> dict[str, int]:
    return {entry: number for number, entry in enumerate([*SPECIALS, *entries])}


def _check_size(size: int, how: spec.Tokenizer) -> None:
    wanted = how.vocabulary.size
    if size > wanted:
        raise QkvError(
            f"a vocabulary of {wanted} entries is too small: the {len(SPECIALS)} special entries and "
            f"{LEAST.get(how.kind, 'the single characters of the text')} are {size}; pass a size of at least {size}"
        )
    if size < wanted and isinstance(how.vocabulary, spec.Exactly):
        raise QkvError(
            f"a vocabulary of exactly {wanted} entries is too large: the text supports only {size}; ask for no more than that, "
            f"or for no number"
        )


def _owned(wrapped: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer with its special entries as plain ones, and with no habit of truncating, padding or adding to text."""
    plain = json.loads(wrapped.to_str())
    found = wrapped.get_vocab(with_added_tokens=True)
    strange = [f"{name!r} is {found.get(name, 'missing')}" for number, name in enumerate(SPECIALS) if found.get(name) != number]
    added = [token["content"] for token in plain["added_tokens"] if token["content"] not in SPECIALS]
    if added:
        strange.append(f"it has special entries of its own, such as {added[0]!r}")
    if sorted(found.values()) != list(range(len(found))):
        strange.append("its entries are not numbered from 0 without gaps")
    if strange:
        wanted = ", ".join(f"{name} = {number}" for number, name in enumerate(SPECIALS))
        raise QkvError(
            f"a foreign tokenizer: expected the special entries {wanted}, but {'; '.join(strange)}; train one with qkv"
        )
    plain |= {"added_tokens": [], "truncation": None, "padding": None, "post_processor": None}
    owned = tokenizers.Tokenizer.from_str(json.dumps(plain, ensure_ascii=False))
    if len(owned.get_vocab()) != len(found):
        raise QkvError("a foreign tokenizer: its special entries stand beside its vocabulary and not in it; train one with qkv")
    return owned


def _encoded(wrapped: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    try:
        encodings = wrapped.encode_batch_fast(texts, add_special_tokens=False)
    except (TypeError, UnicodeEncodeError):
        # The library takes half a character for something that is not text at all, and does not say in which.
        for text in texts:
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise _half_character(text) from None
        raise
    return [encoding.ids for encoding in encodings]


def _beside(path: str | Path) -> Path:
    """Where the special entries of a foreign tokenizer are written down."""
    return Path(path).with_suffix(".symbols.json")


def _half_character(text: str) -> QkvError:
    return QkvError(f"text holds half a character (a lone surrogate), which cannot be encoded: {text[:60]!a}; mend or remove it")


def _spelled(name: str) -> str:
    """A piece of bytes as text, or each byte of it in hexadecimal where it is not whole characters."""
    raw = bytes(_BYTES[character] for character in name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<{byte:02X}>" for byte in raw)


def _byte_names() -> dict[str, int]:
    """The characters by which byte-level BPE writes bytes: the printable ones stand for themselves, the others for 256 and up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTES = _byte_names()
